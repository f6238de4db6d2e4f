"""Pages about runs: start one, watch it, stop it, and see one's own numbers beside the published and the paper's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse

from reprise.files import home
from reprise.lab import paper as papers
from reprise.lab.plan import parse_seeds
from reprise.lab.runner import duration
from reprise.site import explainers, pages, pictures, views, worker
from reprise.site.database import DatabaseError, room
from reprise.site.library import Entry
from reprise.site.pages import Alternate, Extension
from reprise.site.queue import Queue, QueueFull, Run, working

__all__ = ["EXTENSION"]

router = APIRouter()
router.include_router(explainers.router)
router.include_router(pictures.router)
LARGEST_SEED = 1_000_000
MOST_SEEDS = 50
STREAMS = 40  # that are open at one time
LOOK = 0.5  # seconds between looks at the queue
REST = 15.0  # seconds from the start of a worker that could not work to that of the next
BREATH = 15.0  # seconds after which a silent stream says that it is still there


def _queue(request: Request) -> Queue:
    return queue_of(request.app)


def queue_of(app: FastAPI) -> Queue:
    """The queue of an application, opened when it is first asked for.

    Raises:
        DatabaseError: it cannot be used.
    """
    if app.state.queue is None:
        app.state.queue = Queue()
    queue: Queue = app.state.queue
    return queue


def _find(request: Request, number: int) -> tuple[Run, Entry | None]:
    run = _queue(request).get(number) if number < 2**63 else None  # more does not fit into the database
    if run is None:
        raise HTTPException(404)
    return run, pages.library(request).current.entries.get(run.slug)


# Lists and the form --------------------------------------------------------------------------------------------------


@router.get("/runs")
def list_runs(request: Request) -> Response:
    """Every run that was started from the page."""
    page = pages.paged(request, _queue(request).all())
    entries = pages.library(request).current.entries
    return pages.render(request, "runs.html", page=page, entries=entries, alternates=_forms("/runs"))


def _forms(path: str) -> list[Alternate]:
    return [Alternate(f"{path}.json", "JSON"), Alternate(f"{path}.md", "Markdown"), Alternate(f"{path}.atom", "Atom")]


@router.get("/runs.json")
def list_runs_json(request: Request) -> Response:
    """The same as JSON."""
    return pages.as_json(request, [vars(run) for run in _queue(request).all()])


@router.get("/runs.md")
def list_runs_markdown(request: Request) -> Response:
    """The same as Markdown."""
    return pages.render(request, "runs.md", runs=_queue(request).all())


@router.get("/runs.atom")
def list_runs_atom(request: Request) -> Response:
    """The same as a feed."""
    rows = [row for run in _queue(request).all()[:50] for row in _states(run)]
    return pages.atom(request, "reprise: runs", "/runs", sorted(rows, key=lambda row: row["updated"], reverse=True))


def _states(run: Run) -> list[dict[str, str]]:
    """What happened to a run and when, as entries of a feed, the newest first."""
    times = {run.state if run.over else "": run.ended, "running": run.started, "queued": run.created}
    what = f"{run.slug}, {run.scale} scale, {f'seeds {run.seeds}' if run.seeds else 'all seeds'}"
    return [
        {"id": f"runs/{run.id}/{run.created}/{state}", "title": f"Run {run.id}, {run.slug}: {state}", "updated": at,
         "path": f"/runs/{run.id}", "summary": f"{what}. {run.message if state == run.state else ''}".strip()}
        for state, at in times.items()
        if at
    ]  # fmt: skip


@router.get("/runs/new")
def new(request: Request, paper: str = "", scale: str = "laptop", seeds: str = "") -> Response:
    """Choose what to run."""
    return _form(request, paper, scale, seeds)


def _form(request: Request, paper: str, scale: str, seeds: str, wrong: str = "", status: int = 200) -> Response:
    entries = pages.library(request).current.entries
    entry = entries.get(paper)
    offered = _scales(entry) if entry else {}
    scale = scale if scale in offered or not offered else next(reversed(offered))
    return pages.render(
        request, "run_new.html", status=status, entries=entries, entry=entry, scales=offered, scale=scale, seeds=seeds,
        wrong=wrong, waiting=sum(not run.over for run in _queue(request).all()),
    )  # fmt: skip


def _scales(entry: Entry) -> dict[str, dict[str, Any]]:
    """The scales that a paper has, with seeds, data, and what they cost if that is known."""
    found: dict[str, dict[str, Any]] = {}
    for name in papers.SCALES:
        experiments = [each for each in entry.paper.experiments.values() if name in each.scales]
        if experiments:
            cost = duration(entry.status.seconds) if name == entry.status.scale else ""
            data = sorted({data for each in experiments for data in each.data}) if name != "smoke" else []
            seeds = max(each.scales[name].seeds for each in experiments)
            found[name] = {"seeds": seeds, "cost": cost, "data": data}
    return found


@router.post("/runs")
def start(request: Request) -> Response:
    """Let a run wait for its turn."""
    form = request.state.form
    slug, scale, seeds = (str(form.get(key, "")).strip() for key in ("paper", "scale", "seeds"))
    entry = pages.library(request).current.entries.get(slug)
    if entry is None:
        return _form(request, "", scale, seeds, "Choose one of the papers.", 400)
    offered = _scales(entry)
    if scale not in offered:
        return _form(request, slug, scale, seeds, f"{slug} has the scales {', '.join(offered)}.", 400)
    try:
        _check_seeds(seeds)
        who = request.client.host if request.client else ""
        if not request.app.state.limits.allow("run", who, 30, 600):
            raise QueueFull("that were many runs in a short time; come back in ten minutes")
        number = _queue(request).add(slug, scale, seeds)
    except QueueFull as error:
        return _form(request, slug, scale, seeds, f"{error}.", 429)
    except ValueError as error:
        return _form(request, slug, scale, seeds, f"{error}.", 400)
    with contextlib.suppress(OSError):  # the next look does it
        _wake(request.app)
    return RedirectResponse(f"/runs/{number}", 303)


def _check_seeds(text: str) -> None:
    """Refuse seeds that cannot be read, or are too many for a page."""
    if not text:
        return
    if len(text) > 200 or any(len(part) > 7 for part in text.replace("-", ",").split(",")):
        raise ValueError(f"seeds are at most {LARGEST_SEED:,}, such as 5, 0,3,7 or 1000-1004")
    if not text.isascii():  # other digits than 0 to 9
        raise ValueError(f"seeds are a count (5), a list (0,3,7) or a range (1000-1004), not {text!r}")
    first, dash, last = text.partition("-")
    count = int(last) - int(first) + 1 if dash and first.isdigit() and last.isdigit() else 0
    count = int(text) if text.isdigit() else count
    if count > MOST_SEEDS or len(parse_seeds(text)) > MOST_SEEDS:
        raise ValueError(f"a run has at most {MOST_SEEDS} seeds here; `reprise run` takes any number")


# One run -------------------------------------------------------------------------------------------------------------


@router.get("/runs/{number}.json")
def run_json(request: Request, number: int) -> Response:
    """A run with its progress and claims as JSON."""
    run, entry = _find(request, number)
    shown = _shown(request, run, entry)
    claims = [views.claim_data(claim, judgement, entry.paper) for claim, judgement in shown["judged"]] if entry else []
    return pages.as_json(
        request, {**vars(run), "plan": shown["plan"], "progress": shown["progress"], "failures": shown["failures"],
                  "claims": claims}
    )  # fmt: skip


@router.get("/runs/{number}.md")
def run_markdown(request: Request, number: int) -> Response:
    """A run with its claims as Markdown."""
    return pages.render(request, "run.md", **_shown(request, *_find(request, number)))


@router.get("/runs/{number}.atom")
def run_atom(request: Request, number: int) -> Response:
    """What happened to a run, as a feed: to be told when it has ended."""
    run, _ = _find(request, number)
    return pages.atom(request, f"reprise: run {number} of {run.slug}", f"/runs/{number}", _states(run))


@router.get("/runs/{number}")
def run_page(request: Request, number: int) -> Response:
    """A run: how far it is, its curves, and its numbers beside the published ones."""
    run, entry = _find(request, number)
    return pages.render(request, "run.html", alternates=_forms(f"/runs/{number}"), **_shown(request, run, entry))


@router.get("/runs/{number}/live")
def run_live(request: Request, number: int) -> Response:
    """What changes on that page while the run goes on."""
    return pages.render(request, "run_live.html", **_shown(request, *_find(request, number)))


def _shown(request: Request, run: Run, entry: Entry | None) -> dict[str, Any]:
    queue = _queue(request)
    events = queue.events(run.id)
    last = {event.kind: event.data for event in events}
    records = _records(queue.record_path(run.id))
    shown: dict[str, Any] = {
        "run": run, "entry": entry, "plan": last.get("plan"), "progress": last.get("progress"),
        "failures": [event.data for event in events if event.kind == "failed"],
        "before": queue.before(run) if run.state == "queued" else 0,
        "last": events[-1].id if events else 0, "full": not run.over and not room(queue.folder),
        "claims": [], "judged": [], "curves": [], "pictures": [],
    }  # fmt: skip
    if shown["plan"]:
        seconds = shown["plan"]["seconds"]
        shown["plan"] = {**shown["plan"], "estimate": "" if seconds is None else duration(seconds)}
    if entry is None or not records:
        return shown
    known = {name: record for name, record in records.items() if name in entry.paper.experiments}
    judgements = views.judge(entry.paper, known)
    shown["judged"] = list(zip(entry.paper.claims, judgements, strict=True))
    measured = views.claim_views(entry.paper, judgements, run.scale)
    published = dict(enumerate(entry.status.judgements, 1))
    for claim, view, own in zip(entry.paper.claims, measured, judgements, strict=True):
        if own.verdict != "unmeasured":
            name = f"published, {entry.status.scale} scale"
            rows = {f"this run, {run.scale} scale": own, name: published[view["id"]]}
            strips, axis = views.compared_strips(claim, entry.paper.experiments, rows)
            shown["claims"].append({**view, "versus": strips, "axis": axis, "published": published[view["id"]].verdict})
    points = [event.data for event in events if event.kind == "points"]
    for name, record in known.items():
        curves = views.charts(entry.paper.experiments[name], _with_points(name, record, points))
        shown["curves"] += [{**curve, "experiment": name if len(known) > 1 else ""} for curve in curves]
    shown["pictures"] = list(_pictures(known))
    return shown


def _records(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}  # not begun yet


def _with_points(experiment: str, record: dict[str, Any], points: list[dict[str, Any]]) -> dict[str, Any]:
    """A record with the curves of the trials still at work; what their ``prepare`` drew belongs to all arms."""
    running: dict[tuple[str, int], dict[str, Any]] = {}
    for each in points:
        if each["experiment"] == experiment:
            key = each["arm"] or "", each["seed"]
            empty = {"arm": key[0], "seed": key[1], "curves": {}, "metrics": {}, "prepare": {"curves": {}}}
            trial = running.setdefault(key, empty)
            lines = trial["curves"] if each["arm"] else trial["prepare"]["curves"]
            for name, line in each["curves"].items():
                lines.setdefault(name, []).extend(line)
    finished = {views.trial_identity(trial) for trial in record["trials"]}
    return {**record, "trials": [own for key, own in running.items() if key not in finished] + record["trials"]}


def _pictures(records: dict[str, Any]) -> list[dict[str, Any]]:
    """The pictures of each arm's first seed, with their places in the record."""
    found, seen = [], set()
    for name, record in records.items():
        for place, trial in enumerate(record["trials"]):
            if trial["seed"] == min(each["seed"] for each in record["trials"]):
                for number, picture in enumerate(trial.get("pictures", [])):
                    if (name, trial["arm"], picture["name"]) not in seen:
                        seen.add((name, trial["arm"], picture["name"]))
                        what = f"{trial['arm']}, seed {trial['seed']}"
                        address = f"{name}/{place}/{number}.png"
                        found.append({"what": what, "caption": picture["caption"] or picture["name"], "at": address})
    return found


