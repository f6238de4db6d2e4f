"""CARP's first stage: chunks of actions as codes, coarse to fine, by a tiny autoencoder for every dimension.

Source: Gong, Ding, Lyu, Huang, Sun, Zhao, Fan and Wang, CARP: Visuomotor Policy Learning via Coarse-to-Fine
Autoregressive Prediction, ICCV 2025, section 3.1 and the published configuration.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from reprise.policies.carp.layers import StackedConv, StackedNorm, StackedResBlock
from reprise.policies.carp.quantizer import ResidualQuantizer
from reprise.policies.carp.training import cosine, minimize
from reprise.training.fit import OnStep
from reprise.training.flat_adamw import FlatAdamW

__all__ = ["ActionTokenizer"]

ROWS = 4096  # chunks times dimensions in a piece of a batch, whose activations a CPU's cache holds


class ActionTokenizer(nn.Module):
    """A multi-scale residual VQ-VAE for each dimension of an action; no dimension sees another, nor its codebook.

    All dimensions are computed at once, and train exactly as they would one by one. Actions lie in [-1, 1]. The tokens
    of a scale are ordered by time and within a time by dimension: token t * action_dim + d.

    Args:
        action_dim: Da, numbers in an action.
        horizon: H, actions in a chunk.
        vocab: V, codes in the codebook of a dimension.
        code_dim: length of a code, and channels of the latent.
        ch: channels of the first convolution.
        mult: channels of each level in multiples of ``ch``; each level halves the time.
        scales: tokens (times) of each scale, rising; the last is H / 2^len(mult).
        cosine: the nearest code by cosine similarity; False by Euclidean distance.
        beta: weight of the commitment loss.
        residual: share of the convolution in the quantiser's phi.

    Raises:
        ValueError: sizes that do not fit.

    Example:
        >>> tokenizer = ActionTokenizer(2)
        >>> [indices.shape[1] for indices in tokenizer.encode(torch.zeros(5, 16, 2))]
        [2, 4, 6, 8]
        >>> tokenizer.decode(tokenizer.encode(torch.zeros(5, 16, 2))).shape
        torch.Size([5, 16, 2])
    """

    def __init__(
        self,
        action_dim: int,
        horizon: int = 16,
        vocab: int = 512,
        code_dim: int = 8,
        ch: int = 2,
        mult: Sequence[int] = (2, 4),
        scales: Sequence[int] = (1, 2, 3, 4),
        *,
        cosine: bool = True,
        beta: float = 0.25,
        residual: float = 0.5,
    ) -> None:
        super().__init__()
        length = _check_sizes(action_dim, horizon, vocab, tuple(mult), tuple(scales))
        self.action_dim, self.horizon, self.vocab, self.code_dim = action_dim, horizon, vocab, code_dim
        self.scales = tuple(scales)
        widths = [ch, *(ch * factor for factor in mult)]
        levels = list(pairwise(widths))
        down: list[nn.Module] = [StackedConv(action_dim, 1, ch, horizon)]
        up: list[nn.Module] = []
        steps = horizon
        for narrow, wide in levels:
            down += [
                StackedResBlock(action_dim, narrow, wide, steps),
                StackedConv(action_dim, wide, wide, steps, "down"),
                StackedResBlock(action_dim, wide, wide, steps // 2),
            ]
            steps //= 2
        for narrow, wide in reversed(levels):
            up += [
                StackedResBlock(action_dim, wide, wide, steps),
                StackedConv(action_dim, wide, wide, steps, "up"),
                StackedResBlock(action_dim, wide, narrow, 2 * steps),
            ]
            steps *= 2
        wide = widths[-1]
        self.encoder = nn.Sequential(
            *down, StackedNorm(action_dim, wide), nn.SiLU(), StackedConv(action_dim, wide, code_dim, length)
        )
        self.quant_conv = StackedConv(action_dim, code_dim, code_dim, length, columns=3)
        self.quantizer = ResidualQuantizer(
            action_dim, vocab, code_dim, scales, cosine=cosine, beta=beta, residual=residual
        )
        self.post_quant_conv = StackedConv(action_dim, code_dim, code_dim, length, columns=3)
        self.decoder = nn.Sequential(
            StackedNorm(action_dim, code_dim),
            nn.SiLU(),
            StackedConv(action_dim, code_dim, wide, length),
            *up,
            StackedConv(action_dim, ch, 1, horizon),
        )

    @property
    def tokens(self) -> tuple[int, ...]:
        """How many tokens each scale has, all dimensions together."""
        return tuple(scale * self.action_dim for scale in self.scales)

    def forward(self, actions: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Reconstruct actions (B, H, Da).

        Returns:
            The reconstruction with a straight-through gradient, each dimension's loss of quantisation (Da,), and each
            scale's indices (B, l_k * Da).
        """
        f = self._latent(actions)
        quantized, loss, indices = self.quantizer(f)
        return self._reconstruct(f + (quantized - f).detach()), loss, [_interleave(index) for index in indices]

    def loss(self, actions: Tensor) -> Tensor:
        """Mean squared error plus loss of quantisation, of each dimension: (Da,)."""
        losses = []
        for part in actions.split(max(1, ROWS // self.action_dim)):
            reconstruction, loss, _ = self(part)
            losses.append(((reconstruction - part).square().mean((0, 1)) + loss) * (len(part) / len(actions)))
        return torch.stack(losses).sum(0)

    @torch.no_grad()
    def encode(self, actions: Tensor) -> list[Tensor]:
        """Actions (B, H, Da) in [-1, 1] to the indices of each scale: K int64 tensors (B, l_k * Da).

        Raises:
            ValueError: actions of another shape, or not finite. Actions beyond [-1, 1] give a warning.
        """
        return [_interleave(index) for index in self.quantizer(self._latent(self._checked(actions)))[2]]

    @torch.no_grad()
    def decode(self, indices: Sequence[Tensor]) -> Tensor:
        """The indices of all scales, or of the first few, to actions (B, H, Da).

        Raises:
            ValueError: another number of scales, or of tokens in one of them, or an index outside the codebook.
        """
        return self.decode_latent(self.latents(indices)[-1])

    @torch.no_grad()
    def reconstruct(self, actions: Tensor, upto: int | None = None) -> Tensor:
        """Actions (B, H, Da) as the first ``upto`` scales tell them; None uses all."""
        if upto is not None and not 1 <= upto <= len(self.scales):
            raise ValueError(f"upto is between 1 and {len(self.scales)} scales, not {upto}")
        return self.decode(self.encode(actions)[:upto])

    @torch.no_grad()
    def latents(self, indices: Sequence[Tensor]) -> list[Tensor]:
        """The latent (Da, B, T, code_dim) after each scale: partial sums over the scales."""
        if not 1 <= len(indices) <= len(self.scales):
            raise ValueError(f"indices of 1 to {len(self.scales)} scales are needed, not of {len(indices)}")
        sums: list[Tensor] = []
        for k, index in enumerate(indices):
            sums.append(self.add_scale(sums[-1] if sums else None, index, k))
        return sums

    @torch.no_grad()
    def add_scale(self, latent: Tensor | None, index: Tensor, k: int) -> Tensor:
        """Add scale k, counted from 0, to the latent (Da, B, T, code_dim) of the coarser ones.

        Args:
            latent: None before the first scale.
            index: (B, l_k * Da).
            k: which scale.
        """
        if index.ndim != 2 or index.shape[1] != self.tokens[k]:
            raise ValueError(f"the indices of scale {k} are (B, {self.tokens[k]}), not {tuple(index.shape)}")
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= self.vocab):
            raise ValueError(f"the indices of scale {k} leave the codebook of {self.vocab} codes")
        added = self.quantizer.expand(index.unflatten(1, (-1, self.action_dim)).permute(2, 0, 1), k)
        return added if latent is None else latent + added

    @torch.no_grad()
    def next_input(self, latent: Tensor, k: int) -> Tensor:
        """What predicts scale k from the latent of the coarser ones: (B, l_k * Da, code_dim)."""
        return self.quantizer.pool(latent, k).permute(1, 2, 0, 3).flatten(1, 2)

    @torch.no_grad()
    def inputs(self, indices: Sequence[Tensor]) -> Tensor:
        """What predicts scales 1, ..., K - 1 when the coarser ones are known: (B, tokens of these scales, code_dim)."""
        sums = self.latents(indices[:-1]) if len(indices) > 1 else []
        parts = [self.next_input(latent, k + 1) for k, latent in enumerate(sums)]
        return torch.cat(parts, 1) if parts else self.quantizer.codebook.new_zeros(len(indices[0]), 0, self.code_dim)

    @torch.no_grad()
    def decode_latent(self, latent: Tensor) -> Tensor:
        """A latent (Da, B, T, code_dim) to actions (B, H, Da)."""
        return self._reconstruct(latent)

    def fit(
        self,
        actions: Tensor,
        *,
        steps: int,
        batch_size: int = 256,
        learning_rate: float = 3e-4,
        weight_decay: float = 0.005,
        clip_norm: float = 10.0,
        on_step: OnStep | None = None,
    ) -> ActionTokenizer:
        """Train on chunks by AdamW with betas (0.5, 0.9): every dimension for itself, all at once.

        The learning rate falls along half a cosine to 0.3 of itself, the weight decay to zero; biases, norms and the
        codebook do not decay. Batches are drawn by PyTorch's global generator.

        Args:
            actions: (N, H, Da) in [-1, 1].
            steps: of the optimiser; the paper takes 400 epochs.
            batch_size: chunks per step.
            learning_rate: at the beginning. The published one, for 256 chunks, is in proportion to the batch.
            weight_decay: at the beginning.
            clip_norm: largest norm of the gradient of one dimension's network.
            on_step: called about fifty times with (step, steps, {"tokenizer loss": sum over the dimensions}).

        Raises:
            ValueError: actions of another shape, or not finite; no steps, or no chunks.
            reprise.training.Diverged: a loss is not finite.
        """
        self._checked(actions)
        if steps < 1 or batch_size < 1 or not len(actions):
            raise ValueError(
                f"{steps} steps of {batch_size} of {len(actions)} chunks are no training; give some of each"
            )
        spared = [p for name, p in self.named_parameters() if name.endswith(("bias", "codebook"))]
        spared += [module.weight for module in self.modules() if isinstance(module, StackedNorm)]
        optimizer = FlatAdamW(
            self.parameters(),
            learning_rate,
            weight_decay=weight_decay,
            undecayed=spared,
            betas=(0.5, 0.9),
            networks=self.action_dim,
        )
        minimize(
            lambda rows: self.loss(actions[rows]).sum(),
            len(actions),
            optimizer,
            steps=steps,
            batch_size=batch_size,
            course=lambda done: cosine(done, 0.3),
            clip_norm=clip_norm,
            on_step=on_step,
            name="tokenizer loss",
        )
        return self

    def _latent(self, actions: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(actions.permute(2, 0, 1)[..., None]))

    def _reconstruct(self, latent: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latent))[..., 0].permute(1, 2, 0)

    def _checked(self, actions: Tensor) -> Tensor:
        if actions.ndim != 3 or actions.shape[1:] != (self.horizon, self.action_dim):
            raise ValueError(f"chunks are (B, {self.horizon}, {self.action_dim}), not {tuple(actions.shape)}")
        reach = float(actions.abs().max()) if actions.numel() else 0.0
        if not math.isfinite(reach):
            raise ValueError("actions are not finite; look for NaN in the demonstrations")
        if reach > 1.001:
            warnings.warn(f"actions should lie in [-1, 1] and reach {reach:.3g}: scale them first", stacklevel=3)
        return actions


def _interleave(index: Tensor) -> Tensor:
    """(Da, B, l) to (B, l * Da): by time, and within a time by dimension."""
    return index.permute(1, 2, 0).flatten(1)


def _check_sizes(action_dim: int, horizon: int, vocab: int, mult: tuple[int, ...], scales: tuple[int, ...]) -> int:
    if action_dim < 1 or vocab < 1 or not mult:
        raise ValueError(f"action_dim, vocab and mult must not be empty: {action_dim}, {vocab}, {mult}")
    factor = 2 ** len(mult)
    if horizon < 1 or horizon % factor:
        raise ValueError(f"{len(mult)} levels halve the time as often: horizon must divide by {factor}, not {horizon}")
    length = horizon // factor
    if not scales or scales[-1] != length or sorted(set(scales)) != list(scales) or scales[0] < 1:
        raise ValueError(f"scales rise to the latent's length horizon / {factor} = {length}, unlike {scales}")
    return length
