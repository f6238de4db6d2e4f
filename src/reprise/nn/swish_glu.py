"""Gated linear units with the swish gate, and the two-layer perceptron that transformers use them in."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["GatedMLP", "SwishGLU"]


class SwishGLU(nn.Linear):
    """value * SiLU(gate), both halves of one linear layer with a bias, value first.

    Args:
        in_features: of the input.
        out_features: of the output; the layer makes twice as many.

    Source: Shazeer, GLU Variants Improve Transformer, 2020.

    Example:
        >>> layer = SwishGLU(3, 4)
        >>> layer(torch.zeros(2, 3)).shape, layer.weight.shape
        (torch.Size([2, 4]), torch.Size([8, 3]))
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, 2 * out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        value, gate = super().forward(x).chunk(2, -1)
        return value * F.silu(gate)


class GatedMLP(nn.Sequential):
    """SwishGLU to the hidden width, dropout, and a linear layer without a bias back.

    Args:
        dim: of input and output.
        hidden: width between the layers.
        dropout: probability, of hidden units.

    Example:
        >>> GatedMLP(8, 32)(torch.zeros(2, 8)).shape
        torch.Size([2, 8])
    """

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__(SwishGLU(dim, hidden), nn.Dropout(dropout), nn.Linear(hidden, dim, bias=False))
