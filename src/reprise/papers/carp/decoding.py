"""The policies that are compared, their ways of decoding, and how often the network runs for a chunk."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from reprise.policies import CARPPolicy, DiffusionPolicy, ImitationPolicy, PerStepPolicy

__all__ = ["decoded", "make_policy", "passes"]


def make_policy(
    method: str, *, depth: int, widths: tuple[int, ...], execute: int, device: torch.device | str = "cpu"
) -> ImitationPolicy:
    """A policy that has learned nothing yet.

    Args:
        method: "carp", "diffusion" or "per_step".
        depth: blocks of a transformer.
        widths: channels of the diffusion policy's network.
        execute: actions that are played of a chunk.
    """
    if method == "diffusion":
        return DiffusionPolicy(network_options={"down_dims": list(widths)}, pad_end=execute - 1, device=device)
    return {"carp": CARPPolicy, "per_step": PerStepPolicy}[method](depth=depth, execute=execute, device=device)


def decoded(policy: ImitationPolicy, way: str) -> ImitationPolicy:
    """The same networks, decoded in another way.

    Args:
        way: "greedy" (the likeliest token), "top-5" (drawn among the five likeliest), "DDPM-100" or "DDIM-10".
    """
    name, _, number = way.partition("-")
    if isinstance(policy, DiffusionPolicy):
        return policy.sampled(inference_steps=None if name == "DDPM" else int(number))
    policy.top_k = int(number or 1)  # type: ignore[attr-defined]
    return policy


def passes(policy: ImitationPolicy, observation: Any) -> int:
    """How often the network runs for one chunk: calls of the layer with weights that is called most."""
    calls: Counter[nn.Module] = Counter()
    layers = [m for m in policy.module.modules() if any(True for _ in m.parameters(recurse=False))]
    hooks = [layer.register_forward_hook(lambda layer, *_: calls.update([layer])) for layer in layers]
    policy.plan(observation)
    for hook in hooks:
        hook.remove()
    return max(calls.values())
