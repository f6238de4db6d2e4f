"""A number, such as the step of a diffusion, as sines and cosines of many frequencies."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["SinusoidalEmbedding"]


class SinusoidalEmbedding(nn.Module):
    """sin(f t) and cos(f t) for ``size / 2`` frequencies f that fall geometrically from 1 to 1 / ``longest``.

    Args:
        size: numbers in an embedding; even, at least 4.
        longest: the smallest frequency is its inverse.

    Raises:
        ValueError: an odd or small size.

    Source: Vaswani et al., Attention Is All You Need, 2017, with the frequencies of Ho et al., Denoising Diffusion
    Probabilistic Models, 2020 (the last one is exactly 1 / longest).

    Example:
        >>> SinusoidalEmbedding(4)(torch.tensor([0, 1]))
        tensor([[0.0000e+00, 0.0000e+00, 1.0000e+00, 1.0000e+00],
                [8.4147e-01, 1.0000e-04, 5.4030e-01, 1.0000e+00]])
    """

    frequencies: Tensor

    def __init__(self, size: int, longest: float = 10_000.0) -> None:
        super().__init__()
        if size < 4 or size % 2:
            raise ValueError(f"an embedding has an even number of at least 4 numbers, not {size}")
        half = size // 2
        exponents = torch.arange(half) * -(math.log(longest) / (half - 1))
        self.register_buffer("frequencies", exponents.exp(), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """(...) of any type to (..., size)."""
        angles = t[..., None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], -1)
