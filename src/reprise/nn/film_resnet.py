"""Residual networks whose maps are scaled and shifted by a vector: a camera's encoder that knows the instruction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reprise.nn.film import FiLM
from reprise.nn.resnet import ResNet, resnet

__all__ = ["FiLMResNet"]


class FiLMResNet(nn.Module):
    """A ResNet without its classifier, conditioned by feature-wise linear modulation (FiLM).

    "stage" multiplies the maps after each stage by 1 + gamma and adds beta, linear in the condition and zero at the
    start: the network begins as the plain ResNet, whose weights may be loaded into ``resnet``. "block" does so inside
    every basic block, after its second norm and before the shortcut is added, by gamma and beta from SiLU and one
    linear layer per stage; it is made to be trained from scratch.

    Args:
        condition_dim: of the condition.
        depth: 18, 34, 50, 101 or 152; None for a network given by ``block``, ``layers`` and ``widths``.
        where: "stage" or "block".
        out_features: of a linear layer after global pooling; None leaves the pooled features.
        **options: of :class:`~reprise.nn.ResNet`.

    Attributes:
        resnet: the network inside.
        features: of the output.

    Raises:
        ValueError: another place, bottlenecks with "block".

    Source: Perez et al., FiLM, AAAI 2018; places as in the published code of MoDE (Reuss et al., ICLR 2025): "stage"
    with depth 50, "block" with depth 18.

    Example:
        >>> encoder = FiLMResNet(8, None, where="block", block="basic", layers=(1, 1), widths=(8, 16))
        >>> encoder(torch.rand(2, 3, 32, 32), torch.randn(2, 8)).shape
        torch.Size([2, 16])
    """

    def __init__(
        self,
        condition_dim: int,
        depth: int | None = 18,
        *,
        where: str = "stage",
        out_features: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if where not in ("stage", "block"):
            raise ValueError(f'where is "stage" or "block", not {where!r}')
        options |= {"num_classes": 0}
        self.resnet = ResNet(**options) if depth is None else resnet(depth, **options)
        stages: list[Any] = [self.resnet.get_submodule(f"layer{i + 1}") for i in range(self.resnet.num_stages)]
        self.where = where
        if where == "block" and any(block.depth != 2 for stage in stages for block in stage):
            raise ValueError('where="block" needs basic blocks; take depth 18 or 34, or where="stage"')
        self.film = nn.ModuleList()
        for stage in stages:
            channels = stage[-1].get_submodule(f"conv{stage[-1].depth}").out_channels
            if where == "stage":
                self.film.append(FiLM(condition_dim, channels))
            else:
                self.film.append(nn.Linear(condition_dim, 2 * len(stage) * channels))
        self.head = nn.Identity() if out_features is None else nn.Linear(channels, out_features)
        self.features = channels if out_features is None else out_features

    def forward(self, pictures: Tensor, condition: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) and conditions (B, condition_dim) to (B, features)."""
        net = self.resnet
        x = net.maxpool(net.relu(net.bn1(net.conv1(pictures))))
        for i, film in enumerate(self.film):
            stage: Any = net.get_submodule(f"layer{i + 1}")
            if self.where == "stage":
                x = film(stage(x), condition)
                continue
            parts = iter(film(nn.functional.silu(condition))[..., None, None].chunk(2 * len(stage), 1))
            for block in stage:
                y = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x)))))
                y = next(parts) * y + next(parts)
                x = block.relu(y + (x if block.downsample is None else block.downsample(x)))
        return self.head(torch.flatten(net.avgpool(x), 1))
