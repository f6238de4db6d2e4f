"""Run a plan: watch its units, say how far it is and how long it still takes, and gather what came out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress as Bar, TextColumn

from reprise.files import written_whole
from reprise.lab import engines, provenance, report, results, store
from reprise.lab.paper import Paper
from reprise.lab.plan import Plan
from reprise.lab.results import Record, Results
from reprise.lab.unit import Event, Failed, Finished, Progress, Unit
from reprise.lab.verdict import Judgement

__all__ = ["ENGINES", "Outcome", "Work", "duration", "estimate", "pending", "run", "write_report"]

ENGINES: dict[str, Callable[..., Iterator[Event]]] = {"local": engines.local, "ray": engines.ray}
EVERY = 10.0  # seconds between plain progress lines where there is no terminal


@dataclass
class Outcome:
    """What a run leaves behind."""

    records: dict[str, Record]
    judgements: list[Judgement]
    failures: list[Failed] = field(default_factory=list)


def run(
    plans: Sequence[Plan], console: Console, engine: str = "local", **options: Any
) -> Iterator[tuple[Plan, Outcome]]:
    """Run the trials of plans that are not finished yet, all plans at once; each is returned as soon as it is done.

    What takes longest begins first, so that no core waits for another at the end.

    Args:
        plans: what to run.
        console: where progress is shown: a bar on a terminal, plain lines elsewhere.
        engine: "local" or "ray".
        options: of the engine.

    Raises:
        KeyboardInterrupt: after all processes have been ended; finished trials are kept.
    """
    for slug in {plan.paper.slug for plan in plans}:
        store.sweep(slug)
    if len(plans) > 1:
        plans = [_named(plan) for plan in plans]
    left = [
        {(unit.name, job.arm) for unit in plan.units for job in unit.jobs} if pending(plan) else set() for plan in plans
    ]
    failures: list[list[Failed]] = [[] for _ in plans]
    for plan, ours in zip(plans, left, strict=True):
        if not ours:
            yield plan, _outcome(plan, [])
    if not any(left):
        return
    open_plans = [plan for plan, ours in zip(plans, left, strict=True) if ours]
    work = Work(*open_plans)
    with _shown(open_plans, work, console) as show:
        for event in ENGINES[engine](_longest_first(open_plans, work), **options):
            show(event)
            for plan, ours, failed in zip(plans, left, failures, strict=True):
                ended = {key for key in ours if key[0] == event.unit and event.arm in (None, key[1])}
                if isinstance(event, Progress) or not ended:
                    continue
                if isinstance(event, Failed):
                    failed.append(event)
                ours -= ended
                if not ours:
                    yield plan, _outcome(plan, failed)


def _longest_first(plans: Sequence[Plan], work: Work) -> list[Unit]:
    """Each unit once, the longest first; those of a paper stay together, so that one paper after the other is done."""
    ordered = [sorted(plan.units, key=work.cost, reverse=True) for plan in plans]
    ordered.sort(key=lambda units: work.cost(units[0]), reverse=True)
    return list({unit.name: unit for units in ordered for unit in units}.values())


def _named(plan: Plan) -> Plan:
    """The plan with units that are told from those of other papers."""
    return replace(plan, units=tuple(replace(unit, name=f"{plan.paper.slug}/{unit.label}") for unit in plan.units))


def _outcome(plan: Plan, failures: list[Failed]) -> Outcome:
    records = results.collect(plan)
    return Outcome(records, results.judge_all(plan.paper, records), failures)


def write_report(paper: Paper, scale: str, outcome: Outcome, *, published: bool = False) -> Path:
    """Write the report into the paper's folder of runs and return its path.

    The recipes draw their figures; of published results, which keep no files to draw from, the published figure is
    shown.
    """
    figures = {}
    for name, record in outcome.records.items():
        drawn = store.runs(paper.slug) / f"{name}-{scale}.png"
        if published and name == paper.headline:
            figures[name] = paper.folder / "figure.png"
        elif not published and (path := draw(paper, name, record, drawn)) is not None:
            figures[name] = path
    target = store.runs(paper.slug) / f"{'published' if published else 'report'}-{scale}.html"
    text = report.render(paper, outcome.records, outcome.judgements, figures=figures, failures=outcome.failures)
    with written_whole(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def draw(paper: Paper, experiment: str, record: Record, target: Path) -> Path | None:
    """Draw the figure of an experiment, if its recipe has one and anything was measured."""
    recipe = paper.experiments[experiment].load()
    if not hasattr(recipe, "figure") or not record["trials"]:
        return None
    figure = recipe.figure(Results(paper.experiments[experiment], record))
    with written_whole(target) as temporary:
        figure.savefig(temporary, dpi=130)
    return target


# Costs ---------------------------------------------------------------------------------------------------------------


def pending(plan: Plan) -> int:
    """How many trials of a plan are not finished yet."""
    slug = plan.paper.slug
    return sum(store.read(store.trial_folder(slug, job.identity)) is None for part in plan.parts for job in part.jobs)


def estimate(plan: Plan) -> float | None:
    """Seconds that the unfinished trials will take on this machine; None where nothing like them was ever measured."""
    total, known = 0.0, _known_costs(plan)
    for unit in plan.units:
        jobs = [job for job in unit.jobs if store.read(store.trial_folder(plan.paper.slug, job.identity)) is None]
        for arm in [None, *(job.arm for job in jobs)] if jobs else []:
            seconds = known.get((unit.experiment.name, arm))
            if seconds is None and arm is not None:
                return None
            side_by_side = 1 if unit.experiment.alone else max(1, provenance.cores() // unit.experiment.threads)
            total += (seconds or 0.0) / side_by_side
    return total


def _known_costs(plan: Plan) -> dict[tuple[str, str | None], float]:
    """Seconds by experiment and arm (None: prepare), of equal settings.

    They are what confirming the paper took, else the published trials', else those of trials on this machine.
    """
    known: dict[tuple[str, str | None], list[float]] = {}
    here = provenance.machine()["yardstick"]
    everything, confirmed = results.published(plan.paper), results.smoke_costs(plan.paper)
    for part in plan.parts:
        name = part.experiment.name
        published = everything.get(name, {}).get(plan.scale)
        settings = {job.arm: job.settings for job in part.jobs}
        trials = []
        if published is not None:
            factor = here / published["machine"]["yardstick"]
            same = {arm for arm, value in published["settings"].items() if value == settings.get(arm)}
            trials = [(trial["arm"], trial, factor) for trial in published["trials"] if trial["arm"] in same]
        if not trials:
            for trial in store.finished(plan.paper.slug, name):
                arm = trial["identity"]["arm"]
                if settings.get(arm) == trial["identity"]["settings"]:
                    trials.append((arm, trial, 1.0))
        for arm, trial, factor in trials:
            known.setdefault((name, arm), []).append(trial["seconds"] * factor)
            if trial["prepare"]:
                known.setdefault((name, None), []).append(trial["prepare"]["seconds"] * factor)
        for arm, entry in confirmed.get("arms", {}).get(name, {}).items():
            if arm in settings and entry["settings"] == store.digest(settings[arm]):
                factor = here / confirmed["yardstick"]
                known[name, arm] = [entry["seconds"] * factor]
                known[name, None] = [confirmed["prepare"][name] * factor]
    return {key: statistics.median(values) for key, values in known.items()}


def duration(seconds: float) -> str:
    """Seconds in words.

    Example:
        >>> duration(7), duration(95), duration(4000)
        ('7 s', '1 min 35 s', '1 h 6 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{round(whole / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


# Progress ------------------------------------------------------------------------------------------------------------


class Work:
    """How much of some plans is done, weighed by what its pieces are known to cost."""

    def __init__(self, *plans: Plan) -> None:
        self.weights: dict[tuple[str, str | None], float] = {}
        for plan in plans:
            known = _known_costs(plan)
            fallback = statistics.median(known.values()) if known else 1.0
            for unit in plan.units:
                for arm in [None, *(job.arm for job in unit.jobs)]:
                    cost = known.get((unit.experiment.name, arm), fallback if arm is not None else 0.0)
                    self.weights[unit.name, arm] = cost
        self.shares = dict.fromkeys(self.weights, 0.0)
        self.trials = sum(arm is not None for _, arm in self.weights)
        self.done = self.kept = 0
        self.start = time.monotonic()
        self.running: dict[str, Progress] = {}

    def cost(self, unit: Unit) -> float:
        """What a unit weighs."""
        return sum(self.weights[unit.name, arm] for arm in (None, *(job.arm for job in unit.jobs)))

    def take(self, event: Event) -> None:
        """Account for an event."""
        if isinstance(event, Progress):
            self.running[event.unit] = event
            self.shares[event.unit, event.arm] = event.share
            if event.arm is not None:
                self.shares[event.unit, None] = 1.0
            return
        self.running.pop(event.unit, None)
        ended = [event.arm] if event.arm is not None else [arm for unit, arm in self.shares if unit == event.unit]
        for arm in ended:
            if isinstance(event, Finished) and event.seconds == 0.0:  # it was there before: no work of this run
                self.weights[event.unit, arm] = 0.0
                self.kept += 1
            self.shares[event.unit, arm] = 1.0
        self.done += sum(arm is not None for arm in ended)

    @property
    def share(self) -> float:
        """Share of this run's work that is done."""
        total = sum(self.weights.values())
        return sum(self.weights[key] * share for key, share in self.shares.items()) / total if total else 1.0

    @property
    def left(self) -> str:
        """How long it still takes, as far as one can tell."""
        elapsed = time.monotonic() - self.start
        if self.share < 0.02 or elapsed < 3:
            return ""
        return f"about {duration(elapsed * (1 - self.share) / self.share)} left"


@contextmanager
def _shown(plans: Sequence[Plan], work: Work, console: Console) -> Iterator[Callable[[Event], None]]:
    title = plans[0].paper.slug if len(plans) == 1 else f"{len(plans)} papers"
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
        with Bar(*columns, console=console, transient=True) as bar:
            whole = bar.add_task(f"{title}, {plans[0].scale} scale", total=1.0, text="starts")
            lines: dict[str, Any] = {}

            def show(event: Event) -> None:
                work.take(event)
                for unit in lines.keys() - work.running.keys():
                    bar.remove_task(lines.pop(unit))
                for unit, now in work.running.items():
                    if unit not in lines:
                        lines[unit] = bar.add_task("", total=1.0, text="")
                    what = now.arm or "prepare"
                    bar.update(lines[unit], description=f"  {unit}", completed=now.share, text=f"{what} {now.what}")
                bar.update(whole, completed=work.share, text=f"{work.done} of {work.trials} trials  {work.left}")
                if isinstance(event, Failed):
                    console.print(_failure(event), markup=False, highlight=False)

            yield show
    else:
        last = -EVERY

        def show(event: Event) -> None:
            nonlocal last
            work.take(event)
            if isinstance(event, Failed):
                console.print(_failure(event), markup=False, highlight=False)
            elif time.monotonic() - last > EVERY:
                last = time.monotonic()
                text = f"{work.share:4.0%}  {work.done} of {work.trials} trials  {work.left}"
                console.print(text.rstrip(), markup=False, highlight=False)

        yield show


def _failure(event: Failed) -> str:
    return f"{event.unit}{f' {event.arm}' if event.arm else ''} failed: {event.message}\n  the whole story: {event.log}"


def machine_readable(plan: Plan, outcome: Outcome) -> Mapping[str, Any]:
    """A run as JSON can hold it."""
    return {
        "paper": plan.paper.slug,
        "scale": plan.scale,
        "skipped": dict(plan.skipped),
        "claims": [
            {"text": claim.text, "paper": claim.paper, "verdict": judgement.verdict, "reason": judgement.reason,
             "mean": judgement.mean, "low": judgement.low, "high": judgement.high,
             "differences": {str(seed): number for seed, number in judgement.differences.items()}}
            for claim, judgement in zip(plan.paper.claims, outcome.judgements, strict=True)
        ],
        "trials": [
            {"experiment": name, **{key: trial[key] for key in ("arm", "seed", "metrics", "counts", "seconds")},
             "prepare_seconds": trial["prepare"].get("seconds", 0.0)}
            for name, record in outcome.records.items()
            for trial in record["trials"]
        ],
        "failures": [{"unit": f.unit, "arm": f.arm, "message": f.message, "log": f.log} for f in outcome.failures],
    }  # fmt: skip
