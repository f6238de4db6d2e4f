"""Encoders: what a policy sees, its goal and its instruction, as one vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reprise.policies.observations import Shapes

__all__ = ["ObservationEncoder"]


class ObservationEncoder(nn.Module):
    """A batch of what was seen to one vector for each example.

    States are taken as they are, all of the history one after the other; goal and instruction follow.

    Args:
        shapes: of what is seen.
        history: observations in a batch.

    Attributes:
        size: numbers in a vector.

    Example:
        >>> encoder = ObservationEncoder(Shapes({"state": (5,)}, action=2, goal={"state": (5,)}), history=2)
        >>> encoder({"observations": {"state": torch.zeros(3, 2, 5)}, "goal": {"state": torch.zeros(3, 5)}}).shape
        torch.Size([3, 15])
    """

    def __init__(self, shapes: Shapes, history: int = 1) -> None:
        super().__init__()
        self.shapes = shapes
        seen = sum(torch.Size(shape).numel() for shape in shapes.observations.values())
        goal = sum(torch.Size(shape).numel() for shape in shapes.goal.values())
        self.size = history * seen + goal + shapes.instruction

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """``observations`` (name to (B, history, ...)), ``goal`` (name to (B, ...)), ``instruction`` (B, D)."""
        parts = [batch["observations"][name].flatten(1) for name in self.shapes.observations]
        parts += [batch["goal"][name].flatten(1) for name in self.shapes.goal]
        if self.shapes.instruction:
            parts.append(batch["instruction"])
        return torch.cat(parts, 1)
