"""Find papers and parts by words, without importing any of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reprise.lab import modules
from reprise.lab.paper import Paper, plain
from reprise.lab.words import unmarked

__all__ = ["Hit", "Piece", "example", "pieces", "search"]

STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "can",
        "do",
        "for",
        "from",
        "how",
        "i",
        "in",
        "into",
        "is",
        "it",
        "of",
        "on",
        "or",
        "that",
        "the",
        "to",
        "with",
    ]
)


@dataclass(frozen=True)
class Piece:
    """A public part of the library: its dotted name and the first sentence about it."""

    name: str
    summary: str


@dataclass(frozen=True)
class Hit:
    """A paper or a part that was found, and how well the words fit."""

    found: Paper | Piece
    score: float


def search(query: str, papers: list[Paper]) -> list[Hit]:
    """Papers and parts for a query, best first.

    A name counts however it is spelled ("gradcam", "Grad-CAM"); otherwise every word counts where it stands: more in a
    title or name than in a summary or claim, and more the fewer texts have it.
    """
    texts: list[tuple[Paper | Piece, list[tuple[float, str]]]] = []
    for paper in papers:
        claims = " ".join(claim.text for claim in paper.claims)
        names = " ".join(part.split(".")[-1] for part in paper.parts)
        texts.append((paper, [(4, f"{paper.slug} {paper.title}"), (3, names), (1, f"{paper.summary} {claims}")]))
    of_papers = {part for paper in papers for part in paper.parts}
    for piece in pieces():
        if piece.name not in of_papers:
            _, room, name = piece.name.split(".", 2)
            texts.append((piece, [(3, name), (1, piece.summary), (0.5, room)]))

    tokens = [token for token in words(query) if token not in STOP_WORDS]
    holders = {token: sum(any(_weight(token, text) for _, text in fields) for _, fields in texts) for token in tokens}
    hits = []
    for found, fields in texts:
        name = found.slug if isinstance(found, Paper) else found.name.split(".")[-1]
        named = " ".join(text for weight, text in fields if weight > 1)
        score = 20.0 * (bool(plain(query)) and plain(query) == plain(name))
        score += 8.0 * (len(plain(query)) > 3 and plain(query) in plain(named))
        for token in tokens:
            score += max(weight * _weight(token, text) for weight, text in fields) / (holders[token] or 1) ** 0.5
        if score >= 0.3:
            hits.append(Hit(found, score))
    return sorted(hits, key=lambda hit: -hit.score)


def words(text: str) -> list[str]:
    """The words of a text in lower case; CamelCase and snake_case names give their pieces too."""
    pieces = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return re.findall(r"[a-z0-9]+", f"{text} {pieces}".lower())


def _weight(token: str, text: str) -> float:
    """1 for the word itself, less for another form of it."""
    found = words(text)
    if token in found:
        return 1.0
    stem = token[: max(4, len(token) - 2)]
    return 0.7 * (len(token) > 3 and any(word.startswith(stem) and len(word) - len(stem) < 8 for word in found))


def pieces() -> Iterator[Piece]:
    """Every public part of every room."""
    for stub in sorted(modules.PACKAGE.glob("*/__init__.pyi")):
        for name, target in modules.table(stub.parent).items():
            module = modules.resolve(f"reprise.{stub.parent.name}.{target}")
            if module is not None and name[0] != "_":
                docstring = _docstring(modules.source_of(module), name) or ""
                yield Piece(
                    f"reprise.{stub.parent.name}.{name}", unmarked(docstring.split("\n\n")[0].replace("\n", " "))
                )


def example(part: str) -> str:
    """The example in a part's docstring, without prompts and outputs; empty if it has none."""
    module = modules.resolve(part)
    docstring = module and _docstring(modules.source_of(module), part.split(".")[-1])
    lines = re.findall(r"^\s*(?:>>>|\.\.\.) ?(.*)$", docstring or "", re.MULTILINE)
    return "\n".join(line for line in lines if line)


def _docstring(file: Path, name: str) -> str | None:
    """The docstring of a class or function, or of the module itself, read from the source."""
    tree = modules.parsed(file)
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return ast.get_docstring(node)
    return ast.get_docstring(tree) if name in (file.stem, file.parent.name) else None
