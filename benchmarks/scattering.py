"""Morlet scattering of images against kymatio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks.table import Row, absent, compare
from reprise.nn import Scattering2D

BATCHES, SIDES = ((8, 32), (32, 32), (128, 32)), ((16, 32), (16, 64), (16, 128))  # pictures, side in pixels


def rows() -> Iterator[Row]:
    """Three batches, then three sizes of picture; kymatio takes a batch at once: in parts it is slower."""
    for J, cases in ((2, BATCHES), (3, SIDES)):
        work = f"Scattering2D, J={J}, L=8"
        for batch, side in cases:
            x, size = torch.randn(batch, 1, side, side), f"{batch} pictures 1x{side}x{side}"
            if find_spec("kymatio") is None:
                yield from absent(work, "kymatio", "kymatio is not installed", size)
                continue
            from kymatio import Scattering2D as Kymatio

            ours, theirs = Scattering2D(J, (side, side)), Kymatio(J=J, shape=(side, side), frontend="torch")
            yield from compare(work, _call(ours, x), {"kymatio, torch": _call(theirs, x)}, size=size)


def _call(scattering: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    def work() -> Tensor:
        with torch.inference_mode():
            return scattering(x)

    return work