@router.get("/runs/{number}/pictures/{experiment}/{place}/{which}.png")
def picture(request: Request, number: int, experiment: str, place: int, which: int) -> Response:
    """A picture that a trial of the run kept; found by its place in the record, never by a path."""
    _find(request, number)
    try:
        trial = _records(_queue(request).record_path(number))[experiment]["trials"][place]
        path = Path(trial["folder"]) / Path(trial["pictures"][which]["file"]).name
    except (KeyError, IndexError) as error:
        raise HTTPException(404) from error
    if place < 0 or which < 0 or not path.resolve().is_relative_to(home().resolve()) or not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, media_type="image/png")


@router.get("/runs/{number}/log")
def log(request: Request, number: int) -> Response:
    """What the run printed: its last 200 KB."""
    _find(request, number)
    try:
        content = _queue(request).log_path(number).read_bytes()[-200_000:]
    except OSError:
        content = b"It has printed nothing.\n"
    return pages.reply(request, content or b"It has printed nothing.\n", pages.TYPES["txt"])


@router.post("/runs/{number}/stop")
def stop(request: Request, number: int) -> Response:
    """Stop a run; what it has finished is kept."""
    _find(request, number)
    _queue(request).stop(number)
    return RedirectResponse(f"/runs/{number}", 303)


