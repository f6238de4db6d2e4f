"""Several gated perceptrons with stacked weights, each computed for its own tokens in one product."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["Experts", "FusedExperts"]

ROWS = 256  # of a block; 128 to 512 are alike


class Experts(nn.Module):
    """N perceptrons E_n(x) = W2_n (value * SiLU(gate)), (value, gate) = W1_n x + b1_n; weighted sums of k of them.

    Tokens are sorted by expert, so that an expert's layers are products of whole blocks and nothing is computed that
    was not chosen. The gradient is written out, since a chain of PyTorch's operations would copy every block several
    times.

    Args:
        dim: D, of input and output.
        n_experts: N.
        hidden: width between the layers; by default 4 D.
        dropout: probability, of hidden units.

    Attributes:
        weight_in: (N, 2 hidden, D), rows of the values first.
        bias_in: (N, 2 hidden).
        weight_out: (N, hidden, D).

    Source: section 3.2 of the paper; experts as in the published code.

    Example:
        >>> experts = Experts(8, n_experts=4)
        >>> index = torch.tensor([[0, 1], [3, 0]]).expand(5, 2, 2)  # two tokens, two experts each
        >>> experts(torch.randn(5, 2, 8), index, torch.full((5, 2, 2), 0.5)).shape
        torch.Size([5, 2, 8])
    """

    def __init__(self, dim: int, n_experts: int, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = 4 * dim if hidden is None else hidden
        self.dropout = dropout
        bound_in, bound_out = 1 / math.sqrt(dim), 1 / math.sqrt(hidden)  # as nn.Linear
        self.weight_in = nn.Parameter(torch.empty(n_experts, 2 * hidden, dim).uniform_(-bound_in, bound_in))
        self.bias_in = nn.Parameter(torch.empty(n_experts, 2 * hidden).uniform_(-bound_in, bound_in))
        self.weight_out = nn.Parameter(torch.empty(n_experts, hidden, dim).uniform_(-bound_out, bound_out))

    def extra_repr(self) -> str:
        n, hidden, dim = self.weight_out.shape
        return f"{dim}, n_experts={n}, hidden={hidden}, dropout={self.dropout:g}"

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Weighted sums of experts.

        Args:
            x: (B, T, D).
            chosen: (B or 1, T or 1, k) numbers of experts; those of an axis of length 1 are for all.
            weights: like ``chosen``.
        """
        if chosen.shape[:-1] == (1, 1):
            return self._for_all(x, chosen[0, 0].tolist(), weights[0, 0])
        shape = (*x.shape[:-1], chosen.shape[-1])
        chosen, weights = chosen.expand(shape).flatten(0, -2), weights.expand(shape).flatten(0, -2)
        rate = self.dropout if self.training else 0.0
        y = _Grouped.apply(x.flatten(0, -2), chosen, weights, self.weight_in, self.bias_in, self.weight_out, rate)
        return y.view_as(x)

    def fuse(self, chosen: list[int]) -> FusedExperts:
        """One perceptron of some experts, for evaluation: the copy does not follow when weights change."""
        return FusedExperts(self.weight_in[chosen], self.bias_in[chosen], self.weight_out[chosen])

    def _for_all(self, x: Tensor, chosen: list[int], weights: Tensor) -> Tensor:
        """The same experts for every token: nothing to sort, no weight to copy."""
        blocks = []
        for rows in x.flatten(0, -2).split(ROWS):
            y = torch.zeros((), dtype=x.dtype, device=x.device)
            for n, weight in zip(chosen, weights, strict=True):
                value, gate = F.linear(rows, self.weight_in[n], self.bias_in[n]).chunk(2, 1)
                hidden = F.dropout(value * F.silu(gate), self.dropout, self.training)
                y = y + weight * (hidden @ self.weight_out[n])
            blocks.append(y)
        return torch.cat(blocks).view_as(x)


class FusedExperts:
    """k experts side by side as one perceptron: sum of p_e W2_e (v_e SiLU(g_e)), with all v and g from one product.

    Args:
        weight_in, bias_in, weight_out: as in :class:`Experts`, of the k experts.

    Source: expert caching, section 3.3 of the paper.

    Example:
        >>> experts, x = Experts(8, n_experts=4), torch.randn(2, 3, 8)
        >>> fused = experts.fuse([2, 0])(x, [0.7, 0.3])
        >>> torch.allclose(fused, experts(x, torch.tensor([[[2, 0]]]), torch.tensor([[[0.7, 0.3]]])), atol=1e-6)
        True
    """

    def __init__(self, weight_in: Tensor, bias_in: Tensor, weight_out: Tensor) -> None:
        k, twice, dim = weight_in.shape
        # All values before all gates, so that the two halves of the product are the two factors.
        self.weight_in = weight_in.detach().view(k, 2, -1, dim).transpose(0, 1).reshape(k * twice, dim)
        self.bias_in = bias_in.detach().view(k, 2, -1).transpose(0, 1).reshape(-1)
        self.weight_out = weight_out.detach().contiguous()

    def __call__(self, x: Tensor, weights: list[float]) -> Tensor:
        """(..., D) with the k weights to (..., D)."""
        blocks = []
        for rows in x.flatten(0, -2).split(ROWS):
            value, gate = F.linear(rows, self.weight_in, self.bias_in).chunk(2, 1)
            hidden = (F.silu(gate) * value).chunk(len(weights), 1)
            y = rows
            for i, (part, weight) in enumerate(zip(hidden, weights, strict=True)):
                y = torch.addmm(y, part, self.weight_out[i], beta=int(i > 0), alpha=weight)
            blocks.append(y)
        return torch.cat(blocks).view_as(x)


