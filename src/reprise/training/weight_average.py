"""The moving average of weights for a loop that needs no second network, as an EMA would hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from reprise.training.ema import Decay

__all__ = ["WeightAverage"]


class WeightAverage:
    """Exponential moving average of a model's parameters, to be lent to the model and, in the end, left to it.

    Copying a small network takes as long as several updates of it; here only its parameters are. The model keeps its
    parameters and its buffers meanwhile.

    Args:
        model: whose parameters are averaged.
        decay, power, inv_gamma: as of :class:`~reprise.training.EMA`.

    Raises:
        ValueError: a setting outside its range.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> average = WeightAverage(model, decay=0.5)
        >>> for weight in (0.0, 1.0):
        ...     _ = nn.init.constant_(model.weight, weight)
        ...     average.update()
        >>> with average.applied():
        ...     model.weight.tolist()
        [[0.5, 0.5]]
        >>> model.weight.tolist()
        [[1.0, 1.0]]
    """

    def __init__(
        self, model: nn.Module, decay: float = 0.999, *, power: float | None = None, inv_gamma: float = 1.0
    ) -> None:
        self.course, self.updates = Decay(decay, power, inv_gamma), 0
        self.weights = list(model.parameters())
        self.averages = [weight.detach().clone() for weight in self.weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's present weights into the average; call it after every optimiser step."""
        torch._foreach_lerp_(self.averages, self.weights, 1 - self.course.at(self.updates))  # type: ignore[arg-type]
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Lend the average to the model inside the block; do not train or :meth:`update` there."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def finish(self) -> None:
        """The model's weights become the average."""
        torch._foreach_copy_(self.weights, self.averages)  # type: ignore[arg-type]

    def _exchange(self) -> None:
        mine = self.averages
        self.averages = [weight.data for weight in self.weights]
        for weight, average in zip(self.weights, mine, strict=True):
            weight.data = average
