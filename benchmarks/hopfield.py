"""Hopfield layers against the published code and PyTorch's attention, and retrieval against plain products."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.resources import count_flops
from benchmarks.table import Row, absent, compare
from reprise.nn import Hopfield, HopfieldAttention
from reprise.nn.hopfield import retrieve

PUBLISHED = "hopfield-layers"


def rows() -> Iterator[Row]:
    """Layers with one update and with four, for three batches; a drop-in for attention; memories of three sizes."""
    for extra in (0, 3):
        for batch in (4, 16, 64):
            yield from _layer(extra, batch)
    for length in (32, 128, 512):
        x = torch.randn(8, length, 256)
        attention = nn.MultiheadAttention(256, 8, batch_first=True)
        ours = _attend(HopfieldAttention.from_attention(attention), x)
        yield from compare(
            "HopfieldAttention(256, 8 heads), forward and backward, batch 8",
            ours,
            {"nn.MultiheadAttention, need_weights=False": _attend(attention, x)},
            defaults={"nn.MultiheadAttention": _attend(attention, x, True)},
            size=f"{length} tokens",
            tolerance=1e-3,  # of gradients of a sum over all outputs
            flops=count_flops(ours),
        )
    for count in (1_000, 10_000, 50_000):
        yield from _memory(count)


def _layer(extra: int, batch: int) -> Iterator[Row]:
    x, size = torch.randn(batch, 128, 64), f"batch {batch}"
    work = f"Hopfield(64, hidden 32, 8 heads), {extra} extra updates, forward and backward, 128 patterns"
    layer = Hopfield(64, 32, num_heads=8, update_steps_max=extra)
    try:
        library = importlib.import_module("hflayers")
    except ModuleNotFoundError:
        yield from absent(work, PUBLISHED, "not installed: it is on no package index, only on GitHub", size)
        return
    peer = library.Hopfield(input_size=64, hidden_size=32, num_heads=8, update_steps_max=extra)
    yield from compare(
        work, _step(layer, x), {PUBLISHED: _step(peer, x)}, size=size, tolerance=None
    )  # weights are drawn in another order


def _memory(count: int) -> Iterator[Row]:
    patterns, beta = torch.randn(count, 784), 8 / math.sqrt(784)
    states = patterns[:256] + 0.3 * torch.randn(256, 784)
    ours = partial(retrieve, states, patterns, beta)
    yield from compare(
        "retrieve 256 patterns of 784 entries, one update",
        ours,
        {
            "softmax of a product": lambda: torch.softmax(beta * states @ patterns.T, 1) @ patterns,
            "scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(
                states[None, None], patterns[None, None], patterns[None, None], scale=beta
            )[0, 0],
        },
        size=f"{count:,} stored",
        tolerance=1e-3,
        flops=count_flops(ours),
    )


def _step(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    x = x.clone().requires_grad_()

    def work() -> None:
        layer(x).sum().backward()

    return work


def _attend(layer: nn.Module, x: Tensor, need_weights: bool = False) -> Callable[[], list[Tensor | None]]:
    x = x.clone().requires_grad_()

    def work() -> list[Tensor | None]:
        x.grad = None
        y = layer(x, x, x, need_weights=need_weights)[0]
        y.square().sum().backward()
        return [y, x.grad]

    return work
