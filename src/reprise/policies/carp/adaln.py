"""A transformer whose blocks are told the condition through their norms, with a cache of keys and values.

Source: adaptive layer norm as in Peebles and Xie, Scalable Diffusion Models with Transformers, ICCV 2023; attention
with unit queries and keys and a learned scale as in Tian et al., Visual Autoregressive Modeling, NeurIPS 2024.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.nn.drop_path import DropPath

__all__ = ["AdaLNBlock", "AdaLNTransformer", "Cache", "initialize", "undecayed"]

LARGEST = math.log(100)  # of the logarithm of an attention's scale


class Cache:
    """Keys and values of a block so far, in memory that is asked for once.

    Args:
        batch, heads, length, head_dim: sizes; ``length`` tokens in the end.
        like: a tensor of the type and on the device wanted.
    """

    def __init__(self, batch: int, heads: int, length: int, head_dim: int, like: Tensor) -> None:
        self.keys, self.values = like.new_empty(2, batch, heads, length, head_dim)
        self.used = 0

    def add(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append (batch, heads, n, head_dim) and return all there is."""
        start, self.used = self.used, self.used + keys.shape[2]
        self.keys[:, :, start : self.used], self.values[:, :, start : self.used] = keys, values
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]


class AdaLNBlock(nn.Module):
    """x + g1 attention((1 + s1) norm(x) + b1), then the same with a feed-forward net; g, s and b from the condition.

    Args:
        width: C.
        heads: of the attention, each C / heads wide.
        drop_path: probability that a branch is left out for an example.

    Example:
        >>> block = AdaLNBlock(16, 2)
        >>> block(torch.zeros(3, 5, 16), block.modulation(torch.zeros(3, 16))).shape
        torch.Size([3, 5, 16])
    """

    no_key_bias: Tensor

    def __init__(self, width: int, heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads = heads
        self.adaln = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("no_key_bias", torch.zeros(width), persistent=False)
        self.log_scale = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4)))
        self.proj = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop_path = DropPath(drop_path)

    def modulation(self, c: Tensor) -> tuple[Tensor, ...]:
        """g1, g2, 1 + s1, 1 + s2, b1, b2, each (B, 1, C), from SiLU of the condition (B, C)."""
        g1, g2, s1, s2, b1, b2 = self.adaln(c)[:, None].chunk(6, 2)
        return g1, g2, s1 + 1, s2 + 1, b1, b2

    def forward(
        self, x: Tensor, modulation: tuple[Tensor, ...], mask: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """(B, N, C) to the same shape.

        Args:
            x: tokens.
            modulation: from :meth:`modulation`.
            mask: (N, N) booleans, True where a query (row) sees a key (column); None: all of them.
            cache: of the tokens before these; it takes these in.
        """
        g1, g2, s1, s2, b1, b2 = modulation
        width = x.shape[2:]
        x = torch.addcmul(
            x, self.drop_path(g1), self._attend(torch.addcmul(b1, F.layer_norm(x, width, eps=1e-6), s1), mask, cache)
        )
        h = F.gelu(self.fc1(torch.addcmul(b2, F.layer_norm(x, width, eps=1e-6), s2)), approximate="tanh")
        return torch.addcmul(x, self.drop_path(g2), self.fc2(h))

    def _attend(self, x: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        bias = torch.cat([self.q_bias, self.no_key_bias, self.v_bias])
        q, k, v = F.linear(x, self.qkv.weight, bias).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q = F.normalize(q, dim=3) * self.log_scale.clamp(max=LARGEST).exp()
        k = F.normalize(k, dim=3)
        if cache is not None:
            k, v = cache.add(k, v)
        attended = F.scaled_dot_product_attention(q, k, v, mask, scale=1.0)
        return self.proj(attended.transpose(1, 2).flatten(2))


class AdaLNTransformer(nn.Module):
    """Blocks one after the other, a last adaptive norm, and logits.

    Args:
        width: C.
        depth: blocks.
        heads: of each.
        vocab: V, logits of a token.
        drop_path: stochastic depth of the last block, rising linearly from 0; None takes 0.1 depth / 24.

    Example:
        >>> trunk = AdaLNTransformer(16, 2, 2, vocab=5)
        >>> trunk(torch.zeros(3, 7, 16), trunk.modulations(torch.zeros(3, 16))).shape
        torch.Size([3, 7, 5])
    """

    def __init__(self, width: int, depth: int, heads: int, vocab: int, drop_path: float | None = None) -> None:
        super().__init__()
        last = 0.1 * depth / 24 if drop_path is None else drop_path
        self.heads = heads
        self.blocks = nn.ModuleList(AdaLNBlock(width, heads, last * i / max(1, depth - 1)) for i in range(depth))
        self.head_adaln = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, vocab)

    def modulations(self, condition: Tensor) -> list[tuple[Tensor, ...]]:
        """What a condition (B, C) tells each block and, last, the head: the same for all passes of a generation."""
        c = F.silu(condition)
        scale, shift = self.head_adaln(c)[:, None].chunk(2, 2)
        told = [block.modulation(c) for block in self.modules() if isinstance(block, AdaLNBlock)]
        return [*told, (scale + 1, shift)]

    def caches(self, batch: int, length: int) -> list[Cache]:
        """An empty cache for each block."""
        return [
            Cache(batch, self.heads, length, self.head.in_features // self.heads, self.head.weight) for _ in self.blocks
        ]

    def forward(
        self,
        x: Tensor,
        modulations: list[tuple[Tensor, ...]],
        mask: Tensor | None = None,
        caches: list[Cache] | None = None,
    ) -> Tensor:
        """Tokens (B, N, C) to logits (B, N, V)."""
        for i, block in enumerate(self.blocks):
            x = block(x, modulations[i], mask, None if caches is None else caches[i])
        scale, shift = modulations[-1]
        return self.head(torch.addcmul(shift, F.layer_norm(x, x.shape[2:], eps=1e-6), scale))


@torch.no_grad()
def initialize(model: nn.Module, width: int) -> None:
    """The published initial weights of a network around an :class:`AdaLNTransformer`.

    Everything is drawn from a normal distribution of variance 1 / (3 width), cut at -2 and 2; then the head shrinks by
    0.02, what the condition tells by 0.5 and its gates by 0.001 instead, and what ends a branch by sqrt(2 depth).
    Biases are zero.
    """
    spread = math.sqrt(1 / (3 * width))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif not name.endswith("log_scale"):
            nn.init.trunc_normal_(parameter, std=spread)
    for trunk in (module for module in model.modules() if isinstance(module, AdaLNTransformer)):
        trunk.head.weight *= 0.02
        trunk.head_adaln.weight *= 0.5
        for block in (module for module in trunk.modules() if isinstance(module, AdaLNBlock)):
            block.adaln.weight[: 2 * width] *= 1e-3
            block.adaln.weight[2 * width :] *= 0.5
            for layer in (block.proj, block.fc2):
                layer.weight /= math.sqrt(2 * len(trunk.blocks))


def undecayed(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that weight decay spares: biases and vectors, places and levels, the scales of the attention."""
    names = ("bias", "pos", "pos_start", "level_embed.weight", "log_scale")
    return [p for name, p in model.named_parameters() if p.ndim < 2 or name.endswith(names)]
