"""Banks of filters on a circular grid: Haar, Gabor, Morlet, random and learned, with their frame bounds.

A bank holds the filters of one semi-discrete frame by their Fourier transforms. One of them, the output-generating atom
(usually a low-pass), makes the features of a layer; the others carry the signal on to the next layer. Low-passes come
last in the banks made here.

Source: Wiatowski and Bölcskei, A Mathematical Theory of Deep Convolutional Neural Networks for Feature Extraction, IEEE
Transactions on Information Theory 64(3), 2018, definition 1 and appendix B.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

__all__ = [
    "FilterBank",
    "gabor_2d",
    "gabor_bank",
    "gaussian_2d",
    "haar_bank",
    "morlet_2d",
    "morlet_bank",
    "random_bank",
]


@dataclass
class FilterBank:
    """The filters of one semi-discrete frame on an N x N circular grid.

    Attributes:
        filters_hat: (K, N, N) Fourier transforms of the filters, real or complex; frequency zero at [0, 0].
        lowpass_index: which filter is the output-generating atom; negative counts from the end.

    Raises:
        ValueError: another shape, fewer than two filters, an index outside, or values that are not finite.

    Example:
        >>> bank = haar_bank(16)
        >>> bank.frame_bounds()
        (1.0, 1.0)
    """

    filters_hat: Tensor
    lowpass_index: int = -1
    _like: dict[tuple[torch.device, torch.dtype], Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        shape = tuple(self.filters_hat.shape)
        if len(shape) != 3 or shape[0] < 2 or shape[1] != shape[2] or not shape[1]:
            raise ValueError(f"a bank is (filters, N, N) with two filters or more, not {shape}")
        if not -shape[0] <= self.lowpass_index < shape[0]:
            raise ValueError(f"lowpass_index {self.lowpass_index} is not among {shape[0]} filters")
        if not bool(self.filters_hat.isfinite().all()):
            raise ValueError("the bank has values that are not finite")
        self.lowpass_index %= shape[0]
        self.filters_hat = self.filters_hat.detach().to(torch.complex128)

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, N: int) -> FilterBank:
        """The filters of a trained layer and a Gaussian low-pass of σ = 1 pixel, made a tight frame with A = B = 1.

        Every pair of output and input channel is a filter. Together they are scaled to a sum of squares of 1, which
        :func:`random_bank` has on average, before the low-pass joins them. Bias, stride and dilation are not used.

        Args:
            conv: its weight is read, and not changed.
            N: side of the grid in pixels, at least that of the filters.

        Raises:
            ValueError: the filters are larger than the grid, all zero or not finite.

        Example:
            >>> FilterBank.from_conv(nn.Conv2d(1, 6, 5), 32).filters_hat.shape
            torch.Size([7, 32, 32])
        """
        # PyTorch's convolution is a correlation: the filter is the mirrored weight.
        filters = conv.weight.detach().double().cpu().flatten(0, 1).flip(-1, -2)
        norm = filters.norm()
        if not float(norm) > 0 or not bool(norm.isfinite()):
            raise ValueError("the weights of the layer are all zero or not finite: they make no frame")
        return _with_gaussian(filters / norm, N)

    @property
    def size(self) -> int:
        """N, the side of the grid in pixels."""
        return self.filters_hat.shape[-1]

    @property
    def propagating(self) -> list[int]:
        """Indices of the filters that carry the signal on."""
        return [index for index in range(len(self.filters_hat)) if index != self.lowpass_index]

    @cached_property
    def are_real(self) -> list[bool]:
        """Of each filter, whether it is real in space, so that real signals stay real."""
        odd = (_mirror(self.filters_hat).conj() - self.filters_hat).abs().amax((1, 2))
        return [bool(real) for real in odd <= 1e-9 * self.filters_hat.abs().amax()]

    def littlewood_paley(self, real_signals: bool = False) -> Tensor:
        """The sum of |ĝ(ω)|² over the filters, (N, N) float64.

        Args:
            real_signals: mean of ω and -ω, which is what counts for real signals: their spectra have the same absolute
                value at both.
        """
        total = self.filters_hat.abs().square().sum(0)
        return (total + _mirror(total)) / 2 if real_signals else total

    def frame_bounds(self, real_signals: bool = False) -> tuple[float, float]:
        """A and B with A‖f‖² <= Σ‖f∗g‖² <= B‖f‖², the extremes of the Littlewood-Paley sum.

        Args:
            real_signals: bounds for real f alone.
        """
        total = self.littlewood_paley(real_signals)
        return _rounded(total.min()), _rounded(total.max())

    def normalise(self) -> FilterBank:
        """The tight frame with A = B = 1: every filter divided by the root of the Littlewood-Paley sum.

        Raises:
            ValueError: the bank is not a frame, because a frequency passes none of its filters.
        """
        total = self.littlewood_paley()
        if float(total.min()) <= 1e-12 * float(total.max()):
            raise ValueError(
                "the bank is not a frame (A = 0): some frequency passes none of its filters; add filters, or complete()"
            )
        return FilterBank(self.filters_hat / total.sqrt(), self.lowpass_index)

    def scale(self, factor: float) -> FilterBank:
        """Every filter times a number."""
        return FilterBank(self.filters_hat * factor, self.lowpass_index)

    def complete(self) -> FilterBank:
        """The tight frame with A = B = 1 that one more propagating filter makes: √(1 - Σ|ĝ|²), put before the others.

        Raises:
            ValueError: B is above 1; ``scale`` first.
        """
        total = self.littlewood_paley()
        if float(total.max()) > 1 + 1e-9:
            raise ValueError(f"B = {float(total.max()):.4g} leaves no room for another filter; scale the bank below 1")
        rest = (1 - total).clamp(min=0).sqrt()
        return FilterBank(torch.cat([rest[None], self.filters_hat]), self.lowpass_index + 1)

    def like(self, x: Tensor) -> Tensor:
        """``filters_hat`` on the device and in the precision of a real or complex signal."""
        dtype = torch.complex128 if x.dtype in (torch.float64, torch.complex128) else torch.complex64
        key = (x.device, dtype)
        if key not in self._like:
            with torch.inference_mode(False):  # else no gradient could pass them later
                self._like[key] = self.filters_hat.to(x.device, dtype)
        return self._like[key]


def haar_bank(N: int) -> FilterBank:
    """Separable Haar wavelets, three high-passes and the low-pass: a tight frame with A = B = 1.

    Args:
        N: side of the grid in pixels, at least 2.

    Example:
        >>> haar_bank(8).filters_hat.shape
        torch.Size([4, 8, 8])
    """
    _check_grid(N)
    pair = torch.zeros(2, N, dtype=torch.float64)
    pair[:, 0] = 0.5
    pair[:, 1] = torch.tensor([0.5, -0.5])
    low, high = torch.fft.fft(pair)
    return FilterBank(torch.stack([torch.outer(*two) for two in ((low, high), (high, low), (high, high), (low, low))]))


def gabor_bank(N: int, J: int, L: int = 8) -> FilterBank:
    """Gabor filters at J scales and L angles (filter j·L + k is scale 2^j, angle k), and a Gaussian low-pass, last.

    The filters cover half of the plane of frequencies: enough for real signals, of which the other half is the mirror.
    Unlike those of :func:`morlet_bank` they let some of the mean through.

    Args:
        N: side of the grid in pixels.
        J: scales 2^0 .. 2^(J-1).
        L: angles in half a turn.

    Raises:
        ValueError: 2^J > N, or J or L below 1.

    Example:
        >>> gabor_bank(16, J=2, L=4).filters_hat.shape
        torch.Size([9, 16, 16])
    """
    return _oriented_bank(N, J, L, gabor_2d)


def morlet_bank(N: int, J: int, L: int = 8) -> FilterBank:
    """Morlet wavelets, Gabor filters whose mean is zero, in the parameters of kymatio; as :func:`gabor_bank`.

    Not a tight frame: for real signals the bounds are 0.12 and 1 at J = 2, L = 8; high diagonal frequencies are lost.

    Example:
        >>> bank = morlet_bank(32, J=2, L=8)
        >>> bool(bank.filters_hat[:-1, 0, 0].abs().max() < 1e-12)
        True
    """
    return _oriented_bank(N, J, L, morlet_2d)


def random_bank(N: int, count: int = 8, size: int = 5, seed: int = 0) -> FilterBank:
    """``count`` random filters and a Gaussian low-pass of σ = 1 pixel, made a tight frame with A = B = 1.

    Args:
        N: side of the grid in pixels.
        count: filters beside the low-pass.
        size: their side; weights are normal with variance 1 / (count · size²).
        seed: same seed, same filters, whatever N.

    Example:
        >>> A, B = random_bank(16).frame_bounds()
        >>> round(A, 6), round(B, 6)
        (1.0, 1.0)
    """
    if min(count, size) < 1:
        raise ValueError(f"count and size must be at least 1, not {count} and {size}")
    generator = torch.Generator().manual_seed(seed)
    filters = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    return _with_gaussian(filters / math.sqrt(count * size**2), N)


def gabor_2d(shape: tuple[int, int], sigma: float, theta: float, xi: float, slant: float = 1.0) -> Tensor:
    """A Gabor filter on a circular grid, centred on [0, 0].

    Args:
        shape: rows and columns.
        sigma: width of the envelope in pixels along the wave.
        theta: direction of the wave in radians, 0 along the rows' axis.
        xi: its frequency in radians per pixel.
        slant: below 1, the envelope is wider across the wave, by 1 / slant.

    Returns:
        shape, complex128, of sum 1 for xi = 0.

    Example:
        >>> round(float(gabor_2d((32, 32), 2.0, 0.0, 0.0).sum().real), 3)
        1.0
    """
    cos, sin = math.cos(theta), math.sin(theta)
    rows, columns = (torch.arange(-2 * n, 3 * n, dtype=torch.float64) for n in shape)
    x, y = rows[:, None], columns[None]
    along, across = cos * x + sin * y, cos * y - sin * x
    wave = torch.exp(torch.complex(-(along**2 + (slant * across) ** 2) / (2 * sigma**2), xi * along))
    # Five periods in each direction wrap around the grid; 3.1415 is the constant of kymatio, to whose filters these
    # are to be equal.
    wave = wave.reshape(5, shape[0], 5, shape[1]).sum((0, 2))
    return wave * slant / (2 * 3.1415 * sigma**2)


def morlet_2d(shape: tuple[int, int], sigma: float, theta: float, xi: float, slant: float = 1.0) -> Tensor:
    """A Gabor filter less so much of its envelope that the sum is zero; arguments as :func:`gabor_2d`.

    Example:
        >>> bool(morlet_2d((32, 32), 0.8, 0.3, 2.4, 0.5).sum().abs() < 1e-12)
        True
    """
    gabor, envelope = (gabor_2d(shape, sigma, theta, frequency, slant) for frequency in (xi, 0.0))
    return gabor - envelope * (gabor.sum() / envelope.sum())


def gaussian_2d(N: int, sigma: float) -> Tensor:
    """A Gaussian of standard deviation ``sigma`` pixels and sum 1 on an N x N circular grid, centred on [0, 0].

    Example:
        >>> gaussian_2d(8, 1.0).shape
        torch.Size([8, 8])
    """
    gaussian = gabor_2d((N, N), sigma, 0.0, 0.0).real
    return gaussian / gaussian.sum()


def wavelet_parameters(J: int, L: int) -> list[tuple[float, float, float, float]]:
    """sigma, theta, xi and slant of kymatio's wavelets, scale by scale and in each angle by angle."""
    return [
        (0.8 * 2**j, (int(L - L / 2 - 1) - k) * math.pi / L, 0.75 * math.pi / 2**j, 4 / L)
        for j in range(J)
        for k in range(L)
    ]


