"""Adam over all parameters as one vector: for small networks, whose time else goes into the list of parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

__all__ = ["FlatAdam"]

LARGE = 2**20  # numbers, which leave the cache between one operation and the next: a step in a single pass pays there


class FlatAdam:
    """Adam (or AdamW) whose parameters and gradients lie in one vector each; the parameters become views of it.

    Modules must be on their device before. Use :meth:`zero_grad` of this class: gradients set to None would leave
    the vector.

    Args:
        parameters: of one type and device; those that need no gradient are left out.
        learning_rate: may be changed at any time.
        betas, eps: of Adam.

    Attributes:
        vector: all parameters; a moving average of a network is one ``lerp_`` of two of these.
        gradient: of the vector.
        steps: taken so far.

    Raises:
        ValueError: there is nothing to train, or types or devices differ.

    Example:
        >>> net = torch.nn.Linear(2, 1)
        >>> adam = FlatAdam(net.parameters(), 0.1)
        >>> net(torch.ones(3, 2)).sum().backward()
        >>> adam.gradient  # weight, then bias
        tensor([3., 3., 3.])
        >>> adam.step()
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.learning_rate, self.betas, self.eps, self.steps = learning_rate, betas, eps, 0
        chosen = [parameter for parameter in parameters if parameter.requires_grad]
        self.vector = flatten(chosen)
        self.gradient = torch.zeros_like(self.vector)
        start = 0
        for parameter in chosen:
            parameter.grad = self.gradient[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()
        self.average = torch.zeros_like(self.vector)
        self.square = torch.zeros_like(self.vector)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.gradient.zero_()

    @torch.no_grad()
    def step(self, max_norm: float | None = None) -> None:
        """Move against the gradient, first shortened to ``max_norm``."""
        if self.vector.numel() < LARGE:
            scale = self._advance(max_norm)
            self.vector.addcdiv_(self.average, scale, value=self._length(self.learning_rate))
            return
        self._shorten(max_norm)
        steps = torch.tensor(float(self.steps), device=self.vector.device)
        self.steps += 1
        adam(
            [self.vector], [self.gradient], [self.average], [self.square], [], [steps], fused=True, amsgrad=False,
            beta1=self.betas[0], beta2=self.betas[1], lr=self.learning_rate, weight_decay=0.0, eps=self.eps,
            maximize=False,
        )  # fmt: skip

    def _shorten(self, max_norm: float | None) -> None:
        if max_norm is not None:
            self.gradient.mul_((max_norm / self.gradient.norm().add_(1e-6)).clamp_(max=1.0))

    def _advance(self, max_norm: float | None) -> Tensor:
        """Take the gradient into the averages; returns what a step divides the first of them by."""
        self._shorten(max_norm)
        self.steps += 1
        beta1, beta2 = self.betas
        self.average.lerp_(self.gradient, 1 - beta1)
        self.square.mul_(beta2).addcmul_(self.gradient, self.gradient, value=1 - beta2)
        return self.square.sqrt().add_(self.eps * math.sqrt(1 - beta2**self.steps))

    def _length(self, learning_rate: float) -> float:
        """What a step multiplies by: both averages begin at zero, which is made up for here."""
        beta1, beta2 = self.betas
        return -learning_rate * math.sqrt(1 - beta2**self.steps) / (1 - beta1**self.steps)

    def state_dict(self) -> dict[str, Tensor]:
        """Averages and the number of steps."""
        return {"average": self.average, "square": self.square, "steps": torch.tensor(self.steps)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self.average.copy_(state["average"])
        self.square.copy_(state["square"])
        self.steps = int(state["steps"])


def flatten(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Move parameters into one vector; they become views of it.

    Raises:
        ValueError: there are none, or types or devices differ.
    """
    parameters = list(parameters)
    kinds = {(parameter.dtype, parameter.device) for parameter in parameters}
    if len(kinds) != 1:
        raise ValueError(f"parameters of one type on one device are needed; these have {sorted(map(str, kinds))}")
    vector = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = vector[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    return vector
