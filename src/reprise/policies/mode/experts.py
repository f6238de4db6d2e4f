"""Several gated perceptrons with stacked weights, each computed for its own tokens in one product."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["Experts", "FusedExperts"]


class Experts(nn.Module):
    """N perceptrons E_n(x) = W2_n (value * SiLU(gate)), (value, gate) = W1_n x + b1_n; weighted sums of k of them.

    Tokens are sorted by expert, so that each expert's are one block and its two layers two matrix products; gate,
    dropout and weighting run over all experts at once. The gradient is written out, since a chain of PyTorch's
    operations would copy every block several times.

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

    def forward(self, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """Weighted sums of experts.

        Args:
            x: (B, T, D).
            index: (B or 1, T or 1, k) numbers of experts; those of an axis of length 1 are for all.
            weights: like ``index``.
        """
        if index.shape[:-1] == (1, 1):
            return self._for_all(x, index[0, 0].tolist(), weights[0, 0])
        shape = (*x.shape[:-1], index.shape[-1])
        index, weights = index.expand(shape).flatten(0, -2), weights.expand(shape).flatten(0, -2)
        rate = self.dropout if self.training else 0.0
        y = _Grouped.apply(x.flatten(0, -2), index, weights, self.weight_in, self.bias_in, self.weight_out, rate)
        return y.view_as(x)

    def fuse(self, index: list[int]) -> FusedExperts:
        """One perceptron of some experts, for evaluation: the copy does not follow when weights change."""
        return FusedExperts(self.weight_in[index], self.bias_in[index], self.weight_out[index])

    def _for_all(self, x: Tensor, index: list[int], weights: Tensor) -> Tensor:
        """The same experts for every token: nothing to sort, no weight to copy."""
        y = torch.zeros_like(x)
        for n, weight in zip(index, weights, strict=True):
            value, gate = F.linear(x, self.weight_in[n], self.bias_in[n]).chunk(2, -1)
            hidden = F.dropout(value * F.silu(gate), self.dropout, self.training)
            y = y + weight * (hidden @ self.weight_out[n])
        return y


class FusedExperts:
    """k experts side by side as one perceptron: W2 (p_1 v_1 SiLU(g_1), ..., p_k v_k SiLU(g_k)).

    Args:
        weight_in, bias_in, weight_out: as in :class:`Experts`, of the k experts.

    Source: expert caching, section 3.3 of the paper.

    Example:
        >>> experts, x = Experts(8, n_experts=4), torch.randn(2, 3, 8)
        >>> weights = torch.tensor([0.7, 0.3])
        >>> fused = experts.fuse([2, 0])(x, weights)
        >>> torch.allclose(fused, experts(x, torch.tensor([[[2, 0]]]), weights.view(1, 1, 2)), atol=1e-6)
        True
    """

    def __init__(self, weight_in: Tensor, bias_in: Tensor, weight_out: Tensor) -> None:
        k, twice, dim = weight_in.shape
        # All values before all gates, so that the two halves of the product are the two factors.
        self.weight_in = weight_in.detach().view(k, 2, -1, dim).transpose(0, 1).reshape(k * twice, dim)
        self.bias_in = bias_in.detach().view(k, 2, -1).transpose(0, 1).reshape(-1)
        self.weight_out = weight_out.detach().reshape(-1, dim)

    def __call__(self, x: Tensor, weights: Tensor) -> Tensor:
        """(..., D) with the weights (k,) to (..., D)."""
        value, gate = F.linear(x, self.weight_in, self.bias_in).chunk(2, -1)
        hidden = F.silu(gate).mul_(value).view(*value.shape[:-1], len(weights), -1)
        return (hidden * weights[:, None]).flatten(-2) @ self.weight_out


class _Grouped(torch.autograd.Function):
    """sum_j w_rj E_(index_rj)(x_r) for rows r: sort the R k pairs by expert, compute block by block, sort back."""

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
        blocks = chosen.bincount(minlength=len(weight_in)).tolist()

        inputs = x.index_select(0, rows)
        both = x.new_empty(len(order), weight_in.shape[1])
        for n, (part, out) in enumerate(zip(inputs.split(blocks), both.split(blocks), strict=True)):
            torch.addmm(bias_in[n], part, weight_in[n].T, out=out)
        value, gate = both.chunk(2, 1)
        hidden = F.silu(gate).mul_(value)
        mask = None
        if dropout:
            mask = torch.empty_like(hidden).bernoulli_(1 - dropout).div_(1 - dropout)
            hidden.mul_(mask)
        outputs = torch.empty_like(inputs)
        for n, (part, out) in enumerate(zip(hidden.split(blocks), outputs.split(blocks), strict=True)):
            torch.mm(part, weight_out[n], out=out)
        scale = weights.flatten().index_select(0, order)[:, None]
        ctx.save_for_backward(inputs, both, hidden, mask, outputs, scale, rows, back, weight_in, weight_out)
        ctx.blocks, ctx.k = blocks, index.shape[1]
        return _add_up(outputs * scale, back, ctx.k)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        inputs, both, hidden, mask, outputs, scale, rows, back, weight_in, weight_out = ctx.saved_tensors
        value, gate = both.chunk(2, 1)
        d_outputs = dy.index_select(0, rows)
        d_weights = (d_outputs * outputs).sum(1).index_select(0, back).view(-1, ctx.k)
        d_outputs.mul_(scale)

        d_hidden, d_weight_out = torch.empty_like(hidden), torch.empty_like(weight_out)
        parts = zip(d_outputs.split(ctx.blocks), hidden.split(ctx.blocks), d_hidden.split(ctx.blocks), strict=True)
        for n, (d_output, part, out) in enumerate(parts):
            torch.mm(d_output, weight_out[n].T, out=out)
            torch.mm(part.T, d_output, out=d_weight_out[n])
        if mask is not None:
            d_hidden.mul_(mask)
        sigmoid = gate.sigmoid()
        swish = gate * sigmoid
        d_both = torch.empty_like(both)
        d_value, d_gate = d_both.chunk(2, 1)
        torch.mul(d_hidden, swish, out=d_value)
        # SiLU' = s + SiLU (1 - s)
        torch.mul(d_hidden.mul_(value), sigmoid.addcmul(swish, 1 - sigmoid), out=d_gate)

        d_inputs, d_weight_in = torch.empty_like(inputs), torch.empty_like(weight_in)
        d_bias = torch.empty_like(weight_in[..., 0])
        parts = zip(d_both.split(ctx.blocks), inputs.split(ctx.blocks), d_inputs.split(ctx.blocks), strict=True)
        for n, (d_part, part, out) in enumerate(parts):
            torch.mm(d_part, weight_in[n], out=out)
            torch.mm(d_part.T, part, out=d_weight_in[n])
            torch.sum(d_part, 0, out=d_bias[n])
        return _add_up(d_inputs, back, ctx.k), None, d_weights, d_weight_in, d_bias, d_weight_out, None


def _add_up(pairs: Tensor, back: Tensor, k: int) -> Tensor:
    """Rows of sorted pairs, k for each token, to the sum of each token's."""
    return pairs.index_select(0, back).view(-1, k, pairs.shape[1]).sum(1)
