"""The sizes that are compared, and the dense network with as many parameters in all as a sparse one."""

from __future__ import annotations

from typing import Any

import torch

from reprise.nn import parameters
from reprise.policies.mode import MoDETransformer

__all__ = ["TOKENS", "Size", "dense_twin", "published", "small", "sparse"]

Size = dict[str, Any]  # arguments of MoDETransformer
TOKENS = 2  # observation tokens: cameras, or parts of the state

small: Size = {
    "obs_dim": 64, "goal_dim": 64, "action_dim": 5, "embed_dim": 64, "n_layers": 3, "n_heads": 4, "horizon": 8,
}  # fmt: skip
published: Size = {
    "obs_dim": 512, "goal_dim": 512, "action_dim": 7, "embed_dim": 1024, "n_layers": 8, "n_heads": 8, "horizon": 10,
}  # fmt: skip


def sparse(size: Size) -> MoDETransformer:
    """MoDE as published: 4 experts of which 2 are active, chosen by the noise level."""
    return MoDETransformer(**size)


def dense_twin(size: Size) -> MoDETransformer:
    """The network with one wide perceptron in the place of experts and router; its width makes up for both."""
    dim = size["embed_dim"]
    with torch.device("meta"):
        block: Any = MoDETransformer(**size | {"n_layers": 1}).blocks[0]
    # A hidden unit has 2 D + 2 weights on the way in and D on the way out.
    width = round((parameters(block.experts) + parameters(block.router)) / (3 * dim + 2))
    return MoDETransformer(**size, n_experts=1, top_k=1, mlp_ratio=width / dim)
