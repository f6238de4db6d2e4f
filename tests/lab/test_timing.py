"""The speed comparison: equal work first, then alternated rounds."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from reprise.lab.timing import compare_speed


def test_the_ratio_is_above_one_where_the_first_is_faster() -> None:
    fast, slow = (lambda seconds=seconds: time.sleep(seconds) for seconds in (0.001, 0.003))
    result = compare_speed({"ours": fast, "peer": slow}, tolerance=None, seconds=0.1)
    assert result.ratio == pytest.approx(3, rel=0.2)
    assert result.rounds >= 20 and result.settled and 0.95 <= result.self_ratio <= 1.05
    low, high = result.spread["peer"]
    assert low <= result.medians["peer"] <= high


def test_each_side_gets_its_time() -> None:
    calls = {"ours": 0.0, "peer": 0.0}

    def work(name: str) -> None:
        start = time.perf_counter()
        time.sleep(0.002)
        calls[name] += time.perf_counter() - start

    compare_speed({name: lambda name=name: work(name) for name in calls}, tolerance=None, seconds=0.2)  # type: ignore[misc]
    assert min(calls.values()) >= 0.2


@pytest.mark.parametrize(
    ("ours", "peer"),
    [
        (1.0, 1.1),
        (torch.ones(2), np.array([1.0, 1.1])),
        ({"a": [torch.ones(2)]}, {"a": [torch.zeros(2)]}),
        (float("nan"), 1.0),
    ],
)
def test_outputs_that_differ_are_refused(ours: object, peer: object) -> None:
    with pytest.raises(ValueError, match="peer and ours differ by"):
        compare_speed({"ours": lambda: ours, "peer": lambda: peer}, seconds=0.01)


def test_other_shapes_and_lonely_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        compare_speed({"ours": lambda: torch.ones(2), "peer": lambda: torch.ones(3)}, seconds=0.01)
    with pytest.raises(ValueError, match="at least two"):
        compare_speed({"ours": lambda: 1.0}, seconds=0.01)


def test_threads_are_the_callers_again() -> None:
    before = torch.get_num_threads()
    seen: set[int] = set()
    with pytest.raises(RuntimeError):

        def fail() -> None:
            seen.add(torch.get_num_threads())
            raise RuntimeError

        compare_speed({"ours": fail, "peer": fail}, threads=before + 1)
    assert seen == {before + 1} and torch.get_num_threads() == before
