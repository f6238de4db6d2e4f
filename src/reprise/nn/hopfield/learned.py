"""Hopfield layers with learned patterns: as states they pool a set, as stored patterns they are a memory.

Source: Ramsauer et al., Hopfield Networks is All You Need, ICLR 2021, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reprise.nn.hopfield.layers import Hopfield

__all__ = ["HopfieldLayer", "HopfieldPooling"]


class HopfieldPooling(Hopfield):
    """Pool a set by learned state patterns: what attention pooling calls its queries. For multiple-instance learning.

    Args:
        input_size: size of the stored patterns and of the learned states.
        quantity: learned state patterns.
        trainable: whether the state patterns are trained.
        options: those of :class:`Hopfield`, with ``hidden_size``, ``output_size`` and ``num_heads`` by name.

    Example:
        >>> pool = HopfieldPooling(16, num_heads=4)
        >>> bags, padding = torch.randn(2, 9, 16), torch.arange(9) >= torch.tensor([[9], [4]])
        >>> pool(bags, stored_pattern_padding_mask=padding).shape
        torch.Size([2, 16])
    """

    def __init__(self, input_size: int, *, quantity: int = 1, trainable: bool = True, **options: object) -> None:
        super().__init__(input_size, **options)  # type: ignore[arg-type]
        self.queries = _learned(quantity, input_size, trainable)

    def forward(  # type: ignore[override]
        self,
        stored: Tensor,
        projection: Tensor | None = None,
        *,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, S, input_size) to (B, quantity * output_size); masks as in :class:`Hopfield`, with L = quantity."""
        masks = {"stored_pattern_padding_mask": stored_pattern_padding_mask, "association_mask": association_mask}
        return super().forward(self._states(stored), stored, projection, **masks).flatten(1)

    def association(  # type: ignore[override]
        self,
        stored: Tensor,
        *,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, H, quantity, S): how much each member of a set counts."""
        masks = {"stored_pattern_padding_mask": stored_pattern_padding_mask, "association_mask": association_mask}
        return super().association(self._states(stored), stored, **masks)

    def _states(self, stored: Tensor) -> Tensor:
        return self.queries.expand(len(stored), -1, -1)


class HopfieldLayer(Hopfield):
    """Look up in a learned memory: the input asks, learned stored patterns answer.

    Args:
        input_size: size of the input.
        quantity: learned stored patterns.
        separate_targets: learn the patterns that values are projected from beside those that keys are projected from.
        trainable: whether the stored patterns are trained.
        options: those of :class:`Hopfield`, with ``hidden_size``, ``output_size`` and ``num_heads`` by name.

    Example:
        >>> HopfieldLayer(16, quantity=100)(torch.randn(2, 5, 16)).shape
        torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        input_size: int,
        *,
        quantity: int = 1,
        separate_targets: bool = False,
        trainable: bool = True,
        **options: object,
    ) -> None:
        super().__init__(input_size, **options)  # type: ignore[arg-type]
        self.patterns = _learned(quantity, self.sizes["stored"], trainable)
        if not separate_targets and self.sizes["projection"] != self.sizes["stored"]:
            raise ValueError("patterns of another size for the values need separate_targets=True")
        self.targets = _learned(quantity, self.sizes["projection"], True) if separate_targets else None

    def forward(self, state: Tensor, *, association_mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """(B, L, input_size) to (B, L, output_size); the mask as in :class:`Hopfield`, with S = quantity."""
        stored = self.patterns.expand(len(state), -1, -1)
        targets = None if self.targets is None else self.targets.expand(len(state), -1, -1)
        return super().forward(state, stored, targets, association_mask=association_mask)

    def association(self, state: Tensor, *, association_mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """(B, H, L, quantity): which of the learned patterns each input finds."""
        return super().association(state, self.patterns.expand(len(state), -1, -1), association_mask=association_mask)


def _learned(quantity: int, size: int, trainable: bool) -> nn.Parameter:
    if quantity < 1:
        raise ValueError(f"quantity is the number of learned patterns, at least 1, not {quantity}")
    return nn.Parameter(torch.randn(1, quantity, size) * 0.02, requires_grad=trainable)
