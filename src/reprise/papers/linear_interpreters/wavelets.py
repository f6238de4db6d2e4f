"""Do the eigen-inputs of a super-resolution network look like wavelets: localised and band-pass?

The matrices are small enough for NumPy's SVD. An up-sampler that is the same everywhere has whole-picture sinusoids for
singular vectors; so localisation shows how far the network adapts to the picture.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch.nn import functional as F

from reprise.data import images
from reprise.explain import linear_interpreter
from reprise.papers.linear_interpreters.nets import Bicubic, SuperResolution, grey, low_resolution
from reprise.papers.linear_interpreters.pictures import draw_basis
from reprise.training import fit


@dataclass(frozen=True)
class Settings:
    net: str = "trained"  # "trained", "untrained": the same initial weights, or "bicubic"
    data: tuple[str, ...] = ("mnist", "cifar10")  # in grey; one cell each
    train: int = 3_000  # pictures
    epochs: int = 3  # passes over them
    learning_rate: float = 1e-3  # Adam, batches of 32, mean absolute error
    test: int = 8  # pictures that are interpreted
    vectors: int = 16  # leading eigen-inputs and eigen-outputs of each


def prepare(trial: Any) -> dict[str, Any]:
    """By set of data: the three networks and this seed's test pictures."""
    s, shared = trial.settings, {}
    for name in s.data:
        train, test = images.load(name).draw(trial.seed, s.train, s.test)
        pixels = grey(train.pixels)
        untrained = SuperResolution(1)
        trained = copy.deepcopy(untrained)
        history = fit(
            trained, pixels, pixels.float() / 255, loss=F.l1_loss, epochs=s.epochs, batch_size=32,
            learning_rate=s.learning_rate, transform=low_resolution, on_step=trial.on_step, diverged="stop",
        )  # fmt: skip
        nets = {"trained": trained, "untrained": untrained, "bicubic": Bicubic()}
        shared[name] = (
            {key: net.eval() for key, net in nets.items()},
            low_resolution(grey(test.pixels)),
            history.diverged_at,
        )
    return shared


def measure(trial: Any) -> dict[str, float]:
    """Localisation and spectrum of the leading singular vectors, mean over vectors and pictures."""
    s = trial.settings
    metrics: dict[str, float] = {}
    kept: dict[str, np.ndarray] = {}
    for name, (nets, pictures, diverged) in trial.shared.items():
        if s.net == "trained" and diverged is not None:
            metrics |= {f"spread[{name}]": 1.0, f"band_pass[{name}]": 0.0, f"band_pass_output[{name}]": 0.0}
            continue
        found = []
        for i, picture in enumerate(pictures.to(trial.device).split(1)):
            interpreter = linear_interpreter(copy.deepcopy(nets[s.net]).to(trial.device), picture)
            U, _, Vt = np.linalg.svd(interpreter.matrix().cpu().numpy(), full_matrices=False)
            V = Vt[: s.vectors].reshape(-1, *interpreter.input_shape[1:])
            U = U.T[: s.vectors].reshape(-1, *interpreter.output_shape[1:])
            found.append((participation(V).mean(), band_pass(V).mean(), band_pass(U).mean()))
            if i == 0:
                kept |= {f"picture {name}": picture[0, 0].cpu().numpy(), f"inputs {name}": V[:8]}
                middle = interpreter.output_shape[1] // 2
                kept[f"row {name}"] = interpreter.rows([(0, middle, middle)])[0, 0].cpu().numpy()
        values = zip(("spread", "band_pass", "band_pass_output"), np.mean(found, 0), strict=True)
        metrics |= {f"{metric}[{name}]": float(value) for metric, value in values}
    np.savez(trial.folder / "basis.npz", **kept)  # type: ignore[arg-type]
    return metrics


def participation(vectors: np.ndarray) -> np.ndarray:
    """(sum v^2)^2 / (n sum v^4) of each picture: 1 where all n pixels take part evenly, 1/n for a single one."""
    power = np.square(vectors.reshape(len(vectors), -1))
    return power.sum(1) ** 2 / (power.shape[1] * np.square(power).sum(1))


def band_pass(vectors: np.ndarray) -> np.ndarray:
    """The share of the spectrum's energy above 1/8 cycle per pixel."""
    energy = np.abs(np.fft.fft2(vectors)) ** 2
    rows, columns = (np.fft.fftfreq(size) for size in vectors.shape[1:])
    fast = np.hypot(rows[:, None], columns) > 1 / 8
    return energy[:, fast].sum(1) / energy.sum((1, 2))


def figure(results: Any) -> Figure:
    """Eigen-inputs and rows of every network, and how localised they are."""
    return draw_basis(results)
