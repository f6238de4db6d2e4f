"""The perceptron of DPPO: it denoises a chunk of actions, laid out flat beside the step and what is seen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.nn.mish import Mish
from reprise.nn.step_embedding import SinusoidalEmbedding

__all__ = ["DiffusionMLP"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"mish": Mish, "relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


class DiffusionMLP(nn.Module):
    """Linear(chunk + step + condition, width), blocks x <- x + L2(act(L1(act(x)))), Linear(width, chunk).

    The step is embedded by sines and cosines, Linear(d, 2 d), Mish, Linear(2 d, d).

    Args:
        horizon, action_dim: H and A of a chunk.
        cond_dim: numbers in the condition.
        width: of the hidden layers.
        blocks: of two linear layers each.
        step_embed_dim: d.
        cond_hidden: widths of a perceptron that the condition goes through first; () is none.
        activation: "mish", "relu", "silu" or "gelu".

    Raises:
        ValueError: an unknown activation; at the call shapes that do not fit.

    Source: Ren et al., Diffusion Policy Policy Optimization (DPPO), 2024.

    Example:
        >>> net = DiffusionMLP(4, 7, 19, width=64)
        >>> net(torch.randn(5, 4, 7), torch.zeros(5), torch.randn(5, 19)).shape
        torch.Size([5, 4, 7])
    """

    def __init__(
        self,
        horizon: int,
        action_dim: int,
        cond_dim: int,
        *,
        width: int = 512,
        blocks: int = 1,
        step_embed_dim: int = 16,
        cond_hidden: Sequence[int] = (),
        activation: str = "mish",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}; there are {', '.join(map(repr, ACTIVATIONS))}")
        self.chunk, self.cond_dim, act = (horizon, action_dim), cond_dim, ACTIVATIONS[activation]
        self.flat, d = horizon * action_dim, step_embed_dim
        self.step_encoder = nn.Sequential(SinusoidalEmbedding(d), nn.Linear(d, 2 * d), Mish(), nn.Linear(2 * d, d))
        layers: list[nn.Module] = []
        for a, b in pairwise([cond_dim, *cond_hidden]):
            layers += [nn.Linear(a, b), act()]
        self.cond_encoder = nn.Sequential(*layers[:-1])  # no activation behind the last layer
        self.enter = nn.Linear(self.flat + d + (cond_hidden[-1] if cond_hidden else cond_dim), width)
        self.blocks = nn.ModuleList(
            nn.Sequential(act(), nn.Linear(width, width), act(), nn.Linear(width, width)) for _ in range(blocks)
        )
        self.leave = nn.Linear(width, self.flat)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """(B, H, A) noisy chunks, (B,) steps of the diffusion and (B, cond_dim) to (B, H, A)."""
        return self.denoise(x, self.contexts(t, condition))

    def contexts(self, t: Tensor, condition: Tensor) -> list[Tensor]:
        """What the first layer makes of step and condition. Steps (S, 1) give it for all S that a sampler visits.

        Args:
            t: (B,) or (S, 1) steps.
            condition: (B, cond_dim).

        Returns:
            One tensor (B, width), or (S, B, width).
        """
        if condition.shape[1:] != (self.cond_dim,):
            raise ValueError(f"the condition is (B, {self.cond_dim}), not {tuple(condition.shape)}")
        step, seen = self.step_encoder(t), self.cond_encoder(condition)
        _, for_step, for_seen = self.enter.weight.split([self.flat, step.shape[-1], seen.shape[-1]], 1)
        return [F.linear(step, for_step, self.enter.bias) + F.linear(seen, for_seen)]

    def denoise(self, x: Tensor, contexts: Sequence[Tensor]) -> Tensor:
        """As :meth:`forward`, with what :meth:`contexts` returned."""
        if x.shape[1:] != self.chunk:
            raise ValueError(f"chunks are (B, {self.chunk[0]}, {self.chunk[1]}), not {tuple(x.shape)}")
        h = torch.addmm(contexts[0], x.flatten(1), self.enter.weight[:, : self.flat].T)
        for block in self.blocks:
            h = h + block(h)
        return self.leave(h).unflatten(1, self.chunk)
