"""Does one update bring whole pictures back from their upper halves? Described, not claimed.

Pictures are standardised one by one, the lower half of the states is zero, and a picture counts as retrieved when
the state lands within a twentieth of its norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprise.data import images
from reprise.nn import AssociativeMemory


@dataclass(frozen=True)
class Settings:
    data: str = "mnist"  # or "digits"
    beta_sqrt_d: float = 8.0  # β √d
    stored: tuple[int, ...] = (10, 100, 1_000, 10_000)  # pictures in memory
    states: int = 500  # most halves shown to each memory


def prepare(trial: Any) -> Tensor:
    """(N, d) pictures, each of zero mean and unit variance."""
    s = trial.settings
    pixels = images.load(s.data).draw(trial.seed, train=max(s.stored))[0].pixels.flatten(1).float()
    return (pixels - pixels.mean(1, keepdim=True)) / pixels.std(1, keepdim=True).clamp_min(1e-6)


def measure(trial: Any) -> dict[str, float]:
    """The share of pictures retrieved from each memory."""
    s, pictures = trial.settings, trial.shared
    shares = {}
    for count in s.stored:
        stored = pictures[:count].to(trial.device)
        whole = stored[: s.states]
        half = whole.clone()
        half[:, half.shape[1] // 2 :] = 0
        found = AssociativeMemory(stored, s.beta_sqrt_d / np.sqrt(stored.shape[1]))(half)
        near = (found - whole).norm(dim=1) <= 0.05 * whole.norm(dim=1)
        shares[f"retrieved[{count}]"] = float(near.double().mean())
        trial.curve("retrieved", count, shares[f"retrieved[{count}]"])
        shown = torch.stack([half[:6], found[:6], whole[:6]]).cpu().unflatten(2, (-1, round(stored.shape[1] ** 0.5)))
        rows = shown.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
        rows = (rows - rows.min()) / (rows.max() - rows.min())
        trial.picture(f"halves-{count}", rows, f"{count} stored: halves, what one update makes of them, whole pictures")
    return shares
