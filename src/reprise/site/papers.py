"""Pages about papers: the list, each paper, its numbers, its claims, badges, figures, and what changed."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse, Response

from reprise.files import home, written_whole
from reprise.lab import paper as papers, report, words
from reprise.lab.search import example
from reprise.lab.verdict import Judgement
from reprise.site import history, pages, views
from reprise.site.library import VERDICTS, Entry, Snapshot, figure_of
from reprise.site.pages import Alternate, Extension
from reprise.site.parts import address

__all__ = ["EXTENSION"]

router = APIRouter()
WIDTHS = (480, 960)  # of the figure as pages show it; the PNG itself is one click away
HEADLINE_CURVES = 2  # on the paper's page; all of them are on the page of its numbers
BADGE = {"holds": "#1b6b3a", "fails": "#a8261c", "undecided": "#7a5300", "unmeasured": "#5a5f69", "proved": "#1b6b3a"}


def _entry(request: Request, slug: str) -> tuple[Snapshot, Entry]:
    snapshot = pages.library(request).current
    if slug not in snapshot.entries:
        near = papers.nearest(slug, snapshot.entries).removeprefix("; ")
        raise papers.PaperError(f"there is no paper {slug!r}{'; ' + near if near.startswith('did') else ''}")
    return snapshot, snapshot.entries[slug]


# Lists ---------------------------------------------------------------------------------------------------------------


def _chosen(request: Request) -> tuple[Snapshot, list[Entry], dict[str, str]]:
    """The papers that the filters leave, and what was asked for."""
    snapshot = pages.library(request).current
    asked = {key: request.query_params.get(key, "") for key in (*FILTERS, "sort")}
    found = snapshot.latest if asked["sort"] != "title" else sorted(snapshot.entries.values(), key=_title)
    for key, of in FILTERS.items():
        if asked[key]:
            found = [entry for entry in found if of(entry) == asked[key]]
    return snapshot, found, asked


FILTERS: dict[str, Callable[[Entry], str]] = {
    "verdict": lambda entry: entry.verdict,
    "room": lambda entry: entry.paper.room,
    "year": lambda entry: str(entry.paper.year),
    "device": lambda entry: entry.device,
    "mark": lambda entry: entry.status.mark or "fresh",
}


def _title(entry: Entry) -> str:
    return entry.paper.title.casefold()


@router.get("/papers")
def list_papers(request: Request) -> Response:
    """All papers, with filters."""
    snapshot, found, asked = _chosen(request)
    alternates = [
        Alternate("/papers.json", "JSON"),
        Alternate("/papers.md", "Markdown"),
        Alternate("/log.atom", "Atom"),
    ]
    choices = {key: sorted({of(entry) for entry in snapshot.entries.values()} - {""}) for key, of in FILTERS.items()}
    choices |= {"verdict": [*VERDICTS, "proved"], "year": choices["year"][::-1]}
    return pages.render(
        request, "papers.html", snapshot=snapshot, page=pages.paged(request, found), asked=asked, choices=choices,
        alternates=alternates,
    )  # fmt: skip


@router.get("/papers.json")
def list_papers_json(request: Request) -> Response:
    """All papers as JSON."""
    _, found, _ = _chosen(request)
    rows = [{key: value for key, value in views.paper_data(e).items() if key not in LONG} for e in found]
    return pages.as_json(request, rows)


LONG = ("claims", "identities", "differences", "experiments", "bibtex", "remark")


@router.get("/papers.md")
def list_papers_markdown(request: Request) -> Response:
    """All papers as Markdown."""
    return pages.render(request, "papers.md", entries=_chosen(request)[1])


@router.get("/claims")
def list_claims(request: Request) -> Response:
    """All claims of all papers, with filters; those that fail have the same room as those that hold."""
    snapshot = pages.library(request).current
    asked = {key: request.query_params.get(key, "") for key in ("verdict", "room")}
    found = [
        (entry, number, claim, judgement)
        for entry in snapshot.latest
        for number, (claim, judgement) in enumerate(entry.judged, 1)
        if asked["verdict"] in ("", judgement.verdict) and asked["room"] in ("", entry.paper.room)
    ]
    page = pages.paged(request, found, 20)
    drawn = [(entry, _claim_views(snapshot, entry)[number - 1]) for entry, number, _, _ in page.items]
    alternates = [
        Alternate("/claims.json", "JSON"),
        Alternate("/claims.md", "Markdown"),
        Alternate("/log.atom", "Atom"),
    ]
    return pages.render(
        request, "claims.html", snapshot=snapshot, page=page, drawn=drawn, asked=asked, verdicts=VERDICTS,
        alternates=alternates,
    )  # fmt: skip


@router.get("/claims.json")
def list_claims_json(request: Request) -> Response:
    """All claims as JSON."""
    snapshot = pages.library(request).current
    return pages.as_json(
        request,
        [
            {"paper": entry.slug, "number": i, **views.claim_data(claim, judgement, entry.paper)}
            for entry in snapshot.latest
            for i, (claim, judgement) in enumerate(entry.judged, 1)
        ],
    )


@router.get("/claims.md")
def list_claims_markdown(request: Request) -> Response:
    """All claims as Markdown."""
    snapshot = pages.library(request).current
    rows = [(entry, claim) for entry in snapshot.latest for claim in _claim_views(snapshot, entry)]
    return pages.render(request, "claims.md", rows=rows)


@router.get("/verdicts")
def verdicts(request: Request) -> Response:
    """What the words of the verdicts mean."""
    return pages.render(request, "verdicts.html")


# What changed --------------------------------------------------------------------------------------------------------


def changes_of(snapshot: Snapshot, entry: Entry) -> list[history.Change]:
    """Every change of a verdict of one paper, the newest first."""
    found: list[history.Change] = snapshot.remember(("changes", entry.slug), lambda: history.changes([entry]))
    return found


def all_changes(snapshot: Snapshot) -> list[history.Change]:
    """Every change of a verdict, the newest first."""
    return history.newest_first(change for entry in snapshot.entries.values() for change in changes_of(snapshot, entry))


@router.get("/log")
def log(request: Request) -> Response:
    """Measurements and changes of verdicts."""
    found = all_changes(pages.library(request).current)
    together = [list(group) for _, group in itertools.groupby(found, lambda each: (each.at, each.slug))]
    page = pages.paged(request, together, 20)
    alternates = [Alternate(f"/log.{ending}", name) for ending, name in ENDINGS]
    return pages.render(request, "log.html", page=page, alternates=alternates)


@router.get("/log.json")
def log_json(request: Request) -> Response:
    """The same as JSON."""
    found = all_changes(pages.library(request).current)
    return pages.as_json(request, [{**vars(change), "id": change.id} for change in found])


@router.get("/log.md")
def log_markdown(request: Request) -> Response:
    """The same as Markdown."""
    return pages.render(request, "log.md", changes=all_changes(pages.library(request).current))


@router.get("/log.atom")
def log_atom(request: Request) -> Response:
    """The same as a feed."""
    found = all_changes(pages.library(request).current)[:100]
    return pages.atom(request, "reprise: verdicts", "/log", map(_atom_entry, found))


def _atom_entry(change: history.Change) -> dict[str, str]:
    return {
        "id": change.id, "title": f"{change.title}: {change.sentence}", "updated": change.at, "summary": change.claim,
        "path": f"/papers/{change.slug}#claim-{change.number}",
    }  # fmt: skip


# A paper -------------------------------------------------------------------------------------------------------------


@router.get("/papers/{slug}.json")
def paper_json(request: Request, slug: str) -> Response:
    """A paper with its claims and verdicts as JSON."""
    return pages.as_json(request, views.paper_data(_entry(request, slug)[1]))


@router.get("/papers/{slug}.md")
def paper_markdown(request: Request, slug: str) -> Response:
    """A paper as Markdown."""
    snapshot, entry = _entry(request, slug)
    shown = snapshot.remember(("paper", slug), lambda: _shown(snapshot, entry))
    return pages.render(request, "paper.md", entry=entry, **shown)


@router.get("/papers/{slug}.atom")
def paper_atom(request: Request, slug: str) -> Response:
    """The measurements of a paper as a feed."""
    snapshot, entry = _entry(request, slug)
    found = changes_of(snapshot, entry)
    return pages.atom(request, f"reprise: {entry.paper.title}", f"/papers/{slug}", map(_atom_entry, found))


@router.get("/papers/{slug}")
def paper(request: Request, slug: str) -> Response:
    """A paper: what it claims, what was measured, how to use it."""
    snapshot, entry = _entry(request, slug)
    shown = snapshot.remember(("paper", slug), lambda: _shown(snapshot, entry))
    ways = [Alternate(f"/papers/{slug}.{ending}", name) for ending, name in ENDINGS]
    changes = changes_of(snapshot, entry)
    extras = [extra for part in request.app.state.parts if part.paper for extra in [part.paper(request, slug)]]
    return pages.render(
        request, "paper.html", entry=entry, paper=entry.paper, changes=changes, alternates=ways, extras=extras, **shown
    )


ENDINGS = (("json", "JSON"), ("md", "Markdown"), ("atom", "Atom"))


def _claim_views(snapshot: Snapshot, entry: Entry) -> list[dict[str, Any]]:
    status = entry.status
    made: list[dict[str, Any]] = snapshot.remember(
        ("claims", entry.slug), lambda: views.claim_views(entry.paper, status.judgements, status.scale)
    )
    return made


def _shown(snapshot: Snapshot, entry: Entry) -> dict[str, Any]:
    paper, status = entry.paper, entry.status
    claims = _claim_views(snapshot, entry)
    record = status.records.get(paper.headline)
    curves = views.charts(paper.experiments[paper.headline], record)[:HEADLINE_CURVES] if record else []
    return {
        "claims": claims,
        "scales": views.by_scale(paper),
        "headline": report.headline_view(claims, status.scale),
        "curves": curves,
        "use": [(*part.rsplit(".", 1), address(snapshot, part)) for part in paper.parts],
        "example": example(paper.parts[0]),
        "citation": words.bibtex(paper),
        "figure": _figure_size(entry),
        "seeds": max((len(record["seeds"]) for record in status.records.values()), default=0),
    }


@router.get("/papers/{slug}/numbers")
def numbers(request: Request, slug: str) -> Response:
    """Every metric, curve, setting and fingerprint of a published measurement."""
    snapshot, entry = _entry(request, slug)
    shown = snapshot.remember(("numbers", slug), lambda: views.experiment_views(entry.paper, entry.status.records))
    ways = [Alternate(f"/papers/{slug}/numbers.{ending}", name) for ending, name in ENDINGS[:2]]
    return pages.render(request, "numbers.html", entry=entry, paper=entry.paper, experiments=shown, alternates=ways)


@router.get("/papers/{slug}/numbers.json")
def numbers_json(request: Request, slug: str) -> Response:
    """The records of a published measurement: every metric, curve, setting and fingerprint."""
    return pages.as_json(request, _entry(request, slug)[1].status.records)


@router.get("/papers/{slug}/numbers.md")
def numbers_markdown(request: Request, slug: str) -> Response:
    """The metrics as Markdown."""
    snapshot, entry = _entry(request, slug)
    shown = snapshot.remember(("numbers", slug), lambda: views.experiment_views(entry.paper, entry.status.records))
    return pages.render(request, "numbers.md", entry=entry, experiments=shown)


@router.get("/papers/{slug}/claims/{number}.svg")
def badge(request: Request, slug: str, number: int) -> Response:
    """The verdict on a claim as a badge for a README; it tells the scale, and that it is stale."""
    _, entry = _entry(request, slug)
    if not 1 <= number <= len(entry.paper.claims):
        raise HTTPException(404)
    judgement = entry.status.judgements[number - 1]
    text = words.verdict_words(Judgement(judgement.verdict), entry.status.scale)
    text += ", stale" if entry.status.mark == "stale" else ""
    answer = pages.render(request, "badge.svg", text=text, colour=BADGE[judgement.verdict], left=f"reprise: {slug}")
    answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return answer


@router.get("/papers/{slug}/claims/{number}")
def claim(request: Request, slug: str, number: int) -> Response:
    """The permanent address of a claim."""
    _, entry = _entry(request, slug)
    if not 1 <= number <= len(entry.paper.claims):
        raise HTTPException(404)
    return RedirectResponse(f"/papers/{slug}#claim-{number}", 302)


# Figures -------------------------------------------------------------------------------------------------------------


def _figure_size(entry: Entry) -> tuple[int, int] | None:
    path = figure_of(entry)
    if path is None:
        return None
    head = path.read_bytes()[:24]
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


@router.get("/papers/{slug}/figure.png")
def figure(request: Request, slug: str) -> Response:
    """The figure that was published with the measurement."""
    path = figure_of(_entry(request, slug)[1])
    if path is None:
        raise HTTPException(404)
    return FileResponse(path, headers={"Cache-Control": "no-cache"})


@router.get("/papers/{slug}/figure-{width}.webp")
def small_figure(request: Request, slug: str, width: int) -> Response:
    """The same, smaller and lighter; made once."""
    path = figure_of(_entry(request, slug)[1])
    if path is None or width not in WIDTHS:
        raise HTTPException(404)
    target = home() / "cache" / "figures" / f"{slug}-{path.stat().st_mtime_ns}-{width}.webp"
    if target.is_file():
        return FileResponse(target, headers={"Cache-Control": "no-cache"})
    from PIL import Image

    with Image.open(path) as picture:
        content = io.BytesIO()
        height = max(1, round(picture.height * width / picture.width))
        picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(content, "webp", quality=75)
    try:
        with written_whole(target) as temporary:
            temporary.write_bytes(content.getvalue())
    except OSError:
        pass  # a cache that cannot be written is no fault
    return pages.reply(request, content.getvalue(), "image/webp")


def _warm(snapshot: Snapshot) -> None:
    for entry in snapshot.entries.values():
        _claim_views(snapshot, entry)
    all_changes(snapshot)


EXTENSION = Extension(router, nav=(("Papers", "/papers"), ("Claims", "/claims"), ("Log", "/log")), warm=_warm)
