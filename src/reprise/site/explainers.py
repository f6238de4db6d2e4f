"""Pages that a trial has written, say the CNN Explainer of the net that was measured: found, compared, and served."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from reprise.site import pages
from reprise.site.library import Entry
from reprise.site.pictures import kept

__all__ = ["Page", "found", "router", "section"]

router = APIRouter()
FILE = "index.html"  # what `export_web` writes
# The page runs its own scripts, so it gets no part of this site: an origin of its own, and no connection anywhere.
POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'none'; base-uri 'none'"
)


@dataclass(frozen=True)
class Page:
    """A page that a trial has written.

    Attributes:
        experiment, arm, seed: of the trial.
        file: where it lies.
        measured: whether the trial's numbers are those of the published one to the last digit, so that the net is the
            very one that was measured.
    """

    experiment: str
    arm: str
    seed: int
    file: Path
    measured: bool


def found(entry: Entry) -> list[Page]:
    """The pages that trials of a paper have left on this machine: per arm and seed one, the measured net's if there."""
    pages_of: dict[tuple[str, str, int], Page] = {}
    for page in _all(entry):
        key = page.experiment, page.arm, page.seed
        if key not in pages_of or page.measured:
            pages_of[key] = page
    return sorted(pages_of.values(), key=lambda page: (page.experiment, page.arm, page.seed))


def _all(entry: Entry) -> Iterator[Page]:
    for name in entry.paper.experiments:
        for trial, measured in kept(entry, name):
            if (file := trial.folder / FILE).is_file():
                yield Page(name, trial.arm, trial.seed, file, measured)


def writes_pages(entry: Entry) -> bool:
    """Whether a paper is about a network that becomes a page."""
    return "reprise.explain.export_web" in entry.paper.parts


def section(request: Request, slug: str) -> Markup:
    """What the page of a paper shows of the pages that its trials have written; nothing for other papers."""
    entry = pages.library(request).current.entries[slug]
    if not writes_pages(entry):
        return Markup()
    static = request.app.state.settings.static
    answer = pages.render(request, "explainers.html", entry=entry, found=[] if static else found(entry))
    return Markup(bytes(answer.body).decode())


@router.get("/runs/pages/{slug}/{experiment}/{arm}/{seed}.html")
def page(request: Request, slug: str, experiment: str, arm: str, seed: int) -> Response:
    """A page that a trial has written."""
    entry = pages.library(request).current.entries.get(slug)
    for each in found(entry) if entry is not None and writes_pages(entry) else []:
        if (each.experiment, each.arm, each.seed) == (experiment, arm, seed):
            return FileResponse(each.file, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"})
    raise HTTPException(404)
