"""Is the small network that CNN Explainer draws a real classifier, and does its page need nothing but a browser?

Tiny VGG is trained beside softmax regression and a net of one convolution and about as many parameters. Each trained
net is written as a page, whose bytes and references to anything outside it are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.data import Images, images
from reprise.explain import export_web, external_references, trace
from reprise.nn import TinyVGG, multiply_adds, parameters
from reprise.papers.cnn_explainer.pictures import draw
from reprise.training import accuracy, fit, predict

SMALLEST = 16  # pixels a side that Tiny VGG needs; smaller pictures are enlarged


@dataclass(frozen=True)
class Settings:
    net: str = "tiny_vgg"  # or "one_conv": conv 3x3, ReLU, max-pool 4x4, linear; or "softmax": linear on pixels
    data: str = "cifar10"  # or any other picture set
    train: int = 10_000  # training pictures, drawn anew by each seed
    test: int = 5_000  # test pictures
    filters: int = 10  # of every convolution
    epochs: float = 8  # passes over the training pictures
    batch_size: int = 32  # pictures per step, as published
    learning_rate: float = 1e-3  # of Adam, constant; the published SGD at this rate needs hundreds of epochs


def prepare(trial: Any) -> tuple[Images, Images]:
    """The pictures of this seed, as bytes."""
    s = trial.settings
    train, test = images.load(s.data).draw(trial.seed, s.train, s.test)
    return _enlarge(train), _enlarge(test)


def measure(trial: Any) -> dict[str, float]:
    """Train one net; write it as a page; count."""
    s = trial.settings
    train, test = trial.shared
    _, channels, side, _ = train.pixels.shape
    model = network(s.net, side, channels, s.filters, len(train.classes)).to(trial.device)
    history = fit(
        model,
        train.pixels,
        train.labels,
        epochs=s.epochs,
        batch_size=s.batch_size,
        learning_rate=s.learning_rate,
        transform=_floats,
        on_step=trial.on_step,
        diverged="stop",
    )
    trial.count(updates=history.steps)
    metrics = {
        "accuracy": 100 * accuracy(predict(model, test.pixels, transform=_floats), test.labels),
        "parameters": float(parameters(model)),
        "multiply_adds": float(multiply_adds(model, (1, channels, side, side))),
        "page_bytes": 1e9,  # of a net that diverged: it cannot be written
        "external_requests": 1e9,
    }
    if history.diverged_at is None:
        first = [int((test.labels == label).nonzero()[0]) for label in test.labels.unique()]  # one picture per class
        samples, names = test.pixels[first], [test.classes[int(test.labels[index])] for index in first]
        page = export_web(model, trial.folder, test.classes, samples, sample_names=names, title=f"{s.net}, {s.data}")
        metrics["page_bytes"] = float(page.stat().st_size)
        metrics["external_requests"] = float(len(external_references(page.read_text(encoding="utf-8"))))
        traced = trace(model, _floats(samples[-1]))
        maps: dict[str, Any] = {column.name: column.output.numpy() for column in traced.columns}
        np.savez(trial.folder / "maps.npz", probabilities=traced.probabilities, classes=test.classes, **maps)
    return metrics


def network(name: str, side: int, channels: int, filters: int, classes: int) -> nn.Module:
    """One of the three nets, with Glorot-uniform weights and zero biases."""
    if name == "tiny_vgg":
        return TinyVGG(side, channels, filters, classes)
    if name == "one_conv":
        pooled = (side - 2) // 4
        head = nn.Linear(filters * pooled * pooled, classes)
        net = nn.Sequential(nn.Conv2d(channels, filters, 3), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), head)
    elif name == "softmax":
        net = nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, classes))
    else:
        raise ValueError(f'net is "tiny_vgg", "one_conv" or "softmax", not {name!r}')
    for weight in net.parameters():
        if weight.ndim > 1:
            nn.init.xavier_uniform_(weight)
        else:
            nn.init.zeros_(weight)
    return net


def _floats(pixels: Tensor) -> Tensor:
    return pixels.float() / 255


def _enlarge(pictures: Images) -> Images:
    factor = -(-SMALLEST // pictures.pixels.shape[-1])
    pixels = F.interpolate(pictures.pixels, scale_factor=float(factor)) if factor > 1 else pictures.pixels
    return Images(pixels.to(torch.uint8), pictures.labels, pictures.classes)


def figure(results: Any) -> Figure:
    """Every map of one picture in the trained Tiny VGG, and how often each net is right."""
    return draw(results)
