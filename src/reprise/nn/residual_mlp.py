"""A perceptron whose hidden layers add to what they are given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ResidualMLP"]


class ResidualMLP(nn.Module):
    """Linear(inputs, width), then blocks x <- ReLU(x + L2(dropout(ReLU(L1(x))))), then Linear(width, outputs).

    Args:
        inputs, outputs: numbers in and out.
        width: of the hidden layers.
        blocks: of two linear layers each.
        dropout: share of the units dropped inside a block, in training.

    Source: the behaviour cloning baseline of Ankile et al., From Imitation to Refinement, arXiv 2407.16677.

    Example:
        >>> ResidualMLP(58, 80)(torch.zeros(4, 58)).shape
        torch.Size([4, 80])
    """

    def __init__(self, inputs: int, outputs: int, *, width: int = 1024, blocks: int = 5, dropout: float = 0.1) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.leave = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        x = self.enter(x)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.leave(x)
