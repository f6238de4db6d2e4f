"""How features answer to translations and deformations: errors, and the bounds that the theorems set them.

Source: Wiatowski and Bölcskei, A Mathematical Theory of Deep Convolutional Neural Networks for Feature Extraction, IEEE
Transactions on Information Theory 64(3), 2018, theorems 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reprise.nn.scattering.network import FeatureExtractor

__all__ = [
    "deform",
    "deformation_bound",
    "deformation_error",
    "feature_distance",
    "jacobian_norm",
    "random_displacement",
    "translation_bound",
    "translation_error",
]

LARGEST_JACOBIAN = 0.25  # 1 / (2d) in theorem 2, for d = 2


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """|||Φⁿ(f) - Φⁿ(h)||| for every layer n and pair of signals.

    Args:
        a: what a :class:`FeatureExtractor` made of f, one tensor (B, ...) per layer.
        b: what it made of h.

    Returns:
        (layers, B); its norm along the layers is |||Φ(f) - Φ(h)|||.

    Example:
        >>> feature_distance([torch.ones(2, 1, 4, 4)], [torch.zeros(2, 1, 4, 4)])
        tensor([[4., 4.]])
    """
    return torch.stack([(x - y).flatten(1).norm(dim=1) for x, y in zip(a, b, strict=True)])


def translation_error(
    extractor: FeatureExtractor, x: Tensor, t: int | tuple[int, int], layer: int | None = None
) -> Tensor:
    """|||Φⁿ(T_t f) - Φⁿ(f)|||, both at the same places.

    Args:
        extractor: Φ.
        x: (B, C, N, N) signals f.
        t: pixels by which columns move, or rows and columns; what leaves on one side comes in on the other.
        layer: n; None for all.

    Returns:
        (B,), or (layers, B).

    Example:
        >>> from reprise.nn import feature_extractor, haar_bank
        >>> network = feature_extractor(haar_bank, 16, depth=2)
        >>> translation_error(network, torch.rand(3, 1, 16, 16), 1, layer=2).shape
        torch.Size([3])
    """
    rows, columns = _shift(t)
    distances = feature_distance(extractor(x.roll((rows, columns), (-2, -1))), extractor(x))
    return distances if layer is None else distances[layer]


def translation_bound(extractor: FeatureExtractor, x: Tensor, t: int | tuple[int, int], layer: int) -> Tensor:
    """2π|t|K / (S_1⋯S_n) · ‖f‖ with K = max |χ̂_n(ω)||ω|, ω in cycles per pixel of the layer's maps.

    On a grid this is a theorem without pooling, or where S_1⋯S_n divides the shift; otherwise sampling may break it:
    plain sub-sampling does so at times, averages and maxima on pictures stay far below.

    Args:
        extractor: Φ, admissible.
        x: (B, C, N, N) signals f.
        t: pixels by which columns move, or rows and columns.
        layer: n.

    Returns:
        (B,).

    Raises:
        ValueError: the extractor is not admissible, to which the theorem does not apply.

    Source: theorem 1, equations (19) to (21).

    Example:
        >>> from reprise.nn import feature_extractor, haar_bank
        >>> network, x = feature_extractor(haar_bank, 16, depth=1), torch.rand(1, 1, 16, 16)
        >>> bool(translation_error(network, x, 1, 1) < translation_bound(network, x, 1, 1))
        True
    """
    if not extractor.admissible():
        raise ValueError("the bound is for admissible networks; take extractor.make_admissible()")
    bank = extractor.layers[layer].bank
    frequencies = torch.fft.fftfreq(bank.size, dtype=torch.float64)
    distance = torch.hypot(frequencies[:, None], frequencies[None])
    K = float((bank.filters_hat[bank.lowpass_index].abs() * distance).max())
    return 2 * math.pi * math.hypot(*_shift(t)) * K / extractor.factors[layer] * x.flatten(1).norm(dim=1)


def random_displacement(N: int, largest: float, seed: int = 0, smoothness: float = 1 / 8) -> Tensor:
    """A smooth random displacement field τ on an N x N circular grid.

    Args:
        N: side in pixels.
        largest: ‖τ‖_∞, the longest displacement in pixels.
        seed: of the two Gaussian random fields behind it.
        smoothness: standard deviation of the Gaussian that smooths them, as a share of N.

    Returns:
        (2, N, N) float64: displacement along rows' axis and columns' axis, in pixels.

    Example:
        >>> round(float(random_displacement(32, 1.5).norm(dim=0).max()), 6)
        1.5
    """
    noise = torch.randn(2, N, N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    frequencies = torch.fft.fftfreq(N, dtype=torch.float64)
    squared = frequencies[:, None] ** 2 + frequencies[None] ** 2
    smoothing = torch.exp(-2 * (math.pi * smoothness * N) ** 2 * squared)
    field = torch.fft.ifft2(torch.fft.fft2(noise) * smoothing).real
    return field * (largest / field.norm(dim=0).max())


def jacobian_norm(tau: Tensor) -> float:
    """‖Dτ‖_∞: the largest partial derivative of a displacement field on a circular grid, by central differences.

    Args:
        tau: (2, N, N) in pixels.

    Example:
        >>> jacobian_norm(torch.ones(2, 8, 8))
        0.0
    """
    return max(float((tau.roll(-1, axis) - tau.roll(1, axis)).abs().max()) / 2 for axis in (-2, -1))


def deform(x: Tensor, tau: Tensor) -> Tensor:
    """f(x - τ(x)) by cubic interpolation on a circular grid.

    Right for pictures that are smooth on the scale of pixels. A hard edge must be computed at the displaced places
    instead: interpolation smooths it, and what is left is as stable as any smooth picture.

    Args:
        x: (..., N, N), floats on the CPU; no gradient passes.
        tau: (2, N, N), pixels.

    Returns:
        As x.

    Raises:
        ValueError: shapes that do not fit, or ‖Dτ‖_∞ above 1/4, where theorem 2 ends and pictures may fold.

    Example:
        >>> x = torch.rand(1, 1, 8, 8)
        >>> shifted = deform(x, torch.ones(2, 8, 8))
        >>> torch.allclose(shifted, x.roll((1, 1), (-2, -1)), atol=1e-5)
        True
    """
    from scipy.ndimage import map_coordinates

    if tau.shape != (2, *x.shape[-2:]):
        raise ValueError(f"pictures of shape {tuple(x.shape)} need displacements (2, H, W), not {tuple(tau.shape)}")
    if not jacobian_norm(tau) <= LARGEST_JACOBIAN:
        raise ValueError(
            f"the displacement changes by {jacobian_norm(tau):.3g} per pixel; above {LARGEST_JACOBIAN} pictures may "
            "fold: make it smaller or smoother"
        )
    pictures = x.detach().double().reshape(-1, *x.shape[-2:]).numpy()
    places = np.indices(x.shape[-2:]) - tau.double().numpy()
    moved = [map_coordinates(picture, places, order=3, mode="grid-wrap") for picture in pictures]
    return torch.from_numpy(np.array(moved).reshape(x.shape)).to(x.dtype)


def deformation_error(extractor: FeatureExtractor, x: Tensor, deformed: Tensor) -> Tensor:
    """|||Φ(Ff) - Φ(f)||| of each signal.

    Args:
        extractor: Φ.
        x: (B, C, N, N) signals f.
        deformed: the signals after deformation, say by :func:`deform`.

    Returns:
        (B,); at most ‖Ff - f‖ if Φ is admissible.
    """
    return feature_distance(extractor(deformed), extractor(x)).norm(dim=0)


def deformation_bound(x: Tensor, tau: Tensor) -> Tensor:
    """√2 ‖τ‖_∞ ‖∇f‖, which |||Φ(F_τ f) - Φ(f)||| of a band-limited f cannot exceed if Φ is admissible.

    For a signal band-limited to R cycles per pixel, ‖∇f‖ <= 2πR‖f‖, so that the bound is that of theorem 2 with
    C = 2√2·π. The root of two bounds the change of volume under x - τ(x) where ‖Dτ‖_∞ <= 1/4.

    Args:
        x: (B, C, N, N) signals f.
        tau: (2, N, N), pixels, with ‖Dτ‖_∞ <= 1/4.

    Returns:
        (B,).

    Source: theorem 2 and appendix J; the constant is worked out here.

    Example:
        >>> deformation_bound(torch.ones(1, 1, 8, 8), random_displacement(8, 0.1))
        tensor([0.])
    """
    N = x.shape[-1]
    frequencies = torch.fft.fftfreq(N, dtype=x.dtype, device=x.device)
    distance = torch.hypot(frequencies[:, None], frequencies[None])
    gradient = (torch.fft.fft2(x) * distance).flatten(1).norm(dim=1) * 2 * math.pi / N
    return math.sqrt(2) * float(tau.norm(dim=0).max()) * gradient


def _shift(t: int | tuple[int, int]) -> tuple[int, int]:
    return (0, t) if isinstance(t, int) else t
