"""The feed's pages: the newest papers, days, weeks and months, what rises, one paper, and how the sources are doing."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from reprise.site import pages
from reprise.site.database import Database, DatabaseError
from reprise.site.feed import days, listing, store, trending
from reprise.site.feed.background import running
from reprise.site.feed.days import Period
from reprise.site.feed.listing import Shown
from reprise.site.feed.mathml import with_mathematics
from reprise.site.feed.records import today
from reprise.site.library import VERDICTS
from reprise.site.pages import Alternate, Extension
from reprise.site.search import index
from reprise.site.search.library import known

__all__ = ["EXTENSION"]

log = logging.getLogger(__name__)
router = APIRouter()
SIZE = 30  # papers on a page
IN_FEEDS = 100  # in Atom, JSON and Markdown
pages.environment().filters["mathematics"] = with_mathematics


def _split(name: str) -> tuple[str, str]:
    """A name in an address, and the form that is asked for: "2026-11-24.json" is ("2026-11-24", "json")."""
    stem, _, form = name.rpartition(".")
    return (stem, form) if stem and form in ("json", "md", "atom") else (name, "html")


def _forms(path: str, query: str = "", atom: bool = True) -> list[Alternate]:
    end = f"?{query}" if query else ""
    forms = [Alternate(f"{path}.json{end}", "JSON"), Alternate(f"{path}.md{end}", "Markdown")]
    return [*forms, Alternate(f"{path}.atom{end}", "Atom")] if atom else forms


# Lists ---------------------------------------------------------------------------------------------------------------


@router.get("/feed")
@router.get("/feed.{form}")
def newest(request: Request, form: str = "html") -> Response:
    """The newest papers of all days."""
    return _list(request, None, form)


@router.get("/feed/trending")
@router.get("/feed/trending.{form}")
def rising(request: Request, form: str = "html") -> Response:
    """What rises, by a formula that is told."""
    made = index.of(request.app)
    found = trending.trending(made.database, made.clock())
    shown = listing.with_library(made.database, [each.entry for each in found])
    rows = list(zip(found, shown, strict=True))
    if form == "json":
        told = [{**listing.data(s), "score": r.score, "gained": {"votes": r.votes, "stars": r.stars}} for r, s in rows]
        return pages.as_json(request, {"formula": trending.FORMULA, "entries": told})
    if form in ("md", "atom"):
        return _other(request, form, "Trending papers", "/feed/trending", [trending.FORMULA], shown)
    _known_form(form)
    return pages.render(
        request, "trending.html", rows=rows, formula=trending.FORMULA, alternates=_forms("/feed/trending")
    )


@router.get("/feed/sources")
def sources(request: Request) -> Response:
    """When each source was read last, and what is wrong with it."""
    made = index.of(request.app)
    checks = made.database.rows("SELECT * FROM checks ORDER BY at DESC LIMIT 40")
    return pages.render(
        request, "sources.html", states=days.source_states(made.database, made.clock()), checks=checks,
        title_of=days.title_of, moment=days.moment, trouble=_trouble(made) if made.trouble else "",
        alternates=[Alternate("/feed/sources.json", "JSON")],
    )  # fmt: skip


@router.get("/feed/sources.json")
def sources_json(request: Request) -> Response:
    """The same as JSON."""
    made = index.of(request.app)
    states = [vars(state) for state in days.source_states(made.database, made.clock())]
    return pages.as_json(request, {"trouble": made.trouble, "sources": states})


@router.get("/feed/today")
def this_day(request: Request) -> Response:
    """Lead to today's page."""
    return RedirectResponse(f"/feed/{today(index.of(request.app).clock())}", 302)


@router.get("/feed/{name}")
def of_period(request: Request, name: str) -> Response:
    """A day, week or month."""
    key, form = _split(name)
    period = days.period(key)
    if period is None:
        raise HTTPException(404)
    return _list(request, period, form)


def _list(request: Request, period: Period | None, form: str) -> Response:
    """The papers of a period, or the newest of all, with filters and page by page."""
    made = index.of(request.app)
    database, now = made.database, made.clock()
    asked = {name: request.query_params.get(name, "")[:40] for name in listing.FILTERS}
    where = listing.chosen(period, asked)
    path = f"/feed/{period.key}" if period else "/feed"
    title = period.title if period else "Newest papers"
    told = days.sentences(database, period or days.of_day(date.fromisoformat(today(now))), now)
    told += [_trouble(made)] if made.trouble else []
    query = "&".join(f"{name}={value}" for name, value in asked.items() if value)
    if form != "html":
        _known_form(form)
        shown = listing.show(database, where, 0, IN_FEEDS)
        if form == "json":
            found = {"title": title, "says": told, "entries": [listing.data(each) for each in shown]}
            return pages.as_json(request, found)
        return _other(request, form, title, path, told, shown)
    page = pages.paged(request, range(listing.count(database, where)), SIZE)
    shown = listing.show(database, where, page.items[0] if page.items else 0, SIZE)
    choices = {
        "years": listing.years(database),
        "rooms": sorted({paper.room for paper in known(database).values()}),
        "verdicts": VERDICTS,
    }
    context = {
        "title": title, "path": path, "told": told, "page": page, "groups": _by_day(shown), "asked": asked,
        "choices": choices, "period": period, "today": today(now), "alternates": _forms(path, query),
        "examples": any(each.ours for each in shown),
    }  # fmt: skip
    if period is not None:
        context |= {"beside": days.neighbours(database, period, now), "wider": _wider(period)}
        if period.kind != "day":
            context["quiet"] = _quiet(database, period, now)
    return pages.render(request, "feed.html", context)


