"""MoDE: grouped experts against the loop over experts and the wide product; fused experts against what they replace.

The loop is what the published code does: for every expert, pick its tokens by a mask, compute, add back. The wide
product computes all experts for all tokens and scales hidden units by the weights of their experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.resources import count_flops
from benchmarks.table import Row, compare
from reprise.diffusion import EDM, edm_coefficients
from reprise.nn import GatedMLP
from reprise.papers.mode.networks import TOKENS, Size, dense_twin, published, small
from reprise.policies.mode import Experts, MoDETransformer

N, K = 4, 2


class Loop(nn.Module):
    """Experts one after the other, each for the tokens of its mask."""

    def __init__(self, experts: Experts) -> None:
        super().__init__()
        _, hidden, dim = experts.weight_out.shape
        self.experts = nn.ModuleList(GatedMLP(dim, hidden, experts.dropout) for _ in experts.weight_in)
        mlp: Any
        for n, mlp in enumerate(self.experts):
            up, _, down = mlp
            up.weight.data, up.bias.data = experts.weight_in.data[n].clone(), experts.bias_in.data[n].clone()
            down.weight.data = experts.weight_out.data[n].T.clone()

    def forward(self, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        shape = (*x.shape[:2], index.shape[-1])
        index, weights = index.expand(shape), weights.expand(shape)
        mask = torch.zeros(*shape[:2], N).scatter(-1, index, 1.0).bool()
        scale = torch.zeros(*shape[:2], N).scatter(-1, index, weights)
        y = torch.zeros_like(x)
        for n, expert in enumerate(self.experts):
            mine = mask[..., n]
            if mine.any():
                y[mine] += scale[..., n][mine][:, None] * expert(x[mine])
        return y


class Wide(nn.Module):
    """All experts for all tokens in two products; hidden units of experts that were not chosen are scaled by 0."""

    def __init__(self, experts: Experts) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        e = self.experts
        shape = (*x.shape[:2], index.shape[-1])
        scale = torch.zeros(*shape[:2], N).scatter(-1, index.expand(shape), weights.expand(shape))
        both = F.linear(x, e.weight_in.flatten(0, 1), e.bias_in.flatten()).unflatten(-1, (N, 2, -1))
        value, gate = both.unbind(-2)
        hidden = F.dropout(value * F.silu(gate), e.dropout, self.training) * scale[..., None]
        return hidden.flatten(-2) @ e.weight_out.flatten(0, 1)


def rows() -> Iterator[Row]:
    """Training steps of experts, and of the laptop's network; calls of cached networks."""
    for dim, batch, tokens in ((64, 128, 12), (128, 256, 12), (1024, 16, 14)):
        experts = Experts(dim, N, dropout=0.1)
        yield from compare(
            f"{K} of {N} experts drawn per token, forward and backward",
            _step(experts, batch, tokens, dim),
            {"all experts for all tokens, in wide products": _step(Wide(experts), batch, tokens, dim)},
            defaults={"loop over experts": _step(Loop(experts), batch, tokens, dim)},
            limits={"the products alone": _products(experts, batch, tokens, dim)},
            size=f"({batch}, {tokens}, {dim})",
            tolerance=1e-3,
            flops=2 * 3 * K * batch * tokens * 3 * dim * experts.weight_out.shape[1],  # autograd.grad cannot be counted
        )
    for batch in (16, 128, 512):
        yield from compare(
            "MoDE (D=64, L=3), gradient of the EDM loss",
            _training(MoDETransformer(**small), batch),
            defaults={"loop over experts": _training(_with_loops(MoDETransformer(**small)), batch)},
            size=f"batch {batch}",
            tolerance=None,  # other draws
        )
    for name, size, batches in (("D=64, L=3", small, (1, 64, 512)), ("published size", published, (1, 8))):
        net = MoDETransformer(**size).eval()
        plain = MoDETransformer(**size).eval()
        plain.load_state_dict(net.state_dict(), assign=True)
        net.cache_experts(torch.tensor([0.3]))
        dense = dense_twin(size).eval()
        for batch in batches:
            work, ours = f"MoDE ({name}), a call with fused experts", _call(net, size, batch)
            flops, label = count_flops(ours), f"batch {batch}"
            yield from compare(work, ours, {"with routers": _call(plain, size, batch)}, size=label, flops=flops)
            peer = {"dense, as many parameters": _call(dense, size, batch)}
            yield from compare(work, ours, peer, size=label, tolerance=None, flops=flops)  # another function


def _step(module: nn.Module, batch: int, tokens: int, dim: int) -> Callable[[], list[Tensor]]:
    """Forward and backward in evaluation mode, where outputs can be compared."""
    module.eval()
    g = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(batch, tokens, dim, generator=g) for _ in range(2))
    weights, index = torch.rand(batch, tokens, N, generator=g).topk(K)
    weights = (weights / weights.sum(-1, keepdim=True)).requires_grad_()
    x.requires_grad_()
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def work() -> list[Tensor]:
        y = module(x, index, weights)
        return [y, *torch.autograd.grad(y, [x, weights, *learned], dy)[:2]]

    return work


def _products(experts: Experts, batch: int, tokens: int, dim: int) -> Callable[[], None]:
    """The six products of forward and backward for one expert after the other, each with its share of the tokens."""
    share = batch * tokens * K // N
    x, both, hidden = (
        torch.randn(share, width) for width in (dim, *experts.weight_in.shape[1:2], experts.weight_out.shape[1])
    )

    def work() -> None:
        with torch.no_grad():
            for up, down in zip(experts.weight_in, experts.weight_out, strict=True):
                x @ up.T, hidden @ down, x @ down.T, hidden.T @ x, both @ up, both.T @ x

    return work


def _with_loops(net: MoDETransformer) -> MoDETransformer:
    for block in net.blocks:
        block.experts = Loop(block.experts)  # type: ignore[arg-type]
    return net


def _training(net: MoDETransformer, batch: int) -> Callable[[], None]:
    denoiser = EDM(net.train())
    actions, c_noise, observations, goal = _example(small, batch)
    sigma = (4 * c_noise).exp()

    def work() -> None:
        loss = denoiser.loss(actions, observations, goal, sigma=sigma) + 0.01 * net.load_balancing_loss()
        loss.backward()

    return work


def _call(net: MoDETransformer, size: Size, batch: int) -> Callable[[], Tensor]:
    inputs = _example(size, batch)

    def work() -> Tensor:
        with torch.inference_mode():
            return net(*inputs)

    return work


def _example(size: Size, batch: int) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    shapes = (size["horizon"], size["action_dim"]), (TOKENS, size["obs_dim"]), (size["goal_dim"],)
    actions, observations, goal = (torch.randn(batch, *shape, generator=g) for shape in shapes)
    return actions, edm_coefficients(torch.full((batch,), 0.3)).c_noise, observations, goal
