"""How many bytes does a product with F take, with decisions made along the way and with all of them stored?

64 pictures decide, and each has a probe; the deeper the chain of layers, the more there is to store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reprise.explain import LinearScope
from reprise.papers.linear_interpreters.stored import StoredDecisions


@dataclass(frozen=True)
class Settings:
    store: bool = False  # store all decisions and replay them; else decide and act layer by layer
    depths: tuple[int, ...] = (4, 8, 16)  # convolutions, one cell each
    width: int = 16  # channels
    side: int = 28  # of the pictures, in pixels
    probes: int = 64  # pictures that decide, each with one probe


def measure(trial: Any) -> dict[str, float]:
    """Count bytes at every depth; both ways must give the same products."""
    s, metrics, peaks = trial.settings, {}, []
    for depth in s.depths:
        net, x0, x1 = (
            chain(depth, s.width),
            torch.randn(s.probes, 1, s.side, s.side),
            torch.randn(s.probes, 1, s.side, s.side),
        )
        stored, scope = StoredDecisions(net, x0), LinearScope(net)

        def product(net: nn.Sequential = net, x0: Tensor = x0, x1: Tensor = x1, scope: LinearScope = scope) -> Tensor:
            return StoredDecisions(net, x0).apply(x1) if s.store else scope(x0, x1, constants=False)[1]

        torch.testing.assert_close(product(), stored.apply(x1), rtol=1e-3, atol=1e-3)
        metrics[f"decisions[{depth}]"] = float(sum(stored.sizes) if s.store else max(stored.sizes))
        peaks.append(peak_bytes(product))
        metrics[f"peak[{depth}]"] = float(peaks[-1])
    metrics["growth"] = peaks[-1] / peaks[0]
    return metrics


def chain(depth: int, width: int) -> nn.Sequential:
    """Convolutions with instance norm and ReLU, and one max pooling half-way."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.MaxPool2d(2)] if i == depth // 2 else []
        layers += [nn.Conv2d(width if i else 1, width, 3, padding=1), nn.InstanceNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers).eval()


def peak_bytes(function: Any) -> int:
    """The most bytes that PyTorch's allocator has handed out at once while a function runs."""
    with torch.profiler.profile(profile_memory=True) as profile:
        function()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).max())
