"""MOAT blocks beside the sum of their parts, and their attention and convolution against the usual way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.resources import count_flops
from benchmarks.table import Row, absent, compare
from reprise.nn import MOATBlock, RelPosAttention2d, SameConv2d


class UsualAttention(nn.Module):
    """As window attention is mostly written: windows cut from q, k and v, an index table, softmax spelled out."""

    def __init__(self, ours: RelPosAttention2d, window: int) -> None:
        super().__init__()
        assert ours.bias is not None
        self.ours, self.window = ours, window
        self.table = nn.Parameter(ours.bias.table.detach().flatten(1).T.contiguous())
        places = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        offset = places[None] - places[:, None] + window - 1
        self.register_buffer("index", (offset[..., 0] * (2 * window - 1) + offset[..., 1]).flatten())

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        w, heads = self.window, self.ours.heads
        tokens = x.permute(0, 2, 3, 1).reshape(n, height // w, w, width // w, w, c)
        tokens = tokens.permute(0, 1, 3, 2, 4, 5).reshape(-1, w * w, c)
        q, k, v = self.ours.qkv(tokens).reshape(len(tokens), w * w, 3, heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index].view(w * w, w * w, heads).permute(2, 0, 1).contiguous()
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias
        y = self.ours.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, w * w, c))
        y = y.reshape(n, height // w, width // w, w, w, c).permute(0, 5, 1, 3, 2, 4)
        return y.reshape(n, c, height, width)


def rows() -> Iterator[Row]:
    """A block of MOAT-0's third stage, attention in windows both ways, a strided convolution; three batches each."""
    yield from absent(
        "MOATBlock(384)", "timm, CoAtNet's MBConv and Transformer pair", "not installed: it pulls torchvision in"
    )
    block = MOATBlock(384, 384).eval().to(memory_format=torch.channels_last)
    for batch in (1, 4, 16):
        x = torch.randn(batch, 384, 14, 14).contiguous(memory_format=torch.channels_last)
        size = f"batch {batch}"
        with torch.inference_mode():
            parts = {"its convolutions, products, norms, GELUs alone": _parts(block, x)}
            work, ours = "MOATBlock(384), forward, maps 14x14, channels-last", partial(block, x)
            yield from compare(work, ours, limits=parts, size=size, flops=count_flops(ours))
    for window, side in ((14, 14), (7, 28)):
        for backward in (False, True):
            for batch in (1, 2, 4):
                yield from _windows(window, side, batch, backward)
    for batch in (1, 4, 16):
        yield from _strided(batch)


def _windows(window: int, side: int, batch: int, backward: bool) -> Iterator[Row]:
    """Attention in windows against the usual way to write it."""
    maps = torch.randn(batch, 384, side, side).contiguous(memory_format=torch.channels_last)
    attention = RelPosAttention2d(384, window=window, rel_pos_size=window)
    usual, peer = UsualAttention(attention, window), "indexed bias, softmax spelled out"
    ways = "forward and backward" if backward else "forward"
    work = f"RelPosAttention2d(384, window={window}), {ways}, maps {side}x{side}, channels-last"
    with torch.inference_mode(not backward):
        call = _step if backward else partial
        yield from compare(work, call(attention, maps), {peer: call(usual, maps)}, size=f"batch {batch}")


def _strided(batch: int) -> Iterator[Row]:
    """The strided depthwise convolution of a stage's first block against padding the map first."""
    x = torch.randn(batch, 384, 56, 56).contiguous(memory_format=torch.channels_last)
    conv = SameConv2d(384, 384, 3, 2, groups=384, bias=False).to(memory_format=torch.channels_last)

    def padded() -> Tensor:
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, stride=2, groups=384)

    with torch.inference_mode():
        yield from compare(
            "SameConv2d(384), depthwise, stride 2, maps 56x56, channels-last",
            lambda: conv(x),
            {"pad, then convolve": padded},
            size=f"batch {batch}",
            traffic=1.25 * x.nbytes,  # the map is read, a quarter of it written
        )


def _parts(block: MOATBlock, x: Tensor) -> Callable[[], Tensor]:
    """Every layer of a block on an input of its shape, and nothing between them."""
    mb, residual = block.mbconv, block.attention
    attention: RelPosAttention2d = residual.branch  # type: ignore[assignment]
    hidden = mb.expand(x)
    n, heads = len(x), attention.heads
    tokens = x.permute(0, 2, 3, 1).flatten(1, 2)
    q, k, v = attention.qkv(tokens).view(n, -1, 3, heads, 32).permute(2, 0, 3, 1, 4)
    assert attention.bias is not None
    bias = attention.bias(x.shape[2], x.shape[3])[None]

    def work() -> Tensor:
        mb.norm1(x)
        mb.expand(x)
        mb.act(mb.norm2(hidden))
        mb.depthwise(hidden)
        mb.act(mb.norm3(hidden))
        x + mb.shrink(hidden)
        residual.norm(x)
        attention.qkv(tokens)
        F.scaled_dot_product_attention(q, k, v, bias)
        return tokens + attention.out(tokens)

    return work


def _step(layer: nn.Module, x: Tensor) -> Callable[[], list[Tensor]]:
    dy, x = x.flip(0), x.clone().requires_grad_()

    def work() -> list[Tensor]:
        y = layer(x)
        return [
            y,
            torch.autograd.grad(y, [x, *(p for p in layer.parameters() if p.requires_grad)], dy, allow_unused=True)[0],
        ]

    return work
