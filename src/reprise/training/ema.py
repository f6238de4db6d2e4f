"""The moving average of a network's weights, which often predicts better than the weights of the last step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["EMA", "Decay"]


@dataclass(frozen=True)
class Decay:
    """How the decay of an :class:`EMA` rises from update to update; arguments and errors as there."""

    decay: float = 0.999
    power: float | None = None
    inv_gamma: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay lies in [0, 1), not at {self.decay}")
        if self.power is not None and not self.power > 0:
            raise ValueError(f"power must be above 0, not {self.power}; None keeps the decay constant")
        if not self.inv_gamma > 0:
            raise ValueError(f"inv_gamma must be above 0, not {self.inv_gamma}")

    def at(self, t: int) -> float:
        """The decay of the t-th update, counted from 0."""
        if t == 0:
            return 0.0
        return self.decay if self.power is None else min(self.decay, 1 - (1 + t / self.inv_gamma) ** -self.power)


class EMA(nn.Module):
    """Exponential moving average of a model's parameters, kept beside the model and itself callable like the model.

    At the t-th update (t = 0, 1, ...) with decay d the average becomes d * average + (1 - d) * weights; the first one
    copies the weights. Buffers (running statistics, counters) are copied each time. ``state_dict`` and
    ``load_state_dict`` carry the average and t.

    Source: Polyak and Juditsky (1992); the warm-up of d as in Chi et al., "Diffusion Policy" (2023).

    Args:
        model: is copied, in evaluation mode and without gradients, on its device.
        decay: d in [0, 1); with ``power`` the largest d.
        power: None keeps d constant; a number above 0 lets it rise as 1 - (1 + t / inv_gamma)^-power.
        inv_gamma: updates that the rise takes to get going, above 0.

    Raises:
        ValueError: a setting outside its range.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> ema = EMA(model, decay=0.99)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> hook = optimizer.register_step_post_hook(lambda *_: ema.update(model))  # after every step of any loop
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> int(ema.updates)
        1
        >>> with ema.applied_to(model):
        ...     output = model(torch.ones(1, 2))  # the average predicts
    """

    updates: Tensor

    def __init__(
        self, model: nn.Module, decay: float = 0.999, *, power: float | None = None, inv_gamma: float = 1.0
    ) -> None:
        super().__init__()
        self.course = Decay(decay, power, inv_gamma)
        self.module = deepcopy(model).eval().requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def decay_at(self, t: int) -> float:
        """The decay of the t-th update, counted from 0."""
        return self.course.at(t)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's present weights into the average; call it after every optimiser step."""
        averages, weights = list(self.module.parameters()), list(model.parameters())
        torch._foreach_lerp_(averages, weights, 1 - self.decay_at(int(self.updates)))  # type: ignore[arg-type]
        for mine, its in zip(self.module.buffers(), model.buffers(), strict=True):
            mine.copy_(its)
        self.updates += 1

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged model returns."""
        return self.module(*args, **kwargs)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[nn.Module]:
        """Lend the average to ``model`` inside the block; afterwards, and after an exception, it has its own again.

        Weights and buffers are exchanged, not copied. Do not train or :meth:`update` inside the block.
        """
        self._exchange(model)
        try:
            yield model
        finally:
            self._exchange(model)

    def _exchange(self, model: nn.Module) -> None:
        for mine, its in zip(
            chain(self.module.parameters(), self.module.buffers()),
            chain(model.parameters(), model.buffers()),
            strict=True,
        ):
            mine.data, its.data = its.data, mine.data
