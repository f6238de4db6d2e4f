"""Does Hopfield pooling find what makes a bag positive better than the poolings that one would take otherwise?

Multiple-instance learning: the same small net, embedding, pooling, linear, with five poolings. Real sets by stratified
cross-validation over the bags, bags that are made here on others of their kind. Bags or folds, and the weights around
the pooling, are drawn anew for every seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.data import Bags, bags, images
from reprise.nn import AttentionPooling, HopfieldPooling, MaxPooling, MeanPooling
from reprise.training import auc, fit, predict


@dataclass(frozen=True)
class Settings:
    pooling: str = "hopfield"  # "hopfield", "mean", "max", "attention" or "gated"
    data: str = "elephant"  # "musk1", "digits" or "mnist" (bags with or without a 9), "bits" (bit patterns)
    folds: int = 10  # of the cross-validation; 0: learn from one lot of bags and test on another
    bags: int = 200  # of those that are made here
    test_bags: int = 500  # of those, where there are no folds
    embedding: str = "linear"  # of the instances, or "convolutional": two convolutions before it, for 28x28 pictures
    width: int = 64  # of the embedding
    heads: int = 8  # of Hopfield pooling
    hidden: int = 32  # its association space per head
    beta: float = 0.1  # its inverse temperature
    dropout: float = 0.0  # of its association
    epochs: int = 50  # passes over the training bags
    batch_size: int = 32  # bags
    learning_rate: float = 1e-3  # of AdamW
    weight_decay: float = 0.01  # of AdamW
    clip: float = 1.0  # largest norm of the gradient


class PictureEmbedding(nn.Sequential):
    """(B, S, 784) pictures laid flat to (B, S, width)."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(800, width),
        )  # fmt: skip

    def forward(self, bags: Tensor) -> Tensor:
        embedded: Tensor = super().forward(bags.reshape(-1, 1, 28, 28))
        return embedded.unflatten(0, bags.shape[:2])


class BagClassifier(nn.Module):
    """Bags to logits; takes the indices of bags, because bags differ in size."""

    def __init__(self, data: Bags, s: Settings) -> None:
        super().__init__()
        self.data = data
        size = data.instances.shape[2]
        self.embed = nn.Linear(size, s.width) if s.embedding == "linear" else PictureEmbedding(s.width)
        self.score = nn.Linear(s.width, 1)
        self.pool = _pooling(s)  # last, so that the other layers start alike with all poolings

    def forward(self, index: Tensor) -> Tensor:
        batch, device = self.data[index.cpu()], index.device
        instances, padding = self.embed(batch.instances.to(device)).relu(), batch.padding.to(device)
        if isinstance(self.pool, HopfieldPooling):
            pooled = self.pool(instances, stored_pattern_padding_mask=padding)
        else:
            pooled = self.pool(instances, padding)
        scores: Tensor = self.score(pooled).squeeze(1)
        return scores


def prepare(trial: Any) -> tuple[Bags, list[tuple[Tensor, Tensor]]]:
    """This seed's bags, and which of them to learn from and to test on."""
    s, seed = trial.settings, trial.seed
    if s.folds:
        data = bags.digit_bags(s.bags, seed) if s.data == "digits" else bags.load(s.data)
        return data, list(data.folds(s.folds, seed))
    if s.data == "bits":
        data = bags.bit_pattern_bags(s.bags + s.test_bags, seed)
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(data)))
        return data, [(order[: s.bags], order[s.bags :])]
    digits = images.load(s.data)
    lots = (bags.digit_bags(s.bags, seed, digits=digits.train), bags.digit_bags(s.test_bags, seed, digits=digits.test))
    both = Bags(*(torch.cat([getattr(lot, name) for lot in lots]) for name in ("instances", "padding", "labels")))
    return both, [(torch.arange(s.bags), torch.arange(s.bags, len(both)))]


def measure(trial: Any) -> dict[str, float]:
    """The mean over folds of the area under the ROC curve on the bags left out."""
    s, (data, folds) = trial.settings, trial.shared
    areas: list[float] = []
    for train, test in folds:
        torch.manual_seed(1000 * trial.seed + len(areas))  # weights and batches of its own for every fold
        pictures = s.embedding == "convolutional"
        model = BagClassifier(data if pictures else _standardise(data, train), s).to(trial.device)

        def show(step: int, total: int, values: dict[str, float]) -> None:
            trial.progress(len(areas) + step / total, len(folds))

        history = fit(
            model,
            train,
            data.labels[train].float(),
            loss=F.binary_cross_entropy_with_logits,
            epochs=s.epochs,
            batch_size=s.batch_size,
            optimizer="adamw",
            learning_rate=s.learning_rate,
            weight_decay=s.weight_decay,
            clip_norm=s.clip,
            on_step=show,
            diverged="stop",
        )
        trial.count(updates=history.steps)
        areas.append(auc(predict(model, test), data.labels[test]) if history.diverged_at is None else 0.0)
        trial.curve("AUC", len(areas), areas[-1])
    return {"auc": float(np.mean(areas))}


def _standardise(data: Bags, train: Tensor) -> Bags:
    """Zero mean and unit variance over the instances of the training bags; features that hardly vary are only moved."""
    known = data.instances[train][~data.padding[train]]
    spread = known.std(0)
    scaled = (data.instances - known.mean(0)) / spread.where(spread > 0.01, 1.0)
    return Bags(scaled.masked_fill(data.padding[..., None], 0), data.padding, data.labels)


def _pooling(s: Settings) -> nn.Module:
    if s.pooling == "hopfield":
        return HopfieldPooling(s.width, hidden_size=s.hidden, num_heads=s.heads, beta=s.beta, dropout=s.dropout)
    if s.pooling in ("attention", "gated"):
        return AttentionPooling(s.width, gated=s.pooling == "gated")
    if s.pooling in ("mean", "max"):
        return MeanPooling() if s.pooling == "mean" else MaxPooling()
    raise ValueError(f'pooling is "hopfield", "mean", "max", "attention" or "gated", not {s.pooling!r}')
