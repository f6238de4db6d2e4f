"""BESO's transformer in training and acting, against the same network written the usual way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.resources import count_flops
from benchmarks.table import Row, compare
from reprise.diffusion import EDM, log_logistic_sigmas
from reprise.policies import BESOPolicy, ScoreGPT
from reprise.training import FlatAdam

LAPTOP, PUBLISHED = (64, 2, 4), (240, 4, 12)  # width, layers, heads
CASES = [("laptop size", LAPTOP, (16, 128, 512)), ("published size", PUBLISHED, (16, 64, 128))]  # and windows
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
    for name, sizes, batches in CASES:
        for batch in batches:
            net, usual = _network(*sizes), UsualGPT(_network(*sizes), sizes[0])
            inputs, size, small = _inputs(batch), f"{batch} windows", sizes == LAPTOP
            work = f"BESO's transformer, {name}, 12 tokens to a window"
            ours = _forward(net, inputs)
            peers = {"usual modules": _forward(usual, inputs)}
            yield from compare(f"{work}: forward", ours, peers, size=size, tolerance=1e-4, flops=count_flops(ours))
            ours = _update(net, inputs, FlatAdam(net.parameters(), 1e-4))
            yield from compare(
                f"{work}: an update",
                ours,
                {"usual modules, torch.optim.Adam(fused=True)": _update(usual, inputs, _adam(usual, fused=True))},
                defaults={"usual modules, torch.optim.Adam": _update(usual, inputs, _adam(usual))} if small else None,
                size=size,
                tolerance=None,  # other draws
                flops=count_flops(ours),
            )
    for count in (1, 16, 128):
        state = torch.randn(count, STATE)
        yield from compare(
            "an action by BESO in 3 steps, laptop size",
            _act(3, state),
            {"usual modules, lists of what was seen, one function a step": _usual_act(state)},
            limits={"the same in 10 steps": _act(10, state)},
            size=f"{count} environments",
            tolerance=None,  # other draws
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


def _adam(net: nn.Module, **options: bool) -> torch.optim.Adam:
    return torch.optim.Adam(net.parameters(), 1e-4, **options)


def _update(net: nn.Module, inputs: tuple[Tensor, ...], adam: FlatAdam | torch.optim.Adam) -> Callable[[], None]:
    denoiser, (actions, _, goals, states) = EDM(net), inputs

    def work() -> None:
        adam.zero_grad()
        denoiser.loss(actions, goals, states, sigma=log_logistic_sigmas(len(actions), 0.05, 1.0)).backward()
        adam.step()

    return work


def _act(steps: int, state: Tensor) -> Callable[[], Tensor]:
    width, layers, heads = LAPTOP
    policy = BESOPolicy(embed_dim=width, n_layers=layers, n_heads=heads).build(STATE, ACTION)
    policy.sampling = replace(policy.sampling, steps=steps)
    for _ in range(WINDOW):  # a full history
        policy.act(state, goal=state)
    return lambda: policy.act(state, goal=state)


def _usual_act(state: Tensor) -> Callable[[], Tensor]:
    """Scaling, a history, preconditioning and DDIM as they are usually written."""
    denoiser = UsualGPT(_network(*LAPTOP), LAPTOP[0]).eval()
    sigmas, mean, std = torch.tensor([1.0, 0.55, 0.1, 0.0]), torch.zeros(STATE), torch.ones(STATE)
    seen, past = deque([state] * WINDOW, WINDOW), deque([torch.zeros(len(state), ACTION)] * (WINDOW - 1), WINDOW - 1)

    def denoised(x: Tensor, sigma: Tensor, goal: Tensor, states: Tensor) -> Tensor:
        total = sigma**2 + 0.5**2
        output = denoiser(x / total.sqrt(), (sigma.log() / 4).expand(len(x)), goal, states)
        return 0.5**2 / total * x + sigma * 0.5 / total.sqrt() * output

    @torch.no_grad()
    def work() -> Tensor:
        seen.append((state - mean) / std)
        states, goal = torch.stack(list(seen), 1), ((state - mean) / std)[:, None]
        x = torch.stack([*past, sigmas[0] * torch.randn(len(state), ACTION)], 1)
        for sigma, following in pairwise(sigmas):
            x = following / sigma * x + (1 - following / sigma) * denoised(x, sigma, goal, states)
        past.append(x[:, -1])
        return x[:, -1].clamp(-1, 1)

    return work
