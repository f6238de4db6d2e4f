"""Scattering of images by Morlet wavelets, modulus and a Gaussian low-pass: kymatio's coefficients, sooner.

Three things make it quick on a CPU: one first wavelet at a time with all angles of a second scale together, which
stays in the cache; multiplication by a wavelet and folding of the spectrum (sub-sampling) in one pass over the output;
and the low-pass, which is separable, with sub-sampling and cropping as two real matrix products.

Source: Bruna and Mallat, Invariant Scattering Convolution Networks, 2013; the parameters are those of kymatio 0.3.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from reprise.nn.scattering.filters import check_scales, gabor_2d, morlet_2d, wavelet_parameters
from reprise.nn.scattering.signals import check_signal, modulus

__all__ = ["Scattering2D"]

CACHE = 2**19  # complex numbers in the largest intermediate of a chunk of pictures: about what a core keeps at hand


class Scattering2D(nn.Module):
    """Scattering coefficients of images up to second order.

    S0 = x∗φ, S1 = |x∗ψ1|∗φ and S2 = ||x∗ψ1|∗ψ2|∗φ for wavelets ψ2 of a larger scale than ψ1, each sampled at every
    2^J-th pixel. Channels come in the order S0, S1 by (j1, θ1), S2 by (j1, θ1, j2, θ2): 1 + JL + L²J(J-1)/2 of them.
    Pictures are continued by reflection. Nothing is trained; gradients reach the pictures. Precision and device are
    those of the pictures.

    Args:
        J: the largest scale is 2^J pixels.
        shape: height and width of the pictures, of any parity, at least 2^J.
        L: angles in half a turn.
        max_order: 1 or 2.

    Raises:
        ValueError: 2^J is larger than the pictures, or another argument has no meaning.

    Example:
        >>> Scattering2D(J=2, shape=(32, 32))(torch.rand(4, 3, 32, 32)).shape
        torch.Size([4, 3, 81, 8, 8])
    """

    def __init__(self, J: int, shape: tuple[int, int], L: int = 8, max_order: int = 2) -> None:
        super().__init__()
        if len(shape) != 2:
            raise ValueError(f"shape is height and width, not {shape}")
        check_scales(J, L, shape)
        if max_order not in (1, 2):
            raise ValueError(f"max_order is 1 or 2, not {max_order}")
        self.J, self.L, self.shape, self.max_order = J, L, tuple(shape), max_order
        self.padded = tuple(((side + 2**J) // 2**J + 1) * 2**J for side in shape)
        self._reflect = [_reflection(side, padded) for side, padded in zip(shape, self.padded, strict=True)]
        psi = [torch.fft.fft2(morlet_2d(self.padded, *p)).real for p in wavelet_parameters(J, L)]
        self._psi = {
            (level, j): _blocks(torch.stack([_periodise(p, level) for p in psi[j * L : (j + 1) * L]]), 2 ** (j - level))
            for j in range(J)
            for level in range(max(j, 1))
        }
        phi = torch.fft.fft2(gabor_2d(self.padded, 0.8 * 2 ** (J - 1), 0.0, 0.0)).real
        rows, columns = phi[:, :1] / phi[0, 0].sqrt(), phi[:1] / phi[0, 0].sqrt()  # phi is their product
        self._phi = [(_lowpass(rows, level, J), _lowpass(columns.T, level, J)) for level in range(J)]
        self._like: dict[tuple[torch.device, torch.dtype], Tables] = {}

    @property
    def channels(self) -> int:
        """Coefficients per position."""
        J, L = self.J, self.L
        return 1 + J * L + (L * L * J * (J - 1) // 2 if self.max_order == 2 else 0)

    def extra_repr(self) -> str:
        return f"J={self.J}, shape={self.shape}, L={self.L}, max_order={self.max_order}"

    def forward(self, x: Tensor) -> Tensor:
        """Scatter pictures.

        Args:
            x: (..., H, W) float32 or float64, each channel by itself.

        Returns:
            (..., channels, H // 2^J, W // 2^J) in the precision of x.

        Raises:
            ValueError: another shape or precision, or values that are not finite.
        """
        check_signal(x, self.shape)
        pictures = x.reshape(-1, *self.shape)
        side = (self.shape[0] >> self.J, self.shape[1] >> self.J)
        if not len(pictures):
            return x.new_empty(*x.shape[:-2], self.channels, *side)
        chunk = len(pictures) if x.is_cuda else max(1, CACHE // (self.L * self.padded[0] * self.padded[1]))
        return torch.cat([self._scatter(part) for part in pictures.split(chunk)]).reshape(
            *x.shape[:-2], self.channels, *side
        )

    def _scatter(self, x: Tensor) -> Tensor:
        """Pictures (B, H, W) to coefficients (B, channels, h, w)."""
        tables = self._tables(x)
        x = x[:, tables.rows][:, :, tables.columns]
        spectrum = torch.view_as_real(torch.fft.fft2(x))
        first, second = [self._smooth(x[:, None], 0, tables)], []
        for j1 in range(self.J):
            for k in range(self.L):
                u1 = _wavelets(spectrum, [block[k : k + 1] for block in tables.psi[0, j1]])
                first.append(self._smooth(u1, j1, tables))
                if self.max_order == 1 or j1 == self.J - 1:
                    continue
                inner = torch.view_as_real(torch.fft.fft2(u1[:, 0]))
                for j2 in range(j1 + 1, self.J):
                    second.append(self._smooth(_wavelets(inner, tables.psi[j1, j2]), j2, tables))
        return torch.cat(first + second, 1)

    def _smooth(self, u: Tensor, level: int, tables: Tables) -> Tensor:
        """Low-pass (B, K, M, N) maps of a level, sample them at every 2^J-th pixel of the picture, and crop."""
        rows, columns = tables.phi[level]
        return rows @ (u @ columns.T)

    def _tables(self, x: Tensor) -> Tables:
        key = (x.device, x.dtype)
        if key not in self._like:
            with torch.inference_mode(False):  # else no gradient could pass them later
                self._like[key] = Tables(self, x)
        return self._like[key]


class Tables:
    """What a scattering needs on one device and in one precision."""

    def __init__(self, scattering: Scattering2D, like: Tensor) -> None:
        self.rows, self.columns = (index.to(like.device) for index in scattering._reflect)
        self.psi = {key: [block.to(like) for block in blocks] for key, blocks in scattering._psi.items()}
        self.phi = [(rows.to(like), columns.to(like)) for rows, columns in scattering._phi]


def _wavelets(spectrum: Tensor, psi: list[Tensor]) -> Tensor:
    """|u∗ψ|, sub-sampled in the Fourier domain, for the L wavelets of one scale.

    Args:
        spectrum: (B, M, N, 2), real and imaginary part.
        psi: k² blocks (L, M/k, N/k, 2) of the wavelets' real transforms, row by row, over k².

    Returns:
        (B, L, M/k, N/k).
    """
    m, n = psi[0].shape[1:3]
    blocks = [block for row in spectrum[:, None].split(m, 2) for block in row.split(n, 3)]
    folded = blocks[0] * psi[0]
    for block, wavelet in zip(blocks[1:], psi[1:], strict=True):
        folded.addcmul_(block, wavelet)
    return modulus(torch.fft.ifft2(torch.view_as_complex(folded)))


def _reflection(side: int, padded: int) -> Tensor:
    """Which pixel stands at each place of a side that is continued by reflection."""
    before = (padded - side) // 2
    return torch.from_numpy(np.pad(np.arange(side), (before, padded - side - before), mode="reflect"))


def _central(side: int, level: int) -> Tensor:
    """1 in the band of frequencies that a side sub-sampled by 2^level keeps, else 0."""
    mask = torch.ones(side, dtype=torch.float64)
    start = int(side * 2.0 ** (-level - 1))
    mask[start : start + int(side * (1 - 2.0**-level))] = 0
    return mask


def _periodise(psi_hat: Tensor, level: int) -> Tensor:
    """The transform of a filter for maps that are sub-sampled by 2^level: the central band, folded."""
    masked = psi_hat * torch.outer(*(_central(side, level) for side in psi_hat.shape))
    k = 2**level
    return masked.reshape(k, psi_hat.shape[0] // k, k, psi_hat.shape[1] // k).sum((0, 2))


def _blocks(psi_hat: Tensor, k: int) -> list[Tensor]:
    """(L, M, N) real transforms as blocks (L, M/k, N/k, 2) for :func:`_wavelets`."""
    blocks = psi_hat.unflatten(1, (k, -1)).unflatten(3, (k, -1)).permute(1, 3, 0, 2, 4) / k**2
    doubled = blocks[..., None].expand(*blocks.shape, 2)  # once for either part
    return [block.contiguous() for block in doubled.flatten(0, 1)]


def _lowpass(phi_hat: Tensor, level: int, J: int) -> Tensor:
    """The matrix (n, M) that smooths one side of a map of a level, samples it at 2^J pixels and crops the ends."""
    phi_hat = phi_hat.flatten()
    k = 2**level
    masked = (phi_hat * _central(len(phi_hat), level)).reshape(k, -1).sum(0)
    kernel = torch.fft.ifft(masked).real
    side, step = len(kernel), 2 ** (J - level)
    at = torch.arange(step, side - step, step)[:, None] - torch.arange(side)
    return kernel[at % side]
