"""One row per piece of work, size and peer: medians of alternated rounds, their ratio, and memory at the peak."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.resources import arithmetic_peak, bandwidth, peak_memory
from reprise.lab import provenance
from reprise.lab.speed_table import Row
from reprise.lab.timing import compare_speed

__all__ = ["Row", "absent", "compare", "measure"]

PACKAGES = {  # by the modules that they bring
    "torch": "torch",
    "numpy": "numpy",
    "captum": "captum",
    "pytorch_grad_cam": "grad-cam",
    "kymatio": "kymatio",
    "gymnasium": "gymnasium",
    "mujoco": "mujoco",
    "gym_pusht": "gym-pusht",
    "diffusers": "diffusers",
    "stable_baselines3": "stable-baselines3",
    "QuantLib": "QuantLib",
    "sklearn": "scikit-learn",
    "ray": "ray",
}
ONCE = False  # rows of a single round, to see that they run


def compare(
    work: str,
    ours: Callable[[], Any],
    best: Mapping[str, Callable[[], Any]] | None = None,
    *,
    size: str = "",
    defaults: Mapping[str, Callable[[], Any]] | None = None,
    limits: Mapping[str, Callable[[], Any]] | None = None,
    tolerance: float | None = 1e-5,
    threads: int = 1,
    flops: float | None = None,
    traffic: float | None = None,
) -> Iterator[Row]:
    """Time ours against each peer in turn; see :func:`reprise.lab.timing.compare_speed`.

    Twenty rounds and a second a side, so that hundreds of rows take an hour; work of seconds is done in fewer rounds,
    at least five.

    Args:
        work: what is done.
        ours: our way.
        best: peers by name, with the best settings that their user could choose, or where there are none to choose.
        size: what grows between rows of the same work: "batch 64". Three sizes show how cost grows.
        defaults: peers as they come.
        limits: parts of the work, or what it stands on; they are not compared by what they return.
        tolerance: how far outputs may differ; None where they cannot be compared.
        threads: PyTorch threads.
        flops: floating-point operations of ours, where these are its limit.
        traffic: bytes that ours must read and write, where these are its limit.
    """
    for settings, peers in (("best", best), ("defaults", defaults), ("limit", limits)):
        for peer, function in (peers or {}).items():
            candidates = {"ours": ours, "peer": function}
            options: dict[str, Any] = {"tolerance": None if settings == "limit" else tolerance, "threads": threads}
            if ONCE:
                options |= {"rounds": 1, "seconds": 0, "launches": 1}
            else:
                options |= {"rounds": _rounds(candidates, threads), "seconds": 1.0, "launches": 2}
            result = compare_speed(candidates, **options)
            medians, spread = result.medians, (*result.spread["ours"], *result.spread["peer"])
            yield Row(
                work,
                peer,
                size,
                settings,
                medians["ours"],
                medians["peer"],
                spread,
                result.ratio,
                result.self_ratio,
                (peak_memory(ours), peak_memory(function)),
                _share(medians["ours"], threads, flops, traffic),
                "" if result.settled or ONCE else "not settled: the peer against itself left [0.95, 1.05]",
            )


def _share(seconds: float, threads: int, flops: float | None, traffic: float | None) -> float | None:
    shares = []
    if flops is not None:
        shares.append(flops / seconds / (threads * arithmetic_peak()))
    if traffic is not None:
        shares.append(traffic / seconds / (threads * bandwidth()))
    return max(shares, default=None)


def _rounds(candidates: dict[str, Callable[[], Any]], threads: int) -> int:
    """As many as ten seconds hold: one call of ours and two of the peer's make a round."""
    once = compare_speed(candidates, tolerance=None, threads=threads, rounds=1, seconds=0, launches=1).medians
    return min(20, max(5, int(10 / (once["ours"] + 2 * once["peer"]))))


def absent(work: str, peer: str, reason: str, size: str = "") -> Iterator[Row]:
    """A peer that cannot be run here: it is named, not left out in silence."""
    yield Row(work, peer, size, note=reason)


def measure(name: str, once: bool = False) -> dict[str, Any]:
    """The rows of one benchmark, each told when it is there; when, on what and with what they were measured."""
    global ONCE
    ONCE, rows = once, []
    for row in importlib.import_module(f"benchmarks.{name}").rows():
        rows.append(dataclasses.asdict(row))
        told = row.note if row.ratio is None else f"{row.ratio:.2f}"
        print(" | ".join(filter(None, (row.work, row.size, f"{row.peer} ({row.settings}): {told}"))), flush=True)
    used = sorted(package for module, package in PACKAGES.items() if module in sys.modules)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    versions = provenance.packages("python", *used)
    return {"measured": today, "machine": provenance.machine(), "versions": versions, "rows": rows}
