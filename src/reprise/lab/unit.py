"""The unit that runs, crashes and is resumed: one seed with its ``prepare`` and arms, or one arm at one seed."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reprise.lab import store
from reprise.lab.paper import Experiment, Paper, nearest

__all__ = ["Failed", "Finished", "Job", "Progress", "Unit", "run_unit"]


@dataclass(frozen=True)
class Job:
    """One trial to run: an arm with its settings, and the identity it is kept under."""

    arm: str
    settings: Mapping[str, Any]
    identity: dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """What a process of its own takes on."""

    name: str  # unique in the run: of several papers it begins with the paper's
    paper: Paper
    experiment: Experiment
    seed: int
    settings: Mapping[str, Any]  # without any arm's own: what prepare sees
    jobs: tuple[Job, ...]
    device: str
    provenance: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Its name within its paper, for files."""
        return self.name.rpartition("/")[2]


# What a unit tells while it runs.


@dataclass(frozen=True)
class Progress:
    """How far an arm is (None: prepare)."""

    unit: str
    arm: str | None
    share: float
    what: str = ""


@dataclass(frozen=True)
class Finished:
    """A trial is kept."""

    unit: str
    arm: str
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A trial, or with arm None all that was left of the unit, failed; ``log`` has the whole story."""

    unit: str
    arm: str | None
    message: str
    log: str


Event = Progress | Finished | Failed


def run_unit(unit: Unit, tell: Callable[[Event], None], log: Path) -> None:
    """Run the trials of a unit that are not finished yet and keep each as soon as it is done.

    An exception in one arm is told and the other arms go on; one in ``prepare`` ends the unit.
    """
    with (
        store.locked(store.runs(unit.paper.slug) / unit.experiment.name, unit.label),
        tempfile.TemporaryDirectory() as tmp,
    ):
        jobs = [job for job in unit.jobs if store.read(store.trial_folder(unit.paper.slug, job.identity)) is None]
        for job in unit.jobs:
            if job not in jobs:
                tell(Finished(unit.name, job.arm, 0.0))
        if not jobs:
            return
        prepared = _attempt(lambda: _prepare(unit, tell, Path(tmp)), unit, None, tell, log)
        if prepared is None:
            return
        for job in jobs:
            _attempt(lambda job=job: _measure(unit, job, prepared, tell), unit, job.arm, tell, log)  # type: ignore[misc]


def _attempt(work: Callable[[], Any], unit: Unit, arm: str | None, tell: Callable[[Event], None], log: Path) -> Any:
    try:
        return work()
    except Exception as error:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as file:
            traceback.print_exc(file=file)
        text = " ".join(str(error).split()) or type(error).__name__
        kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
        tell(Failed(unit.name, arm, kind + text, str(log)))
        return None


@dataclass
class _Prepared:
    shared: Any
    record: dict[str, Any]
    files: Path


def _prepare(unit: Unit, tell: Callable[[Event], None], folder: Path) -> _Prepared:
    recipe = unit.experiment.load()
    if not hasattr(recipe, "prepare"):
        return _Prepared(None, {}, folder)
    trial, seconds, shared = _run(recipe.prepare, unit, None, unit.settings, None, tell, folder)
    record = {
        "seconds": seconds,
        "counts": dict(trial.counts),
        "curves": dict(trial.curves),
        "pictures": trial.pictures,
    }
    return _Prepared(shared, record, folder)


def _measure(unit: Unit, job: Job, prepared: _Prepared, tell: Callable[[Event], None]) -> None:
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        for picture in prepared.record.get("pictures", []):
            shutil.copy(prepared.files / picture["file"], folder)
        recipe = unit.experiment.load()
        trial, seconds, metrics = _run(recipe.measure, unit, job.arm, job.settings, prepared.shared, tell, folder)
        record = {
            "identity": job.identity,
            "metrics": _checked(metrics, unit.experiment),
            "seconds": seconds,
            **_shown(trial),
            "prepare": prepared.record,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            **unit.provenance,
        }
        store.write(store.trial_folder(unit.paper.slug, job.identity), record, folder)
    tell(Finished(unit.name, job.arm, seconds))


def _run(
    function: Callable[[Any], Any],
    unit: Unit,
    arm: str | None,
    settings: Mapping[str, Any],
    shared: Any,
    tell: Callable[[Event], None],
    folder: Path,
) -> tuple[Any, float, Any]:
    """Call prepare or measure on a trial of its own, from the same state every time."""
    import torch

    from reprise.lab.seeding import seed_everything
    from reprise.lab.trial import Trial

    told = 0.0

    def listen(share: float, what: str) -> None:
        nonlocal told
        if time.monotonic() - told > 0.1:  # often enough for the eye
            told = time.monotonic()
            tell(Progress(unit.name, arm, share, what))

    trial = Trial(
        arm=arm,
        seed=unit.seed,
        settings=unit.experiment.load().Settings(**settings),
        device=torch.device(unit.device),
        folder=folder,
        shared=shared,
        listener=listen,
    )
    seed_everything(unit.seed, unit.experiment.threads)
    tell(Progress(unit.name, arm, 0.0))
    start = time.perf_counter()
    result = function(trial)
    return trial, round(time.perf_counter() - start, 3), result


def _shown(trial: Any) -> dict[str, Any]:
    return {"counts": dict(trial.counts), "curves": dict(trial.curves), "pictures": trial.pictures}


def _checked(metrics: Any, experiment: Experiment) -> dict[str, float]:
    """The metrics as plain numbers; what is undeclared or not finite is refused."""
    if not isinstance(metrics, dict) or not metrics:
        raise ValueError(f"measure must return a dictionary of metrics, not {metrics!r}")
    for key, value in metrics.items():
        name = key.split("[")[0]
        if name not in experiment.metrics:
            raise ValueError(
                f"measure returned {key!r}, which paper.toml does not declare{nearest(name, experiment.metrics)}"
            )
        if not math.isfinite(value):
            raise ValueError(
                f"measure returned {key} = {value}: a run that diverges returns the worst value, never {value}"
            )
    return {key: float(value) for key, value in metrics.items()}
