"""What could be reached at best: an approximate dynamic programme over a grid of populations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from reprise.envs.fisheries import THRESHOLD, YEARS, Fishery, grow, penalty

__all__ = ["DynamicProgram"]

Floats = NDArray[np.float64]


class DynamicProgram:
    """The best rule for a fishery that is known exactly, up to the width of a grid.

    Going back from the last year, the worth W of every population *after* the harvest is the expectation, by Gaussian
    quadrature, of the worth of what grows from it. Harvesting down to a point is worth the catch plus W there, so the
    best catch from everywhere is a running maximum along the axes of the harvested species.

    Args:
        fishery: the model.
        points: of the grid per species, in equal ratios from 0.05, as the noise is a share of the population.
        high: largest population of the grid, all species; beyond it the worth stays as it is there.
        nodes: of the quadrature per species.
        years: length of an episode.

    Attributes:
        value: the expected reward of an episode from the initial population, by the grid.

    Raises:
        ValueError: a grid of fewer than two points.

    Example:
        >>> from reprise.envs.fisheries import MODELS
        >>> best = DynamicProgram(MODELS[1], points=101)
        >>> best.act(np.array([[0.3], [0.8]]))[:, 0] > 0.1
        array([False,  True])
    """

    def __init__(
        self, fishery: Fishery, points: int = 20, high: float = 1.5, nodes: int = 3, years: int = YEARS
    ) -> None:
        if points < 2:
            raise ValueError(f"a grid has at least two points per species, not {points}")
        self.fishery, self.axis = fishery, np.geomspace(THRESHOLD, high, points)
        f, shape = fishery, (points,) * fishery.species
        grid = np.stack(np.meshgrid(*[self.axis] * f.species, indexing="ij"), -1).reshape(-1, f.species)
        size = grid[:, : f.fisheries].sum(1).reshape(shape)
        x, weights = np.polynomial.hermite_e.hermegauss(nodes)
        noises = np.stack(np.meshgrid(*[x] * f.species, indexing="ij"), -1).reshape(-1, f.species)
        chances = np.prod(np.meshgrid(*[weights / weights.sum()] * f.species, indexing="ij"), 0).reshape(-1)

        self.worth = np.empty((years, *shape))  # after the harvest of each year
        value = np.zeros(shape)  # before the harvest of the next year
        grown: list[tuple[Floats, Any]] = []  # for each noise, where on the grid and whether extinct
        for t in reversed(range(years)):
            if not grown or f.growth_rate(t) != f.growth_rate(t + 1):
                after = [grow(f, grid, t, np.broadcast_to(noise, grid.shape)) for noise in noises]
                grown = [(self._place(population), (population <= THRESHOLD).any(1)) for population in after]
            worth = np.zeros(len(grid))
            for chance, (place, extinct) in zip(chances, grown, strict=True):
                worth += chance * np.where(extinct, penalty(t), self._interpolate(value, place))
            self.worth[t] = worth.reshape(shape)
            value = self.worth[t] - size
            for axis in range(f.fisheries):
                value = np.maximum.accumulate(value, axis)
            value += size
        self.value = float(self._interpolate(value, self._place(np.array([f.initial])))[0])

    def _place(self, population: Floats) -> Floats:
        """Populations (N, species) as coordinates (species, N) of the grid."""
        logarithm = np.log(np.maximum(population.T, 1e-9) / self.axis[0])
        return logarithm / np.log(self.axis[1] / self.axis[0])

    @staticmethod
    def _interpolate(table: Floats, place: Floats) -> Floats:
        return map_coordinates(table, place, order=1, mode="nearest", prefilter=False)

    def act(self, population: Floats, t: int = 0) -> Floats:
        """(N, species) in year t to (N, fisheries): the best point of the grid to harvest down to, or no harvest."""
        f, N = self.fishery, len(population)
        harvested = population[:, : f.fisheries]
        # Along each harvested axis the candidates are the points of the grid and, last, staying where one is.
        axes = [np.concatenate([np.broadcast_to(self.axis, (N, len(self.axis))), x[:, None]], 1) for x in harvested.T]
        candidates = np.broadcast_arrays(
            *[axis.reshape(N, *[-1 if i == j else 1 for j in range(f.fisheries)]) for i, axis in enumerate(axes)]
        )
        worth = self._worth_of_candidates(population, t)
        for candidate, x in zip(candidates, harvested.T, strict=True):
            here = x.reshape(N, *[1] * f.fisheries)
            worth = np.where(candidate <= here, worth + here - candidate, -np.inf)
        best = worth.reshape(N, -1).argmax(1)
        left = np.stack([candidate.reshape(N, -1)[np.arange(N), best] for candidate in candidates], 1)
        return 1 - left / np.maximum(harvested, 1e-12)

    def _worth_of_candidates(self, population: Floats, t: int) -> Floats:
        """W with the populations that are not harvested where they are: (N, points + 1, ...) by harvested species."""
        f = self.fishery
        place = self._place(population).clip(0, len(self.axis) - 1)
        below = np.minimum(place.astype(int), len(self.axis) - 2)
        share = place - below
        worth = self.worth[t]
        if f.species > f.fisheries:  # the others, last axis first; the first of them gives the axis of populations
            for i in reversed(range(f.fisheries, f.species)):
                if i == f.species - 1:
                    low, high = (np.moveaxis(worth[..., below[i] + k], -1, 0) for k in (0, 1))
                else:
                    rows = np.arange(len(population))
                    low, high = (worth[rows, ..., below[i] + k] for k in (0, 1))
                weight = share[i].reshape(-1, *[1] * (low.ndim - 1))
                worth = (1 - weight) * low + weight * high
        else:
            worth = np.broadcast_to(worth, (len(population), *worth.shape))
        rows = np.arange(len(population))
        for i in range(f.fisheries):
            moved = np.moveaxis(worth, i + 1, 1)
            weight = share[i].reshape(-1, *[1] * (moved.ndim - 2))
            here = (1 - weight) * moved[rows, below[i]] + weight * moved[rows, below[i] + 1]
            worth = np.moveaxis(np.concatenate([moved, here[:, None]], 1), 1, i + 1)
        return worth
