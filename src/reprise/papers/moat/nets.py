"""The small nets that are compared: one stem, one head, and four arrangements of the blocks between them."""

from __future__ import annotations

from typing import Any

from torch import nn

from reprise.nn import (
    MOAT,
    MBConv,
    MOATBlock,
    MOATConfig,
    PooledShortcut,
    PreNormResidual,
    RelPosAttention2d,
    TransformerBlock2d,
)
from reprise.nn.moat import init_weights

MICRO = MOATConfig(16, (32, 64), (1, 3), kinds=("mbconv", "moat"), rel_pos_sizes=(None, 8))


def build(arrangement: str, window: int | None = None) -> MOAT:
    """The net of an arm: 3x3/2 stem, a gated mobile convolution, the blocks in question, mean, norm, linear.

    Args:
        arrangement: "moat"; "transformer" (attention, then MLP); "attention_first" (attention, then the convolution);
            "stacked" (two convolution blocks, then two Transformer blocks, as in CoAtNet).
        window: side of the attention windows; None is the whole map.

    Raises:
        ValueError: another arrangement.
    """
    net = MOAT(MICRO, 10, stage_strides=(1, 2))
    net.stages[1] = nn.Sequential(*_blocks(arrangement, window)).apply(init_weights)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.1  # at the published 0.01 the statistics would not settle within a hundred steps
    return net


def _blocks(arrangement: str, window: int | None) -> list[nn.Module]:
    attention: Any = {"window": window, "rel_pos_size": 8}
    places = ((32, 64, 2), (64, 64, 1), (64, 64, 1))  # channels in and out, stride
    if arrangement == "moat":
        return [MOATBlock(*place, **attention) for place in places]
    if arrangement == "transformer":
        return [TransformerBlock2d(*place, **attention) for place in places]
    if arrangement == "attention_first":
        return [
            nn.Sequential(
                PooledShortcut(*place),
                PreNormResidual(64, RelPosAttention2d(64, **attention)),
                MBConv(64, 64, se_ratio=None),
            )
            for place in places
        ]
    if arrangement == "stacked":
        convolutions = [MBConv(*place, se_ratio=None) for place in places[:2]]
        return [*convolutions, *(TransformerBlock2d(64, 64, mlp_ratio=3, **attention) for _ in range(2))]
    raise ValueError(f'arrangement is "moat", "transformer", "attention_first" or "stacked", not {arrangement!r}')
