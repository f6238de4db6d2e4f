"""The game that looks for an adversarial image: what its players may do, and what a play is worth."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from reprise.safety.black_box import BlackBox, Predict
from reprise.safety.safety_testing.features import Features, check_image, grid_features, sift_features

__all__ = ["FeatureGame", "exhaustive"]

TINY = np.finfo(np.float64).tiny


class FeatureGame:
    """One image, one classifier that may only be asked, and two players who take turns.

    Player I chooses a key point of the image; player II chooses pixels that belong to it, and how to change them. A
    pixel is changed at most once in a play. A play ends when the image is misclassified, which is worth 1 / distance,
    or when it is as far from the original as ``limit``, which is worth nothing.

    Args:
        predict: (N, C, H, W) float32 images in 0..1 to (N, K) scores, or a module; see
            :class:`~reprise.safety.BlackBox`.
        image: (C, H, W) floats in 0..1.
        label: the true class.
        manipulation: "flip" sets bright channels (at least one half) of a pixel to 0 and dark ones to 1; "white" sets
            them all to 1; a number tau in (0, 1] adds tau to all or subtracts it from all, cut to 0..1.
        distance: "l0" (changed pixels; all channels of a pixel count once), "l1" or "l2".
        target: the class that is wanted; None is any but ``label``.
        limit: distance at which a play is lost.
        features: key points; None finds them with :func:`sift_features`, and takes those of :func:`grid_features` with
            a warning where there are none.
        outputs: what ``predict`` returns, "probabilities" or "logits".
        batch_size: images per call of ``predict``, at most.

    Raises:
        ValueError: an image, manipulation, distance, target or limit that is not as described.

    Source: section 4 of Wicker, Huang and Kwiatkowska, TACAS 2018, arXiv 1710.07859.

    Example:
        >>> def brightness(images):  # class 1 where the mean is above one half
        ...     mean = images.mean((1, 2, 3))
        ...     return torch.stack([1 - mean, mean], 1)
        >>> game = FeatureGame(brightness, torch.zeros(1, 4, 4), 0, features=grid_features((4, 4), 2))
        >>> exhaustive(game)  # 8 of 16 pixels make a tie, 9 win
        9.0
    """

    def __init__(
        self,
        predict: Predict,
        image: Tensor,
        label: int,
        *,
        manipulation: str | float = "flip",
        distance: str = "l0",
        target: int | None = None,
        limit: float = math.inf,
        features: Features | None = None,
        outputs: str = "probabilities",
        batch_size: int = 256,
    ) -> None:
        self.image = check_image(image)
        self.shape: tuple[int, int] = self.image.shape[1:]
        self.ask = BlackBox(predict, outputs=outputs, batch_size=batch_size)
        if distance not in ("l0", "l1", "l2"):
            raise ValueError(f'distance is "l0", "l1" or "l2", not {distance!r}')
        if not limit > 0:
            raise ValueError(f"limit is a distance above 0, not {limit}")
        if target == label:
            raise ValueError(f"target {target} is the true class; give another, or None for any other")
        self.label, self.target, self.metric, self.limit = int(label), target, distance, limit
        self.features = _features(image) if features is None else features
        if not len(self.features):
            raise ValueError("there are no key points to play with; features=None falls back to a grid of them")
        self.weights = self.features.weights
        rows, columns = self.features.pixel_distributions(self.shape)
        self._log_rows, self._log_columns = (np.log(np.maximum(p, TINY)) for p in (rows, columns))
        changed = _manipulated(self.image, manipulation)
        self.changed = changed.reshape(len(changed), len(self.image), -1)  # (directions, C, pixels)
        # Nothing is gained from a pixel that no direction changes.
        flat = self.image.reshape(len(self.image), -1)
        self.fixed = ~(self.changed != flat).any((0, 1))
        self.pixels = flat.shape[1]

    def distance(self, images: np.ndarray) -> np.ndarray:
        """(..., C, H, W) images to their distances (...) from the original."""
        difference = images - self.image
        if self.metric == "l0":
            return (difference != 0).any(-3).sum((-2, -1)).astype(float)
        difference = difference.astype(np.float64)
        if self.metric == "l1":
            return np.abs(difference).sum((-3, -2, -1))
        return np.sqrt(np.square(difference).sum((-3, -2, -1)))

    def confidence(self, probabilities: np.ndarray) -> np.ndarray:
        """(..., K) to what player I wants to bring down: the true class's share, or all but the target's."""
        return probabilities[..., self.label] if self.target is None else 1 - probabilities[..., self.target]

    def won(self, probabilities: np.ndarray) -> np.ndarray:
        """(..., K) to whether an image is adversarial."""
        named = probabilities.argmax(-1)
        return named != self.label if self.target is None else named == self.target

    def check_classes(self, count: int) -> None:
        """Refuse classes that the classifier does not have."""
        for name, value in (("label", self.label), ("target", self.target)):
            if value is not None and not 0 <= value < count:
                raise ValueError(f"{name} {value} is out of range: the classifier has the classes 0 to {count - 1}")

    def log_pixels(self, feature: int) -> np.ndarray:
        """(pixels,) log P(pixel | key point)."""
        return (self._log_rows[feature][:, None] + self._log_columns[feature]).ravel()

    def draw_pixels(self, feature: int, touched: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw pixels of a key point one after the other, without those already touched.

        The pixels with the largest log P + Gumbel noise are such a draw.
        """
        keys = self.log_pixels(feature) - np.log(rng.standard_exponential(self.pixels))
        keys[touched] = -np.inf
        count = min(count, self.pixels - int(np.count_nonzero(touched)))
        return np.argpartition(keys, -count)[-count:] if count else np.empty(0, int)

    def change(self, image: np.ndarray, pixels: np.ndarray, direction: int) -> np.ndarray:
        """A copy with some pixels changed."""
        new = image.copy()
        new.reshape(len(new), -1)[:, pixels] = self.changed[direction][:, pixels]
        return new

    def restore(self, image: np.ndarray, pixels: Sequence[int]) -> np.ndarray:
        """A copy with some pixels as they are in the original."""
        new = image.copy()
        new.reshape(len(new), -1)[:, pixels] = self.image.reshape(len(new), -1)[:, pixels]
        return new


