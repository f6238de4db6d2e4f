"""Root-mean-square normalisation: a vector is divided by its size, its mean stays."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["RMSNorm"]


class RMSNorm(nn.Module):
    """y = weight x / max(||x|| / sqrt(D), eps) over the last axis.

    ``torch.nn.RMSNorm`` adds its eps to the mean square instead; the two differ only where x is about as small as eps.

    Args:
        dim: D.
        eps: smallest root mean square that is divided by, above 0.

    Raises:
        ValueError: ``eps`` not above 0.

    Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.

    Example:
        >>> RMSNorm(2)(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.8485, 1.1314],
                [0.0000, 0.0000]], grad_fn=<MulBackward0>)
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps is above 0, not {eps}: a vector of zeros is divided by it")
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps:g}"

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to the same shape."""
        root = math.sqrt(len(self.weight))
        return F.normalize(x, dim=-1, eps=self.eps * root) * (root * self.weight)
