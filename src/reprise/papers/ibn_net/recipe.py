"""Does instance normalisation in the shallow layers keep accuracy when colours and contrast change?

One small ResNet is trained on CIFAR-10 three times, with batch norm everywhere, as IBN-Net-a and as IBN-Net-b, and is
then asked about test pictures whose appearance it never saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from reprise.data import appearance_shift, images
from reprise.data.shifts import SHIFTS
from reprise.nn import ResNet, feature_divergence, ibn_resnet
from reprise.papers.ibn_net.pictures import draw
from reprise.training import accuracy, fit, predict

PAPER_SHIFTS = ("rgb+50", "r+50", "std/1.5")
STAGES = ("stem", "stage 1", "stage 2", "stage 3", "stage 4")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)  # of CIFAR-10's training pictures, in 0..1
SHOWN = 3  # pictures kept for the figure


@dataclass(frozen=True)
class Settings:
    variant: str | None = None  # "a" or "b"; None is batch norm everywhere
    data: str = "cifar10"  # "digits" are shown in grey RGB at 32x32
    train: int = 10_000  # pictures
    test: int = 5_000  # pictures
    widths: tuple[int, ...] = (32, 64, 128, 128)  # of the four stages, one basic block each
    epochs: int = 4  # passes over the training pictures
    batch_size: int = 128  # pictures per step
    learning_rate: float = 0.1  # peak of SGD with momentum 0.9: 10 % linear warm-up, then cosine to zero
    weight_decay: float = 1e-4  # as in the paper
    divergence_pictures: int = 1_000  # test pictures whose features are compared with those of the same shifted


def prepare(trial: Any) -> dict[str, Any]:
    """This seed's training and test pictures, and the test pictures under every shift."""
    s = trial.settings
    train, test = images.load(s.data).draw(trial.seed, s.train, s.test)
    home = _rgb32(test.pixels)
    shifted = {kind: appearance_shift(home, kind) for kind in SHIFTS}
    return {"train": (_rgb32(train.pixels), train.labels), "labels": test.labels, "test": {"home": home} | shifted}


def measure(trial: Any) -> dict[str, float]:
    """Train one net and ask it about every version of the test pictures."""
    s, shared = trial.settings, trial.shared
    model = ibn_resnet(
        variant=s.variant,
        block="basic",
        layers=(1, 1, 1, 1),
        widths=s.widths,
        num_classes=10,
        small_input=True,
        stem_stride=2,
    ).to(trial.device)
    history = fit(
        model,
        *shared["train"],
        epochs=s.epochs,
        batch_size=s.batch_size,
        optimizer="sgd",
        learning_rate=s.learning_rate,
        weight_decay=s.weight_decay,
        schedule="cosine",
        warmup=0.1,
        transform=lambda pixels: _standardise(_flip(pixels)),
        on_step=trial.on_step,
        diverged="stop",
    )
    trial.count(updates=history.steps)

    scores = {kind: predict(model, pixels, transform=_standardise) for kind, pixels in shared["test"].items()}
    right = {kind: accuracy(values, shared["labels"]) for kind, values in scores.items()}
    shifted = float(np.mean([right[kind] for kind in PAPER_SHIFTS]))
    metrics = {"shifted": shifted, "drop": right["home"] - shifted}
    metrics |= {f"accuracy[{kind}]": value for kind, value in right.items()}

    home, *others = (
        _features(model, shared["test"][kind][: s.divergence_pictures]) for kind in ("home", *PAPER_SHIFTS)
    )
    for stage, name in enumerate(STAGES):
        apart = [feature_divergence(home[stage], other[stage]) for other in others]
        metrics[f"divergence[{name}]"] = float(np.nan_to_num(np.mean(apart), nan=1e6, posinf=1e6))
    np.save(trial.folder / "pictures.npy", np.stack([pixels[:SHOWN] for pixels in shared["test"].values()]))
    return metrics


@torch.inference_mode()
def _features(model: ResNet, pixels: Tensor) -> list[Tensor]:
    model.eval()
    device = next(model.parameters()).device
    return [maps.cpu() for maps in model.stages(_standardise(pixels.to(device)))]


def _rgb32(pixels: Tensor) -> Tensor:
    pixels = pixels.expand(-1, 3, -1, -1)
    return pixels if pixels.shape[-1] == 32 else F.interpolate(pixels, size=(32, 32))


def _flip(pixels: Tensor) -> Tensor:
    """Mirror every other picture, by chance."""
    mirrored = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < 0.5
    return torch.where(mirrored, pixels.flip(-1), pixels)


def _standardise(pixels: Tensor) -> Tensor:
    mean, std = (255 * torch.tensor(values, device=pixels.device)[:, None, None] for values in (MEAN, STD))
    return (pixels - mean) / std


def figure(results: Any) -> Figure:
    """What the nets are shown, what they make of it, and how far the shifts move their features."""
    return draw(results, ("home", *SHIFTS), PAPER_SHIFTS, STAGES)
