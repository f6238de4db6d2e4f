"""The one-dimensional U-Net of Diffusion Policy: it denoises a chunk of actions, told what is seen by scale and shift.

Convolutions run along the time of the chunk. Each residual block is told the step of the diffusion and what is seen: it
multiplies its channels by a scale and adds a shift, both linear in that (FiLM). Names of parameters are those of the
published code, so that its weights can be loaded.

Source: Chi, Feng, Du, Xu, Cousineau, Burchfiel and Song, Diffusion Policy, RSS 2023, section III A; FiLM: Perez et al.,
AAAI 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.nn.mish import Mish, mish
from reprise.nn.step_embedding import SinusoidalEmbedding

__all__ = ["ConditionalUNet1D"]


class ConditionalUNet1D(nn.Module):
    """Noisy chunks, steps and a condition to a prediction of the shape of the chunks.

    Args:
        input_dim: A, numbers in an action.
        global_cond_dim: numbers in the condition; 0 without.
        down_dims: channels at each level; between two levels the chunk is halved.
        kernel_size: of the convolutions along time; odd.
        n_groups: of the group normalisations; divides all channels.
        step_embed_dim: numbers that the step of the diffusion is embedded to.
        cond_predict_scale: False: blocks are only shifted, not scaled, by what they are told.

    Raises:
        ValueError: groups that do not divide the channels, an even kernel; at the call shapes that do not fit, a chunk
            that cannot be halved often enough.

    Example:
        >>> net = ConditionalUNet1D(2, 10, down_dims=(16, 32), step_embed_dim=16)
        >>> net(torch.randn(4, 16, 2), torch.zeros(4), torch.randn(4, 10)).shape
        torch.Size([4, 16, 2])
    """

    def __init__(
        self,
        input_dim: int,
        global_cond_dim: int = 0,
        *,
        down_dims: Sequence[int] = (256, 512, 1024),
        kernel_size: int = 5,
        n_groups: int = 8,
        step_embed_dim: int = 256,
        cond_predict_scale: bool = True,
    ) -> None:
        super().__init__()
        if odd := [width for width in down_dims if width % n_groups]:
            raise ValueError(f"{n_groups} groups do not divide {odd[0]} channels")
        if kernel_size % 2 == 0:
            raise ValueError(f"a kernel that keeps the length of the chunk is odd, not {kernel_size}")
        self.input_dim, self.global_cond_dim = input_dim, global_cond_dim
        self.multiple = 2 ** (len(down_dims) - 1)
        size = step_embed_dim + global_cond_dim

        def block(a: int, b: int) -> _ResidualBlock:
            return _ResidualBlock(a, b, size, kernel_size, n_groups, cond_predict_scale)

        self.diffusion_step_encoder = nn.Sequential(
            SinusoidalEmbedding(step_embed_dim),
            nn.Linear(step_embed_dim, 4 * step_embed_dim),
            Mish(),
            nn.Linear(4 * step_embed_dim, step_embed_dim),
        )
        levels = list(pairwise([input_dim, *down_dims]))
        last = down_dims[-1]
        self.mid_modules = nn.ModuleList([block(last, last), block(last, last)])
        self.down_modules = nn.ModuleList(
            nn.ModuleList(
                [
                    block(a, b),
                    block(b, b),
                    _Named(conv=nn.Conv1d(b, b, 3, 2, 1)) if i < len(levels) - 1 else nn.Identity(),
                ]
            )
            for i, (a, b) in enumerate(levels)
        )
        self.up_modules = nn.ModuleList(
            nn.ModuleList([block(2 * b, a), block(a, a), _Named(conv=nn.ConvTranspose1d(a, a, 4, 2, 1))])
            for a, b in reversed(levels[1:])
        )
        first = down_dims[0]
        self.final_conv = nn.Sequential(_ConvBlock(first, first, kernel_size, n_groups), nn.Conv1d(first, input_dim, 1))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict.

        Args:
            x: (B, H, A) noisy chunks; H divides by 2 for each level but the first.
            t: (B,) steps of the diffusion.
            condition: (B, global_cond_dim).

        Returns:
            (B, H, A)
        """
        return self.denoise(x, self.contexts(t, condition))

    def contexts(self, t: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """What each block is told. With steps (S, 1), it is that for all S steps that a sampler visits, (S, B, ...).

        Args:
            t: (B,) or (S, 1) steps.
            condition: (B, global_cond_dim).
        """
        step, seen = mish(self.diffusion_step_encoder(t)), None
        if self.global_cond_dim:
            if condition is None or condition.shape[1:] != (self.global_cond_dim,):
                shape = None if condition is None else tuple(condition.shape)
                raise ValueError(f"the condition is (B, {self.global_cond_dim}), not {shape}")
            seen = mish(condition)
        return [block.told(step, seen)[..., None] for block in self._blocks()]

    def denoise(self, x: Tensor, contexts: Sequence[Tensor]) -> Tensor:
        """As :meth:`forward`, with what :meth:`contexts` returned."""
        if x.ndim != 3 or x.shape[2] != self.input_dim or x.shape[1] % self.multiple:
            raise ValueError(
                f"chunks are (B, H, {self.input_dim}) with H a multiple of {self.multiple}, not {tuple(x.shape)}"
            )
        told = iter(contexts)
        x = x.transpose(1, 2)
        kept = []
        for first, second, down in cast(Any, self.down_modules):
            x = second(first(x, next(told)), next(told))
            kept.append(x)
            x = down(x)
        for block in self.mid_modules:
            x = block(x, next(told))
        for first, second, up in cast(Any, self.up_modules):
            x = torch.cat([x, kept.pop()], 1)
            x = up(second(first(x, next(told)), next(told)))
        return self.final_conv(x).transpose(1, 2)

    def _blocks(self) -> list[_ResidualBlock]:
        """In the order in which a chunk goes through them."""
        groups = cast(Any, [*self.down_modules, self.mid_modules, *self.up_modules])
        return [block for group in groups for block in group if isinstance(block, _ResidualBlock)]


class _ResidualBlock(nn.Module):
    """Convolution, scale and shift, convolution; plus the input."""

    def __init__(
        self, channels: int, out_channels: int, cond_dim: int, kernel_size: int, n_groups: int, predict_scale: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                _ConvBlock(channels, out_channels, kernel_size, n_groups),
                _ConvBlock(out_channels, out_channels, kernel_size, n_groups),
            ]
        )
        self.predict_scale = predict_scale
        # Index 0 is a Mish, which is the same for all blocks and is applied once.
        self.cond_encoder = nn.ModuleDict({"1": nn.Linear(cond_dim, out_channels * (2 if predict_scale else 1))})
        same = channels == out_channels
        self.residual_conv = nn.Identity() if same else nn.Conv1d(channels, out_channels, 1)

    def told(self, step: Tensor, seen: Tensor | None) -> Tensor:
        """The linear layer on step and condition side by side, which need not have the same rows."""
        layer, size = cast(nn.Linear, self.cond_encoder["1"]), step.shape[-1]
        film = F.linear(step, layer.weight[:, :size], layer.bias)
        return film if seen is None else film + F.linear(seen, layer.weight[:, size:])

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        h = self.blocks[0](x)
        if self.predict_scale:
            scale, shift = film.chunk(2, 1)
            h = torch.addcmul(shift, scale, h)
        else:
            h = h + film
        return self.blocks[1](h) + self.residual_conv(x)


class _ConvBlock(nn.Module):
    """Convolution, group normalisation, Mish."""

    def __init__(self, channels: int, out_channels: int, kernel_size: int, n_groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(channels, out_channels, kernel_size, padding=kernel_size // 2),
            nn.GroupNorm(n_groups, out_channels),
            Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class _Named(nn.Module):
    """One layer under the name that it has in the published weights."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
