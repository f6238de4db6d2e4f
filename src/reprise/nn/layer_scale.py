"""Layer scale: a learned factor per channel on a residual branch, so small at first that a block starts as identity."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["LayerScale"]


class LayerScale(nn.Module):
    """Multiply each channel by its own learned factor.

    Source: Touvron et al., Going deeper with Image Transformers, ICCV 2021, section 2.

    Args:
        channels: of the input.
        init: the factors at first.
        dim: where the channels are: 1 in maps (N, C, H, W), -1 in tokens (N, L, C).

    Raises:
        ValueError: at the call: another number of channels.

    Example:
        >>> LayerScale(3, init=0.5)(torch.ones(1, 3, 2, 2)).unique()
        tensor([0.5000], grad_fn=...)
    """

    def __init__(self, channels: int, init: float = 1e-5, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim
        self.scale = nn.Parameter(torch.full((channels,), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        """To the same shape."""
        if x.shape[self.dim] != len(self.scale):
            raise ValueError(f"dimension {self.dim} of {tuple(x.shape)} is not the {len(self.scale)} channels to scale")
        return x * self.scale.unflatten(0, (-1, *[1] * (x.ndim - 1 - self.dim % x.ndim)))
