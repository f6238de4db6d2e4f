"""What scattering refuses."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_signal"]

REAL = (torch.float32, torch.float64)
COMPLEX = (torch.complex64, torch.complex128)


def check_signal(x: Tensor, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...] = REAL) -> None:
    """Refuse what the filters do not fit.

    Raises:
        ValueError: the last two sides are not ``shape``, the precision is another, or a value is not finite.
    """
    if x.ndim < 2 or tuple(x.shape[-2:]) != tuple(shape):
        raise ValueError(
            f"the pictures are {tuple(x.shape)}, but the filters were made for (..., {shape[0]}, {shape[1]}); make "
            "filters for your size, or resize the pictures"
        )
    if x.dtype not in dtypes:
        raise ValueError(f"scattering computes in float32 or float64, not {x.dtype}; convert the pictures by .float()")
    if not bool(x.isfinite().all()):
        raise ValueError("the pictures have values that are not finite, and a convolution would spread them everywhere")
