"""The pictures that published trials have left on this machine: results.json keeps none, the folders of trials do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from reprise.lab import store
from reprise.site import pages
from reprise.site.library import Entry

__all__ = ["Picture", "found", "kept", "router", "section"]

router = APIRouter()
MOST = 24  # on the page of a paper


@dataclass(frozen=True)
class Picture:
    """A picture that a published trial has left.

    Attributes:
        experiment, arm, seed: of the trial; the arm is "shared" where ``prepare`` drew it.
        name, caption: of the picture.
        file: where it lies.
    """

    experiment: str
    arm: str
    seed: int
    name: str
    caption: str
    file: Path

    @property
    def path(self) -> str:
        """Its address below the paper's."""
        return f"{self.experiment}/{self.arm}/{self.seed}/{self.name}.png"


@dataclass(frozen=True)
class Kept:
    """A trial whose folder is on this machine.

    Attributes:
        arm, seed: of the trial.
        metrics: its numbers.
        pictures: (arm, picture), where "shared" is what ``prepare`` drew.
        folder: where it lies.
    """

    arm: str
    seed: int
    metrics: Mapping[str, float]
    pictures: Sequence[tuple[str, Mapping[str, str]]]
    folder: Path


def kept(entry: Entry, experiment: str) -> Iterator[tuple[Kept, bool]]:
    """The trials of an experiment on this machine, and whether their numbers are those published.

    They are if they agree to the last digit: then what lies in the folder is of the very net that was measured.
    """
    trials = entry.status.records.get(experiment, {}).get("trials", [])
    published = {(trial["arm"], trial["seed"]): trial["metrics"] for trial in trials}
    for file in sorted((store.runs(entry.slug) / experiment).glob("[!.]*/trial.json")):
        trial = _read(file, file.stat().st_mtime_ns)
        if trial is not None:
            yield trial, published.get((trial.arm, trial.seed)) == trial.metrics


@lru_cache(maxsize=4096)  # a page asks for all of them, and so does each of its pictures
def _read(file: Path, stamp: int) -> Kept | None:
    record = store.parse(file)
    if record is None:
        return None
    arm, shared = record["identity"]["arm"], (record["prepare"] or {}).get("pictures", [])
    pictures = [*(("shared", each) for each in shared), *((arm, each) for each in record["pictures"])]
    return Kept(arm, record["identity"]["seed"], record["metrics"], pictures, file.parent)


def found(entry: Entry) -> list[Picture]:
    """The pictures of each arm's first published seed that is on this machine."""
    pictures: dict[tuple[str, str, str], Picture] = {}
    for name in entry.paper.experiments:
        for trial, measured in kept(entry, name):
            for arm, picture in trial.pictures if measured else ():
                file = trial.folder / Path(picture["file"]).name
                key = name, arm, picture["name"]
                if file.is_file() and (key not in pictures or trial.seed < pictures[key].seed):
                    caption = picture["caption"] or picture["name"]
                    pictures[key] = Picture(name, arm, trial.seed, picture["name"], caption, file)
    return list(pictures.values())


def section(request: Request, slug: str) -> Markup:
    """What the page of a paper shows of them; nothing where there are none."""
    entry = pages.library(request).current.entries[slug]
    settings = request.app.state.settings
    shown = [] if settings.static or settings.public_url else found(entry)  # elsewhere they demand the secret
    if not shown:
        return Markup()
    answer = pages.render(request, "pictures.html", entry=entry, shown=shown[:MOST], more=max(0, len(shown) - MOST))
    return Markup(bytes(answer.body).decode())


@router.get("/runs/pictures/{slug}/{experiment}/{arm}/{seed}/{name}.png")
def picture(request: Request, slug: str, experiment: str, arm: str, seed: int, name: str) -> Response:
    """A picture of a published trial; found by what it is called, never by a path."""
    entry = pages.library(request).current.entries.get(slug)
    for each in found(entry) if entry is not None else []:
        if (each.experiment, each.arm, each.seed, each.name) == (experiment, arm, seed, name):
            return FileResponse(each.file, media_type="image/png", headers={"Cache-Control": "no-cache"})
    raise HTTPException(404)
