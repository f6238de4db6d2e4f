"""The scales of a policy: everything that it observes and does, brought to a common range and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprise.data.episodes import Episodes
from reprise.data.normalize import Normalizer
from reprise.policies.observations import Shape, Shapes, is_picture, tensor_of

__all__ = ["Scales"]

SCALINGS: dict[str, Callable[[np.ndarray], Normalizer]] = {
    "min_max": Normalizer.min_max,
    "standard": Normalizer.standard,
    "none": lambda rows: Normalizer(torch.zeros(rows.shape[-1]), torch.ones(rows.shape[-1])),
}


class Scales:
    """A normalizer for each thing that is observed, but for pictures, and one for ``actions``.

    Args:
        observation, action: "min_max" (to [-1, 1]), "standard" (mean 0, deviation 1) or "none".
        device: of what is scaled.

    Attributes:
        normalizers: name to :class:`~reprise.data.Normalizer`; empty until they are measured.

    Raises:
        ValueError: an unknown scaling.

    Example:
        >>> walk = Episodes({"state": np.arange(5.0)[:, None]}, np.ones((5, 1), np.float32), np.array([5]))
        >>> scales = Scales("min_max", "none")
        >>> scales.measure(Shapes({"state": (1,)}, action=1), walk)
        >>> scales.episodes(walk).observations["state"][:, 0].tolist()
        [-1.0, -0.5, 0.0, 0.5, 1.0]
    """

    def __init__(self, observation: str, action: str, device: torch.device | str = "cpu") -> None:
        for scaling in (observation, action):
            if scaling not in SCALINGS:
                raise ValueError(f"unknown scaling {scaling!r}; there are {', '.join(map(repr, SCALINGS))}")
        self.observation, self.action, self.device = observation, action, torch.device(device)
        self.normalizers: dict[str, Normalizer] = {}

    def measure(self, shapes: Shapes, episodes: Episodes | None = None) -> None:
        """Take the scales of episodes; without, nothing is scaled."""
        observation, action = (self.observation, self.action) if episodes is not None else ("none", "none")
        for name, shape in {**shapes.observations, **shapes.goal}.items():
            if not is_picture(shape):
                rows = np.zeros((1, *shape)) if episodes is None else episodes.observations[name]
                self.normalizers[name] = SCALINGS[observation](rows).to(self.device)
        rows = np.zeros((1, shapes.action)) if episodes is None else episodes.actions
        self.normalizers["actions"] = SCALINGS[action](rows).to(self.device)

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """(..., D) scaled; what has no scale as it is."""
        return self.normalizers[name](value) if name in self.normalizers else value

    def read(self, given: Mapping[str, Any], shapes: Mapping[str, Shape], what: str) -> dict[str, Tensor]:
        """Check and scale what was given for some names.

        Args:
            given: name to (B, ...).
            shapes: the names that are wanted, and the shapes of one row.
            what: the beginning of a complaint about a name that is missing.

        Raises:
            ValueError: something is missing, has another shape or is not finite.
        """
        if missing := [name for name in shapes if name not in given]:
            raise ValueError(f"{what} {', '.join(shapes)}; {missing[0]!r} is missing, there is {', '.join(given)}")
        return {name: self(name, tensor_of(given[name], name, shape, self.device)) for name, shape in shapes.items()}

    def episodes(self, episodes: Episodes) -> Episodes:
        """Episodes, scaled; what has no scale is not copied."""
        scaled = {
            name: self(name, torch.as_tensor(array, device=self.device).float()).cpu().numpy()
            if name in self.normalizers
            else array
            for name, array in episodes.observations.items()
        }
        actions = self("actions", torch.as_tensor(episodes.actions, device=self.device)).cpu().numpy()
        return Episodes(scaled, actions, episodes.ends)
