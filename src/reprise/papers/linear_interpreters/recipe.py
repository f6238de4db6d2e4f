"""How much of what a network says comes from its constants, and how much from the picture?

A classifier with batch norm, one with biases only, and a super-resolution network are trained; for every test picture
the interpreter splits the output into F x and the residual r, which no picture enters but through the decisions.
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
from reprise.explain import LinearScope, linear_interpreter
from reprise.papers.linear_interpreters.nets import SuperResolution, classifier, low_resolution
from reprise.papers.linear_interpreters.pictures import draw
from reprise.training import fit

SHOWN = 3  # pictures whose votes are kept for the figure


@dataclass(frozen=True)
class Settings:
    task: str = "classify"  # "classify", or "enlarge": super-resolution from means of 2x2 pixels
    norm: bool = True  # of the classifier: batch norm and no biases in convolutions, or biases and no norm
    standardise: bool = True  # the classifier's inputs, by mean and deviation of each channel; else 0..1
    data: tuple[str, ...] = ("mnist", "cifar10")  # one cell each
    train: int = 5_000  # pictures for the classifier
    classifier_epochs: tuple[int, ...] = (5, 6)  # one per set of data
    widths: tuple[int, ...] = (16, 32, 64)  # of the classifier's three stages
    classifier_rate: float = 3e-3  # Adam, batches of 128
    enlarge_train: int = 3_000  # pictures for super-resolution
    enlarge_epochs: int = 3  # passes over them
    enlarge_rate: float = 1e-3  # Adam, batches of 32, mean absolute error
    test: int = 500  # pictures that are interpreted


def prepare(trial: Any) -> dict[str, tuple[Images, Images]]:
    """This seed's pictures."""
    s = trial.settings
    return {name: images.load(name).draw(trial.seed, max(s.train, s.enlarge_train), s.test) for name in s.data}


def measure(trial: Any) -> dict[str, float]:
    """Train one network per set of data, and split its outputs."""
    s = trial.settings
    metrics: dict[str, float] = {}
    for epochs, (name, (train, test)) in zip(s.classifier_epochs, trial.shared.items(), strict=True):
        values = _enlarge(trial, train, test) if s.task == "enlarge" else _classify(trial, name, train, test, epochs)
        metrics |= {f"{metric}[{name}]": value for metric, value in values.items()}
    return metrics


def _classify(trial: Any, name: str, train: Images, test: Images, epochs: int) -> dict[str, float]:
    s = trial.settings
    pixels = train.floats()[: s.train]
    mean, std = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
    if not s.standardise:
        mean, std = torch.zeros_like(mean), torch.ones_like(std)
    model = classifier(pixels.shape[1], s.norm, s.widths).to(trial.device)
    size = min(128, s.train)
    history = fit(
        model, (pixels - mean) / std, train.labels[: s.train], epochs=epochs, batch_size=size,
        learning_rate=s.classifier_rate, on_step=trial.on_step, diverged="stop",
    )  # fmt: skip
    trial.count(updates=history.steps)
    x = ((test.floats() - mean) / std).to(trial.device)
    if history.diverged_at is not None:
        return {"share": 0.0, "accuracy": 0.0, "accuracy_linear": 0.0}
    logits, linear = _split(model.eval(), x)
    own, rest = (_winner(part, logits.argmax(1)) for part in (linear, logits - linear))
    _keep_votes(trial, name, model, x[:SHOWN], test)
    return {
        "share": float((rest.abs() / (rest.abs() + own.abs()).clamp_min(1e-12)).mean()),
        "accuracy": float((logits.argmax(1).cpu() == test.labels).double().mean()),
        "accuracy_linear": float((linear.argmax(1).cpu() == test.labels).double().mean()),
    }


def _enlarge(trial: Any, train: Images, test: Images) -> dict[str, float]:
    s = trial.settings
    pixels = train.pixels[: s.enlarge_train]
    model = SuperResolution(pixels.shape[1]).to(trial.device)
    history = fit(
        model, pixels, pixels.float() / 255, loss=F.l1_loss, epochs=s.enlarge_epochs, batch_size=32,
        learning_rate=s.enlarge_rate, transform=low_resolution, on_step=trial.on_step, diverged="stop",
    )  # fmt: skip
    trial.count(updates=history.steps)
    if history.diverged_at is not None:
        return {"share": 1.0, "psnr": 0.0, "psnr_linear": 0.0}
    output, linear = _split(model.eval(), low_resolution(test.pixels).to(trial.device))
    own, rest = linear.flatten(1).norm(dim=1), (output - linear).flatten(1).norm(dim=1)
    target = test.floats().to(trial.device)
    return {
        "share": float((rest / (rest + own).clamp_min(1e-12)).mean()),
        "psnr": _psnr(output, target),
        "psnr_linear": _psnr(linear, target),
    }


def _split(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Each picture's output, and its own F x."""
    scope = LinearScope(model)
    parts = [scope(batch, batch, constants=False) for batch in x.split(50)]
    output, linear = (torch.cat(part) for part in zip(*parts, strict=True))
    return output, linear


def _winner(logits: Tensor, winner: Tensor) -> Tensor:
    """The winning class against the mean of all: what a constant on all logits does not change."""
    return logits.gather(1, winner[:, None])[:, 0] - logits.mean(1)


def _psnr(pictures: Tensor, target: Tensor) -> float:
    """Decibels, mean over pictures in 0..1."""
    error = (pictures - target).square().flatten(1).mean(1).clamp_min(1e-10)
    return float((-10 * error.log10()).mean())


def _keep_votes(trial: Any, name: str, model: nn.Module, x: Tensor, test: Images) -> None:
    votes, residuals = [], []
    for picture in x.split(1):
        interpreter = linear_interpreter(model, picture)
        votes.append(interpreter.contributions().cpu().numpy())
        residuals.append(interpreter.residual.cpu().numpy())
    np.savez(
        trial.folder / f"votes {name}.npz", pixels=test.pixels[: len(x)].numpy(), labels=test.labels[: len(x)].numpy(),
        votes=np.stack(votes), residuals=np.stack(residuals), classes=np.array(test.classes),
    )  # fmt: skip


def figure(results: Any) -> Figure:
    """Votes of pixels, what is left without them, and the share of the constants."""
    return draw(results)
