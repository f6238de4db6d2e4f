"""The verdict on a claim: a pure function of the numbers that the trials gave.

Per seed one number, the value minus what it is compared with (the other way round for "lower"; the logarithm of the
quotient for a ratio), so that positive means "as claimed". Its mean has a 95 % Student interval over the seeds, whose
half-width is never below the resolution of the metric. The place of this interval against the margin decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from reprise.lab.paper import Claim, Experiment, Reference

__all__ = ["MINIMUM_SEEDS", "Judgement", "Measurement", "combine", "judge", "student"]

MINIMUM_SEEDS = 5

# 97.5 % quantiles of Student's t for 1 to 29 degrees of freedom: a verdict must not wait for SciPy's import.
QUANTILES = (
    12.706204736, 4.302652730, 3.182446305, 2.776445105, 2.570581836, 2.446911851, 2.364624252, 2.306004135,
    2.262157163, 2.228138852, 2.200985160, 2.178812830, 2.160368656, 2.144786688, 2.131449546, 2.119905299,
    2.109815578, 2.100922040, 2.093024054, 2.085963447, 2.079613845, 2.073873068, 2.068657610, 2.063898562,
    2.059538553, 2.055529439, 2.051830516, 2.048407142, 2.045229642,
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """What the trials of one experiment gave.

    Attributes:
        seeds: the seeds that were asked for.
        metrics: metrics of each finished trial by (arm, seed).
    """

    seeds: tuple[int, ...]
    metrics: Mapping[tuple[str, int], Mapping[str, float]]

    @classmethod
    def of(cls, seeds: Iterable[int], trials: Iterable[Mapping[str, Any]]) -> Measurement:
        """Collect trial records (each with "arm", "seed" and "metrics")."""
        return cls(tuple(seeds), {(trial["arm"], trial["seed"]): trial["metrics"] for trial in trials})

    def values(self, reference: Reference) -> dict[int, float]:
        """The number of each finished seed; a trial that lacks it is left out."""
        key = reference.metric if reference.cell is None else f"{reference.metric}[{reference.cell}]"
        trials = {seed: self.metrics.get((reference.arm, seed), {}) for seed in self.seeds}
        return {seed: metrics[key] for seed, metrics in trials.items() if key in metrics}

    def cells(self, arm: str, metric: str) -> list[str]:
        """The cells of a metric that any finished trial of the arm gave, in their order."""
        found: dict[str, None] = {}
        for (name, _), metrics in self.metrics.items():
            if name == arm:
                found.update((key[len(metric) + 1 : -1], None) for key in metrics if key.startswith(f"{metric}["))
        return list(found)


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it rests on.

    Attributes:
        verdict: "holds", "fails", "undecided", or "unmeasured" where there is no trial at all.
        reason: why it is undecided, or in which way it fails.
        mean, low, high: of the difference in the metric's unit, or of the quotient; positive (above one) is as
            claimed. None where nothing could be computed.
        differences: the number of each seed, in the same unit.
        cells: one judgement per cell where the claim says "in every cell".
    """

    verdict: str
    reason: str = ""
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    differences: Mapping[int, float] = field(default_factory=dict)
    cells: Mapping[str, Judgement] = field(default_factory=dict)


def judge(claim: Claim, measurements: Mapping[str, Measurement], experiments: Mapping[str, Experiment]) -> Judgement:
    """Judge a claim.

    Args:
        claim: the claim.
        measurements: what was measured, by experiment; an experiment that was not measured is absent.
        experiments: the paper's experiments, for the resolution of the metrics.
    """
    sides = [side for side in (claim.value, claim.against) if isinstance(side, Reference)]
    for side in sides:
        if side.experiment not in measurements or not measurements[side.experiment].metrics:
            return Judgement("unmeasured", f"the experiment {side.experiment} has not been measured")
    if claim.value.cell != "*":
        return _judge_cell(claim, measurements, experiments)
    names = [measurements[side.experiment].cells(side.arm, side.metric) for side in sides if side.cell == "*"]
    every = list(dict.fromkeys(cell for cells in names for cell in cells))
    if not every:
        return Judgement("undecided", f"{claim.value} has no cells")
    return combine({cell: _judge_cell(_at(claim, cell), measurements, experiments) for cell in every})


def combine(cells: Mapping[str, Judgement]) -> Judgement:
    """The verdict on a claim about every cell: it holds if every cell holds and fails if any fails."""
    for verdict in ("fails", "undecided"):
        found = [cell for cell, judgement in cells.items() if judgement.verdict == verdict]
        if found:
            reason = f"in {', '.join(found)}: {cells[found[0]].reason}"
            return Judgement(verdict, reason, cells=cells)
    return Judgement("holds", cells=cells)


