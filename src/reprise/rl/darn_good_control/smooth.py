"""A rule smoothed by a Gaussian process: what a learned policy does, without its wiggles.

Source: section 3.3 of the paper and its published code.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel

from reprise.rl.darn_good_control.rules import Rule

__all__ = ["GaussianProcessRule", "popular_window", "smooth_rule"]

Floats = NDArray[np.float64]


def popular_window(values: Floats, share: float = 0.7, shrink: float = 0.8, tries: int = 100) -> tuple[float, float]:
    """A narrow interval that holds more than ``share`` of the values.

    Windows of relative width 1, 0.8, 0.64, ... are slid over the range of the values in ``tries`` places; the
    narrowest width whose best place still holds enough is taken. (The public code adds the relative width to the
    start as if it were absolute; here the width is what it says.)

    Args:
        values: (N,) finite numbers.
        share: to be held.
        shrink: from one width to the next; there are eleven.
        tries: places per width.

    Example:
        >>> popular_window(np.r_[np.full(90, 0.5), np.linspace(0, 1, 10)])[0] > 0.3
        True
    """
    values = np.sort(values)
    low, high = float(values[0]), float(values[-1])
    best = (low, high)
    for i in range(11):
        width = shrink**i * (high - low)
        starts = np.linspace(low, high - width, tries)
        held = np.searchsorted(values, starts + width, "right") - np.searchsorted(values, starts, "left")
        if held.max() <= share * len(values):
            break
        start = float(starts[held.argmax()])
        best = (start, start + width)
    return best


class GaussianProcessRule:
    """The mean of a Gaussian process, clipped to [0, 1].

    Kernel ``amplitude * exp(-|x - x'|^2 / (2 length_scale^2))`` plus white noise, prior mean 0; the three numbers have
    the highest marginal likelihood that scikit-learn's optimiser finds.

    Args:
        populations: (M, species) where the rule is known.
        mortalities: (M, fisheries) what it does there.
        length_scale, noise: where the optimiser starts.
        fit_points: points, at random, on which the three numbers are found; all points then enter the mean.
        seed: of these points.

    Raises:
        ValueError: shapes that do not go together, or no finite numbers.

    Example:
        >>> points = np.random.default_rng(0).uniform(0, 1, (50, 3))
        >>> GaussianProcessRule(points, np.full((50, 1), 0.3)).act(points[:1]).round(2)
        array([[0.3]])
    """

    def __init__(
        self,
        populations: Floats,
        mortalities: Floats,
        *,
        length_scale: float = 10.0,
        noise: float = 0.1,
        fit_points: int = 1000,
        seed: int = 0,
    ) -> None:
        if len(populations) != len(mortalities) or np.ndim(mortalities) != 2:
            raise ValueError(f"populations (M, species) do not go with mortalities {np.shape(mortalities)}")
        if not (np.isfinite(populations).all() and np.isfinite(mortalities).all()):
            raise ValueError("populations or mortalities are not finite")
        some = np.random.default_rng(seed).permutation(len(populations))[:fit_points]
        kernel = 1.0 * RBF(length_scale) + WhiteKernel(noise)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # numbers at scikit-learn's bounds: a constant rule
            fitted = GaussianProcessRegressor(kernel, random_state=0).fit(populations[some], mortalities[some])
        self.amplitude = fitted.kernel_.k1.k1.constant_value
        self.length_scale, self.noise = fitted.kernel_.k1.k2.length_scale, fitted.kernel_.k2.noise_level
        self.points = torch.as_tensor(populations / self.length_scale)
        covariance = self._kernel(self.points).numpy()
        covariance[np.diag_indices(len(covariance))] += self.noise + 1e-10
        self.weights = torch.as_tensor(cho_solve(cho_factor(covariance, overwrite_a=True), mortalities))

    def _kernel(self, points: torch.Tensor) -> torch.Tensor:
        """Covariance of scaled points (N, species) with those that are known."""
        half = [0.5 * x.square().sum(1) for x in (points, self.points)]
        exponent = torch.addmm(-half[1].expand(len(points), -1), points, self.points.T) - half[0][:, None]
        return exponent.exp_().mul_(self.amplitude)

    def act(self, population: Floats, t: int = 0) -> Floats:
        """(N, species) to (N, fisheries)."""
        points = torch.as_tensor(np.ascontiguousarray(population) / self.length_scale)
        return (self._kernel(points) @ self.weights).clamp_(0, 1).numpy()


def smooth_rule(
    rule: Rule,
    visited: Floats,
    *,
    length_scale: float = 10.0,
    noise: float = 0.1,
    n_main: int = 51,
    n_side: int = 5,
    seed: int = 0,
) -> GaussianProcessRule:
    """Fit a Gaussian process to what a rule does where it comes to be.

    One grid per species: ``n_main`` numbers from 0 to 1 for that one, ``n_side`` across the popular window of each
    other. For one species it is one grid of 101 points.

    Args:
        rule: any.
        visited: (N, species) populations of its episodes.
        length_scale, noise: where the optimiser of the kernel starts.
        n_main, n_side: points.
        seed: of the points on which the kernel is fitted.

    Example:
        >>> from reprise.rl.darn_good_control import ConstantMortality
        >>> visited = np.random.default_rng(0).uniform(0.2, 0.9, (100, 3))
        >>> smooth_rule(ConstantMortality([0.2, 0.4]), visited, n_main=7, n_side=3).act(visited[:1]).round(2)
        array([[0.2, 0.4]])
    """
    species = visited.shape[1]
    if species == 1:
        points = np.linspace(0, 1, 101)[:, None]
    else:
        sides = [np.linspace(*popular_window(visited[:, i]), n_side) for i in range(species)]
        grids = []
        for main in range(species):
            axes = [np.linspace(0, 1, n_main) if i == main else sides[i] for i in range(species)]
            grids.append(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, species))
        points = np.concatenate(grids)
    return GaussianProcessRule(
        points, np.clip(rule.act(points), 0, 1), length_scale=length_scale, noise=noise, seed=seed
    )
