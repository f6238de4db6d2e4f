"""Changes of appearance that leave the content of a picture: to test how a model fares where colours are new."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["SHIFTS", "appearance_shift"]


def _less_contrast(x: Tensor) -> Tensor:
    mean = x.mean((-2, -1), keepdim=True)
    return mean + (x - mean) / 1.5


def _per_channel(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None]


def _gray(x: Tensor) -> Tensor:
    luma = (x * _per_channel(0.299, 0.587, 0.114).to(x)).sum(-3, keepdim=True)
    return luma.expand_as(x)


# The first three are those of the IBN-Net paper. All in 0..255 units.
SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rgb+50": lambda x: x + 50,
    "r+50": lambda x: x + _per_channel(50, 0, 0).to(x),
    "std/1.5": _less_contrast,
    "gamma2": lambda x: 255 * (x / 255).square(),
    "tint": lambda x: x * _per_channel(1, 0.6, 0.4).to(x),
    "gray": _gray,
    "invert": lambda x: 255 - x,
}


def appearance_shift(pixels: Tensor, kind: str) -> Tensor:
    """Change the appearance of RGB pictures.

    Args:
        pixels: (..., 3, H, W), uint8, or floats in 0..255.
        kind: "rgb+50" and "r+50" add 50 to all channels, or to red; "std/1.5" pulls every channel of every picture
            towards its mean (these three are the IBN-Net paper's); "gamma2" squares, "tint" multiplies the channels by
            1, 0.6 and 0.4, "gray" takes the luma, "invert" the negative.

    Returns:
        The same shape and dtype, clipped to 0..255; bytes are rounded.

    Raises:
        ValueError: unknown kind, or no RGB pictures.

    Example:
        >>> appearance_shift(torch.full((1, 3, 2, 2), 230, dtype=torch.uint8), "r+50")[0, :, 0, 0]
        tensor([255, 230, 230], dtype=torch.uint8)
    """
    if kind not in SHIFTS:
        raise ValueError(f"unknown shift {kind!r}; there are {', '.join(SHIFTS)}")
    if pixels.ndim < 3 or pixels.shape[-3] != 3:
        raise ValueError(f"pictures are (..., 3, H, W), not {tuple(pixels.shape)}")
    if pixels.is_floating_point():
        return SHIFTS[kind](pixels).clamp(0, 255)
    if pixels.dtype != torch.uint8:
        raise ValueError(f"pixels are uint8 or floats in 0..255, not {pixels.dtype}")
    return SHIFTS[kind](pixels.float()).round().clamp(0, 255).to(torch.uint8)