def exhaustive(game: FeatureGame, most: int = 1_000_000) -> float:
    """The value of a small game with a cooperative player II: the least distance of all its adversarial images.

    Args:
        game: with few pixels.
        most: images to look at, at most; "l0" stops at the first number of pixels that suffices.

    Returns:
        The distance; 0 if the image itself is misclassified, infinite if no image is adversarial.

    Raises:
        ValueError: there are more images than ``most``.

    Source: the optimal strategy of section 4.
    """
    pixels, directions = np.flatnonzero(~game.fixed), len(game.changed)
    asked, best = 0, math.inf
    for count in range(len(pixels) + 1):
        asked += math.comb(len(pixels), count) * directions**count
        if asked > most:
            raise ValueError(f"looking at all changes of {count} of {len(pixels)} pixels takes more than {most} images")
        changes = _all_changes(game, pixels, count)
        while chunk := list(itertools.islice(changes, 1024)):
            images = np.stack(chunk)
            probabilities = game.ask(images)
            game.check_classes(probabilities.shape[1])
            reached = game.distance(images)[game.won(probabilities)]
            best = min([best, *reached.tolist()])
        if best < math.inf and (game.metric == "l0" or count == 0):
            break
    return best if best < game.limit else math.inf


def _all_changes(game: FeatureGame, pixels: np.ndarray, count: int) -> Iterator[np.ndarray]:
    for subset in itertools.combinations(pixels, count):
        for directions in itertools.product(range(len(game.changed)), repeat=count):
            image = game.image
            for pixel, direction in zip(subset, directions, strict=True):
                image = game.change(image, np.array([pixel]), direction)
            yield image


def _features(image: Tensor) -> Features:
    features = sift_features(image)
    if len(features):
        return features
    warnings.warn("SIFT finds no key point in this image: a grid of key points takes their place", stacklevel=3)
    return grid_features((image.shape[1], image.shape[2]))


def _manipulated(image: np.ndarray, manipulation: str | float) -> np.ndarray:
    """The image with every pixel changed, (directions, C, H, W)."""
    if manipulation == "flip":
        return np.where(image < 0.5, 1, 0).astype(np.float32)[None]
    if manipulation == "white":
        return np.ones_like(image)[None]
    if isinstance(manipulation, str) or not 0 < manipulation <= 1:
        raise ValueError(f'manipulation is "flip", "white" or a step tau in (0, 1], not {manipulation!r}')
    return np.clip(np.stack([image + np.float32(manipulation), image - np.float32(manipulation)]), 0, 1)
