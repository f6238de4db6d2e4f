"""Where a human looks: SIFT key points of an image as a probability distribution over its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from torch import Tensor

__all__ = ["Features", "grid_features", "saliency_distribution", "sift_features", "uniform_features"]

SMALL = 50  # images with a side below are enlarged first, or SIFT finds nothing in them
ENLARGED = 420  # about as large as MNIST enlarged by 15, which is published


@dataclass(frozen=True)
class Features:
    """Key points of one image, with the pixels that belong to each.

    A pixel belongs to a key point with the probability that a normal distribution around it, independent in both
    directions, gives to the pixel's square; the outermost pixels also get what lies outside of the image.

    Attributes:
        positions: (F, 2) row and column in pixels; pixel i covers [i, i + 1).
        sizes: (F,) diameters in pixels.
        responses: (F,) how clearly the point stands out, above 0.
        spread: (F,) standard deviations in pixels; infinite means every pixel alike.
        origin: "sift", "grid" or "uniform".

    Raises:
        ValueError: lengths that differ, or a response or spread not above 0.

    Source: section 3.1 of Wicker, Huang and Kwiatkowska, TACAS 2018.

    Example:
        >>> one = Features(np.array([[4.5, 2.5]]), np.array([2.0]), np.array([0.1]), np.array([1.0]))
        >>> rows, columns = one.pixel_distributions((9, 9))
        >>> int(rows.argmax()), int(columns.argmax())
        (4, 2)
    """

    positions: np.ndarray
    sizes: np.ndarray
    responses: np.ndarray
    spread: np.ndarray
    origin: str = "sift"

    def __post_init__(self) -> None:
        count = len(self.positions)
        shapes = [value.shape for value in (self.positions, self.sizes, self.responses, self.spread)]
        if shapes != [(count, 2), (count,), (count,), (count,)]:
            raise ValueError(
                f"{count} key points need positions (F, 2) and sizes, responses, spread (F,), not {shapes}"
            )
        if not (np.all(self.responses > 0) and np.all(self.spread > 0)):
            raise ValueError("responses and spread of key points must be above 0")

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def weights(self) -> np.ndarray:
        """(F,) P(key point): its share of the responses."""
        return self.responses / self.responses.sum()

    def pixel_distributions(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Rows (F, H) and columns (F, W), each summing to 1; a pixel's probability is the product of its two."""
        return _normal(self.positions[:, 0], self.spread, shape[0]), _normal(
            self.positions[:, 1], self.spread, shape[1]
        )


def sift_features(image: Tensor, enlarge: int | str = "auto", *, extra: float = 15.0) -> Features:
    """SIFT key points of an image (OpenCV's, with its default thresholds).

    Key points that differ in their orientation alone are one here, with the sum of their responses.

    Args:
        image: (C, H, W) floats in 0..1.
        enlarge: factor by which the image grows (bilinear) before SIFT sees it; "auto" is 1 for images with both sides
            of at least 50 pixels, else about 420 pixels over the longer side, which is 15 for MNIST.
        extra: added to a key point's size to give its standard deviation, in pixels of the enlarged image; 0 takes
            the size alone.

    Returns:
        All in pixels of the image itself; no key points where SIFT finds none.

    Raises:
        ValueError: not such an image; ``enlarge`` below 1.

    Source: section 3.1; the enlargement and ``extra`` from the published code.

    Example:
        >>> image = torch.zeros(1, 28, 28)
        >>> image[:, 6:12, 16:20] = 1
        >>> sift_features(image).positions.mean(0).round().tolist()  # row, column
        [9.0, 18.0]
    """
    import cv2

    pixels = check_image(image)
    height, width = pixels.shape[1:]
    if enlarge == "auto":
        enlarge = max(1, round(ENLARGED / max(height, width))) if min(height, width) < SMALL else 1
    if not isinstance(enlarge, int) or enlarge < 1:
        raise ValueError(f'enlarge is "auto" or a whole number of at least 1, not {enlarge!r}')
    mix = np.array([0.299, 0.587, 0.114]) if len(pixels) == 3 else np.full(len(pixels), 1 / len(pixels))
    grey = np.round(255 * np.tensordot(mix, pixels, 1)).astype(np.uint8)
    grown = cv2.resize(grey, (width * enlarge, height * enlarge), interpolation=cv2.INTER_LINEAR)
    found = cv2.SIFT_create().detect(grown, None)  # type: ignore[attr-defined]
    points = np.array([(*point.pt[::-1], point.size, point.response) for point in found]).reshape(-1, 4)  # pt is (x, y)
    places, which = np.unique(points[:, :3], axis=0, return_inverse=True)
    responses = np.bincount(which.ravel(), weights=points[:, 3], minlength=len(places))
    kept = responses > 0
    # OpenCV counts from the middle of the first pixel, and we from its edge.
    positions, sizes = (places[kept, :2] + 0.5) / enlarge, places[kept, 2] / enlarge
    return Features(positions, sizes, responses[kept], sizes + extra / enlarge)


