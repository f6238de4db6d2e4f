"""A latent sequence as codes of several scales, coarse to fine, each scale naming what the coarser ones left over."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.policies.carp.layers import StackedConv

__all__ = ["Quantized", "ResidualQuantizer", "resampling"]

Quantized = tuple[Tensor, Tensor, list[Tensor]]


def resampling(mode: str, source: int, target: int) -> Tensor:
    """What PyTorch's ``interpolate`` does to a sequence, as a matrix (source, target); the same length is left alone.

    Example:
        >>> resampling("area", 4, 2)[:, 0].tolist()
        [0.5, 0.5, 0.0, 0.0]
    """
    if source == target:
        return torch.eye(source)
    unit = torch.eye(source).view(source, 1, source, 1)  # width 1: "bicubic" wants a map
    return F.interpolate(unit, size=(target, 1), mode=mode).view(source, target)


class ResidualQuantizer(nn.Module):
    """The multi-scale residual quantiser of ``count`` networks, with a codebook for each.

    With rest = f at first, scale k (l_k tokens) takes the area average of the rest at l_k places, looks up the nearest
    code of each, spreads the codes over all T places by bicubic interpolation, refines them by phi_k (half of it a
    convolution, half the identity), and takes that off the rest. The last scale has a token for every place, so nothing
    is interpolated there. All scales share the codebook; each has its own phi.

    Args:
        count: networks.
        vocab: V, codes in a codebook.
        code_dim: length of a code.
        scales: l_1 < ... < l_K; the last is T, the latent's length.
        cosine: the nearest code by cosine similarity; False by Euclidean distance.
        beta: weight of the commitment loss.
        residual: share of the convolution in phi.

    Source: Tian et al., Visual Autoregressive Modeling, NeurIPS 2024, algorithms 1 and 2; Gong et al., CARP, ICCV 2025,
    section 3.1.
    """

    offsets: Tensor

    def __init__(
        self,
        count: int,
        vocab: int = 512,
        code_dim: int = 8,
        scales: Sequence[int] = (1, 2, 3, 4),
        *,
        cosine: bool = True,
        beta: float = 0.25,
        residual: float = 0.5,
    ) -> None:
        super().__init__()
        self.scales, self.cosine, self.beta, self.residual = tuple(scales), cosine, beta, residual
        length, unit = self.scales[-1], torch.eye(code_dim)
        bound = 1 / (36 * math.sqrt(code_dim))
        self.codebook = nn.Parameter(torch.empty(count, vocab, code_dim).uniform_(-bound, bound))
        self.phi = nn.ModuleList(
            StackedConv(count, code_dim, code_dim, length, columns=3) for _ in self.scales
        )  # the published code picks phi by the nearest of K ticks to k / (K - 1): that is the k-th
        self.register_buffer("offsets", torch.arange(count).view(count, 1, 1) * vocab, persistent=False)
        for k, scale in enumerate(self.scales):
            for name, matrix in (("pool", resampling("area", length, scale)),
                                 ("spread", resampling("bicubic", scale, length))):  # fmt: skip
                self.register_buffer(f"{name}{k}", torch.kron(matrix, unit), persistent=False)

    def nearest(self, vectors: Tensor) -> Tensor:
        """The code nearest to each vector.

        Args:
            vectors: (count, N, code_dim). Their length plays no part in the cosine, so they need no normalising.

        Returns:
            (count, N) int64.
        """
        book = self.codebook.detach()
        if self.cosine:
            scores = torch.bmm(vectors, F.normalize(book, dim=2).mT)
        else:
            scores = torch.baddbmm(book.square().sum(2)[:, None], vectors, book.mT, beta=-0.5)
        return scores.max(2).indices  # several times as fast as argmax on a CPU

    def pool(self, f: Tensor, k: int) -> Tensor:
        """(count, B, T, code_dim) to area averages at scale k: (count, B, l_k, code_dim)."""
        return f if self.scales[k] == f.shape[2] else self._resample(f, "pool", k, self.scales[k])

    def expand(self, indices: Tensor, k: int) -> Tensor:
        """What the codes (count, B, l_k) of scale k add to the latent: (count, B, T, code_dim)."""
        codes = F.embedding(indices + self.offsets, self.codebook.flatten(0, 1))
        if self.scales[k] != self.scales[-1]:
            codes = self._resample(codes, "spread", k, self.scales[-1])
        return torch.lerp(codes, self.phi[k](codes), self.residual) if self.residual else codes

    def forward(self, f: Tensor) -> Quantized:
        """Quantise latents.

        Args:
            f: (count, B, T, code_dim).

        Returns:
            The sum of all scales, without a gradient to ``f``; the quantiser's loss of each network, (count,); and the
            indices of each scale, (count, B, l_k).
        """
        count, batch = f.shape[:2]
        rest, total = f.detach(), torch.zeros_like(f)
        loss, indices = f.new_zeros(count), []
        for k in range(len(self.scales)):
            indices.append(self.nearest(self.pool(rest, k).flatten(1, 2)).view(count, batch, -1))
            added = self.expand(indices[k], k)
            total, rest = total + added, rest - added.detach()
            # f is nearer to the codes by beta (commitment), the codes to f by one.
            commitment = (total.detach() - f).square().mean((1, 2, 3))
            loss = loss + self.beta * commitment + (total - f.detach()).square().mean((1, 2, 3))
        return total, loss / len(self.scales), indices

    def _resample(self, x: Tensor, name: str, k: int, steps: int) -> Tensor:
        return (x.flatten(2) @ self.get_buffer(f"{name}{k}")).unflatten(2, (steps, -1))
