"""Does a support vector machine on top of a small CNN classify better than softmax does? The paper found: no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.data import Images, images
from reprise.nn import AgarapCNN
from reprise.training import L2SVMLoss, fit, predict, svm_predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WATCHED = 1_000  # test pictures behind the learning curve


@dataclass(frozen=True)
class Settings:
    loss: str = "softmax"  # "softmax": cross-entropy; "svm": squared hinge with the read-out's mean square as penalty
    C: float = 1.0  # weight of the hinge
    data: str = "mnist"  # "mnist", "fashion_mnist", "cifar10" or "digits"
    train: int = 60_000  # training pictures, drawn anew by each seed
    test: int = 10_000  # test pictures
    steps: int = 500  # optimiser steps
    early: int = 200  # the step of the early accuracy
    batch_size: int = 128  # pictures per step
    learning_rate: float = 1e-3  # Adam, constant


def prepare(trial: Any) -> tuple[Images, Images]:
    """The pictures of this seed, as bytes."""
    s = trial.settings
    train, test = images.load(s.data).draw(trial.seed, s.train, s.test)
    return (_enlarge(train), _enlarge(test)) if s.data == "digits" else (train, test)


def measure(trial: Any) -> dict[str, float]:
    """Train the network under one loss; read its scores on the test pictures by the rules that go with the loss."""
    s = trial.settings
    train, test = trial.shared
    _, channels, height, width = train.pixels.shape
    model = AgarapCNN(len(train.classes), channels, (height, width)).to(trial.device)
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    if s.loss == "svm":
        loss = L2SVMLoss(s.C, regularize=model.readout)

    def scores(pictures: Images) -> Tensor:
        return predict(model, pictures.pixels, transform=_floats)

    early: list[float] = []

    def watch(step: int, total: int, values: dict[str, float]) -> None:
        trial.on_step(step, total, values)
        if len(trial.curves["loss"]) % 5 == 0:
            watched = test[:WATCHED]
            trial.curve("test accuracy", step, accuracy(scores(watched), watched.labels))
        if step >= s.early and not early:
            early.append(accuracy(scores(test), test.labels))

    history = fit(
        model, train.pixels, train.labels, loss=loss, steps=s.steps, batch_size=s.batch_size,
        learning_rate=s.learning_rate, transform=_floats, on_step=watch, diverged="stop",
    )  # fmt: skip
    trial.count(updates=history.steps)
    final = scores(test)
    metrics = {"accuracy": accuracy(final, test.labels)}
    metrics["accuracy_early"] = early[0] if early else metrics["accuracy"]
    if s.loss == "svm":
        metrics["accuracy_sign"] = accuracy(final, test.labels, rule="sign")
        metrics["ambiguous"] = 100 * float(((final > 0).sum(1) != 1).double().mean())
    return metrics


def accuracy(scores: Tensor, labels: Tensor, rule: str = "score") -> float:
    """Pictures classified correctly, in points; scores that are not finite are wrong."""
    right = (svm_predict(scores, rule) == labels) & scores.isfinite().all(1)
    return 100 * float(right.double().mean())


def figure(results: Any) -> Figure:
    """Left, test accuracy during training, a line per seed; right, at the end by each rule, a dot per seed."""
    from matplotlib.figure import Figure

    rules = [
        ("softmax", "accuracy", "softmax\nlargest score", "tab:blue"),
        ("svm", "accuracy", "SVM\nlargest score", "tab:orange"),
        ("svm", "accuracy_sign", "SVM\nlargest sign", "tab:red"),
    ]
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    for arm, _, label, color in rules[:2]:
        curves = [dict(points) for points in results.curve(arm, "test accuracy").values()]
        for curve in curves:
            left.plot(curve.keys(), curve.values(), "o-", color=color, alpha=0.35, markersize=3, linewidth=1)
        steps = [step for step in (curves or [{}])[0] if all(step in curve for curve in curves)]
        mean = [sum(curve[step] for curve in curves) / len(curves) for step in steps]
        left.plot(steps, mean, color=color, linewidth=2.5, label=label.replace("\n", ", "))
    left.set(xlabel="optimiser steps", ylabel=f"accuracy on {WATCHED:,} test pictures (%)", xlim=(0, None))
    left.set_title("How far the SVM is behind softmax while training: seeds and mean", fontsize=11)
    left.legend(loc="lower right")
    for place, (arm, metric, _, color) in enumerate(rules):
        values = list(results.values(arm, metric).values())
        if values:
            offsets = 0.08 * (torch.arange(len(values)) - (len(values) - 1) / 2)
            right.plot(place + offsets, values, "o", color=color, alpha=0.7)
            center = sum(values) / len(values)
            right.hlines(center, place - 0.3, place + 0.3, color=color)
            right.annotate(f"{center:.2f}", (place + 0.33, center), va="center", fontsize=9, color=color)
    right.set_xticks(range(len(rules)), [label for _, _, label, _ in rules], fontsize=9)
    right.set(xlim=(-0.5, len(rules) - 0.1), ylabel="accuracy on all test pictures (%)")
    right.set_title("... and after the last step, by each rule", fontsize=11)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    return figure


def _floats(pixels: Tensor) -> Tensor:
    return pixels.float() / 255


def _enlarge(pictures: Images) -> Images:
    """8x8 to 28x28: every pixel three times, and a border of two."""
    pixels = pictures.pixels.repeat_interleave(3, 2).repeat_interleave(3, 3)
    return replace(pictures, pixels=F.pad(pixels, (2, 2, 2, 2)))
