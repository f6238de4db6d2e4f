"""The networks that are toured, at a size that trains in seconds."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Bicubic", "SuperResolution", "classifier", "low_resolution"]


def classifier(channels: int, norm: bool, widths: tuple[int, ...]) -> nn.Sequential:
    """Two 3x3 convolutions per width, 2x2 maxima between widths, global mean, ten logits.

    With ``norm`` each convolution has batch norm and no bias, as in ResNets; without, a bias, as in VGG.
    """
    layers: list[nn.Module] = []
    for i, (before, width) in enumerate(pairwise((channels, *widths))):
        layers += [nn.MaxPool2d(2)] if i else []
        for inputs in (before, width):
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=not norm)]
            layers += [nn.BatchNorm2d(width)] if norm else []
            layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


class SuperResolution(nn.Module):
    """Like EDSR: residual blocks without normalisation and a pixel shuffle; pictures to pictures twice as large."""

    def __init__(self, channels: int, features: int = 16, blocks: int = 4) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, padding=1)

        self.head = conv(channels, features)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(features, features), nn.ReLU(), conv(features, features)) for _ in range(blocks)
        )
        self.body, self.up, self.tail = conv(features, features), conv(features, 4 * features), conv(features, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, 2 H, 2 W)."""
        h = head = self.head(x)
        for block in self.blocks:
            h = h + block(h)
        out: Tensor = self.tail(F.pixel_shuffle(self.up(head + self.body(h)), 2))
        return out


class Bicubic(nn.Module):
    """What needs no training, and is linear."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, 2 H, 2 W)."""
        return F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)


def low_resolution(pixels: Tensor) -> Tensor:
    """Bytes to floats in 0..1 at half the side: means of 2x2."""
    return F.avg_pool2d(pixels.float() / 255, 2)


def grey(pixels: Tensor) -> Tensor:
    """Bytes (N, C, H, W) to (N, 1, H, W): the mean of the channels."""
    return pixels.float().mean(1, keepdim=True).round().to(torch.uint8)
