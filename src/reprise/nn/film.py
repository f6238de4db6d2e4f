"""Feature-wise linear modulation (FiLM): maps that are scaled and shifted by what a vector says."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["FiLM"]


class FiLM(nn.Module):
    """(1 + gamma) x + beta for each channel, gamma and beta linear in a condition and zero at the start.

    Args:
        condition_dim: of the condition.
        channels: of the maps.

    Source: Perez, Strub, de Vries, Dumoulin and Courville, FiLM, AAAI 2018.

    Example:
        >>> x = torch.randn(2, 8, 4, 4)
        >>> FiLM(3, 8)(x, torch.randn(2, 3)).equal(x)  # until it has learned
        True
    """

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition_dim, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, channels, ...) and (N, condition_dim) to (N, channels, ...)."""
        told = self.linear(condition).reshape(len(x), 2, -1, *(1,) * (x.ndim - 2))
        return x * (1 + told[:, 0]) + told[:, 1]
