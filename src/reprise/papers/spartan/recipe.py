"""Are SpaRTAN's mixers worth their parameters?

A small SpaRTAN is trained on few pictures of CIFAR-10; so are nets of the same stem, downsamplers, head and number of
parameters whose blocks are ConvNeXt's, or whose channel mixers are MLPs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from reprise.data import images
from reprise.nn import SpaRTAN, multiply_adds, parameters
from reprise.nn.spartan import weight_decay_groups
from reprise.papers.spartan.blocks import exchange
from reprise.papers.spartan.pictures import draw
from reprise.training import accuracy, fit, predict

SMALLEST = 16  # pixels a side; smaller pictures are enlarged to it


@dataclass(frozen=True)
class Settings:
    block: str = "spartan"  # or "convnext", "mlp", "plain_space": see blocks.exchange
    data: str = "cifar10"  # or any other picture set of ten classes
    train: int = 5_000  # pictures
    test: int = 5_000  # pictures
    validation: bool = False  # test on pictures of the training split, for tuning
    dims: tuple[int, ...] = (16, 32, 64, 128)  # channels of the stages
    depths: tuple[int, ...] = (1, 1, 2, 1)  # blocks of the stages
    layer_scale: float = 0.1  # of all arms; the published 1e-5 is for 300 epochs
    epochs: float = 5  # passes over the training pictures
    batch_size: int = 128  # pictures per step
    learning_rate: float = 2e-2  # peak of AdamW: 10 % linear warm-up, then cosine to zero
    weight_decay: float = 0.03  # as published, and on the same parameters


def prepare(trial: Any) -> dict[str, Any]:
    """This seed's training and test pictures, and the mean and standard deviation of each colour."""
    s = trial.settings
    data = images.load(s.data)
    train, test = data.draw(trial.seed, s.train, s.test)
    if s.validation:
        both, _ = data.draw(trial.seed, s.train + s.test, 1)
        train, test = both[: s.train], both[s.train :]
    pixels = train.floats()
    return {
        "train": train,
        "test": test,
        "mean": pixels.mean((0, 2, 3))[:, None, None],
        "std": pixels.std((0, 2, 3))[:, None, None],
    }


def measure(trial: Any) -> dict[str, float]:
    """Train one net and count what it gets right and what it costs."""
    s, shared = trial.settings, trial.shared
    train, test = shared["train"], shared["test"]
    mean, std = shared["mean"].to(trial.device), shared["std"].to(trial.device)

    def standardise(pixels: Tensor) -> Tensor:
        pixels = (pixels.float() / 255 - mean) / std
        return pixels if pixels.shape[-1] >= SMALLEST else F.interpolate(pixels, size=(SMALLEST, SMALLEST))

    model = SpaRTAN(
        num_classes=len(train.classes),
        depths=s.depths,
        dims=s.dims,
        drop_path=0.0,
        in_chans=train.pixels.shape[1],
        layer_scale=s.layer_scale,
        small_input=True,
    )
    model = exchange(model, s.block, s.layer_scale).to(trial.device)
    history = fit(
        model,
        train.pixels,
        train.labels,
        epochs=s.epochs,
        batch_size=s.batch_size,
        optimizer=torch.optim.AdamW(weight_decay_groups(model, s.weight_decay), lr=s.learning_rate, fused=True),
        schedule="cosine",
        warmup=0.1,
        transform=lambda pixels: standardise(_flip(pixels)),
        on_step=trial.on_step,
        diverged="stop",
    )
    trial.count(updates=history.steps)
    return {
        "accuracy": 100 * accuracy(predict(model, test.pixels, transform=standardise), test.labels),
        "parameters": float(parameters(model)),
        "multiply_adds": float(multiply_adds(model, standardise(test.pixels[:1].to(trial.device)))),
    }


def _flip(pixels: Tensor) -> Tensor:
    """Mirror every other picture, by chance."""
    mirrored = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < 0.5
    return torch.where(mirrored, pixels.flip(-1), pixels)


def figure(results: Any) -> Figure:
    """Accuracy against parameters, and what each part contributes."""
    return draw(results)
