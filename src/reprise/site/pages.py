"""From a template and what it shows to an answer: HTML, JSON, Markdown, Atom; and what plugs into the site."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.responses import Response

from reprise import __version__
from reprise.lab import report, words
from reprise.site.library import Library, Snapshot

__all__ = ["Alternate", "Extension", "asset", "atom", "day", "environment", "library", "paged", "render", "reply"]

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # no feed may hold these characters
STATIC = Path(__file__).parent / "static"
TYPES = {
    "html": "text/html; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "xml": "application/atom+xml; charset=utf-8",
    "svg": "image/svg+xml",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class Alternate:
    """The same page in another form, as shown at its foot and in its head."""

    href: str
    name: str  # "JSON", "Markdown" or "Atom"

    @property
    def media(self) -> str:
        """The media type."""
        return {"JSON": "application/json", "Markdown": "text/markdown", "Atom": "application/atom+xml"}[self.name]


@dataclass(frozen=True)
class Extension:
    """A part of the site that brings its own pages.

    Attributes:
        router: its routes.
        nav: (name, path) of the pages that every page's head leads to.
        home: what the first page shows of it, as HTML.
        paper: what the page of a paper shows of it, as HTML; given the request and the slug.
        warm: makes what its pages want to have made of the papers before anybody asks.
        urls: paths that the static export must hold and no other page leads to.
        lifespan: entered when the server starts, left when it ends; for a schedule, say.
        private: beginnings of paths that demand the secret even where reading is free.
        open_posts: beginnings of paths that anyone may post to where reading is free.
        unasked: beginnings of paths whose posts carry no form token, since a machine sends them.
    """

    router: APIRouter
    nav: Sequence[tuple[str, str]] = ()
    home: Callable[[Request], Markup] | None = None
    paper: Callable[[Request, str], Markup] | None = None
    warm: Callable[[Snapshot], object] | None = None
    urls: Callable[[], Iterable[str]] | None = None
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None
    private: Sequence[str] = ()
    open_posts: Sequence[str] = ()
    unasked: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """One page of a long list.

    Attributes:
        items: those shown.
        number: of this page, from 1.
        count: of pages.
        total: of items.
        before, after: addresses of the neighbours; empty at the ends.
    """

    items: Sequence[Any]
    number: int
    count: int
    total: int
    before: str = ""
    after: str = ""


def paged(request: Request, items: Sequence[Any], size: int = 30) -> Page:
    """The page of a list that the request asks for by ``?page=``; the nearest there is if it is none."""
    count = max(1, -(-len(items) // size))
    asked = request.query_params.get("page", "1")
    number = min(max(int(asked), 1), count) if re.fullmatch(r"\d{1,6}", asked, re.ASCII) else 1

    def at(other: int) -> str:
        url = request.url.include_query_params(page=other) if other > 1 else request.url.remove_query_params("page")
        return url.path + (f"?{url.query}" if url.query else "")

    before, after = (at(number - 1) if number > 1 else ""), (at(number + 1) if number < count else "")
    return Page(items[(number - 1) * size : number * size], number, count, len(items), before, after)


# Answers -------------------------------------------------------------------------------------------------------------


def render(
    request: Request, template: str, context: Mapping[str, Any] | None = None, *, status: int = 200, **more: Any
) -> Response:
    """Answer with a template; its ending tells the kind of answer.

    Args:
        request: what is answered; templates see it as ``request``, and ``request.app.state.settings`` as ``settings``.
        template: the file's name.
        context: what it shows; ``alternates`` are the same page in other forms.
        status: of the answer.
        more: more of the context.
    """
    app = request.app
    known = {
        "request": request,
        "settings": app.state.settings,
        "nav": app.state.nav,
        "alternates": (),
        "absolute": lambda path: app.state.settings.base + path,
        "csrf": lambda: _csrf(request),
    }
    text = environment().get_template(template).render({**known, **(context or {}), **more})
    kind = template.rsplit(".", 1)[1]
    return reply(request, NOT_XML.sub("\ufffd", text) if kind == "xml" else text, TYPES[kind], status=status)


def reply(request: Request, body: str | bytes, media: str, *, status: int = 200, headers: Any = None) -> Response:
    """Answer with a text, or with "not modified" where the reader has it already."""
    content = body.encode("utf-8", "replace") if isinstance(body, str) else body
    tag = f'W/"{hashlib.sha256(content).hexdigest()[:20]}"'
    given = {"ETag": tag, "Cache-Control": "no-cache", **(headers or {})}
    if status == 200 and tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=given)
    return Response(content, status, given, media)


def as_json(request: Request, value: Any) -> Response:
    """Answer with JSON."""
    return reply(request, json.dumps(value, indent=1, ensure_ascii=False) + "\n", TYPES["json"])


def atom(request: Request, title: str, path: str, entries: Iterable[Mapping[str, Any]]) -> Response:
    """Answer with an Atom feed.

    Args:
        request: what is answered.
        title: of the feed.
        path: of the page that it belongs to.
        entries: each with ``id`` (what never changes about it), ``title``, ``path`` or ``url``, ``updated`` (a
            datetime or an ISO day) and ``summary``; the newest first.
    """
    kept = list(entries)
    return render(request, "atom.xml", title=title, path=path, entries=kept, updated=kept[0]["updated"] if kept else "")


def library(request: Request) -> Library:
    """The papers."""
    found: Library = request.app.state.library
    return found


def _csrf(request: Request) -> Markup:
    """The hidden field that every form which posts must hold."""
    request.state.csrf_used = True
    return Markup('<input type="hidden" name="csrf" value="{}">').format(request.state.csrf)


# Templates -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates. Whatever they show is escaped, except in Markdown and plain text."""
    made = Environment(
        loader=FileSystemLoader([Path(__file__).parent / "templates", Path(report.__file__).parent]),
        autoescape=select_autoescape(["html", "xml", "svg"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        **report.FILTERS,
        "day": day,
        "instant": instant,
        "mebibytes": lambda value: "?" if value is None else f"{value:.3g}",
        "milliseconds": lambda seconds: f"{1000 * seconds:.3g} ms",
        "merge": lambda one, other: {**one, **other},
    }
    made.globals |= {"asset": asset, "symbols": words.SYMBOLS, "version": __version__}
    return made


def day(value: str | date) -> str:
    """A date as people write it.

    Example:
        >>> day("2026-11-05")
        '5 November 2026'
    """
    found = date.fromisoformat(value[:10]) if isinstance(value, str) else value
    return f"{found.day} {found:%B %Y}"


def instant(value: str | date) -> str:
    """An instant as Atom wants it, in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds")
    text = str(value)
    if not text:
        return "1970-01-01T00:00:00+00:00"
    return f"{text}T00:00:00+00:00" if len(text) == 10 else text


# Static files --------------------------------------------------------------------------------------------------------


@lru_cache
def static(name: str) -> tuple[bytes, str]:
    """The content of a static file and its fingerprint; ``site.css`` is all our style sheets in one.

    Raises:
        KeyError: there is no such file.
    """
    if name == "site.css":
        sheets = [Path(report.__file__).parent / "svg.css", *sorted((STATIC / "css").glob("*.css"))]
        content = b"\n".join(path.read_bytes() for path in sheets)
    elif name in {path.name for path in STATIC.iterdir() if path.is_file()}:
        content = (STATIC / name).read_bytes()
    else:
        raise KeyError(name)
    return content, hashlib.sha256(content).hexdigest()[:12]


def asset(name: str) -> str:
    """The address of a static file, which changes with its content."""
    return f"/static/{name}?v={static(name)[1]}"
