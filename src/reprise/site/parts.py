"""Pages about the library: its rooms, and each part with its papers, so that a claim leads to what can be imported."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException
from starlette.responses import Response

from reprise.lab import modules
from reprise.lab.words import coded, unmarked
from reprise.site import pages
from reprise.site.library import Entry, Snapshot
from reprise.site.pages import Alternate, Extension

__all__ = ["EXTENSION", "Part", "address", "all_parts", "parts_of"]

router = APIRouter()
ROOMS = {  # from those that need nothing of ours to those that stand on the others
    "data": "Data sets and generators: pictures, episodes, text, tables, series; measures of data sets",
    "envs": "Simulators as Gymnasium environments, vectorised; scripted experts beside their world",
    "nn": "Layers, backbones, heads, initialisers, hooks, counters",
    "training": "Losses, loops, averages of weights, distillation, continual and meta learning, metrics",
    "diffusion": "Noise schedules, samplers, preconditioning, guidance",
    "rl": "Learning from reward or value, online and offline",
    "policies": "Policies learned from demonstrations; ways to steer and refine a finished policy",
    "align": "Post-training by rewards, preferences and verifiers",
    "augment": "Learned and fixed augmentation, data set reinforcement",
    "architecture": "Search, compression, growth, mathematical design",
    "explain": "Attribution, linear interpreters, metrics of explanations, knowledge graphs",
    "safety": "Attacks and tests, coherence, guardrails",
    "testing": "Toys and checks: whether a policy, an environment or an attribution keeps what it promises",
}
ITEM = re.compile(r"^(\*{0,2}\w[\w, *.]*)(?: \([^)]*\))?: (.*)", re.DOTALL)


@dataclass(frozen=True)
class Part:
    """A public name of a room, as its source says it.

    Attributes:
        room, name: it is imported as ``from reprise.ROOM import NAME``.
        module: the dotted name of the module that it lives in.
        kind: "class", "function", "module" or "value".
        signature: how it is called.
        docstring: cleaned of its indentation.
    """

    room: str
    name: str
    module: str
    kind: str
    signature: str
    docstring: str

    @property
    def opening(self) -> str:
        """What its docstring begins with."""
        return " ".join(self.docstring.split("\n\n")[0].split())

    @property
    def summary(self) -> str:
        """The same as plain text."""
        return unmarked(self.opening)

    @property
    def dotted(self) -> str:
        """Its full name."""
        return f"reprise.{self.room}.{self.name}"

    @property
    def sections(self) -> list[tuple[str, str, list[tuple[str, str]]]]:
        """The docstring in pieces: heading (empty first), text, and the items of what reads "name: text"."""
        pieces = re.split(r"^(\w[\w ]*):$", self.docstring, flags=re.MULTILINE)
        found = [("", pieces[0].strip())]
        found += [(head, inspect.cleandoc("\n" + text)) for head, text in zip(pieces[1::2], pieces[2::2], strict=True)]
        return [(head, text, _items(text) if head in LISTS else []) for head, text in found if text]


LISTS = ("Args", "Attributes", "Raises")


def _items(text: str) -> list[tuple[str, str]]:
    """ "name: text" items, whose further lines are indented; nothing if the text is not made of such."""
    entries = re.split(r"\n(?=\S)", text)
    matches = [ITEM.match(" ".join(entry.split())) for entry in entries]
    return [(match[1], match[2]) for match in matches if match] if all(matches) else []


def prose(text: str) -> Markup:
    """A piece of a docstring: its names as code, without the marks of reStructuredText."""
    return Markup(re.sub(r"``(.+?)``", r"<code>\1</code>", str(escape(coded(text)))))


def rooms() -> dict[str, str]:
    """Every room that is there, with a line about it."""
    there = [stub.parent.name for stub in sorted(modules.PACKAGE.glob("*/__init__.pyi"))]
    return {room: ROOMS.get(room, "") for room in [*(room for room in ROOMS if room in there), *there]}


def parts_of(room: str) -> dict[str, Part]:
    """The public parts of a room, each file read once."""
    trees: dict[str, ast.Module] = {}
    found = {}
    for name, target in modules.table(modules.PACKAGE / room).items():
        module = modules.resolve(f"reprise.{room}.{target}")
        if module is None or name.startswith("_"):
            continue
        if module not in trees:
            trees[module] = modules.parsed(modules.source_of(module))
        found[name] = _part(room, name, module, trees[module])
    return dict(sorted(found.items(), key=lambda item: item[0].casefold()))


def _part(room: str, name: str, module: str, tree: ast.Module) -> Part:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            starts = (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
            start = next(starts, None)
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            called = _arguments(start.args) if start is not None else ", ".join(ast.unparse(each) for each in fields)
            return Part(room, name, module, "class", f"{name}({called})", ast.get_docstring(node) or "")
        if isinstance(node, ast.FunctionDef) and node.name == name:
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            called = f"{name}({_arguments(node.args)}){returns}"
            return Part(room, name, module, "function", called, ast.get_docstring(node) or "")
    whole = module.rsplit(".", 1)[-1] == name
    return Part(room, name, module, "module" if whole else "value", name, ast.get_docstring(tree) or "")


def _arguments(arguments: ast.arguments) -> str:
    text = ast.unparse(arguments)
    return re.sub(r"^self(, )?", "", text)


def address(snapshot: Snapshot, dotted: str) -> str:
    """The page of a part, or that of its room where the room does not list it."""
    room, _, name = dotted.removeprefix("reprise.").partition(".")
    return f"/parts/{room}/{name}" if name in all_parts(snapshot).get(room, {}) else f"/parts/{room}"


# Pages ---------------------------------------------------------------------------------------------------------------


def all_parts(snapshot: Snapshot) -> dict[str, dict[str, Part]]:
    """The public parts of every room."""
    found: dict[str, dict[str, Part]] = snapshot.remember("parts", lambda: {room: parts_of(room) for room in rooms()})
    return found


def _room(request: Request, room: str) -> tuple[Snapshot, dict[str, Part]]:
    snapshot = pages.library(request).current
    if room not in all_parts(snapshot):
        raise HTTPException(404)
    return snapshot, all_parts(snapshot)[room]


def _named(request: Request, room: str, name: str) -> tuple[Part, list[Entry]]:
    """A part and the papers that list it as theirs."""
    snapshot, parts = _room(request, room)
    if name not in parts:
        raise HTTPException(404)
    return parts[name], _users(snapshot).get(parts[name].dotted, [])


@router.get("/parts")
def list_rooms(request: Request) -> Response:
    """All rooms of the library with their parts."""
    snapshot = pages.library(request).current
    return pages.render(
        request, "parts.html", snapshot=snapshot, rooms=rooms(), parts=all_parts(snapshot), alternates=_forms("/parts")
    )


@router.get("/parts.json")
def list_parts_json(request: Request) -> Response:
    """All parts as JSON."""
    found = all_parts(pages.library(request).current)
    return pages.as_json(request, [_data(part) for room in found.values() for part in room.values()])


@router.get("/parts.md")
def list_parts_markdown(request: Request) -> Response:
    """All parts as Markdown."""
    return pages.render(request, "parts.md", rooms=rooms(), parts=all_parts(pages.library(request).current))


@router.get("/parts/{room}.json")
def room_json(request: Request, room: str) -> Response:
    """The parts of a room as JSON."""
    return pages.as_json(request, [_data(part) for part in _room(request, room)[1].values()])


@router.get("/parts/{room}.md")
def room_markdown(request: Request, room: str) -> Response:
    """The parts of a room as Markdown."""
    parts = _room(request, room)[1]
    return pages.render(request, "parts.md", rooms={room: rooms()[room]}, parts={room: parts})


@router.get("/parts/{room}")
def room_page(request: Request, room: str) -> Response:
    """A room: its parts and its papers."""
    snapshot, parts = _room(request, room)
    return pages.render(
        request, "room.html", room=room, about=rooms()[room], parts=parts, entries=snapshot.rooms.get(room, []),
        users=_users(snapshot), prose=prose, alternates=_forms(f"/parts/{room}"),
    )  # fmt: skip


@router.get("/parts/{room}/{name}.json")
def part_json(request: Request, room: str, name: str) -> Response:
    """A part as JSON."""
    part, users = _named(request, room, name)
    found = {**_data(part), "docstring": part.docstring, "papers": [entry.slug for entry in users]}
    return pages.as_json(request, found)


@router.get("/parts/{room}/{name}.md")
def part_markdown(request: Request, room: str, name: str) -> Response:
    """A part as Markdown."""
    part, users = _named(request, room, name)
    return pages.render(request, "part.md", part=part, entries=users, coded=coded)


@router.get("/parts/{room}/{name}")
def part_page(request: Request, room: str, name: str) -> Response:
    """A part: how it is called, what it does, and what was measured of it."""
    part, users = _named(request, room, name)
    forms = _forms(f"/parts/{room}/{name}")
    return pages.render(request, "part.html", part=part, entries=users, alternates=forms, prose=prose)


def _forms(path: str) -> list[Alternate]:
    return [Alternate(f"{path}.json", "JSON"), Alternate(f"{path}.md", "Markdown")]


def _data(part: Part) -> dict[str, Any]:
    return {
        "name": part.dotted, "kind": part.kind, "signature": part.signature, "summary": part.summary,
        "module": part.module,
    }  # fmt: skip


def _users(snapshot: Snapshot) -> dict[str, list[Entry]]:
    """The papers that list each part as theirs."""
    found: dict[str, list[Entry]] = {}
    for entry in snapshot.entries.values():
        for part in entry.paper.parts:
            found.setdefault(part, []).append(entry)
    return found


EXTENSION = Extension(router, nav=(("Parts", "/parts"),), warm=all_parts)
