"""Several gated perceptrons with stacked weights, each computed for its own tokens in one product."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["Experts", "FusedExperts"]

ROWS = 384  # of a block; 256 to 512 are alike
FEW = range(5, 16)  # rows for which a product with a large matrix takes up to twice as long as for 16
LARGE = 2**20  # numbers
silu, silu_backward = torch.ops.aten.silu, torch.ops.aten.silu_backward  # with a place for the result


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
        for rows in _rows(x, self.weight_in[0]):
            y = torch.zeros((), dtype=x.dtype, device=x.device)
            for n, weight in zip(chosen, weights, strict=True):
                value, gate = F.linear(rows, self.weight_in[n], self.bias_in[n]).chunk(2, 1)
                hidden = F.dropout(value * F.silu(gate), self.dropout, self.training)
                y = y + weight * (hidden @ self.weight_out[n])
            blocks.append(y)
        return torch.cat(blocks)[: x[..., 0].numel()].view_as(x)


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
        for rows in _rows(x, self.weight_in):
            value, gate = F.linear(rows, self.weight_in, self.bias_in).chunk(2, 1)
            hidden = (F.silu(gate) * value).chunk(len(weights), 1)
            y = rows
            for i, (part, weight) in enumerate(zip(hidden, weights, strict=True)):
                y = torch.addmm(y, part, self.weight_out[i], beta=int(i > 0), alpha=weight)
            blocks.append(y)
        return torch.cat(blocks)[: x[..., 0].numel()].view_as(x)


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
        rows, back = order // index.shape[1], back.view_as(index)
        experts, sizes = _blocks(chosen.bincount(minlength=len(weight_in)).tolist())

        inputs = x.index_select(0, rows)
        both = x.new_empty(len(order), weight_in.shape[1])
        hidden, outputs = x.new_empty(max(sizes, default=0), weight_out.shape[1]), torch.empty_like(inputs)
        dropped, factor = _dropped((len(order), hidden.shape[1]), dropout, x.device)
        up, bias, down = weight_in.mT.unbind(), bias_in.unbind(), weight_out.unbind()
        zeroed: Any = [None] * len(sizes) if dropped is None else dropped.split(sizes)
        halves = zip(*(half.split(sizes) for half in both.chunk(2, 1)), strict=True)
        parts = zip(*(tensor.split(sizes) for tensor in (inputs, both, outputs)), strict=True)
        for n, (x_n, both_n, output), (value, gate), zero in zip(experts, parts, halves, zeroed, strict=True):
            torch.addmm(bias[n], x_n, up[n], out=both_n)
            hidden_n = hidden[: len(x_n)]
            silu(gate, out=hidden_n).mul_(value)
            if zero is not None:
                hidden_n.masked_fill_(zero, 0.0)
            torch.mm(hidden_n, down[n], out=output)
        weights = factor * weights
        ctx.save_for_backward(inputs, both, dropped, outputs, weights, order, rows, back, weight_in, weight_out)
        ctx.experts, ctx.sizes, ctx.factor = experts, sizes, factor
        return F.embedding_bag(back, outputs, mode="sum", per_sample_weights=weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        inputs, both, dropped, outputs, weights, order, rows, back, weight_in, weight_out = ctx.saved_tensors
        d_outputs = dy.index_select(0, rows)
        d_weights = ctx.factor * torch.linalg.vecdot(d_outputs, outputs).take(back)
        d_outputs.mul_(weights.take(order)[:, None])

        longest = max(ctx.sizes, default=0)
        d_inputs, d_both = torch.empty_like(inputs), torch.empty_like(both[:longest])
        d_bias = torch.zeros_like(weight_in[..., 0])
        d_weight_in, d_weight_out = torch.empty_like(weight_in), torch.empty_like(weight_out)
        for n in set(range(len(weight_in))).difference(ctx.experts):
            d_weight_in[n], d_weight_out[n] = 0.0, 0.0
        up, down = weight_in.unbind(), weight_out.mT.unbind()
        d_up, d_b, d_down = d_weight_in.unbind(), d_bias.unbind(), d_weight_out.unbind()
        places = d_both.new_empty(2, longest, down[0].shape[1])  # fresh pages for each block would take longer
        zeroed: Any = [None] * len(ctx.sizes) if dropped is None else dropped.split(ctx.sizes)
        halves = zip(*(half.split(ctx.sizes) for half in both.chunk(2, 1)), strict=True)
        parts = zip(*(tensor.split(ctx.sizes) for tensor in (inputs, d_outputs, d_inputs)), strict=True)
        before = None
        for n, (x_n, d_output, d_x), (value, gate), zero in zip(ctx.experts, parts, halves, zeroed, strict=True):
            beta, before = int(n == before), n  # an expert's first block needs no gradient of zeros to add to
            d_block, (d_hidden, swish) = d_both[: len(x_n)], places[:, : len(x_n)]
            d_value, d_gate = d_block.chunk(2, 1)
            torch.mm(d_output, down[n], out=d_hidden)
            silu(gate, out=swish)
            if zero is not None:
                d_hidden.masked_fill_(zero, 0.0)
                swish.masked_fill_(zero, 0.0)
            torch.mul(d_hidden, swish, out=d_value)
            silu_backward(d_hidden.mul_(value), gate, grad_input=d_gate)
            d_down[n].addmm_(swish.mul_(value).T, d_output, beta=beta)
            torch.mm(d_block, up[n], out=d_x)
            d_up[n].addmm_(d_block.T, x_n, beta=beta)
            d_b[n].add_(d_block.sum(0))
        return F.embedding_bag(back, d_inputs, mode="sum"), None, d_weights, d_weight_in, d_bias, d_weight_out, None


def _rows(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Tokens (..., D) in blocks; a few before a large matrix are filled up with zeros."""
    rows = x.flatten(0, -2)
    if len(rows) in FEW and weight.numel() >= LARGE:
        return (F.pad(rows, (0, 0, 0, FEW.stop - len(rows))),)
    return rows.split(ROWS)


def _blocks(counts: list[int]) -> tuple[list[int], list[int]]:
    """Rows of each expert in even pieces of at most ``ROWS``: whose each piece is, and how long."""
    pieces = [(n, math.ceil(count / ROWS)) for n, count in enumerate(counts)]
    experts = [n for n, number in pieces for _ in range(number)]
    return experts, [(counts[n] + i) // number for n, number in pieces for i in range(number)]


def _dropped(shape: tuple[int, int], rate: float, device: torch.device) -> tuple[Tensor | None, float]:
    """Which hidden units are zeroed, and by what the others are multiplied; None and 1 without dropout.

    Sixteen random bits a unit, at a fraction of what PyTorch's generator takes on a CPU; rates are met to 1 in 65,536.
    """
    if not rate:
        return None, 1.0
    zeroed = round(rate * 2**16)
    if device.type == "cpu":
        bits = np.random.SFC64(int(torch.randint(2**62, ()))).random_raw(-(-math.prod(shape) // 4))
        draws = torch.from_numpy(bits.view(np.int16))[: math.prod(shape)].view(shape)
    else:
        draws = torch.randint(-(2**15), 2**15, shape, dtype=torch.int16, device=device)
    return draws < zeroed - 2**15, 2**16 / (2**16 - zeroed)
