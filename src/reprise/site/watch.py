"""Watch a trial while it runs: every point of its curves is told to the queue as soon as it is there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from reprise.lab.paper import Experiment
from reprise.lab.plan import Plan
from reprise.site.database import DatabaseError
from reprise.site.queue import Queue

__all__ = ["topic", "watched"]

EVERY = 0.5  # seconds between tellings
POINTS = 40  # that one telling holds at most


def watched(plan: Plan, run: int) -> Plan:
    """The same plan, whose trials tell their curves. The lab keeps them under what the plan's own experiments say."""
    units = [replace(unit, experiment=Watched(**vars(unit.experiment), run=run)) for unit in plan.units]
    return replace(plan, units=tuple(units))


def topic(experiment: str, arm: str | None, seed: int) -> str:
    """What the points of a trial are told under."""
    return f"{experiment}/{arm or 'shared'}/{seed}"


@dataclass(frozen=True)
class Watched(Experiment):
    """An experiment whose recipe tells the points of its curves."""

    run: int = 0

    def load(self) -> Any:
        """The recipe, with ``prepare`` and ``measure`` watched."""
        recipe = super().load()
        functions = {name: getattr(recipe, name) for name in ("prepare", "measure") if hasattr(recipe, name)}
        return SimpleNamespace(**{**vars(recipe), **{key: self._watch(each) for key, each in functions.items()}})

    def _watch(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def watching(trial: Any) -> Any:
            teller = _Teller(self.run, self.name, trial)
            trial.curve = teller.curve
            try:
                return function(trial)
            finally:
                teller.flush()

        return watching


class _Teller:
    """Gathers the points of a trial and tells them now and then."""

    def __init__(self, run: int, experiment: str, trial: Any) -> None:
        self.run, self.topic = run, topic(experiment, trial.arm, trial.seed)
        self.what = {"experiment": experiment, "arm": trial.arm, "seed": trial.seed}
        self.keep = trial.curve
        self.points: dict[str, list[tuple[float, float]]] = {}
        self.told = time.monotonic()

    def curve(self, name: str, x: float, y: float) -> None:
        """Keep a point as the trial does, and remember to tell it."""
        self.keep(name, x, y)
        self.points.setdefault(name, []).append((float(x), float(y)))
        if time.monotonic() - self.told > EVERY:
            self.flush()

    def flush(self) -> None:
        """Tell what was gathered."""
        self.told = time.monotonic()
        if not self.points:
            return
        thinned = {name: points[:: -(-len(points) // POINTS)] for name, points in self.points.items()}
        self.points = {}
        with contextlib.suppress(OSError, DatabaseError):  # nobody can watch then, but the trial goes on
            Queue().tell(self.run, "points", {**self.what, "curves": thinned}, self.topic)