def grid_features(shape: tuple[int, int], step: int = 7) -> Features:
    """Equal key points on a grid: what is left to choose where an image has no key points.

    Args:
        shape: height and width of the image.
        step: pixels from one key point to the next, and the size of each.

    Example:
        >>> len(grid_features((28, 28)))
        16
    """
    axes = [(np.arange(max(1, length // step)) + 0.5) * length / max(1, length // step) for length in shape]
    positions = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    size = np.full(len(positions), float(step))
    return Features(positions, size, np.ones(len(size)), size / 2, "grid")


def uniform_features(shape: tuple[int, int]) -> Features:
    """One key point to which every pixel belongs alike: the game without guidance.

    Example:
        >>> saliency_distribution(uniform_features((2, 2)), (2, 2)).tolist()
        [[0.25, 0.25], [0.25, 0.25]]
    """
    middle = np.array([[shape[0] / 2, shape[1] / 2]])
    return Features(middle, np.array([float(max(shape))]), np.ones(1), np.array([np.inf]), "uniform")


def saliency_distribution(features: Features, shape: tuple[int, int]) -> np.ndarray:
    """The mixture over key points, sum_i P(key point i) P(pixel | key point i): (H, W), sums to 1.

    Args:
        features: at least one.
        shape: height and width of the image.

    Raises:
        ValueError: there are no key points.

    Source: section 3.1, the saliency map.

    Example:
        >>> image = torch.zeros(1, 28, 28)
        >>> image[:, 6:12, 16:20] = 1
        >>> saliency = saliency_distribution(sift_features(image), (28, 28))
        >>> round(float(saliency.sum()), 12), bool(saliency[9, 18] > saliency[20, 5])
        (1.0, True)
    """
    if not len(features):
        raise ValueError("there are no key points to take a distribution from; grid_features makes some")
    rows, columns = features.pixel_distributions(shape)
    return np.einsum("f,fh,fw->hw", features.weights, rows, columns)


def check_image(image: Tensor) -> np.ndarray:
    """The image as an array of its own, or an error that says what an image is."""
    if not isinstance(image, Tensor) or image.ndim != 3 or not image.numel():
        what = f"a tensor {tuple(image.shape)}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise ValueError(f"an image is a tensor (C, H, W), not {what}")
    if not image.is_floating_point():
        raise ValueError(f"an image holds floats in 0..1, not {image.dtype}; bytes want image.float() / 255")
    pixels = image.detach().cpu().float().numpy().copy()
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN fails, too
        raise ValueError(f"an image holds floats in 0..1; this one goes from {pixels.min():g} to {pixels.max():g}")
    return pixels


def _normal(centre: np.ndarray, spread: np.ndarray, length: int) -> np.ndarray:
    edges = np.arange(1, length)
    uniform = np.full((len(centre), length), 1 / length)
    finite = np.isfinite(spread)
    scaled = (edges - centre[finite, None]) / spread[finite, None]
    left, right = np.full((len(scaled), 1), -np.inf), np.full((len(scaled), 1), np.inf)
    low, high = np.concatenate([left, scaled], 1), np.concatenate([scaled, right], 1)
    # Right of the centre by the upper tails, where the differences of the lower ones would round to 0.
    uniform[finite] = np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
    return uniform
