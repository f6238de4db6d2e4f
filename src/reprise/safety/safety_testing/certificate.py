"""No adversarial image in a ball: a proof by finitely many queries, for a classifier that is Lipschitz."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reprise.safety.black_box import Predict
from reprise.safety.safety_testing.features import check_image

__all__ = ["Certificate", "lipschitz_certificate"]

ORDERS = {"l1": 1.0, "l2": 2.0, "linf": math.inf}
CHUNK = 4096  # images per call


@dataclass(frozen=True)
class Certificate:
    """Whether a ball is proven safe, and why or why not.

    Attributes:
        verified: true only if no image of the ball is adversarial. False does not say that one is, unless there is a
            ``counterexample``.
        reason: one sentence.
        margin: least lead of the true class over the others among the images of the grid.
        slack: how far the lead can fall between them, 2 * constant * distance to the grid.
        queries: images of the grid.
        counterexample: (C, H, W) an adversarial image of the grid inside the ball, None if there is none.
    """

    verified: bool
    reason: str
    margin: float
    slack: float
    queries: int
    counterexample: Tensor | None = None


def lipschitz_certificate(
    predict: Predict,
    image: Tensor,
    label: int,
    *,
    radius: float,
    tau: float,
    constant: float,
    norm: str = "l2",
    most: int = 1_000_000,
) -> Certificate:
    """Look at all images of a grid in and just around a ball, and conclude for the whole ball if that is allowed.

    Every image of the ball is within d = tau / 2 (times the norm of the vector of ones) of an image
    image + tau z, z integer, cut to 0..1. If each score changes by at most ``constant`` times the distance, the lead of
    the true class falls by at most 2 * constant * d from there; so if the least lead on the grid is at least that, and
    above 0, no image of the ball is adversarial.

    Args:
        predict: (N, C, H, W) images in 0..1 to (N, K) scores of any kind: those that ``constant`` is about.
        image: (C, H, W) floats in 0..1; small, since the grid has about (2 radius / tau + 1) ** (C H W) images.
        label: the true class.
        radius: of the ball.
        tau: step of the grid.
        constant: Lipschitz constant of every score with respect to ``norm``.
        norm: "l1", "l2" or "linf".
        most: images of the grid, at most.

    Raises:
        ValueError: not such an image, a number not above 0, an unknown norm, a label that is out of range, scores
            that are no finite numbers, or a grid larger than ``most``.

    Source: the guarantee of section 4 of Wicker, Huang and Kwiatkowska, TACAS 2018, in its conservative form.

    Example:
        >>> def linear(images):  # the lead of class 0 is one half minus the pixel, twice
        ...     return torch.cat([1 - images.flatten(1), images.flatten(1)], 1)
        >>> image = torch.full((1, 1, 1), 0.2)
        >>> lipschitz_certificate(linear, image, 0, radius=0.25, tau=0.02, constant=1.0).verified
        True
        >>> lipschitz_certificate(linear, image, 0, radius=0.35, tau=0.02, constant=1.0).reason
        'an image of the grid inside the ball is adversarial'
    """
    pixels = check_image(image).astype(np.float64)
    if norm not in ORDERS:
        raise ValueError(f'norm is "l1", "l2" or "linf", not {norm!r}')
    for name, value in (("radius", radius), ("tau", tau), ("constant", constant)):
        if not (0 < value < math.inf):
            raise ValueError(f"{name} is a finite number above 0, not {value}")
    apart = tau / 2 * float(np.linalg.norm(np.ones(pixels.size), ORDERS[norm]))
    slack, margin, queries = 2 * constant * apart, math.inf, 0
    for batch in _grid(pixels.ravel(), radius, tau, apart, norm, most):
        images = torch.from_numpy((pixels.ravel() + batch).reshape(-1, *pixels.shape)).float()
        if not len(images):
            continue
        queries += len(images)
        leads = _leads(predict, images, label)
        margin = min(margin, float(leads.min()))
        inside = np.linalg.norm(batch, ORDERS[norm], axis=1) <= radius
        if (leads[inside] <= 0).any():
            worst = images[inside][int(leads[inside].argmin())]
            reason = "an image of the grid inside the ball is adversarial"
            return Certificate(False, reason, margin, slack, queries, worst)
    if margin <= 0:
        reason = f"an image of the grid just outside the ball is adversarial: nothing is known for radius {radius:g}"
    elif margin < slack:
        reason = (
            f"the least lead on the grid, {margin:g}, is below 2 * constant * d = {slack:g}: a finer grid may decide, "
            f"tau = {tau * margin / slack:g} or less"
        )
    else:
        reason = f"the least lead on the grid, {margin:g}, is at least 2 * constant * d = {slack:g}"
    return Certificate(0 < margin >= slack, reason, margin, slack, queries)


def _grid(pixels: np.ndarray, radius: float, tau: float, apart: float, norm: str, most: int) -> Iterator[np.ndarray]:
    """Offsets of the grid's images, nearer than radius + apart: the rounding of any offset in the ball is one."""
    steps = tau * np.arange(-math.ceil(radius / tau + 0.5), math.ceil(radius / tau + 0.5) + 1)
    axes = [np.unique(np.clip(pixel + steps, 0, 1) - pixel) for pixel in pixels]
    count = math.prod(len(axis) for axis in axes)
    if count > most:
        raise ValueError(f"the grid has {count:.3g} images, more than {most}; take fewer pixels or a larger tau")
    reach = (radius + apart) * (1 + 1e-9)
    for start in range(0, count, CHUNK):
        places = np.unravel_index(np.arange(start, min(start + CHUNK, count)), [len(axis) for axis in axes])
        offsets = np.stack([axis[place] for axis, place in zip(axes, places, strict=True)], 1)
        yield offsets[np.linalg.norm(offsets, ORDERS[norm], axis=1) <= reach]


@torch.no_grad()
def _leads(predict: Predict, images: Tensor, label: int) -> np.ndarray:
    scores = np.asarray(predict(images), dtype=np.float64)
    if scores.ndim != 2 or len(scores) != len(images) or scores.shape[1] < 2 or not np.isfinite(scores).all():
        raise ValueError(
            f"predict must return finite scores (N, K), K >= 2, not {scores.shape} for {len(images)} images"
        )
    if not 0 <= label < scores.shape[1]:
        raise ValueError(f"label {label} is out of range: the classifier has the classes 0 to {scores.shape[1] - 1}")
    others = np.delete(scores, label, axis=1)
    return scores[:, label] - others.max(1)
