"""Pieces for maps (N, C, H, W) of any size: "same" padding, a layer norm over channels, residual branches."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from reprise.nn.drop_path import DropPath

__all__ = ["LayerNorm2d", "PreNormResidual", "SameAvgPool2d", "SameConv2d", "check_map"]


def check_map(x: Tensor, channels: int, name: str) -> None:
    """Refuse what is not a map of so many channels.

    Raises:
        ValueError: another shape, or a map without pixels.

    Example:
        >>> check_map(torch.zeros(2, 3, 8, 8), 3, "the stem")
    """
    if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape[2:]:
        raise ValueError(f"{name} takes maps (N, {channels}, H, W) of at least one pixel, not {tuple(x.shape)}")


def _same(size: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """Output size, and the padding before and after, one more after where the sum is odd."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return out, total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution to ceil(size / stride) pixels, padded at the bottom and right where the padding cannot be even.

    TensorFlow's "SAME". At stride 2 and even sizes ``padding=1`` reads other pixels: its windows lie one further up and
    left.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: side of the square kernel.
        stride: in both directions.
        groups: as in ``nn.Conv2d``.
        bias: as in ``nn.Conv2d``.

    Example:
        >>> SameConv2d(3, 8, 3, stride=2)(torch.randn(1, 3, 7, 10)).shape
        torch.Size([1, 8, 4, 5])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        (rows, top, bottom), (columns, left, right) = (_same(size, kernel, stride) for size in x.shape[-2:])
        # Where one side needs more, pad one stride further before and drop that output: no padded copy of the input.
        skip_row, skip_column = int(top != bottom), int(left != right)
        padding = (top + stride * skip_row, left + stride * skip_column)
        y = F.conv2d(x, self.weight, self.bias, stride, padding, 1, self.groups)
        if skip_row or skip_column:
            y = y[..., skip_row : skip_row + rows, skip_column : skip_column + columns]
        return y


class SameAvgPool2d(nn.Module):
    """The mean over windows to ceil(size / stride) pixels, placed as in :class:`SameConv2d`; padding is not counted.

    Args:
        kernel_size: side of the square window.
        stride: in both directions.

    Example:
        >>> SameAvgPool2d(2, 2)(torch.arange(3.0).expand(1, 1, 3, 3))[0, 0]
        tensor([[0.5000, 2.0000],
                [0.5000, 2.0000]])
    """

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def extra_repr(self) -> str:
        return f"{self.kernel_size}, stride={self.stride}"

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        padding = [_same(size, self.kernel_size, self.stride)[1] for size in x.shape[-2:]]
        return F.avg_pool2d(x, self.kernel_size, self.stride, padding, ceil_mode=True, count_include_pad=False)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of every pixel.

    The result is laid out channels-last, so that tokens (N, H, W, C) are a view of it.

    Args:
        channels: of the map.
        eps: added to variances.

    Example:
        >>> y = LayerNorm2d(8)(torch.randn(2, 8, 5, 5))
        >>> y.shape, y.mean(1).abs().max() < 1e-6
        (torch.Size([2, 8, 5, 5]), tensor(True))
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PreNormResidual(nn.Module):
    """x + DropPath(branch(LayerNorm(x))): half of a Transformer block, on maps.

    Args:
        channels: of the map.
        branch: maps (N, C, H, W) to the same shape.
        drop_path: rate of :class:`~reprise.nn.DropPath`.

    Example:
        >>> PreNormResidual(8, nn.Conv2d(8, 8, 1))(torch.randn(2, 8, 5, 5)).shape
        torch.Size([2, 8, 5, 5])
    """

    def __init__(self, channels: int, branch: nn.Module, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels)
        self.branch = branch
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        out: Tensor = x + self.drop_path(self.branch(self.norm(x)))
        return out
