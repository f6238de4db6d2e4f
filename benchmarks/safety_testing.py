"""Batched questions of the game against one call per question, for classifiers that a user might have to test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
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

QUERIES = 128


def rows() -> Iterator[Row]:
    """One search with the same seed, so the same images, by calls of many images and by calls of one."""
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

        def search(parallel: int, size: int, ask: Any = classifier, image: Tensor = image, label: int = label) -> Any:
            game = FeatureGame(ask, image, label, features=grid_features((8, 8), 2), batch_size=size)
            result = mcts(game, queries=QUERIES, visit=2, parallel=parallel)
            return [min(result.distance, 64.0), result.queries, *result.trace[:, 1].clip(max=64.0).tolist()]

        for parallel in (4, 16, 64):
            yield from compare(
                f"tree search, {QUERIES} queries of a {name}",
                partial(search, parallel, parallel),
                {"one call per query": partial(search, parallel, 1)},
                size=f"{parallel} plays at once",
            )
    yield from _questions()


def _questions() -> Iterator[Row]:
    """The questions without the search: where arithmetic is all there is, as in the last, a batch saves little."""
    dense = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    deep = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
    )
    networks: dict[str, tuple[nn.Module, int]] = {
        "a dense network": (dense, 8), "a convolutional network": (deep, 8), "an MNIST CNN": (AgarapCNN(), 28),
    }  # fmt: skip
    for name, (net, size) in networks.items():
        together, alone = (BlackBox(net.eval(), outputs="logits", batch_size=count) for count in (64, 1))
        for count in (4, 16, 64):
            asked = np.random.default_rng(0).random((count, 1, size, size), np.float32)
            yield from compare(
                f"questions to {name}, no search",
                partial(together, asked),
                {"one call per query": partial(alone, asked)},
                size=f"{count} queries",
                tolerance=1e-4,
            )


@torch.no_grad()
def _softmax(net: nn.Module, batch: Tensor) -> Tensor:
    return net(batch.double()).softmax(1)