def _oriented_bank(N: int, J: int, L: int, make: Callable[..., Tensor]) -> FilterBank:
    _check_grid(N)
    check_scales(J, L, (N, N))
    filters = [make((N, N), *parameters) for parameters in wavelet_parameters(J, L)]
    filters.append(gabor_2d((N, N), 0.8 * 2 ** (J - 1), 0.0, 0.0))
    # The filters are even or odd about the origin up to conjugation: their transforms are real.
    return FilterBank(torch.fft.fft2(torch.stack(filters)).real)


def _with_gaussian(filters: Tensor, N: int) -> FilterBank:
    """Small real filters (K, h, w) on the grid, with a low-pass, as a tight frame."""
    _check_grid(N)
    h, w = filters.shape[1:]
    if max(h, w) > N:
        raise ValueError(f"filters of {h}x{w} do not fit a grid of {N}x{N}")
    grid = torch.zeros(len(filters) + 1, N, N, dtype=torch.float64)
    grid[:-1, :h, :w] = filters
    grid = grid.roll((-(h // 2), -(w // 2)), (1, 2))
    grid[-1] = gaussian_2d(N, 1.0)
    return FilterBank(torch.fft.fft2(grid)).normalise()


def check_scales(J: int, L: int, shape: tuple[int, int]) -> None:
    """Refuse scales larger than the picture."""
    if J < 1 or L < 1:
        raise ValueError(f"J and L must be at least 1, not {J} and {L}")
    if min(shape) < 2**J:
        raise ValueError(f"2^J = {2**J} is larger than the side {min(shape)}; take J <= {int(math.log2(min(shape)))}")


def _check_grid(N: int) -> None:
    if N < 2:
        raise ValueError(f"a grid needs a side N of at least 2 pixels, not {N}")


def _mirror(x: Tensor) -> Tensor:
    """The function at -ω."""
    return x.flip(-1, -2).roll((1, 1), (-2, -1))


def _rounded(x: Tensor) -> float:
    """Without the last digits, which rounding made."""
    return round(float(x), 12)
