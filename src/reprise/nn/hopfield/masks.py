"""Masks of attention, brought into the one form that is added to the logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["additive_mask"]


def additive_mask(
    padding: Tensor | None, association: Tensor | None, batch: int, heads: int, length: int, stored: Tensor
) -> Tensor | None:
    """What is added to the logits, of a shape that broadcasts to (B, H, L, S): -inf where nothing may be seen.

    Args:
        padding: (B, S) booleans, True at stored patterns to ignore.
        association: (L, S), (B, L, S) or (B, H, L, S); booleans, True where a state may not look, or floats.
        batch, heads, length: B, H, L.
        stored: (B, S, ...), which gives S, dtype and device.

    Raises:
        ValueError: shapes do not fit, or a state has nothing to look at.
    """
    size = stored.shape[1]
    total: Tensor | None = None
    if padding is not None:
        if padding.dtype != torch.bool or padding.shape != (batch, size):
            raise ValueError(
                f"stored_pattern_padding_mask is {(batch, size)} booleans, True = ignore; it is "
                f"{tuple(padding.shape)} {padding.dtype}"
            )
        total = _forbid(padding[:, None, None], stored)
    if association is not None:
        shapes = [(length, size), (batch, length, size), (batch, heads, length, size)]
        if association.shape not in shapes:
            raise ValueError(f"association_mask is one of {shapes}, not {tuple(association.shape)}")
        if association.ndim == 3:
            association = association[:, None]
        added = _forbid(association, stored) if association.dtype == torch.bool else association.to(stored.dtype)
        total = added if total is None else total + added
    if total is not None and (blind := (total == -math.inf).all(-1)).any():
        rows = blind.flatten(1).any(1).nonzero().flatten().tolist() if blind.ndim > 1 and len(blind) == batch else []
        where = f"in samples {str(rows[:5])[1:-1]}{', ...' if len(rows) > 5 else ''}" if rows else "in every sample"
        raise ValueError(f"the masks leave a state no stored pattern to look at, {where}; leave such sets out")
    return total


def _forbid(mask: Tensor, like: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill_(mask, -math.inf)
