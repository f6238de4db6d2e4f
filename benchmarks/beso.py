"""BESO's transformer in training and acting, against the same network written the usual way and against ten steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.table import Row, compare
from reprise.diffusion import EDM, log_logistic_sigmas
from reprise.policies import BESOPolicy, ScoreGPT
from reprise.training import FlatAdam

SIZES = {"laptop size": (64, 2, 4, 128), "published size": (240, 4, 12, 128)}  # width, layers, heads, batch
STATE, ACTION, WINDOW = 10, 2, 5


class UsualBlock(nn.Module):
    """Separate queries, keys and values; every token through every block."""

    def __init__(self, block: nn.Module, width: int) -> None:
        super().__init__()
        self.heads, self.norm1, self.norm2 = block.n_heads, block.norm1, block.norm2
        self.parts = nn.ModuleList([nn.Linear(width, width) for _ in range(3)])
        for i, part in enumerate(self.parts):
            rows = slice(i * width, (i + 1) * width)
            part.weight.data, part.bias.data = block.qkv.weight.data[rows], block.qkv.bias.data[rows]
        self.proj, self.mlp = block.proj, nn.Sequential(block.widen, nn.GELU(), block.narrow)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(self.norm1(x)).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.parts)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class UsualGPT(nn.Module):
    """The same function as a ScoreGPT."""

    def __init__(self, net: ScoreGPT, width: int) -> None:
        super().__init__()
        self.net = net
        self.blocks = nn.ModuleList([UsualBlock(block, width) for block in net.blocks])

    def forward(self, actions: Tensor, c_noise: Tensor, goals: Tensor, states: Tensor) -> Tensor:
        net = self.net
        pairs = torch.stack([net.state_emb(states), net.action_emb(actions)], 2) + net.positions(WINDOW)[:, :, None]
        x = torch.cat([net.noise_emb(c_noise[:, None, None]), net.goal_tokens(goals, states), pairs.flatten(1, 2)], 1)
        for block in self.blocks:
            x = block(x)
        return net.head(net.norm(x))[:, 3::2]


def rows() -> Iterator[Row]:
    """A forward pass, an update, and an action."""
    for name, (width, layers, heads, batch) in SIZES.items():
        net = _network(width, layers, heads)
        usual = UsualGPT(_network(width, layers, heads), width)
        inputs = _inputs(batch)
        work = f"BESO's transformer, {name}, {batch} windows of 12 tokens"
        yield from compare(
            f"{work}, forward", _forward(net, inputs), {"usual modules": _forward(usual, inputs)}, tolerance=1e-4
        )
        peer = {"usual modules, torch.optim.Adam(fused=True)": _update(usual, inputs, flat=False)}
        yield from compare(f"{work}, an update", _update(net, inputs, flat=True), peer, tolerance=None)
    for count in (1, 64):
        state = torch.randn(count, STATE)
        peers = {"the same in 10 steps": _act(10, state)}
        yield from compare(
            f"an action by BESO in 3 steps, laptop size, batch {count}", _act(3, state), peers, tolerance=None
        )


def _network(width: int, layers: int, heads: int) -> ScoreGPT:
    torch.manual_seed(0)
    sizes = {"embed_dim": width, "n_layers": layers, "n_heads": heads, "window": WINDOW}
    return ScoreGPT(STATE, ACTION, **sizes, attn_drop=0.0, resid_drop=0.0)


def _inputs(batch: int) -> tuple[Tensor, ...]:
    shapes = ((batch, WINDOW, ACTION), (batch,), (batch, 1, STATE), (batch, WINDOW, STATE))
    return tuple(torch.randn(shape) for shape in shapes)


def _forward(net: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], Tensor]:
    def work() -> Tensor:
        with torch.inference_mode():
            return net(*inputs)

    return work


def _update(net: nn.Module, inputs: tuple[Tensor, ...], flat: bool) -> Callable[[], None]:
    denoiser, (actions, _, goals, states) = EDM(net), inputs
    adam = FlatAdam(net.parameters(), 1e-4) if flat else torch.optim.Adam(net.parameters(), 1e-4, fused=True)

    def work() -> None:
        adam.zero_grad()
        denoiser.loss(actions, goals, states, sigma=log_logistic_sigmas(len(actions), 0.05, 1.0)).backward()
        adam.step()

    return work


def _act(steps: int, state: Tensor) -> Callable[[], Tensor]:
    policy = BESOPolicy(embed_dim=64, n_layers=2, n_heads=4).build(STATE, ACTION)
    policy.sampling = replace(policy.sampling, steps=steps)
    for _ in range(WINDOW):  # a full history
        policy.act(state, goal=state)
    return lambda: policy.act(state, goal=state)
