"""How near is an adversarial image that is found by asking alone, and does looking into the network bring it nearer?

One small network is trained on MNIST. Its test pictures are then attacked through its class probabilities, with a fixed
number of queries per picture, and by attacks that use its gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.data import images
from reprise.papers.safety_testing.pictures import draw as figure
from reprise.safety import FeatureGame, SearchResult, cw_l0, jsma, l0_distance, mcts, random_search, uniform_features
from reprise.training import accuracy, fit, predict

__all__ = ["Settings", "figure", "measure", "prepare"]

SHOWN = 4  # pictures kept for the figure


@dataclass(frozen=True)
class Settings:
    attack: str = "tree"  # a key of ATTACKS
    data: str = "mnist"  # "digits" are 8x8
    enlarge: int = 1  # factor by which the pictures grow
    shrink: int = 1  # factor by which they shrink, by averages
    train: int = 10_000  # pictures
    test: int = 1_000  # pictures that the network is tested on
    attacked: int = 20  # of those that it names correctly
    epochs: int = 4  # passes over the training pictures
    queries: int | None = 4_000  # per picture, restoring included
    simulations: int | None = None  # plays per picture; None: as many as the queries allow
    visit: int = 6  # pixels changed in a move
    moves: int = 4  # of player II in a node of the tree
    opponent: str = "cooperative"  # player II in the tree
    outputs: str = "softmax"  # what the saliency map attack differentiates
    pairs: bool = True  # whether it changes two pixels at a time
    direction: str = "increase"  # whether it may also darken pixels
    steps: int = 100  # of Adam for each constant in Carlini and Wagner's attack


def carlini_wagner_net(side: int = 28, classes: int = 10) -> nn.Sequential:
    """The network of Carlini and Wagner for MNIST: 312,202 parameters at 28x28; odd sides are pooled upwards."""
    net, channels, left = nn.Sequential(), 1, side
    for width in (32, 64):
        net.extend([nn.Conv2d(channels, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU()])
        net.append(nn.MaxPool2d(2, ceil_mode=True))
        channels, left = width, (left - 3) // 2
    net.extend([nn.Flatten(), nn.Linear(64 * left**2, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU()])
    return net.append(nn.Linear(200, classes))


@dataclass(frozen=True)
class Shared:
    """What all arms of a seed attack."""

    net: nn.Module
    pixels: Tensor  # (attacked, 1, H, W) in 0..1
    labels: Tensor
    accuracy: float  # of the network on the test pictures


def prepare(trial: Any) -> Shared:
    """Train the network; keep the first test pictures that it names correctly."""
    s = trial.settings
    train, test = (_resized(part, s) for part in images.load(s.data).draw(trial.seed, s.train, s.test))
    net = carlini_wagner_net(train[0].shape[-1]).to(trial.device)
    fit(net, *train, epochs=s.epochs, batch_size=64, on_step=trial.on_step, diverged="stop")
    scores = predict(net, test[0])
    right = torch.nonzero(scores.argmax(1) == test[1]).flatten()[: s.attacked]
    return Shared(net, test[0][right], test[1][right], accuracy(scores, test[1]))


def measure(trial: Any) -> dict[str, float]:
    """Attack every picture; what was not reached counts as all its pixels."""
    s, shared = trial.settings, trial.shared
    pixels = float(shared.pixels.shape[-1] * shared.pixels.shape[-2])
    if not len(shared.labels):  # the network learned nothing that could be attacked
        return {"distance": pixels, "success": 0.0, "accuracy": shared.accuracy}
    attacked = ATTACKS[s.attack](trial)
    named = predict(shared.net, attacked).argmax(1)
    success = named != shared.labels
    distance = torch.where(success, l0_distance(attacked, shared.pixels), pixels)
    few = slice(SHOWN)
    np.savez(trial.folder / "pictures.npz", originals=shared.pixels[few, 0], attacked=attacked[few, 0],
             labels=shared.labels[few], named=named[few])  # fmt: skip
    share = float(success.double().mean())
    return {"distance": float(distance.mean()), "success": share, "accuracy": shared.accuracy}


def play(trial: Any, search: Callable[..., SearchResult], uniform: bool = False, **options: Any) -> Tensor:
    """One search per picture by queries alone; the curve is the best distance so far, the mean over pictures."""
    s, shared = trial.settings, trial.shared
    attacked, best = shared.pixels.clone(), []
    marks = np.linspace(0, s.queries or 1, 41)[1:]
    for i, (pixels, label) in enumerate(zip(shared.pixels, shared.labels.tolist(), strict=True)):
        features = uniform_features(tuple(pixels.shape[1:])) if uniform else None
        game = FeatureGame(shared.net, pixels, label, outputs="logits", features=features)
        result = search(
            game, queries=s.queries, simulations=s.simulations, visit=s.visit, seed=100 * trial.seed + i, **options
        )
        if result.adversarial is not None:
            attacked[i] = result.adversarial
        trial.count(queries=result.queries)
        trial.progress(i + 1, len(attacked))
        trace = np.vstack([[0, np.inf, np.inf], result.trace])  # before the first play nothing is known
        known = trace[np.searchsorted(trace[:, 0], marks, side="right") - 1, 2]
        best.append(np.minimum(known, pixels[0].numel()))
    for mark, value in zip(marks, np.mean(best, 0), strict=True):
        trial.curve("best distance so far, by queries", mark, value)
    return attacked


def look_inside(trial: Any, attack: Callable[..., Any], **options: Any) -> Tensor:
    """An attack by gradients."""
    shared = trial.shared
    result = attack(shared.net, shared.pixels.to(trial.device), shared.labels.to(trial.device), **options)
    trial.count(queries=float(result.queries.sum()), gradients=float(result.gradients.sum()))
    return result.images.cpu()


ATTACKS: dict[str, Callable[[Any], Tensor]] = {
    "tree": lambda t: play(t, mcts, opponent=t.settings.opponent, moves=t.settings.moves),
    "restarts": lambda t: play(t, random_search),
    "uniform": lambda t: play(t, random_search, uniform=True),
    "jsma": lambda t: look_inside(
        t, jsma, outputs=t.settings.outputs, pairs=t.settings.pairs, direction=t.settings.direction
    ),
    "cw_l0": lambda t: look_inside(t, cw_l0, steps=t.settings.steps),
}


def _resized(part: Any, s: Settings) -> tuple[Tensor, Tensor]:
    pixels = F.avg_pool2d(part.floats(), s.shrink)
    return F.interpolate(pixels, scale_factor=s.enlarge), part.labels
