"""Hopfield layers against the published code and PyTorch's attention, and retrieval against plain products."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.table import Row, absent, compare
from reprise.nn import Hopfield, HopfieldAttention
from reprise.nn.hopfield import retrieve

PUBLISHED = "hopfield-layers"


def rows() -> Iterator[Row]:
    """One update and three more, against both peers; then a memory of 20,000 pictures."""
    x = torch.randn(64, 128, 64)
    for extra in (0, 3):
        layer = Hopfield(64, 32, num_heads=8, update_steps_max=extra)
        work = f"Hopfield(64, hidden 32, 8 heads), {extra} extra updates, forward and backward, {tuple(x.shape)}"
        try:
            library = importlib.import_module("hflayers")
        except ModuleNotFoundError:
            yield from absent(work, PUBLISHED, "not installed: it is on no package index, only on GitHub")
        else:
            peer = library.Hopfield(input_size=64, hidden_size=32, num_heads=8, update_steps_max=extra)
            # The initial weights are drawn in another order.
            yield from compare(work, _step(layer, x), {PUBLISHED: _step(peer, x)}, tolerance=None)
    x = torch.randn(32, 128, 256)
    attention = nn.MultiheadAttention(256, 8, batch_first=True)
    ours = HopfieldAttention.from_attention(attention)
    for need_weights in (False, True):
        yield from compare(
            f"HopfieldAttention(256, 8 heads), forward and backward, {tuple(x.shape)}, need_weights={need_weights}",
            _attend(ours, x, need_weights),
            {"nn.MultiheadAttention": _attend(attention, x, need_weights)},
            tolerance=1e-4,
        )
    patterns, beta = torch.randn(20_000, 784), 8 / math.sqrt(784)
    states = patterns[:256] + 0.3 * torch.randn(256, 784)
    yield from compare(
        "retrieve 256 of 20,000 patterns of 784 entries, one update",
        lambda: retrieve(states, patterns, beta),
        {"softmax of a product": lambda: torch.softmax(beta * states @ patterns.T, 1) @ patterns},
        tolerance=1e-3,
    )


def _step(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    x = x.clone().requires_grad_()

    def work() -> None:
        layer(x).sum().backward()

    return work


def _attend(layer: nn.Module, x: Tensor, need_weights: bool) -> Callable[[], list[Tensor]]:
    x = x.clone().requires_grad_()

    def work() -> list[Tensor]:
        y = layer(x, x, x, need_weights=need_weights)[0]
        return [y, torch.autograd.grad(y.square().sum(), x)[0]]

    return work
