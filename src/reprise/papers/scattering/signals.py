"""The signals that are shifted and deformed: crops of photographs, digits, and cartoons evaluated where asked."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["Cartoon", "blur", "crops", "on_canvas"]


def crops(count: int, side: int, generator: np.random.Generator) -> Tensor:
    """Grey crops of scikit-learn's two photographs, of every 2nd to 4th pixel: (count, 1, side, side) in 0..1."""
    from sklearn.datasets import load_sample_images

    photographs = [picture @ np.array([0.299, 0.587, 0.114]) / 255 for picture in load_sample_images().images]
    chosen = []
    for i in range(count):
        step = int(generator.integers(2, 5))
        sampled = photographs[i % len(photographs)][::step, ::step]
        top, left = (int(generator.integers(n - side + 1)) for n in sampled.shape)
        chosen.append(sampled[top : top + side, left : left + side])
    return torch.from_numpy(np.stack(chosen)[:, None])


def on_canvas(pixels: Tensor, side: int) -> Tensor:
    """Digits (N, 1, n, n), 8x8 ones three times as large, in the middle of an empty canvas: floats in 0..1."""
    if pixels.shape[-1] == 8:
        pixels = pixels.repeat_interleave(3, 2).repeat_interleave(3, 3)
    n = pixels.shape[-1]
    canvas = torch.zeros(len(pixels), 1, side, side, dtype=torch.float64)
    start = (side - n) // 2
    canvas[..., start : start + n, start : start + n] = pixels / 255
    return canvas


def blur(x: Tensor, sigma: float) -> Tensor:
    """Circular convolution with a Gaussian of ``sigma`` pixels: band-limited but for a tail nobody sees."""
    frequencies = torch.fft.fftfreq(x.shape[-1], dtype=torch.float64)
    squared = frequencies[:, None] ** 2 + frequencies[None] ** 2
    return torch.fft.ifft2(torch.fft.fft2(x) * torch.exp(-2 * (np.pi * sigma) ** 2 * squared)).real


class Cartoon:
    """Discs with smooth interiors and hard edges on a circular canvas.

    A deformed cartoon is computed at the displaced places. Interpolating its pixels would soften the edges, and with
    them goes what makes cartoons more sensitive than smooth pictures.
    """

    def __init__(self, side: int, discs: int, generator: np.random.Generator) -> None:
        self.side = side
        self.centers = torch.from_numpy(generator.uniform(0, side, (discs, 2)))
        self.radii = torch.from_numpy(generator.uniform(6, 14, discs))
        self.jumps = torch.from_numpy(generator.uniform(0.3, 1.0, discs))
        self.slopes = torch.from_numpy(generator.uniform(-0.3, 0.3, (discs, 2)))  # of the interior, per radius

    def render(self, tau: Tensor | None = None) -> Tensor:
        """f(x - τ(x)) at every pixel x: (1, 1, side, side)."""
        axis = torch.arange(self.side, dtype=torch.float64)
        places = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))
        places = places if tau is None else places - tau
        total = torch.zeros(self.side, self.side, dtype=torch.float64)
        for center, radius, jump, slope in zip(self.centers, self.radii, self.jumps, self.slopes, strict=True):
            offset = (places - center[:, None, None] + self.side / 2) % self.side - self.side / 2
            interior = jump * (1 + (slope[:, None, None] * offset).sum(0) / radius)
            total += torch.where(offset.norm(dim=0) < radius, interior, 0.0)
        return total[None, None]
