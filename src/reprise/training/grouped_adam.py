"""AdamW over one vector of all parameters, with a learning rate for each group of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from reprise.training.flat_adam import FlatAdam

__all__ = ["GroupedAdam"]


class GroupedAdam(FlatAdam):
    """:class:`~reprise.training.FlatAdam` with groups; the norm of the gradient is that of all groups together.

    Args:
        groups: parameters of each group.
        learning_rates: of each group.
        weight_decay: a step first takes learning rate times this off the weights (AdamW).
        betas, eps: of Adam.

    Attributes:
        rates: the learning rates, to be changed at any time.

    Raises:
        ValueError: nothing to train in a group, or another number of learning rates.

    Example:
        >>> actor, critic = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> adam = GroupedAdam([actor.parameters(), critic.parameters()], [0.0, 0.1])
        >>> before = actor.weight.clone()
        >>> (actor(torch.ones(3, 2)) + critic(torch.ones(3, 2))).sum().backward()
        >>> adam.step(max_norm=1.0)
        >>> torch.equal(actor.weight, before)
        True
    """

    def __init__(
        self,
        groups: Sequence[Iterable[nn.Parameter]],
        learning_rates: Sequence[float],
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        chosen = [[parameter for parameter in group if parameter.requires_grad] for group in groups]
        if len(chosen) != len(learning_rates) or not all(chosen):
            raise ValueError(
                f"{len(chosen)} groups of {[len(group) for group in chosen]} parameters that need a gradient came with "
                f"{len(learning_rates)} learning rates; every group needs parameters and a rate"
            )
        super().__init__([parameter for group in chosen for parameter in group], 0.0, betas, eps)
        self.rates, self.weight_decay = list(learning_rates), weight_decay
        sizes = [sum(parameter.numel() for parameter in group) for group in chosen]
        starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        self.slices = [slice(*ends) for ends in itertools.pairwise(starts)]

    @torch.no_grad()
    def step(self, max_norm: float | None = None) -> None:
        """Move against the gradient, first shortened to ``max_norm``."""
        scale = self._advance(max_norm)
        for part, rate in zip(self.slices, self.rates, strict=True):
            vector = self.vector[part].mul_(1 - rate * self.weight_decay)
            vector.addcdiv_(self.average[part], scale[part], value=self._length(rate))