class _Grouped(torch.autograd.Function):
    """sum_j w_rj E_(index_rj)(x_r) for rows r: sort the R k pairs by expert, compute block by block, sort back.

    Blocks of one expert are short enough for what lies between its two products to stay in the cache.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        index: Tensor,
        weights: Tensor,
        weight_in: Tensor,
        bias_in: Tensor,
        weight_out: Tensor,
        dropout: float,
    ) -> Tensor:
        chosen = index.flatten()
        order = chosen.argsort(stable=True)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        rows = order // index.shape[1]
        blocks = _blocks(chosen.bincount(minlength=len(weight_in)).tolist())

        inputs = x.index_select(0, rows)
        both = x.new_empty(len(order), weight_in.shape[1])
        hidden, outputs = x.new_empty(len(order), weight_out.shape[1]), torch.empty_like(inputs)
        dropped, factor = _dropped(hidden, dropout)
        for n, block in blocks:
            torch.addmm(bias_in[n], inputs[block], weight_in[n].T, out=both[block])
            value, gate = both[block].chunk(2, 1)
            torch.sigmoid(gate, out=hidden[block]).mul_(gate).mul_(value)
            if dropped is not None:
                hidden[block].masked_fill_(dropped[block], 0.0)
            torch.mm(hidden[block], weight_out[n], out=outputs[block])
        scale = (factor * weights).flatten().index_select(0, order)[:, None]
        ctx.save_for_backward(inputs, both, hidden, dropped, outputs, scale, rows, back, weight_in, weight_out)
        ctx.blocks, ctx.k, ctx.factor = blocks, index.shape[1], factor
        return _add_up(outputs * scale, back, ctx.k)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        inputs, both, hidden, dropped, outputs, scale, rows, back, weight_in, weight_out = ctx.saved_tensors
        d_outputs = dy.index_select(0, rows)
        d_weights = ctx.factor * (d_outputs * outputs).sum(1).index_select(0, back).view(-1, ctx.k)
        d_outputs.mul_(scale)

        d_inputs, d_bias = torch.empty_like(inputs), torch.zeros_like(weight_in[..., 0])
        d_weight_in, d_weight_out = torch.zeros_like(weight_in), torch.zeros_like(weight_out)
        for n, block in ctx.blocks:
            d_output = d_outputs[block]
            d_weight_out[n].addmm_(hidden[block].T, d_output)
            d_hidden = d_output @ weight_out[n].T
            if dropped is not None:
                d_hidden.masked_fill_(dropped[block], 0.0)
            value, gate = both[block].chunk(2, 1)
            sigmoid = gate.sigmoid()
            swish = gate * sigmoid
            d_both = torch.empty_like(both[block])
            d_value, d_gate = d_both.chunk(2, 1)
            torch.mul(d_hidden, swish, out=d_value)
            torch.mul(swish, 1 - sigmoid, out=d_gate).add_(sigmoid).mul_(d_hidden).mul_(
                value
            )  # SiLU' = s + SiLU (1 - s)
            torch.mm(d_both, weight_in[n], out=d_inputs[block])
            d_weight_in[n].addmm_(d_both.T, inputs[block])
            d_bias[n].add_(d_both.sum(0))
        return _add_up(d_inputs, back, ctx.k), None, d_weights, d_weight_in, d_bias, d_weight_out, None


def _blocks(counts: list[int]) -> list[tuple[int, slice]]:
    """Rows of each expert in pieces of at most ``ROWS``."""
    starts = [0, *accumulate(counts)]
    return [
        (n, slice(row, min(row + ROWS, starts[n + 1])))
        for n, first in enumerate(starts[:-1])
        for row in range(first, starts[n + 1], ROWS)
    ]


def _dropped(hidden: Tensor, rate: float) -> tuple[Tensor | None, float]:
    """Which hidden units are zeroed, and by what the others are multiplied; None and 1 without dropout.

    Sixteen random bits a unit, at a fraction of what PyTorch's generator takes on a CPU; rates are met to 1 in 65,536.
    """
    if not rate:
        return None, 1.0
    zeroed = round(rate * 2**16)
    if hidden.device.type == "cpu":
        bits = np.random.SFC64(int(torch.randint(2**62, ()))).random_raw(-(-hidden.numel() // 4))
        draws = torch.from_numpy(bits.view(np.int16))[: hidden.numel()].view(hidden.shape)
    else:
        draws = torch.randint(-(2**15), 2**15, hidden.shape, dtype=torch.int16, device=hidden.device)
    return draws < zeroed - 2**15, 2**16 / (2**16 - zeroed)


def _add_up(pairs: Tensor, back: Tensor, k: int) -> Tensor:
    """Rows of sorted pairs, k for each token, to the sum of each token's."""
    return pairs.index_select(0, back).view(-1, k, pairs.shape[1]).sum(1)