# Live ----------------------------------------------------------------------------------------------------------------


@router.get("/runs/{number}/events")
async def events(request: Request, number: int, after: int = 0) -> Response:
    """What the run tells, as server-sent events; after a lost connection those that were missed come first."""
    await run_in_threadpool(_find, request, number)
    given = request.headers.get("last-event-id", "")
    after = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else after
    state = request.app.state
    if state.streams >= STREAMS:
        raise HTTPException(503, "Too many pages watch already; the page can still be loaded again.")
    return StreamingResponse(
        _stream(state, number, after), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


async def _stream(state: Any, number: int, after: int) -> AsyncIterator[str]:
    state.streams += 1
    silent = 0.0
    try:
        yield "retry: 2000\n\n"
        while True:
            run = await run_in_threadpool(state.queue.get, number)  # before its events: none may be missed
            for event in await run_in_threadpool(state.queue.events, number, after):
                after, silent = event.id, 0.0
                yield f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(event.data)}\n\n"
            if run is None or run.over:
                yield f"id: {after}\nevent: end\ndata: {{}}\n\n"
                return
            await asyncio.sleep(LOOK)
            silent += LOOK
            if silent >= BREATH:
                silent = 0.0
                yield ": still here\n\n"
    finally:
        state.streams -= 1


# The worker ----------------------------------------------------------------------------------------------------------


