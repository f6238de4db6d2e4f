"""Morlet scattering of images against kymatio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks.table import Row, absent, compare
from reprise.nn import Scattering2D

CASES = ((2, 32, 128), (3, 64, 64))  # J, side, batch


def rows() -> Iterator[Row]:
    """Two sizes; kymatio with the whole batch at once, as it is used, and in chunks that keep more in the cache."""
    for J, side, batch in CASES:
        x = torch.randn(batch, 1, side, side)
        work = f"Scattering2D, J={J}, L=8, {batch} pictures 1x{side}x{side}"
        if find_spec("kymatio") is None:
            yield from absent(work, "kymatio", "kymatio is not installed")
            continue
        from kymatio import Scattering2D as Kymatio

        ours, theirs = Scattering2D(J, (side, side)), Kymatio(J=J, shape=(side, side), frontend="torch")
        peers = {"kymatio, torch": _call(theirs, x, batch), "kymatio, torch, chunks of 32": _call(theirs, x, 32)}
        yield from compare(work, _call(ours, x, batch), peers)


def _call(scattering: Callable[[Tensor], Tensor], x: Tensor, chunk: int) -> Callable[[], Tensor]:
    def work() -> Tensor:
        with torch.inference_mode():
            return torch.cat([scattering(part) for part in x.split(chunk)])

    return work
