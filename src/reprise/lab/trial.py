"""What a recipe is given: one arm at one seed, and the ways to show what happens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reprise.lab.timing import SpeedComparison, compare_speed

__all__ = ["Trial"]


def _silent(share: float, what: str) -> None:
    """The progress listener of a trial that nobody watches."""


@dataclass
class Trial:
    """One arm at one seed.

    Attributes:
        arm: name of the arm, for labels; None in ``prepare``. What tells arms apart is in the settings.
        seed: seeds Python, NumPy and PyTorch before ``prepare`` and before every ``measure``.
        settings: the recipe's ``Settings`` (in ``prepare``: without the arm's own).
        shared: what ``prepare`` returned; to be read only.
        device: where to put tensors and models.
        folder: an existing folder for files of this trial.
    """

    arm: str | None
    seed: int
    settings: Any
    device: torch.device
    folder: Path
    shared: Any = None
    listener: Callable[[float, str], None] = _silent
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    pictures: list[dict[str, str]] = field(default_factory=list)

    def progress(self, done: float, total: float, what: str = "") -> None:
        """Tell how far the trial is."""
        self.listener(min(1.0, done / total), what)

    def curve(self, name: str, x: float, y: float) -> None:
        """Add a point to a curve; the report draws it with one line per seed and the mean per arm."""
        self.curves[name].append((float(x), float(y)))

    def on_step(self, step: int, total: int, values: dict[str, float]) -> None:
        """Progress and curves of a training; what ``reprise.training.fit`` and its like take as ``on_step``."""
        self.progress(step, total)
        for name, value in values.items():
            self.curve(name, step, value)

    def count(self, **amounts: float) -> None:
        """Add to what this arm spent, say ``updates=500, env_steps=10_000``; the report shows it per arm."""
        for name, amount in amounts.items():
            self.counts[name] += float(amount)

    def picture(self, name: str, picture: Any, caption: str = "") -> None:
        """Keep a picture for the report.

        Args:
            name: file name without ending, unique in the trial.
            picture: a Matplotlib figure, a Pillow image, or an array (H, W) or (H, W, 3), uint8 or floats in 0..1.
            caption: what to see in it.
        """
        path = self.folder / f"{name}.png"
        if hasattr(picture, "savefig"):
            picture.savefig(path, dpi=110, bbox_inches="tight")
        else:
            _image(picture).save(path)
        self.pictures.append({"file": path.name, "name": name, "caption": caption})

    def compare_speed(self, candidates: dict[str, Callable[[], Any]], **options: Any) -> SpeedComparison:
        """Time alternatives side by side; see :func:`reprise.lab.timing.compare_speed`."""
        return compare_speed(candidates, **options)


def _image(picture: Any) -> Any:
    from PIL import Image

    if isinstance(picture, Image.Image):
        return picture
    array = picture.detach().cpu().numpy() if isinstance(picture, torch.Tensor) else np.asarray(picture)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"a picture is (H, W) or (H, W, 3), not {array.shape}")
    if array.dtype != np.uint8:
        array = (np.clip(array, 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(array)
