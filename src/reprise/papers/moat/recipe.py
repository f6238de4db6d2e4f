"""Is a block better when a mobile convolution takes the MLP's place and comes before the attention?

One small net learns CIFAR-10 with its last blocks arranged in four ways of about equal size, and in two of them with
attention confined to windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from reprise.data import images
from reprise.nn import MOAT, multiply_adds, parameters
from reprise.papers.moat.nets import build
from reprise.papers.moat.pictures import draw
from reprise.training import accuracy, fit, predict


@dataclass(frozen=True)
class Settings:
    arrangement: str = "moat"  # of the last blocks: "moat", "transformer", "attention_first" or "stacked"
    window: int | None = None  # side of the attention windows; None is the whole 8x8 map
    data: str = "cifar10"  # "digits" are shown in grey RGB at 32x32
    train: int = 5_000  # pictures
    test: int = 5_000  # pictures
    epochs: int = 3  # passes over the training pictures
    batch_size: int = 128  # pictures per step
    learning_rate: float = 2e-3  # peak of AdamW: linear warm-up, then cosine to zero
    warmup: float = 0.256  # share of the steps: 30 of 117
    weight_decay: float = 0.05  # as in the paper
    clip: float = 1.0  # norm of the gradient, as in the paper
    shift: int = 4  # pixels by which training pictures are shifted at most
    reach_pictures: int = 64  # test pictures over which the reach of a pixel is averaged


def prepare(trial: Any) -> dict[str, Any]:
    """This seed's pictures, and mean and standard deviation of the channels of the training ones."""
    s = trial.settings
    train, test = images.load(s.data).draw(trial.seed, s.train, s.test)
    pixels = _rgb32(train.pixels)
    std, mean = torch.std_mean(pixels.float(), (0, 2, 3), keepdim=True)
    return {"train": (pixels, train.labels), "test": (_rgb32(test.pixels), test.labels), "norm": (mean, std)}


def measure(trial: Any) -> dict[str, float]:
    """Train the net of this arm and ask it about the test pictures."""
    s, shared = trial.settings, trial.shared
    net = build(s.arrangement, s.window).to(trial.device)
    mean, std = (value.to(trial.device) for value in shared["norm"])

    def standardise(pixels: Tensor) -> Tensor:
        return (pixels - mean) / std

    history = fit(
        net,
        *shared["train"],
        epochs=s.epochs,
        batch_size=s.batch_size,
        optimizer="adamw",
        learning_rate=s.learning_rate,
        weight_decay=s.weight_decay,
        clip_norm=s.clip,
        schedule="cosine",
        warmup=s.warmup,
        transform=lambda pixels: standardise(_augment(pixels, s.shift)),
        on_step=trial.on_step,
        diverged="stop",
    )
    trial.count(updates=history.steps)
    pixels, labels = shared["test"]
    scores = predict(net, pixels, transform=standardise)
    np.save(trial.folder / "reach.npy", _reach(net, standardise(pixels[: s.reach_pictures].to(trial.device))))
    return {
        "accuracy": accuracy(scores, labels),
        "parameters": parameters(net),
        "multiply_adds": multiply_adds(net, (1, 3, 32, 32)),
    }


def _reach(net: MOAT, pictures: Tensor) -> np.ndarray:
    """How strongly each place of the 8x8 map moves the output of the blocks at (3, 3), averaged over pictures."""
    net.eval()
    x = net.stages[0](net.stem(pictures)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.stages[1](x)[:, :, 3, 3].square().sum(), x)
    strength: Tensor = F.avg_pool2d(gradient.abs(), 2).nan_to_num().mean((0, 1))
    return (strength / strength.max().clamp_min(1e-30)).cpu().numpy()


def _augment(pixels: Tensor, shift: int) -> Tensor:
    """Mirror every other picture by chance, and shift each by up to so many pixels; black comes in."""
    n, side, device = len(pixels), pixels.shape[-1], pixels.device
    padded = F.pad(pixels, (shift,) * 4).movedim(1, -1)
    rows, columns = torch.randint(2 * shift + 1, (2, n, 1), device=device) + torch.arange(side, device=device)
    columns = torch.where(torch.rand(n, 1, device=device) < 0.5, columns.flip(1), columns)
    example = torch.arange(n, device=device)[:, None, None]
    return padded[example, rows[:, :, None], columns[:, None]].movedim(-1, 1)


def _rgb32(pixels: Tensor) -> Tensor:
    pixels = pixels.expand(-1, 3, -1, -1)
    return pixels if pixels.shape[-1] == 32 else F.interpolate(pixels, size=(32, 32))


def figure(results: Any) -> Figure:
    """Accuracy against parameters, and how far one pixel sees where attention is confined to windows."""
    return draw(results, reach=("moat_windows", "transformer_windows"), window=4)
