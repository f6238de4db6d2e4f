"""How much faster are columns of F than by PyTorch's ways to a Jacobian? The same numbers come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reprise.explain import linear_interpreter


@dataclass(frozen=True)
class Settings:
    peer: str = "jacrev"  # "jacrev": all rows, in chunks; "jvp": forward mode, one direction per column
    chunk: int = 64  # the peer's rows or directions at once
    columns: int = 64  # of a picture's 784
    width: int = 16  # channels of the four convolutions


def measure(trial: Any) -> dict[str, float]:
    """Time both ways in alternation."""
    s = trial.settings
    widths = (1, s.width, s.width, s.width)
    layers = [layer for inputs in widths[:3] for layer in (nn.Conv2d(inputs, s.width, 3, padding=1), nn.ReLU())]
    net = nn.Sequential(*layers, nn.Conv2d(s.width, 1, 3, padding=1)).eval()
    x, index = torch.randn(1, 1, 28, 28), torch.randperm(784)[: s.columns]

    def ours() -> Tensor:
        return linear_interpreter(net, x).columns(index).flatten(1)

    def theirs() -> Tensor:
        with torch.no_grad():
            if s.peer == "jacrev":
                return torch.func.jacrev(net, chunk_size=s.chunk)(x).view(784, 784)[:, index].T
            units = torch.eye(784)[index].view(-1, 1, 1, 28, 28)
            forward = torch.vmap(lambda t: torch.func.jvp(net, (x,), (t,))[1], chunk_size=s.chunk)
            return forward(units).flatten(1)

    comparison = trial.compare_speed({"ours": ours, "peer": theirs})
    trial.count(rounds=comparison.rounds)
    return {"ratio": comparison.ratio, "self_ratio": comparison.self_ratio}
