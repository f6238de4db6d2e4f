"""The forerunner, deep filter visualisation: store every decision of a network, then replay them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["StoredDecisions"]


class StoredDecisions:
    """A chain of convolutions, instance norms, ReLUs and max pooling, replayed from what was stored.

    Args:
        net: the chain.
        x0: (N, C, H, W) what decides.
    """

    def __init__(self, net: nn.Sequential, x0: Tensor) -> None:
        self.net = net
        self.decisions: list[Tensor] = []  # none where a layer decides nothing
        with torch.no_grad():
            for layer in net:
                decision = x0.new_empty(0)
                if isinstance(layer, nn.ReLU):
                    decision = x0 > 0
                elif isinstance(layer, nn.MaxPool2d):
                    _, decision = nn.functional.max_pool2d(x0, layer.kernel_size, return_indices=True)
                elif isinstance(layer, nn.InstanceNorm2d):
                    decision = (x0.var((2, 3), correction=0, keepdim=True) + layer.eps).rsqrt()
                self.decisions.append(decision)
                x0 = layer(x0)

    @property
    def sizes(self) -> list[int]:
        """Bytes of each unit's decision."""
        return [decision.numel() * decision.element_size() for decision in self.decisions if decision.numel()]

    @torch.no_grad()
    def apply(self, x1: Tensor) -> Tensor:
        """F x1, (N, C, H, W)."""
        for layer, decision in zip(self.net, self.decisions, strict=True):
            if isinstance(layer, nn.Conv2d):
                x1 = nn.functional.conv2d(x1, layer.weight, None, layer.stride, layer.padding)
            elif isinstance(layer, nn.MaxPool2d):
                x1 = x1.flatten(2).gather(2, decision.flatten(2)).view(decision.shape)
            else:
                x1 = x1 * decision
        return x1
