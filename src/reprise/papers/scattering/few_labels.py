"""With few labels, does a linear classifier on fixed scattering features beat one on pixels, and a trained network?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from reprise.data import Images, images
from reprise.nn import Scattering2D, feature_extractor, random_bank
from reprise.papers.scattering.signals import on_canvas
from reprise.training import accuracy, fit, predict


@dataclass(frozen=True)
class Settings:
    features: str = "pixels"  # "pixels", "scattering", "random" (bank) for the SVM; "network" trains its own
    data: str = "mnist"  # "mnist" or "digits"
    labels: tuple[int, ...] = (100, 300, 1000)  # labelled pictures
    test: int = 2_000  # pictures
    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2)  # C of the SVM, by 3-fold cross-validation
    steps: int = 400  # of the network, at least
    epochs: int = 8  # of the network, at least
    batch_size: int = 32  # of the network; Adam, learning rate 0.001


def prepare(trial: Any) -> tuple[Images, Images]:
    """This seed's labelled pictures, of which the smaller sets are the first, and its test pictures."""
    s = trial.settings
    return images.load(s.data).draw(trial.seed, max(s.labels), s.test)


def measure(trial: Any) -> dict[str, float]:
    """Learn from each number of labels; classify the test pictures."""
    s = trial.settings
    train, test = trial.shared
    classify = _network if s.features == "network" else _svm
    inputs = [_features(s, part.pixels) for part in (train, test)]
    metrics = {}
    for done, n in enumerate(s.labels):
        trial.progress(done, len(s.labels), f"{n} labels")
        metrics[f"accuracy[{n}]"] = classify(s, inputs[0][:n], train.labels[:n], inputs[1], test.labels, trial)
    return metrics


@torch.inference_mode()
def _features(s: Settings, pixels: Tensor) -> Tensor:
    """Pictures on 28x28 as the classifier wants them."""
    pictures = on_canvas(pixels, 28).float()
    extract: Callable[[Tensor], Tensor] = nn.Identity()
    if s.features == "scattering":
        extract = Scattering2D(2, (28, 28))
    elif s.features == "random":
        extract = partial(feature_extractor(random_bank, 28, 2).as_matrix, reduce="none")
    features = torch.cat([extract(part) for part in pictures.split(250)])
    return features if s.features == "network" else features.flatten(1)


def _svm(s: Settings, inputs: Tensor, labels: Tensor, test: Tensor, wanted: Tensor, trial: Any) -> float:
    scaler = StandardScaler().fit(inputs.double())
    standard, test_standard = scaler.transform(inputs.double()), scaler.transform(test.double())
    # The weights of a linear SVM lie in the span of its n pictures: n coordinates there say all that counts.
    basis = np.linalg.qr(standard.T)[0]
    search = GridSearchCV(LinearSVC(random_state=0), {"C": list(s.penalties)}, cv=3)
    search.fit(standard @ basis, labels.numpy())
    return float(np.mean(search.predict(test_standard @ basis) == wanted.numpy()))


def _network(s: Settings, inputs: Tensor, labels: Tensor, test: Tensor, wanted: Tensor, trial: Any) -> float:
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 49, 10),
    ).to(trial.device)  # fmt: skip
    steps = max(s.steps, s.epochs * len(inputs) // s.batch_size)
    batch = min(s.batch_size, len(inputs))
    history = fit(model, inputs, labels, steps=steps, batch_size=batch, learning_rate=1e-3, diverged="stop")
    trial.count(updates=history.steps)
    return accuracy(predict(model, test), wanted)
