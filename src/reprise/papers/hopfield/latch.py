"""Does a Hopfield layer find the one symbol that counts, wherever it stands, where a recurrent net must carry it along?

Sequences of which the first symbol, one of two, is the class; all others are drawn from the remaining symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.nn import HopfieldPooling, parameters
from reprise.training import accuracy, fit, predict

Shared = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Settings:
    network: str = "hopfield"  # or "lstm"
    sequences: int = 4_096  # to learn from
    test: int = 2_048  # sequences
    length: int = 32  # symbols
    symbols: int = 20  # of which the first two are the classes
    hidden: int = 4  # units of the LSTM; association space of Hopfield pooling
    epochs: int = 20  # passes over the sequences
    batch_size: int = 32  # sequences
    learning_rate: float = 1e-3  # of AdamW
    weight_decay: float = 0.01  # of AdamW
    clip: float = 1.0  # largest norm of the gradient


class LastOutput(nn.LSTM):
    """(B, L, F) to what the LSTM says after the last symbol, (B, H)."""

    def forward(self, sequences: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(sequences)[1][0][-1]


def prepare(trial: Any) -> Shared:
    """This seed's sequences, one-hot, and classes: to learn from and to test on."""
    s = trial.settings
    generator = torch.Generator().manual_seed(trial.seed)
    count = s.sequences + s.test
    symbols = torch.randint(2, s.symbols, (count, s.length), generator=generator)
    symbols[:, 0] = torch.randint(2, (count,), generator=generator)
    sequences = F.one_hot(symbols, s.symbols).float()
    return sequences[: s.sequences], symbols[: s.sequences, 0], sequences[s.sequences :], symbols[s.sequences :, 0]


def measure(trial: Any) -> dict[str, float]:
    """The share of test sequences that are classified as they should be."""
    s, (sequences, classes, test, wanted) = trial.settings, trial.shared
    model = _network(s).to(trial.device)
    history = fit(
        model, sequences, classes, epochs=s.epochs, batch_size=s.batch_size, optimizer="adamw",
        learning_rate=s.learning_rate, weight_decay=s.weight_decay, clip_norm=s.clip, on_step=trial.on_step,
        diverged="stop",
    )  # fmt: skip
    trial.count(updates=history.steps, parameters=parameters(model))
    return {"accuracy": accuracy(predict(model, test), wanted)}


def _network(s: Settings) -> nn.Module:
    if s.network == "lstm":
        return nn.Sequential(LastOutput(s.symbols, s.hidden, batch_first=True), nn.Linear(s.hidden, 2))
    if s.network == "hopfield":
        return nn.Sequential(HopfieldPooling(s.symbols, hidden_size=s.hidden), nn.Linear(s.symbols, 2))
    raise ValueError(f'network is "hopfield" or "lstm", not {s.network!r}')
