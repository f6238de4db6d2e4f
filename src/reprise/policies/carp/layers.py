"""The layers of several tiny convolutional networks over time that have one shape and weights of their own.

Activations are (networks, B, time, channels). With a handful of channels and at most a few dozen steps, calling a
convolution costs far more than its arithmetic; so a whole layer, for all networks, is one batched product with the
convolution's band matrix over (time, channels).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["StackedConv", "StackedNorm", "StackedResBlock", "band"]


def band(kind: str, steps: int, width: int) -> Tensor:
    """Which tap of a convolution over time joins which steps: (width, steps in, steps out), zeros and ones.

    Args:
        kind: "same" (stride 1, zeros around), "down" (stride 2, one zero behind) or "up" (transposed, stride 2, padding
            1, output padding 1).
        steps: in the input.
        width: taps; 3 for "down" and "up".

    Example:
        >>> band("down", 4, 3).sum(0).int().tolist()
        [[1, 0], [1, 0], [1, 1], [0, 1]]
    """
    taps = torch.arange(width)[:, None, None]
    source = torch.arange(steps)[:, None]
    if kind == "same":
        joined = source == torch.arange(steps) + taps - width // 2
    elif kind == "down":
        joined = source == 2 * torch.arange(steps // 2) + taps
    else:
        joined = torch.arange(2 * steps) == 2 * source + taps - 1
    return joined.float()


class StackedConv(nn.Module):
    """A convolution over time in each of ``count`` networks.

    Args:
        count: networks.
        in_channels, out_channels: of each.
        steps: in the input.
        kind: as in :func:`band`.
        width: taps over time.
        columns: across. Of 3 only the middle one ever meets data, as in a 3x3 convolution with padding over a map one
            pixel wide; the outer ones are held because the published network has them.

    Attributes:
        weight: (count, out_channels, in_channels, width, columns), Xavier normal with gain 0.5.
        bias: (count, 1, 1, out_channels), zero.

    Example:
        >>> layer = StackedConv(3, 2, 4, steps=16, kind="down")
        >>> layer(torch.zeros(3, 5, 16, 2)).shape
        torch.Size([3, 5, 8, 4])
    """

    taps: Tensor

    def __init__(
        self,
        count: int,
        in_channels: int,
        out_channels: int,
        steps: int,
        kind: str = "same",
        width: int = 3,
        columns: int = 1,
    ) -> None:
        super().__init__()
        std = 0.5 * math.sqrt(2 / ((in_channels + out_channels) * width * columns))
        self.weight = nn.Parameter(std * torch.randn(count, out_channels, in_channels, width, columns))
        self.bias = nn.Parameter(torch.zeros(count, 1, 1, out_channels))
        self.register_buffer("taps", band(kind, steps, width), persistent=False)

    def dense(self) -> Tensor:
        """The layer as a matrix: (count, steps in * in_channels, steps out * out_channels)."""
        count, out_channels, in_channels, width, columns = self.weight.shape
        _, steps_in, steps_out = self.taps.shape
        matrix = self.weight[..., columns // 2].reshape(-1, width) @ self.taps.view(width, -1)
        matrix = matrix.view(count, out_channels, in_channels, steps_in, steps_out).permute(0, 3, 2, 4, 1)
        return matrix.reshape(count, steps_in * in_channels, steps_out * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(count, B, steps in, in_channels) to (count, B, steps out, out_channels)."""
        count, batch = x.shape[:2]
        steps, channels = self.taps.shape[2], self.bias.shape[3]
        bias = self.bias.expand(-1, -1, steps, -1).reshape(count, 1, -1)
        return torch.baddbmm(bias, x.flatten(2), self.dense()).view(count, batch, steps, channels)


class StackedNorm(nn.Module):
    """Group normalisation with a single group (over channels and time, eps 1e-6) in each of ``count`` networks."""

    def __init__(self, count: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(count, 1, 1, channels))
        self.bias = nn.Parameter(torch.zeros(count, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(count, B, steps, channels) to the same shape."""
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[2:], eps=1e-6), self.weight)


class StackedResBlock(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), with a convolution of width 1 on x where the channels change."""

    def __init__(self, count: int, in_channels: int, out_channels: int, steps: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = StackedNorm(count, in_channels), StackedNorm(count, out_channels)
        self.conv1 = StackedConv(count, in_channels, out_channels, steps)
        self.conv2 = StackedConv(count, out_channels, out_channels, steps)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else StackedConv(count, in_channels, out_channels, steps, width=1)

    def forward(self, x: Tensor) -> Tensor:
        """(count, B, steps, in_channels) to (count, B, steps, out_channels)."""
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))
