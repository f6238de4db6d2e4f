"""One row per piece of work and peer: medians of alternated rounds and their ratio."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from reprise.lab.timing import compare_speed

__all__ = ["Row", "absent", "compare", "measure"]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        work: what is done.
        peer: by whom else, with its settings.
        ours, theirs: median seconds per call; None where the peer is not installed.
        spread: lowest and highest round of ours, then of theirs, in seconds per call.
        ratio: theirs over ours: above 1 where ours is faster.
        self_ratio: the peer against itself, which is how far chance goes.
        note: why there is no number, or that the self-ratio never settled.
    """

    work: str
    peer: str
    ours: float | None = None
    theirs: float | None = None
    spread: tuple[float, float, float, float] | None = None
    ratio: float | None = None
    self_ratio: float | None = None
    note: str = ""


def compare(
    work: str,
    ours: Callable[[], Any],
    peers: dict[str, Callable[[], Any]],
    *,
    tolerance: float | None = 1e-5,
    threads: int = 1,
) -> Iterator[Row]:
    """Time ours against each peer in turn; see :func:`reprise.lab.timing.compare_speed`.

    Work of seconds is done in fewer rounds, at least five, so that a row takes about half a minute.

    Args:
        work: what is done, with its sizes.
        ours: our way.
        peers: other ways by name.
        tolerance: how far outputs may differ; None where they cannot be compared.
        threads: PyTorch threads.
    """
    for peer, function in peers.items():
        candidates = {"ours": ours, "peer": function}
        rounds = _rounds(candidates, threads)
        result = compare_speed(candidates, tolerance=tolerance, threads=threads, rounds=rounds)
        note = "" if result.settled else "not settled: the peer against itself left [0.95, 1.05]"
        medians, spread = result.medians, (*result.spread["ours"], *result.spread["peer"])
        yield Row(work, peer, medians["ours"], medians["peer"], spread, result.ratio, result.self_ratio, note)


def _rounds(candidates: dict[str, Callable[[], Any]], threads: int) -> int:
    """As many as half a minute holds: one call of ours and two of the peer's make a round."""
    once = compare_speed(candidates, tolerance=None, threads=threads, rounds=1, seconds=0, launches=1).medians
    return min(20, max(5, int(30 / (once["ours"] + 2 * once["peer"]))))


def absent(work: str, peer: str, reason: str) -> Iterator[Row]:
    """A peer that cannot be run here: it is named, not left out in silence."""
    yield Row(work, peer, note=reason)


def measure(name: str) -> list[Row]:
    """The rows of one benchmark, each told when it is there."""
    rows = []
    for row in importlib.import_module(f"benchmarks.{name}").rows():
        rows.append(row)
        print(f"{row.work} | {row.peer}: {row.note if row.ratio is None else f'{row.ratio:.2f}'}", flush=True)
    return rows
