"""The feature extractor of Wiatowski and Bölcskei: any frames, any Lipschitz non-linearities, any Lipschitz pooling.

Layer by layer a signal is convolved with the filters of a frame, passed through a non-linearity and pooled; the output
of a layer is what the next frame's low-pass makes of all signals that have come so far. If every module is admissible,
features are never farther apart than the signals are, and they become less sensitive to translation with depth.

This is the discrete theory on circular grids (arXiv 1605.08283). Its pooling keeps every S-th pixel without the factor
S^(d/2) of the continuous theory, so that the bounds hold exactly.

Source: Wiatowski and Bölcskei, A Mathematical Theory of Deep Convolutional Neural Networks for Feature Extraction, IEEE
Transactions on Information Theory 64(3), 2018, section III.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.nn.scattering.filters import FilterBank
from reprise.nn.scattering.signals import COMPLEX, REAL, check_signal, modulus

__all__ = ["FeatureExtractor", "ScatteringModule", "feature_extractor", "frequency_decreasing"]

Pointwise = Callable[[Tensor], Tensor]
PathFilter = Callable[[tuple[int, ...]], bool]


def _by_parts(function: Pointwise) -> Pointwise:
    """The function on real and imaginary parts; its Lipschitz constant stays what it is on real numbers."""

    def apply(z: Tensor) -> Tensor:
        return torch.complex(function(z.real), function(z.imag)) if z.is_complex() else function(z)

    return apply


# Name: function and Lipschitz constant. All are zero at zero.
NONLINEARITIES: dict[str, tuple[Pointwise, float]] = {
    "modulus": (modulus, 1.0),
    "relu": (_by_parts(F.relu), 1.0),
    "tanh": (_by_parts(torch.tanh), 1.0),
    "sigmoid": (_by_parts(lambda x: torch.sigmoid(x) - 0.5), 0.25),
}
POOLINGS = ("none", "sub", "avg", "max")


@dataclass(frozen=True)
class ScatteringModule:
    """One layer: a frame, a pointwise non-linearity and pooling.

    Pooling by S, each of Lipschitz constant R = 1: "sub" keeps every S-th pixel in both directions, "avg" takes S times
    the mean of S x S blocks, "max" the largest absolute value of a block (of real and imaginary part).

    Attributes:
        bank: the frame.
        nonlinearity: "modulus", "relu", "tanh" or "sigmoid" (less 1/2); complex values by real and imaginary part. Or a
            function that is zero at zero; then with ``lipschitz``.
        lipschitz: Lipschitz constant L of the non-linearity; known for the named ones.
        pooling: "none", "sub", "avg" or "max".
        factor: S, a divisor of the bank's side.
        continuous_scale: multiply what "sub" keeps by S, as in the continuous theory; on a grid that voids the bounds.

    Raises:
        ValueError: unknown names, S that does not divide the side, a function that is not zero at zero.

    Example:
        >>> from reprise.nn import haar_bank
        >>> ScatteringModule(haar_bank(16), "relu", pooling="max", factor=2).admissible()
        True
    """

    bank: FilterBank
    nonlinearity: str | Pointwise = "modulus"
    lipschitz: float | None = None
    pooling: str = "none"
    factor: int = 1
    continuous_scale: bool = False

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ValueError(f"unknown pooling {self.pooling!r}; there are {', '.join(POOLINGS)}")
        if self.factor < 1 or self.bank.size % self.factor:
            raise ValueError(f"the pooling factor {self.factor} does not divide the side {self.bank.size}")
        if self.pooling == "none" and self.factor > 1:
            raise ValueError(f'pooling "none" has factor 1, not {self.factor}; take "sub", "avg" or "max"')
        if self.continuous_scale and self.pooling != "sub":
            raise ValueError(f'continuous_scale is for pooling "sub", not {self.pooling!r}')
        if isinstance(self.nonlinearity, str):
            if self.nonlinearity not in NONLINEARITIES:
                raise ValueError(f"unknown non-linearity {self.nonlinearity!r}; there are {', '.join(NONLINEARITIES)}")
        elif self.lipschitz is None:
            raise ValueError("a non-linearity of your own needs its Lipschitz constant: lipschitz=...")
        elif float(self.nonlinearity(torch.zeros(1)).abs()) > 0:
            raise ValueError("the non-linearity is not zero at zero; subtract its value there")
        if self.lipschitz is not None and not self.lipschitz > 0:
            raise ValueError(f"a Lipschitz constant is above 0, not {self.lipschitz}")

    def gain(self) -> float:
        """max{B, B L² R²}, which admissibility wants at most 1 (with R = 1)."""
        known = 0.0 if callable(self.nonlinearity) else NONLINEARITIES[self.nonlinearity][1]
        L = self.lipschitz if self.lipschitz is not None else known
        B = self.bank.frame_bounds()[1]
        return max(B, B * L**2)

    def admissible(self) -> bool:
        """Whether max{B, B L² R²} <= 1, up to rounding."""
        return self.gain() <= 1 + 1e-9

    def make_admissible(self) -> ScatteringModule:
        """The same module with its filters divided by √max{B, B L² R²}."""
        return replace(self, bank=self.bank.scale(self.gain() ** -0.5))

    def activate(self, u: Tensor) -> Tensor:
        """The non-linearity.

        Raises:
            ValueError: u is complex, and the caller's function takes real numbers only.
        """
        if isinstance(self.nonlinearity, str):
            return NONLINEARITIES[self.nonlinearity][0](u)
        try:
            return self.nonlinearity(u)
        except (RuntimeError, TypeError) as error:
            if not u.is_complex():
                raise
            raise ValueError(
                "the non-linearity takes real numbers, and the filters or the signal are complex; apply it to real and "
                "imaginary part, or take real filters"
            ) from error

    def pool(self, u: Tensor) -> Tensor:
        """(..., N, N) to (..., N/S, N/S)."""
        S = self.factor
        if self.pooling == "sub":
            return u[..., ::S, ::S] * (S if self.continuous_scale else 1)
        if self.pooling == "none" or (S == 1 and self.pooling == "avg"):
            return u
        blocks = u.unflatten(-2, (-1, S)).unflatten(-1, (-1, S))
        if self.pooling == "avg":
            return blocks.sum((-3, -1)) / S
        return _by_parts(lambda part: part.abs().amax((-3, -1)))(blocks)


class FeatureExtractor(nn.Module):
    """Φ: the outputs of every layer of a scattering network.

    Layer n holds (U[q]f)∗χ_n for all paths q of n filters; χ_n is the low-pass of module n + 1, so the last module
    gives only that. Nothing is trained; gradients reach the signal. Precision and device are those of the signal.

    Args:
        modules: one more than layers that filter.
        max_order: the deepest layer, by default ``len(modules) - 1``.
        path_filter: whether to follow a path, a tuple of filter indices; say :func:`frequency_decreasing`.

    Raises:
        ValueError: the grids of successive modules do not fit, or too few modules for the order.

    Source: definitions 3 to 5 of the paper.

    Example:
        >>> from reprise.nn import haar_bank
        >>> modules = [ScatteringModule(haar_bank(N), pooling="avg", factor=2) for N in (32, 16, 8)]
        >>> [tuple(maps.shape) for maps in FeatureExtractor(modules)(torch.rand(4, 1, 32, 32))]
        [(4, 1, 32, 32), (4, 3, 16, 16), (4, 9, 8, 8)]
    """

    def __init__(
        self,
        modules: Sequence[ScatteringModule],
        max_order: int | None = None,
        path_filter: PathFilter | None = None,
    ) -> None:
        super().__init__()
        max_order = len(modules) - 1 if max_order is None else max_order
        if not 0 <= max_order < len(modules):
            raise ValueError(
                f"order {max_order} needs {max(0, max_order) + 1} modules, the last one for its low-pass; there are "
                f"{len(modules)}"
            )
        self.layers = list(modules[: max_order + 1])
        for n, (module, following) in enumerate(pairwise(self.layers)):
            side = module.bank.size // module.factor
            if following.bank.size != side:
                raise ValueError(
                    f"module {n + 1} leaves maps of side {side}, but the filters of module {n + 2} are for side "
                    f"{following.bank.size}"
                )
        self.max_order, self.path_filter = max_order, path_filter
        self.paths: list[list[tuple[int, ...]]] = [[()]]
        self._kept: list[list[int]] = []  # of all pairs (path, filter), which to compute
        for module in self.layers[:-1]:
            pairs = [(*path, index) for path in self.paths[-1] for index in module.bank.propagating]
            kept = [i for i, path in enumerate(pairs) if path_filter is None or path_filter(path)]
            self.paths.append([pairs[i] for i in kept])
            self._kept.append(kept)

    @property
    def factors(self) -> list[int]:
        """S_1⋯S_n for every layer n = 0, 1, ...: how many pixels of the signal one step in its maps is."""
        return [prod(module.factor for module in self.layers[:n]) for n in range(self.max_order + 1)]

    def admissible(self) -> bool:
        """Whether every module is."""
        return all(module.admissible() for module in self.layers)

    def make_admissible(self) -> FeatureExtractor:
        """The same network with the filters of every module scaled as :meth:`ScatteringModule.make_admissible`."""
        return FeatureExtractor([module.make_admissible() for module in self.layers], None, self.path_filter)

    def forward(self, f: Tensor) -> list[Tensor]:
        """Extract features.

        Args:
            f: (B, C, N, N), real or complex, single or double precision; each channel by itself.

        Returns:
            For every layer n a tensor (B, C · paths, N_n, N_n), the paths of a channel in the order of ``paths[n]``.

        Raises:
            ValueError: another shape or precision, values that are not finite.
        """
        N = self.layers[0].bank.size
        check_signal(f, (N, N), REAL + COMPLEX)
        if f.ndim != 4:
            raise ValueError(f"signals are (B, C, {N}, {N}), not {tuple(f.shape)}")
        u, features = f[:, :, None], []
        for n, module in enumerate(self.layers):
            bank, filters = module.bank, module.bank.like(f)
            features.append(
                _convolve(u, filters[[bank.lowpass_index]], bank.are_real[bank.lowpass_index]).flatten(1, 2)
            )
            if n == self.max_order:
                return features
            real = all(bank.are_real[index] for index in bank.propagating)
            kept = self._kept[n] if self.path_filter else None
            u = module.pool(module.activate(_convolve(u, filters[bank.propagating], real, kept)))
        raise AssertionError("the last layer returns")

    def feature_norm(self, f: Tensor) -> Tensor:
        """|||Φ(f)||| of each signal, (B,); at most ‖f‖ if the network is admissible.

        Args:
            f: as in :meth:`forward`.
        """
        return torch.stack([maps.flatten(1).norm(dim=1) for maps in self(f)]).norm(dim=0)

    def as_matrix(self, f: Tensor, reduce: str = "mean", log: bool = False) -> Tensor:
        """Features for a classifier, (B, features).

        Args:
            f: as in :meth:`forward`.
            reduce: "mean" averages every map, "none" keeps all its pixels.
            log: log(1 + |feature|) instead of the feature.

        Raises:
            ValueError: unknown ``reduce``.
        """
        if reduce not in ("mean", "none"):
            raise ValueError(f'reduce is "mean" or "none", not {reduce!r}')
        columns = []
        for maps in self(f):
            maps = maps.mean((2, 3)) if reduce == "mean" else maps.flatten(1)
            columns.append(torch.cat([maps.real, maps.imag], 1) if maps.is_complex() else maps)
        matrix = torch.cat(columns, 1)
        return matrix.abs().log1p() if log else matrix


def feature_extractor(
    bank: Callable[[int], FilterBank],
    size: int,
    depth: int,
    nonlinearity: str = "modulus",
    pooling: str = "avg",
    factor: int = 2,
    path_filter: PathFilter | None = None,
) -> FeatureExtractor:
    """An admissible network that does the same in every layer.

    Args:
        bank: makes the filters for a grid of a given side, as ``haar_bank`` does.
        size: side of the signals in pixels, a multiple of ``factor ** depth``.
        depth: layers that filter.
        nonlinearity: of every module.
        pooling: of every module; with factor 1, "none" in effect.
        factor: S of every module.
        path_filter: as in :class:`FeatureExtractor`.

    Raises:
        ValueError: ``factor ** depth`` does not divide ``size``.

    Example:
        >>> from reprise.nn import random_bank
        >>> network = feature_extractor(random_bank, 64, depth=3, pooling="max")
        >>> network.factors, [len(paths) for paths in network.paths]
        ([1, 2, 4, 8], [1, 8, 64, 512])
    """
    if factor < 1 or depth < 0 or size % factor**depth:
        raise ValueError(f"a side of {size} cannot be pooled {depth} times by {factor}")
    modules = [
        ScatteringModule(bank(size // factor**n), nonlinearity, pooling=pooling, factor=factor) for n in range(depth)
    ]
    modules.append(ScatteringModule(bank(size // factor**depth), nonlinearity))
    return FeatureExtractor(modules, path_filter=path_filter).make_admissible()


def frequency_decreasing(L: int) -> PathFilter:
    """Follow only paths on which each wavelet has a larger scale than the one before, for banks of L angles a scale.

    The modulus moves energy to low frequencies, so other paths carry next to nothing.

    Example:
        >>> keep = frequency_decreasing(4)
        >>> keep((0, 5)), keep((5, 0))
        (True, False)
    """
    return lambda path: all(a // L < b // L for a, b in pairwise(path))


def _convolve(u: Tensor, filters_hat: Tensor, real: bool, kept: list[int] | None = None) -> Tensor:
    """Circular convolution of (B, C, P, N, N) maps with K filters: (B, C, P·K, N, N), or those of the pairs kept."""
    N = u.shape[-1]
    if not u.numel():
        paths = u.shape[2] * len(filters_hat) if kept is None else len(kept)
        dtype = u.dtype if real else filters_hat.dtype
        return torch.empty(*u.shape[:2], paths, N, N, dtype=dtype, device=u.device)
    halved = real and not u.is_complex()  # half of the spectrum says all of it
    spectrum = torch.fft.rfft2(u) if halved else torch.fft.fft2(u)
    filters_hat = filters_hat[..., : spectrum.shape[-1]]
    if kept is None:
        product = (spectrum[:, :, :, None] * filters_hat).flatten(2, 3)
    else:
        index = torch.tensor(kept, device=u.device, dtype=torch.long)
        parents, children = index // len(filters_hat), index % len(filters_hat)
        product = spectrum[:, :, parents] * filters_hat[children]
    return torch.fft.irfft2(product, s=(N, N)) if halved else torch.fft.ifft2(product)