def _wake(app: FastAPI) -> None:
    """Start a worker if a run waits and no worker is at work; a worker that is not needed ends by itself."""
    queue, state = queue_of(app), app.state
    last: subprocess.Popen[bytes] | None = state.worker
    if last is not None and (last.poll() is None or (last.returncode and time.monotonic() < state.started + REST)):
        return
    if queue.unfinished:
        with working(queue.folder) as free:
            pass
        if free:
            state.worker, state.started = worker.start(queue.folder), time.monotonic()


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Look after the queue while the server is there. Workers outlive it."""
    app.state.streams, app.state.worker, app.state.queue = 0, None, None
    with contextlib.suppress(DatabaseError):  # pages about runs say what is wrong, the others are there
        await run_in_threadpool(queue_of, app)

    async def look() -> None:
        while True:
            with contextlib.suppress(OSError, DatabaseError):  # a full disk, say: it is tried again
                await run_in_threadpool(_wake, app)
            await asyncio.sleep(1.0)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _section(request: Request, slug: str) -> Markup:
    """What trials have left on this machine, for the page of their paper."""
    return explainers.section(request, slug) + pictures.section(request, slug)


EXTENSION = Extension(
    router,
    nav=(("Runs", "/runs"),),
    lifespan=_lifespan,
    private=("/runs", "/runs.json", "/runs.md", "/runs.atom"),
    paper=_section,
)
