"""The verdict is plain arithmetic: closed forms, every reason for being undecided, and what must not matter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, strategies as st
from scipy import stats

from reprise.lab.paper import Arm, Claim, Experiment, Metric, Reference
from reprise.lab.verdict import Judgement, Measurement, judge, student

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
SIX = st.lists(NUMBERS, min_size=6, max_size=6)


def experiments(resolution: float = 0.0) -> dict[str, Experiment]:
    """One experiment with the arms a and b and the metric m."""
    arms = {name: Arm(name) for name in "ab"}
    return {
        "recipe": Experiment("recipe", "recipe", Path("recipe.py"), arms, {"m": Metric("m", "m", "", resolution)}, {})
    }


def judged(
    a: Mapping[int, Any] | Sequence[Any],
    b: Mapping[int, Any] | Sequence[Any] | float,
    *,
    seeds: Sequence[int] | None = None,
    resolution: float = 0.0,
    cell: str | None = None,
    **options: Any,
) -> Judgement:
    """The verdict on a.m against b.m; a list is by seed, a dictionary inside it is cells."""
    sides = {"a": a} if isinstance(b, float) else {"a": a, "b": b}
    trials = []
    for arm, values in sides.items():
        by_seed = values if isinstance(values, Mapping) else dict(enumerate(values))  # type: ignore[arg-type]
        for seed, value in by_seed.items():
            cells = {f"m[{name}]": x for name, x in value.items()} if isinstance(value, dict) else {"m": value}
            trials.append({"arm": arm, "seed": seed, "metrics": cells})
    wanted = seeds if seeds is not None else sorted({trial["seed"] for trial in trials})
    against = b if isinstance(b, float) else Reference("recipe", "b", "m", cell)
    claim = Claim("text", Reference("recipe", "a", "m", cell), against, **options)
    return judge(claim, {"recipe": Measurement.of(wanted, trials)}, experiments(resolution))


# Closed forms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5, 10, 29, 30, 31, 60])
def test_interval_is_students(count: int) -> None:
    numbers = [math.sin(7 * i) + i / 10 for i in range(count)]
    mean, half = student(numbers)
    low, high = stats.t.interval(0.95, count - 1, loc=fmean(numbers), scale=stats.sem(numbers))
    assert mean - half == pytest.approx(low, rel=1e-8)
    assert mean + half == pytest.approx(high, rel=1e-8)


def test_interval_is_of_paired_differences() -> None:
    a, b = [0.9, 0.8, 0.95, 0.7, 0.6], [0.5, 0.45, 0.5, 0.3, 0.25]
    judgement = judged(a, b)
    test = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (judgement.low, judgement.high) == pytest.approx((test.low, test.high))
    assert judgement.verdict == "holds"
    assert judgement.differences[3] == pytest.approx(0.4)


def test_ratio_is_judged_on_logarithms() -> None:
    a, b = [2.0, 3.0, 2.5, 4.0, 2.2], [1.0, 1.2, 1.4, 1.5, 1.1]
    judgement = judged(a, b, compare="ratio", margin=1.0)
    logs = [math.log(x / y) for x, y in zip(a, b, strict=True)]
    low, high = stats.t.interval(0.95, 4, loc=fmean(logs), scale=stats.sem(logs))
    assert judgement.mean == pytest.approx(stats.gmean([x / y for x, y in zip(a, b, strict=True)]))
    assert (judgement.low, judgement.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert judgement.verdict == "holds"


def test_lower_turns_the_sign_and_the_quotient() -> None:
    slow, fast = [10.0, 11.0, 12.0, 10.5, 11.5], [5.0, 5.4, 6.1, 5.2, 5.8]
    assert judged(fast, slow, expect="lower").mean == pytest.approx(-judged(fast, slow).mean)  # type: ignore[operator]
    ratio = judged(fast, slow, expect="lower", compare="ratio", margin=1.5)
    assert ratio.verdict == "holds"
    assert ratio.mean == pytest.approx(stats.gmean(slow) / stats.gmean(fast))


def test_against_a_number() -> None:
    judgement = judged([0.9, 0.92, 0.91, 0.93, 0.9], 0.8)
    assert judgement.verdict == "holds"
    assert judgement.mean == pytest.approx(0.112)


# Where the interval lies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shift", "options", "verdict", "reason"),
    [
        (1.0, {}, "holds", ""),
        (-1.0, {}, "fails", "worse"),
        (1.0, {"margin": 2.0}, "fails", "as claimed, but by less than the margin"),
        (1.0, {"margin": 1.0}, "undecided", "the interval is too wide"),
        (-0.5, {"margin": -1.0}, "holds", ""),  # not worse than by 1
        (-2.0, {"margin": -1.0}, "fails", "worse"),
        (0.0, {"expect": "equal", "margin": 0.5}, "holds", ""),
        (2.0, {"expect": "equal", "margin": 0.5}, "fails", "different by more than the tolerance"),
        (-2.0, {"expect": "equal", "margin": 0.5}, "fails", "different by more than the tolerance"),
        (0.5, {"expect": "equal", "margin": 0.5}, "undecided", "the interval is too wide"),
    ],
)
def test_places(shift: float, options: dict[str, Any], verdict: str, reason: str) -> None:
    b = [3.0, 4.0, 5.0, 6.0, 7.0]
    a = [x + shift + e for x, e in zip(b, (-0.1, 0.1, 0.0, -0.05, 0.05), strict=True)]
    judgement = judged(a, b, **options)
    assert (judgement.verdict, judgement.reason) == (verdict, reason)


def test_equal_ratio_is_symmetric() -> None:
    b = [1.0, 2.0, 3.0, 4.0, 5.0]
    options = {"expect": "equal", "compare": "ratio", "margin": 1.25}
    assert judged([1.1 * x for x in b], b, **options).verdict == "holds"
    assert judged([x / 1.1 for x in b], b, **options).verdict == "holds"
    assert judged([1.4 * x for x in b], b, **options).verdict == "fails"
    assert judged([x / 1.4 for x in b], b, **options).verdict == "fails"


def test_no_variance() -> None:
    judgement = judged([0.75] * 5, [0.5] * 5)
    assert (judgement.verdict, judgement.low, judgement.high) == ("holds", 0.25, 0.25)


def test_resolution_is_the_least_half_width() -> None:
    judgement = judged([0.5625] * 5, [0.5] * 5, resolution=0.125)
    assert (judgement.low, judgement.high) == (-0.0625, 0.1875)
    assert (judgement.verdict, judgement.reason) == ("undecided", "the interval is too wide")
    assert judged([0.75] * 5, [0.5] * 5, resolution=0.125).verdict == "holds"


def test_resolution_of_a_ratio_is_relative() -> None:
    judgement = judged([0.02] * 5, [0.01] * 5, resolution=0.005, compare="ratio", margin=1.0)
    assert judgement.high == pytest.approx(2 * math.exp(0.5))
    assert judgement.low == pytest.approx(2 * math.exp(-0.5))


# Undecided, and why --------------------------------------------------------------------------------------------------


def test_saturated() -> None:
    assert judged([1.0] * 5, [1.0] * 5).reason == "saturated: every seed of both gave the same number"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_not_finite(number: float) -> None:
    judgement = judged([2.0, number, 2.0, 2.0, 2.0], [1.0] * 5)
    assert (judgement.verdict, judgement.reason) == ("undecided", "seed 1 gave a number that is not finite")
    assert judgement.mean is None


def test_missing_seeds() -> None:
    judgement = judged({0: 2.0, 1: 2.1, 3: 2.2, 4: 2.0, 5: 2.1}, [1.0] * 6, seeds=range(6))
    assert (judgement.verdict, judgement.reason) == ("undecided", "seed 2 is missing")
    assert judgement.mean == pytest.approx(1.08), "what is there is still shown"


def test_seed_missing_in_the_baseline() -> None:
    assert judged([2.0] * 6, {seed: 1.0 for seed in range(5)}).reason == "seed 5 is missing"


def test_too_few_seeds() -> None:
    judgement = judged([2.0, 2.1, 2.2, 2.0], [1.0] * 4)
    assert (judgement.verdict, judgement.reason) == ("undecided", "4 of at least 5 seeds")
    assert judgement.low is not None


def test_one_seed_has_no_interval() -> None:
    judgement = judged([2.0], [1.0])
    assert (judgement.mean, judgement.low, judgement.high) == (1.0, None, None)
    assert judgement.verdict == "undecided"


@pytest.mark.parametrize("number", [0.0, -1.0])
def test_ratio_needs_positive_numbers(number: float) -> None:
    assert judged([number, *[2.0] * 4], [1.0] * 5, compare="ratio").reason == "a ratio needs numbers above zero"
    assert judged([2.0] * 5, number, compare="ratio").reason == "a ratio needs numbers above zero"


def test_ratio_of_extreme_numbers_is_no_crash() -> None:
    judgement = judged([1e-150, 1e150], [1.0, 1.0], compare="ratio", margin=1.0)
    assert judgement.verdict == "undecided"


def test_unmeasured() -> None:
    claim = Claim("text", Reference("recipe", "a", "m"), 0.0)
    assert judge(claim, {}, experiments()).verdict == "unmeasured"
    assert judge(claim, {"recipe": Measurement.of([0], [])}, experiments()).verdict == "unmeasured"


def test_metric_that_no_seed_gave() -> None:
    trials = [{"arm": "b", "seed": 0, "metrics": {"m": 1.0}}]
    claim = Claim("text", Reference("recipe", "a", "m"), Reference("recipe", "b", "m"))
    judgement = judge(claim, {"recipe": Measurement.of([0], trials)}, experiments())
    assert (judgement.verdict, judgement.reason) == ("undecided", "no seed gave a.m and b.m")


# Every cell ----------------------------------------------------------------------------------------------------------


def cells(**values: float) -> list[dict[str, float]]:
    """Five seeds of an arm with cells."""
    return [{name: value + 0.001 * seed * (-1) ** seed for name, value in values.items()} for seed in range(5)]


def test_every_cell() -> None:
    base = [{"x": 0.0, "y": 0.0} for _ in range(5)]
    assert judged(cells(x=1.0, y=2.0), base, cell="*").verdict == "holds"
    failed = judged(cells(x=1.0, y=-2.0), base, cell="*")
    assert (failed.verdict, failed.reason) == ("fails", "in y: worse")
    assert {name: cell.verdict for name, cell in failed.cells.items()} == {"x": "holds", "y": "fails"}
    assert judged(cells(x=1.0, y=0.0), base, cell="*").reason == "in y: the interval is too wide"


def test_missing_cell_is_undecided() -> None:
    whole = [{"x": 0.0, "y": 0.0} for _ in range(5)]
    nowhere = judged(cells(x=1.0), whole, cell="*")
    assert (nowhere.verdict, nowhere.reason) == ("undecided", "in y: no seed gave a.m[y] and b.m[y]")
    once = cells(x=1.0, y=1.0)
    del once[2]["y"]
    assert judged(once, whole, cell="*").reason == "in y: seed 2 is missing"
    assert judged([1.0] * 5, [0.0] * 5, cell="*").reason == "a.m[*] has no cells"


# What must not matter ------------------------------------------------------------------------------------------------


@given(a=SIX, b=SIX, shift=NUMBERS)
def test_shift_moves_the_mean(a: list[float], b: list[float], shift: float) -> None:
    before, after = judged(a, b), judged([x + shift for x in a], b)
    assert after.mean == pytest.approx(before.mean + shift, abs=1e-7)  # type: ignore[operator]
    assert after.high - after.low == pytest.approx(before.high - before.low, rel=1e-6, abs=1e-7)  # type: ignore[operator]


@given(a=SIX, b=SIX, ratio=st.booleans(), expect=st.sampled_from(["higher", "lower", "equal"]))
def test_interval_contains_the_mean(a: list[float], b: list[float], ratio: bool, expect: str) -> None:
    if ratio:
        a, b = [abs(x) + 1e-6 for x in a], [abs(x) + 1e-6 for x in b]
    options = {"compare": "ratio", "margin": 1.0} if ratio else {}
    judgement = judged(a, b, expect=expect, **options)
    assert judgement.low <= judgement.mean <= judgement.high  # type: ignore[operator]
    assert judgement.verdict in ("holds", "fails", "undecided")


@given(a=SIX, b=SIX, order=st.permutations(range(6)))
def test_order_of_seeds_does_not_matter(a: list[float], b: list[float], order: list[int]) -> None:
    shuffled = judged({seed: a[seed] for seed in order}, {seed: b[seed] for seed in reversed(order)}, seeds=order)
    assert shuffled == judged(a, b)
