"""What does expert caching save? Multiply-adds are counted, and one call of the network is timed in alternation.

The network with fused experts against itself with routers, and against a dense one with as many parameters in all.
Weights are random: neither count nor time depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from reprise.diffusion import edm_coefficients
from reprise.papers.mode.networks import TOKENS, Size, dense_twin, published, small, sparse
from reprise.policies.mode import MoDETransformer

SIZES = {"laptop": small, "published": published}
SIGMA = 0.3  # the level at which a call is timed; all levels cost the same


@dataclass(frozen=True)
class Settings:
    peer: str = "dense"  # what is compared with: "dense", as many parameters in all, or "uncached", the same network
    batches: tuple[int, ...] = (1, 512)  # calls of the laptop size
    published_batches: tuple[int, ...] = (1, 8)  # calls of the published size, whose larger batches take minutes


def measure(trial: Any) -> dict[str, float]:
    """Both sizes, one after the other, since the large one fills the memory."""
    s = trial.settings
    metrics: dict[str, float] = {}
    for name, batches in (("laptop", s.batches), ("published", s.published_batches)):
        metrics |= counts(name, SIZES[name], s.peer) | times(trial, name, batches)
    return metrics


def times(trial: Any, name: str, batches: tuple[int, ...]) -> dict[str, float]:
    """The time of a call with cached experts over that of the peer."""
    size, peer_is_dense = SIZES[name], trial.settings.peer == "dense"
    cached, peer = sparse(size).eval(), (dense_twin if peer_is_dense else sparse)(size).eval()
    if not peer_is_dense:
        peer.load_state_dict(cached.state_dict(), assign=True)  # the same weights, in the same memory
    cached.cache_experts(torch.tensor([SIGMA]))
    metrics: dict[str, float] = {}
    for batch in batches:
        ours, theirs = (partial(call, net, example(size, batch)) for net in (cached, peer))
        candidates, tolerance = {"cached": ours, "peer": theirs}, None if peer_is_dense else 1e-5
        comparison = trial.compare_speed(candidates, tolerance=tolerance)
        trial.count(rounds=comparison.rounds)
        cell = f"{name}, batch {batch}"
        trial.progress(len(metrics), 8, cell)
        metrics |= {
            f"time[{cell}]": 1 / comparison.ratio,
            f"milliseconds[{cell}]": 1000 * comparison.medians["cached"],
            f"peer_milliseconds[{cell}]": 1000 * comparison.medians["peer"],
            f"self_ratio[{cell}]": comparison.self_ratio,
        }
    return metrics


def counts(name: str, size: Size, peer: str) -> dict[str, float]:
    """Multiply-adds of one call with cached experts over the peer's: of perceptrons and routers, and of everything."""
    with torch.device("meta"):
        ours = sparse(size).multiply_adds(TOKENS, cached=True)
        theirs = (dense_twin if peer == "dense" else sparse)(size).multiply_adds(TOKENS)
    return {
        f"mlp[{name}]": (ours["mlp"] + ours["router"]) / (theirs["mlp"] + theirs["router"]),
        f"total[{name}]": sum(ours.values()) / sum(theirs.values()),
        f"router[{name}]": theirs["router"] / sum(theirs.values()),
    }


def example(size: Size, batch: int) -> tuple[Tensor, ...]:
    """Noisy actions, noise levels, observations and goals; the same for both networks."""
    torch.manual_seed(batch)
    c_noise = edm_coefficients(torch.full((batch,), SIGMA)).c_noise
    actions, goal = torch.randn(batch, size["horizon"], size["action_dim"]), torch.randn(batch, size["goal_dim"])
    return actions, c_noise, torch.randn(batch, TOKENS, size["obs_dim"]), goal


@torch.inference_mode()
def call(net: MoDETransformer, inputs: tuple[Tensor, ...]) -> Tensor:
    """One call of the network."""
    return net(*inputs)