def _trouble(made: index.Index) -> str:
    return f"The last update could not be kept: {made.trouble}."


def _by_day(shown: Sequence[Shown]) -> list[tuple[Period, list[Shown]]]:
    groups: dict[str, list[Shown]] = {}
    for each in shown:
        groups.setdefault(each.entry.day, []).append(each)
    return [(days.of_day(date.fromisoformat(day)), entries) for day, entries in groups.items()]


def _wider(period: Period) -> list[Period]:
    """The week and the month that a day is in; for a week its month."""
    return [
        days.of_day(period.first, kind) for kind in ("week", "month") if kind != period.kind and period.kind != "month"
    ]


def _quiet(database: Database, period: Period, now: float) -> list[tuple[Period, str]]:
    """The days of a week or month without papers, and why."""
    held = {row[0] for row in database.rows("SELECT DISTINCT day FROM entries WHERE day BETWEEN ? AND ?",
            period.first.isoformat(), period.last.isoformat())}  # fmt: skip
    if not held:
        return []
    empty = [days.of_day(day) for day in period.days if day.isoformat() not in held and day.isoformat() <= today(now)]
    return [(day, days.sentences(database, day, now)[0]) for day in empty]


def _other(request: Request, form: str, title: str, path: str, told: Sequence[str], shown: Sequence[Shown]) -> Response:
    if form == "md":
        return pages.render(request, "feed.md", title=title, path=path, told=told, shown=shown)
    entries = [
        {
            "id": f"arxiv/{each.entry.id}",
            "title": each.entry.title,
            "path": f"/arxiv/{each.entry.id}",
            "updated": each.entry.day,
            "summary": "\n\n".join(part for part in (_why(each), each.entry.abstract) if part),
        }
        for each in shown
    ]
    return pages.atom(request, f"reprise: {title}", path, entries)


def _why(shown: Shown) -> str:
    """What the library says of a paper, as plain text."""
    if shown.implemented:
        return f"Implemented: {shown.implemented.words}."
    told = [f"{paper.name} ({paper.words}; both speak of {', '.join(near.shared)})" for paper, near in shown.near]
    return f"Near {' and '.join(told)}." if told else ""


def _known_form(form: str) -> None:
    if form not in ("html", "md", "atom", "json"):
        raise HTTPException(404)


# One paper -----------------------------------------------------------------------------------------------------------


@router.get("/arxiv/{name:path}")
def paper(request: Request, name: str) -> Response:
    """One paper of the feed, by its arXiv id in any form."""
    stem, form = _split(name)
    database = index.of(request.app).database
    entry = store.find(database, stem)
    if entry is None:
        raise HTTPException(404)
    if stem != entry.id:
        return RedirectResponse(f"/arxiv/{entry.id}" + ("" if form == "html" else f".{form}"), 301)
    (shown,) = listing.with_library(database, [entry])
    path = f"/arxiv/{entry.id}"
    versions = database.rows("SELECT * FROM versions WHERE entry = ? ORDER BY version DESC", entry.number)
    sightings = database.rows("SELECT source, day FROM sightings WHERE entry = ? ORDER BY day", entry.number)
    if form == "json":
        seen = {days.title_of(row["source"]): row["day"] for row in sightings}
        return pages.as_json(
            request, {**listing.data(shown), "versions": [dict(row) for row in versions], "seen": seen}
        )
    if form != "html":
        return _other(request, form, entry.title, path, [], [shown])
    return pages.render(
        request, "arxiv.html", shown=shown, entry=entry, versions=versions, sightings=sightings,
        title_of=days.title_of, alternates=_forms(path, atom=False),
    )  # fmt: skip


# Other pages' part ---------------------------------------------------------------------------------------------------


def _home(request: Request) -> Markup:
    """The newest papers, for the first page."""
    context: dict[str, Any] = {"request": request, "shown": [], "told": []}
    try:
        made = index.of(request.app)
        now = made.clock()
        context["shown"] = listing.show(made.database, listing.chosen(None, {}), 0, 5)
        context["told"] = days.sentences(made.database, days.of_day(date.fromisoformat(today(now))), now)
    except DatabaseError as error:
        context["told"] = [f"The feed cannot be read: {error}."]
    return Markup(pages.environment().get_template("feed_home.html").render(context))


def _paper(request: Request, slug: str) -> Markup:
    """The newest papers near an implemented one, for its page."""
    try:
        database = index.of(request.app).database
        shown = listing.show(database, listing.near_to(slug), 0, 5)
    except DatabaseError as error:
        log.error("%s", error)
        shown = []
    return Markup(pages.environment().get_template("feed_near.html").render(request=request, shown=shown, slug=slug))


def _urls() -> Iterable[str]:
    """Every permanent address, for the static export."""
    database = Database()
    held = [date.fromisoformat(row[0]) for row in database.rows("SELECT DISTINCT day FROM entries")]
    periods = {days.of_day(day, kind).key for day in held for kind in ("day", "week", "month")}
    entries = [row[0] for row in database.rows("SELECT id FROM entries ORDER BY number DESC LIMIT 2000")]
    for path in ("/feed", "/feed/trending", *(f"/feed/{key}" for key in sorted(periods))):
        yield from (path, f"{path}.json", f"{path}.md", f"{path}.atom")
    for id in entries:
        yield from (f"/arxiv/{id}", f"/arxiv/{id}.json")


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Updates by schedule, and what search needs, while the server runs."""
    with running(app):
        yield


EXTENSION = Extension(router, nav=[("Feed", "/feed")], home=_home, paper=_paper, urls=_urls, lifespan=_lifespan)
