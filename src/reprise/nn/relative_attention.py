"""Self-attention on maps with a bias for every offset between two pixels, over the whole map or inside windows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.nn.maps import check_map

__all__ = ["RelPosAttention2d", "RelativePositionBias", "Window", "as_pair"]

Window = int | tuple[int, int] | None


class RelativePositionBias(nn.Module):
    """One learned number per head and offset between two pixels of a window.

    For another window the table is resized bilinearly (half-pixel centres, values unscaled), and so is a saved table of
    another size when it is loaded.

    Source: Yang et al., MOAT, ICLR 2023, section 2; the table as in Liu et al., Swin Transformer, ICCV 2021.

    Args:
        heads: attention heads.
        size: side P of the window that the table is made for; the table is (heads, 2P - 1, 2P - 1).

    Example:
        >>> bias = RelativePositionBias(2, 7)
        >>> bias(7, 7).shape, bias(3, 5).shape
        (torch.Size([2, 49, 49]), torch.Size([2, 15, 15]))
    """

    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(heads, 2 * size - 1, 2 * size - 1))
        nn.init.normal_(self.table, std=0.02)

    def forward(self, height: int, width: int) -> Tensor:
        """The bias (heads, H * W, H * W) of query i and key x: entry (row x - row i + H - 1, and so for columns)."""
        table = _resized(self.table, (2 * height - 1, 2 * width - 1))
        # (heads, H, W, H, W): element [a, b, r, c] is table[a + r, b + c], so query i is at a = H - 1 - row i.
        bias = table.unfold(1, height, 1).unfold(2, width, 1).flip(1, 2)
        return bias.reshape(-1, height * width, height * width)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}table")
        if saved is not None and saved.ndim == 3 and len(saved) == len(self.table):
            state_dict[f"{prefix}table"] = _resized(saved, tuple(self.table.shape[1:]))
        super()._load_from_state_dict(state_dict, prefix, *args)


class RelPosAttention2d(nn.Module):
    """Multi-head self-attention among the pixels of a map, or of each of its windows.

    softmax(q k^T / sqrt(head_size) + bias) v, with linear maps and biases for q, k, v and the output. Scores are kept
    in float32 inside the softmax.

    Args:
        channels: of the map; heads = channels / head_size.
        head_size: channels of one head.
        window: side or (height, width) of non-overlapping windows; None is the whole map.
        rel_pos_size: side P of the table of :class:`RelativePositionBias`; None for no position bias.
        pad_windows: pad maps that windows do not divide at the bottom and right, and attend to no padded pixel.

    Raises:
        ValueError: channels are no multiple of head_size, or the window is no pair; at the call: another number of
            channels, or a map that windows do not divide.

    Example:
        >>> RelPosAttention2d(64, window=4)(torch.randn(2, 64, 8, 12)).shape
        torch.Size([2, 64, 8, 12])
    """

    def __init__(
        self,
        channels: int,
        *,
        head_size: int = 32,
        window: Window = None,
        rel_pos_size: int | None = 14,
        pad_windows: bool = False,
    ) -> None:
        super().__init__()
        if head_size < 1 or channels % head_size:
            raise ValueError(f"{channels} channels do not split into heads of {head_size}")
        self.channels, self.heads, self.pad_windows = channels, channels // head_size, pad_windows
        self.window = None if window is None else as_pair(window)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.bias = None if rel_pos_size is None else RelativePositionBias(self.heads, rel_pos_size)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, window={self.window}"

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape, laid out channels-last."""
        check_map(x, self.channels, "RelPosAttention2d")
        size = (x.shape[2], x.shape[3])
        tokens = x.permute(0, 2, 3, 1)
        if self.window is None or self.window == size:
            return self._attend(tokens.flatten(1, 2), size).unflatten(1, size).permute(0, 3, 1, 2)
        (h, w), (right, below) = self.window, self._padding(size)
        if right or below:
            tokens = F.pad(tokens, (0, 0, 0, right, 0, below))
        rows, columns = (size[0] + below) // h, (size[1] + right) // w
        tokens = tokens.reshape(len(x), rows, h, columns, w, self.channels).transpose(2, 3)
        real = self._real(x, rows, columns) if right or below else None
        tokens = self._attend(tokens.reshape(-1, h * w, self.channels), (h, w), real)
        tokens = tokens.view(len(x), rows, columns, h, w, self.channels).transpose(2, 3)
        tokens = tokens.reshape(len(x), rows * h, columns * w, self.channels)
        return tokens[:, : size[0], : size[1]].permute(0, 3, 1, 2)

    def _attend(self, tokens: Tensor, window: tuple[int, int], real: Tensor | None = None) -> Tensor:
        """Tokens (B, L, C) to the same; real (windows, L) marks keys that are no padding, windows dividing B."""
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = None if self.bias is None else self.bias(*window).to(q.dtype)
        if real is not None:
            hidden = q.new_zeros(real.shape).masked_fill(~real, -torch.inf)[:, None, None]
            bias = hidden if bias is None else bias + hidden
            bias = bias.repeat(len(q) // len(real), 1, 1, 1)
        elif bias is not None:
            bias = bias[None]
        if q.device.type == "cpu" and q.itemsize >= 4 and bias is not None and bias.requires_grad:
            # PyTorch's CPU kernel knows no gradient of the bias, and what it falls back to is slower than this.
            values = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1) + bias).softmax(-1) @ v
        else:
            values = F.scaled_dot_product_attention(q, k, v, bias)
        out: Tensor = self.out(values.transpose(1, 2).flatten(2))
        return out

    def _padding(self, size: tuple[int, int]) -> tuple[int, int]:
        """Columns to pad at the right, rows below."""
        assert self.window is not None
        below, right = (-side % step for side, step in zip(size, self.window, strict=True))
        if (right or below) and not self.pad_windows:
            raise ValueError(
                f"windows of {self.window[0]}x{self.window[1]} do not divide a map of {size[0]}x{size[1]}; take other "
                "windows or inputs, window=None for attention over the whole map, or pad_windows=True"
            )
        return right, below

    def _real(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """(windows, L): whether a pixel of a window lies on the map."""
        assert self.window is not None
        h, w = self.window
        row = torch.arange(rows * h, device=x.device) < x.shape[2]
        column = torch.arange(columns * w, device=x.device) < x.shape[3]
        inside = row[:, None] & column
        return inside.view(rows, h, columns, w).transpose(1, 2).reshape(rows * columns, h * w)


def as_pair(window: Window) -> tuple[int, int]:
    """(height, width) of a window given by its side or as a pair.

    Raises:
        ValueError: neither.

    Example:
        >>> as_pair(7), as_pair((7, 14))
        ((7, 7), (7, 14))
    """
    pair = (window, window) if isinstance(window, int) else window
    if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(p, int) and p > 0 for p in pair)):
        raise ValueError(f"a window is a side or a pair (height, width) of pixels, not {window!r}")
    return pair[0], pair[1]


def _resized(table: Tensor, size: tuple[int, ...]) -> Tensor:
    if table.shape[1:] == size:
        return table
    wide = table.float() if table.itemsize < 4 else table
    return F.interpolate(wide[None], size=size, mode="bilinear", align_corners=False)[0].to(table.dtype)
