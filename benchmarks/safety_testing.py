"""Batched questions of the game against one call per question, for classifiers that a user might have to test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor, nn

from benchmarks.table import Row, compare
from reprise.data import images
from reprise.nn import AgarapCNN
from reprise.safety import BlackBox, FeatureGame, grid_features, mcts
from reprise.training import fit

QUERIES, PARALLEL = 128, 64


def rows() -> Iterator[Row]:
    """One search with the same seed, so the same images, by calls of up to 64 images and by calls of one."""
    train, test = images.load("digits").draw(0, 1000, 50)
    pixels, labels = train.floats(), train.labels
    forest = RandomForestClassifier(20, random_state=0).fit(pixels.flatten(1).numpy(), labels.numpy())
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).double()
    fit(net, pixels.double(), labels, epochs=20)
    deep = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
    ).double()
    fit(deep, pixels.double(), labels, epochs=3)
    classifiers: dict[str, Callable[[Tensor], Any]] = {
        "random forest of 20 trees": lambda batch: forest.predict_proba(batch.flatten(1).numpy()),
        "service that answers after 2 ms": lambda batch: (time.sleep(0.002), _softmax(net, batch))[1],
        "dense network": lambda batch: _softmax(net, batch),
        "convolutional network": lambda batch: _softmax(deep, batch),
    }
    for name, classifier in classifiers.items():
        image, label = next(
            (picture, int(label))
            for picture, label in zip(test.floats(), test.labels, strict=True)
            if np.asarray(classifier(picture[None])).argmax() == label
        )

        def search(size: int, ask: Any = classifier, image: Tensor = image, label: int = label) -> list[float]:
            game = FeatureGame(ask, image, label, features=grid_features((8, 8), 2), batch_size=size)
            result = mcts(game, queries=QUERIES, visit=2, parallel=PARALLEL)
            return [min(result.distance, 64.0), result.queries, *result.trace[:, 1].clip(max=64.0).tolist()]

        work = f"tree search, {QUERIES} queries of a {name}, {PARALLEL} plays at once"
        yield from compare(work, lambda: search(PARALLEL), {"one call per query": lambda: search(1)})

    # The questions without the search: where arithmetic is all there is, as in the last, a batch saves little.
    large = AgarapCNN().eval()
    for name, classifier, size in (
        ("dense network", net, 8),
        ("convolutional network", deep, 8),
        ("MNIST CNN", large, 28),
    ):
        questions = np.random.default_rng(0).random((PARALLEL, 1, size, size), np.float32)
        together, alone = (BlackBox(_Single(classifier), outputs="logits", batch_size=count) for count in (PARALLEL, 1))
        yield from compare(
            f"{PARALLEL} queries of a {name}, no search",
            lambda box=together, asked=questions: box(asked),
            {"one call per query": lambda box=alone, asked=questions: box(asked)},
            tolerance=1e-4,
        )


class _Single(nn.Module):
    """A network that is asked in single precision, whatever its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.to(next(self.net.parameters()).dtype))


@torch.no_grad()
def _softmax(net: nn.Module, batch: Tensor) -> Tensor:
    return net(batch.double()).softmax(1)
