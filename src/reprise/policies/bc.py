"""Behaviour cloning: the chunk of actions that is least wrong on average, from one pass through a perceptron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reprise.nn.residual_mlp import ResidualMLP
from reprise.policies.demonstrations import Batch
from reprise.policies.encoders import ObservationEncoder
from reprise.policies.imitation import ImitationPolicy, masked_mean
from reprise.policies.observations import Shapes

__all__ = ["BC"]


class BC(ImitationPolicy):
    """Regression from what is seen to a chunk of actions, by squared error; repeated actions do not count.

    Where demonstrations differ the answer is their mean, which nobody may have shown: that is what generative policies
    are compared with. With ``goal="future"`` it is goal-conditioned behaviour cloning (GCBC).

    Args:
        horizon: H, actions in a chunk.
        width, blocks, dropout: of the :class:`~reprise.nn.ResidualMLP`.
        encoder: arguments of the :class:`~reprise.policies.ObservationEncoder`, for pictures.
        **options: of :class:`~reprise.policies.ImitationPolicy`.

    Source: Pomerleau, ALVINN, NeurIPS 1988; network as in Ankile et al., arXiv 2407.16677; goals: Lynch et al.,
    Learning Latent Plans from Play, CoRL 2019.

    Example:
        >>> from reprise.data import Episodes
        >>> walk = Episodes({"state": np.zeros((8, 3))}, np.ones((8, 2), np.float32), np.array([8]))
        >>> policy = BC(horizon=4, width=16, blocks=1).fit(walk, steps=5)
        >>> policy.plan(np.zeros((6, 3))).shape
        torch.Size([6, 4, 2])
    """

    noisy = False

    def __init__(
        self,
        *,
        horizon: int = 8,
        width: int = 1024,
        blocks: int = 5,
        dropout: float = 0.1,
        encoder: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(horizon=horizon, **options)
        self.width, self.blocks, self.dropout, self.encoder = width, blocks, dropout, dict(encoder or {})

    def build(self, shapes: Shapes) -> nn.Module:
        """Encoder and perceptron."""
        encoder = ObservationEncoder(shapes, self.history, **self.encoder)
        outputs = self.horizon * shapes.action
        mlp = ResidualMLP(encoder.size, outputs, width=self.width, blocks=self.blocks, dropout=self.dropout)
        return nn.Sequential(encoder, mlp)

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the actions that are not repeated."""
        return masked_mean((self._chunk(batch) - batch["actions"]).square(), batch["padding"])

    def predict(self, batch: Batch, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """(B, H, A)."""
        return self._chunk(batch)

    def _chunk(self, batch: Batch) -> Tensor:
        return self.module(batch).unflatten(1, (self.horizon, -1))
