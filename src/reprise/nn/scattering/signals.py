"""What scattering takes, and the modulus."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_signal", "modulus"]

REAL = (torch.float32, torch.float64)
COMPLEX = (torch.complex64, torch.complex128)
LARGEST = 1e15  # squares of what comes of it are still numbers in single precision


def check_signal(x: Tensor, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...] = REAL) -> None:
    """Refuse what the filters do not fit.

    Raises:
        ValueError: other sides than ``shape``, another precision, values beyond ±1e15 or that are no numbers.
    """
    if x.ndim < 2 or tuple(x.shape[-2:]) != tuple(shape):
        raise ValueError(
            f"the pictures are {tuple(x.shape)}, but the filters were made for (..., {shape[0]}, {shape[1]}); make "
            "filters for your size, or resize the pictures"
        )
    if x.dtype not in dtypes:
        raise ValueError(f"scattering computes in float32 or float64, not {x.dtype}; convert the pictures by .float()")
    if x.numel() and not float(x.detach().abs().max()) <= LARGEST:
        raise ValueError(
            f"the pictures have values that are not finite, or above {LARGEST:g}; a convolution would spread them "
            "everywhere, so mend or scale the pictures first"
        )


def modulus(z: Tensor) -> Tensor:
    """|z| of real or complex numbers."""
    if not z.is_complex() or z.requires_grad:
        return z.abs()  # whose gradient at zero is zero, where that of the square root is infinite
    return (z * z.conj()).real.sqrt()  # less than half the time of abs
