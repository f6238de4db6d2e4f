"""AdamW over all parameters as one vector, for one network or for several stacked ones that train side by side."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from reprise.training.flat_adam import FlatAdam

__all__ = ["FlatAdamW"]


class FlatAdamW(FlatAdam):
    """:class:`~reprise.training.FlatAdam` with decoupled weight decay, and with clipping per network.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019.

    Args:
        parameters: of one type and device; those that need no gradient are left out.
        learning_rate: may be changed at any time.
        weight_decay: may be changed at any time; a step takes ``learning_rate * weight_decay`` of a weight away.
        undecayed: those of the parameters that do not decay.
        betas, eps: of Adam.
        networks: how many networks are stacked along the first axis of every parameter. The gradient of each is clipped
            by its own norm, so that they train exactly as they would alone.

    Raises:
        ValueError: a parameter without a row for each network.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> adam = FlatAdamW(layer.parameters(), 0.1, weight_decay=0.01, undecayed=[layer.bias])
        >>> layer(torch.ones(3, 2)).sum().backward()
        >>> adam.step(max_norm=1.0)
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        *,
        weight_decay: float = 0.01,
        undecayed: Iterable[nn.Parameter] = (),
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        networks: int = 1,
    ) -> None:
        chosen = [parameter for parameter in parameters if parameter.requires_grad]
        spared = {id(parameter) for parameter in undecayed}
        if networks > 1 and (odd := [p for p in chosen if p.ndim == 0 or len(p) != networks]):
            raise ValueError(f"{networks} stacked networks have as many rows in every parameter, not {odd[0].shape}")
        super().__init__(chosen, learning_rate, betas, eps)
        self.parameters, self.weight_decay, self.networks = chosen, weight_decay, networks
        device = self.vector.device
        decays = [torch.full((p.numel(),), float(id(p) not in spared), device=device) for p in chosen]
        self.decays = torch.cat(decays).to(self.vector.dtype)
        rows = torch.arange(networks, device=device)
        self.owner = torch.cat([rows.repeat_interleave(p.numel() // networks) for p in chosen])

    @torch.no_grad()
    def step(self, max_norm: float | None = None) -> None:
        """Move against the gradient, of which each network's part is first shortened to ``max_norm``."""
        if max_norm is not None and self.networks > 1:
            norms = self.gradient.new_zeros(self.networks).index_add_(0, self.owner, self.gradient.square()).sqrt_()
            self.gradient.mul_((max_norm / norms.add_(1e-6)).clamp_(max=1.0)[self.owner])
            max_norm = None
        if self.weight_decay:
            self.vector.addcmul_(self.vector, self.decays, value=-self.learning_rate * self.weight_decay)
        super().step(max_norm)

    def release(self) -> None:
        """Give every parameter memory of its own again, without a gradient; the optimiser is of no use any more."""
        for parameter in self.parameters:
            parameter.data, parameter.grad = parameter.data.clone(), None
