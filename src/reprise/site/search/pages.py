"""The page of search, and the same as JSON, Markdown and Atom."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from reprise.site import pages
from reprise.site.feed import listing, store
from reprise.site.feed.listing import Shown
from reprise.site.feed.text import clean
from reprise.site.pages import Alternate, Extension
from reprise.site.parts import address
from reprise.site.search import index
from reprise.site.search.find import KINDS, Hit, search
from reprise.site.search.library import Known, known
from reprise.site.search.words import newest

__all__ = ["EXTENSION"]

router = APIRouter()
SIZE = 20
LONGEST = 10_000  # characters of a query that are shown again


@dataclass(frozen=True)
class Found:
    """A hit with what is shown beside it.

    Attributes:
        hit: what was found, and why.
        path: its page.
        paper: the implemented paper that it is, or that it belongs to.
        item: of an entry of the feed, what lists show.
    """

    hit: Hit
    path: str
    paper: Known | None = None
    item: Shown | None = None

    @property
    def line(self) -> str:
        """How a part is imported."""
        room, _, name = self.hit.key.rpartition(".")
        return f"from {room} import {name}"


@router.get("/search")
@router.get("/search.{form}")
def find(request: Request, form: str = "html", q: str = "", kind: str = "") -> Response:
    """Papers, parts, claims and entries of the feed for a query."""
    if form not in ("html", "json", "md", "atom"):
        raise HTTPException(404)
    made = index.of(request.app)
    query, kind = clean(q, LONGEST), kind if kind in KINDS else ""
    if form == "atom":
        return _atom(request, made, query)
    asked = request.query_params.get("page", "1")
    number = int(asked) if re.fullmatch(r"\d{1,4}", asked, re.ASCII) else 1
    results = search(made.database, made.vectors, query, kind, max(number, 1), SIZE)
    page = replace(pages.paged(request, range(results.total), SIZE), items=())
    found = _found(request, made, results.hits)
    if form == "json":
        return pages.as_json(request, {"query": query, "total": results.total, "hits": [_data(each) for each in found]})
    ending = urlencode({"q": query, **({"kind": kind} if kind else {})})
    names = {"json": "JSON", "md": "Markdown", "atom": "Atom"}
    context = {
        "query": query, "kind": kind, "results": results, "found": found, "page": page, "kinds": KINDS,
        "alternates": [Alternate(f"/search.{form}?{ending}", name) for form, name in names.items()] if query else (),
    }  # fmt: skip
    return pages.render(request, "search.md" if form == "md" else "search.html", context)


def _found(request: Request, made: index.Index, hits: tuple[Hit, ...]) -> list[Found]:
    papers = known(made.database)
    entries = {id: entry for hit in hits if hit.kind == "entry" and (entry := store.find(made.database, id := hit.key))}
    shown = {item.entry.id: item for item in listing.with_library(made.database, list(entries.values()))}
    snapshot = pages.library(request).current
    users = {part: entry.slug for entry in snapshot.entries.values() for part in entry.paper.parts}
    found = []
    for hit in hits:
        slug, _, number = hit.key.partition("#")
        if hit.kind == "paper":
            found.append(Found(hit, f"/papers/{slug}", papers.get(slug)))
        elif hit.kind == "claim":
            found.append(Found(hit, f"/papers/{slug}/claims/{number}", papers.get(slug)))
        elif hit.kind == "part":
            found.append(Found(hit, address(snapshot, hit.key), papers.get(users.get(hit.key, ""))))
        elif hit.key in shown:
            found.append(Found(hit, f"/arxiv/{hit.key}", item=shown[hit.key]))
    return found


def _data(found: Found) -> dict[str, Any]:
    hit = found.hit
    return {
        "kind": hit.kind, "key": hit.key, "title": hit.title, "path": found.path, "reasons": list(hit.reasons),
        "score": round(hit.score, 5), "verdict": found.paper.words if found.paper else None,
    }  # fmt: skip


def _atom(request: Request, made: index.Index, query: str) -> Response:
    """The newest entries of the feed that hold every word of a query."""
    numbers = newest(made.database, query, 50)
    entries = store.load(
        made.database, f"WHERE entries.number IN ({','.join(map(str, numbers))}) ORDER BY entries.number DESC"
    )
    rows = [
        {"id": f"arxiv/{e.id}", "title": e.title, "path": f"/arxiv/{e.id}", "updated": e.day, "summary": e.abstract}
        for e in entries
    ]
    return pages.atom(request, f"reprise: {query[:200]}", f"/search?{urlencode({'q': query})}", rows)


EXTENSION = Extension(router)