def _at(claim: Claim, cell: str) -> Claim:
    from dataclasses import replace

    against = claim.against
    if isinstance(against, Reference) and against.cell == "*":
        against = replace(against, cell=cell)
    return replace(claim, value=replace(claim.value, cell=cell), against=against)


def _judge_cell(
    claim: Claim, measurements: Mapping[str, Measurement], experiments: Mapping[str, Experiment]
) -> Judgement:
    measurement = measurements[claim.value.experiment]
    values = measurement.values(claim.value)
    wanted: Sequence[int] = measurement.seeds
    resolutions = [experiments[claim.value.experiment].metrics[claim.value.metric].resolution]
    if isinstance(claim.against, Reference):
        other = measurements[claim.against.experiment]
        against = other.values(claim.against)
        wanted = sorted({*wanted, *other.seeds})
        resolutions.append(experiments[claim.against.experiment].metrics[claim.against.metric].resolution)
    else:
        against = dict.fromkeys(values, claim.against)
    pairs = {seed: (values[seed], against[seed]) for seed in sorted(values) if seed in against}
    missing = [seed for seed in wanted if seed not in pairs]
    odd = [seed for seed, pair in pairs.items() if not all(math.isfinite(number) for number in pair)]
    if odd:
        return Judgement("undecided", f"seed {odd[0]} gave a number that is not finite")
    if not pairs:
        return Judgement("undecided", f"no seed gave {claim.value}" + _and_against(claim))

    ratio = claim.compare == "ratio"
    if ratio and min(min(pair) for pair in pairs.values()) <= 0:
        return Judgement("undecided", "a ratio needs numbers above zero")
    sign = -1.0 if claim.expect == "lower" else 1.0
    differences = {
        seed: sign * (math.log(value) - math.log(base) if ratio else value - base)
        for seed, (value, base) in pairs.items()
    }
    floor = max(resolutions)
    if ratio:  # a step of the resolution changes a logarithm the more, the smaller the number
        floor /= min(math.exp(fmean(math.log(pair[side]) for pair in pairs.values())) for side in (0, 1))
    mean, half = student(list(differences.values()), floor)
    margin = math.log(claim.margin) if ratio else claim.margin
    verdict, reason = _place(claim.expect, mean, half, margin)
    if verdict == "undecided" and len({number for pair in pairs.values() for number in pair}) == 1:
        reason = "saturated: every seed of both gave the same number"
    if missing:
        verdict, reason = "undecided", f"seed {', '.join(map(str, missing))} is missing"
    elif len(pairs) < MINIMUM_SEEDS:
        verdict, reason = "undecided", f"{len(pairs)} of at least {MINIMUM_SEEDS} seeds"
    show = _factor if ratio else float
    return Judgement(
        verdict,
        reason,
        show(mean),
        show(mean - half) if math.isfinite(half) else None,
        show(mean + half) if math.isfinite(half) else None,
        {seed: show(difference) for seed, difference in differences.items()},
    )


def student(numbers: Sequence[float], floor: float = 0.0) -> tuple[float, float]:
    """Mean and half-width of its 95 % Student interval, never below ``floor``; infinite for one number.

    Example:
        >>> student([1.0, 2.0, 3.0])
        (2.0, 2.484...)
    """
    count = len(numbers)
    if count < 2:
        return fmean(numbers), math.inf
    if count - 1 <= len(QUANTILES):
        quantile = QUANTILES[count - 2]
    else:
        from scipy.special import stdtrit

        quantile = float(stdtrit(count - 1, 0.975))
    return fmean(numbers), max(quantile * stdev(numbers) / math.sqrt(count), floor)


def _place(expect: str, mean: float, half: float, margin: float) -> tuple[str, str]:
    """Where the interval lies against the margin."""
    low, high = mean - half, mean + half
    if expect == "equal":
        if -abs(margin) <= low and high <= abs(margin):
            return "holds", ""
        if low > abs(margin) or high < -abs(margin):
            return "fails", "different by more than the tolerance"
    else:
        if low > margin:
            return "holds", ""
        if high < margin:
            return "fails", "as claimed, but by less than the margin" if mean > 0 else "worse"
    return "undecided", "the interval is too wide"


def _factor(logarithm: float) -> float:
    return math.exp(min(logarithm, 700.0))  # the interval of two seeds can reach beyond the largest float


def _and_against(claim: Claim) -> str:
    return f" and {claim.against}" if isinstance(claim.against, Reference) else ""
