"""The mobile convolution block: widen, mix pixels channel by channel, narrow; pre-activation form."""

from __future__ import annotations

from torch import Tensor, nn

from reprise.nn.channel_gate import ChannelGate
from reprise.nn.drop_path import DropPath
from reprise.nn.maps import SameAvgPool2d, SameConv2d, check_map

__all__ = ["MBConv", "PooledShortcut"]


class PooledShortcut(nn.Sequential):
    """A shortcut without norms: average pooling where the stride is above 1, then a 1x1 convolution to other channels.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: of the pooling.
        pool_size: side of the pooling window.

    Example:
        >>> PooledShortcut(8, 16, stride=2)(torch.randn(1, 8, 7, 7)).shape
        torch.Size([1, 16, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, pool_size: int = 2) -> None:
        super().__init__()
        if stride > 1:
            self.pool = SameAvgPool2d(pool_size, stride)
        if in_channels != out_channels:
            self.project = nn.Conv2d(in_channels, out_channels, 1)


class MBConv(nn.Module):
    """x' + DropPath(shrink(gate(depthwise(expand(x))))) with x' the shortcut, batch norm and GELU before and between.

    BN, 1x1 convolution to ``expansion * out_channels``, BN, GELU, 3x3 depthwise convolution with the stride, BN, GELU,
    gate, 1x1 convolution; neither norm nor activation after it. Batch norms have eps 1e-3 and momentum 0.01.

    Source: Yang et al., MOAT, ICLR 2023, section 2.1; after Sandler et al., MobileNetV2, CVPR 2018, and Dai et al.,
    CoAtNet, NeurIPS 2021.

    Args:
        in_channels: of the input.
        out_channels: of the output; the hidden width is relative to these.
        stride: of the depthwise convolution and of the shortcut's pooling.
        expansion: hidden channels per output channel.
        se_ratio: hidden channels of the squeeze-and-excitation gate per output channel; None leaves the gate out.
        pool_size: side of the shortcut's pooling window.
        drop_path: rate of :class:`~reprise.nn.DropPath`.

    Raises:
        ValueError: at the call: another number of channels.

    Example:
        >>> MBConv(16, 32, stride=2)(torch.randn(2, 16, 9, 14)).shape
        torch.Size([2, 32, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        expansion: float = 4,
        se_ratio: float | None = 0.25,
        pool_size: int = 2,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        hidden = int(expansion * out_channels)
        self.shortcut = PooledShortcut(in_channels, out_channels, stride, pool_size)
        self.norm1 = _batch_norm(in_channels)
        self.expand = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.norm2 = _batch_norm(hidden)
        self.depthwise = SameConv2d(hidden, hidden, 3, stride, groups=hidden, bias=False)
        self.norm3 = _batch_norm(hidden)
        self.gate: nn.Module = nn.Identity()
        if se_ratio is not None:
            self.gate = ChannelGate(hidden, max(1, int(se_ratio * out_channels)), nn.SiLU)
        self.shrink = nn.Conv2d(hidden, out_channels, 1)
        self.act = nn.GELU()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        check_map(x, self.in_channels, "MBConv")
        u = self.expand(self.norm1(x))
        u = self.depthwise(self.act(self.norm2(u)))
        u = self.shrink(self.gate(self.act(self.norm3(u))))
        out: Tensor = self.shortcut(x) + self.drop_path(u)
        return out


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
