"""Several networks of one shape, computed together: one batched product per layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["StackedLinear", "StackedMLP"]

LARGE = 512  # rows, whose way back through scale and offset costs more than networks one by one


class Tanh(nn.Tanh):
    """In place, as its gradient needs the result only."""

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh_()


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "tanh": Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}


class StackedLinear(nn.Module):
    """``count`` linear layers side by side.

    Args:
        count: layers.
        in_features, out_features: of each.

    Attributes:
        weight: (count, in_features, out_features); layer k computes ``x @ weight[k] + bias[k]``.
        bias: (count, 1, out_features).

    Example:
        >>> layer = StackedLinear(3, 4, 2)
        >>> layer(torch.zeros(5, 4)).shape  # the same input for all
        torch.Size([3, 5, 2])
    """

    def __init__(self, count: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(count, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, out_features).uniform_(-bound, bound))

    def extra_repr(self) -> str:
        return "{}, {}, {}".format(*self.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features), shared by all, or (count, B, in_features), to (count, B, out_features)."""
        return torch.baddbmm(self.bias, x.expand(len(self.weight), -1, -1), self.weight)


class StackedMLP(nn.Module):
    """``count`` multilayer perceptrons side by side, such as the critics of an actor-critic method.

    Args:
        count: networks.
        in_features: of each.
        hidden: widths of the hidden layers.
        out_features: of each; None leaves the last hidden layer's activations as the output.
        activation: "relu", "tanh", "silu" or "gelu".
        layer_norm: normalise before each activation.

    Raises:
        ValueError: unknown activation, or no layer at all.

    Example:
        >>> critics = StackedMLP(2, 3, (64, 64), 1, layer_norm=True)
        >>> critics(torch.zeros(8, 3)).shape
        torch.Size([2, 8, 1])
    """

    def __init__(
        self,
        count: int,
        in_features: int,
        hidden: Sequence[int],
        out_features: int | None = None,
        *,
        activation: str = "relu",
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}; there are {', '.join(ACTIVATIONS)}")
        layers: list[nn.Module] = []
        for width in hidden:
            layers.append(StackedLinear(count, in_features, width))
            if layer_norm:
                layers.append(StackedLayerNorm(count, width))
            layers.append(ACTIVATIONS[activation]())
            in_features = width
        if out_features is not None:
            layers.append(StackedLinear(count, in_features, out_features))
        if not layers:
            raise ValueError("a network without hidden layers needs out_features")
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) or (count, B, in_features) to (count, B, out_features)."""
        return self.layers(x)


class StackedLayerNorm(nn.Module):
    """Layer normalisation with a scale and an offset of its own for each of ``count`` networks."""

    def __init__(self, count: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(count, 1, features))
        self.bias = nn.Parameter(torch.zeros(count, 1, features))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] < LARGE or not torch.is_grad_enabled():
            return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:]), self.weight)
        parts = zip(x, self.weight[:, 0], self.bias[:, 0], strict=True)
        return torch.stack([F.layer_norm(part, part.shape[-1:], weight, bias) for part, weight, bias in parts])
