"""Encoders: what a policy sees, its goal and its instruction, as one vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reprise.policies.observations import Shapes

__all__ = ["ObservationEncoder"]


class ObservationEncoder(nn.Module):
    """A batch of what was seen to one vector for each example, or for each step of the history.

    States are taken as they are, all of the history one after the other; goal and instruction follow.

    Args:
        shapes: of what is seen.
        history: observations in a batch.
        per_step: each step of the history gets a vector of its own, with goal and instruction in every one.

    Attributes:
        size: numbers in a vector.

    Example:
        >>> encoder = ObservationEncoder(Shapes({"state": (5,)}, action=2, goal={"state": (5,)}), history=2)
        >>> encoder({"observations": {"state": torch.zeros(3, 2, 5)}, "goal": {"state": torch.zeros(3, 5)}}).shape
        torch.Size([3, 15])
    """

    def __init__(self, shapes: Shapes, history: int = 1, *, per_step: bool = False) -> None:
        super().__init__()
        self.shapes, self.per_step = shapes, per_step
        seen = sum(torch.Size(shape).numel() for shape in shapes.observations.values())
        goal = sum(torch.Size(shape).numel() for shape in shapes.goal.values())
        self.size = (1 if per_step else history) * seen + goal + shapes.instruction

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """``observations`` (name to (B, history, ...)), ``goal`` (name to (B, ...)), ``instruction`` (B, D).

        Returns:
            (B, size), or (B, history, size) for each step.
        """
        first = 2 if self.per_step else 1
        parts = [batch["observations"][name].flatten(first) for name in self.shapes.observations]
        told = [batch["goal"][name].flatten(1) for name in self.shapes.goal]
        if self.shapes.instruction:
            told.append(batch["instruction"])
        if self.per_step:
            told = [part[:, None].expand(-1, parts[0].shape[1], -1) for part in told]
        return torch.cat(parts + told, -1)
