"""How well scores order examples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["auc"]


def auc(scores: Tensor, labels: Tensor) -> float:
    """The area under the ROC curve: how often a positive scores above a negative, ties half; non-finite scores lose.

    Args:
        scores: (N,), higher for positives.
        labels: (N,) of 0 and 1, both present.

    Raises:
        ValueError: shapes differ, or a class is missing.

    Example:
        >>> auc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        0.75
    """
    if scores.ndim != 1 or labels.shape != scores.shape or set(labels.tolist()) != {0, 1}:
        raise ValueError(
            f"scores and labels are (N,) with both classes 0 and 1, not {tuple(scores.shape)} and "
            f"{tuple(labels.shape)} with {sorted(set(labels.tolist()))[:3] if labels.ndim == 1 else 'other axes'}"
        )
    worst = torch.where(labels == 1, -math.inf, math.inf).to(scores)
    scores = torch.where(scores.isfinite(), scores, worst)
    negatives = scores[labels == 0].sort().values
    positives = scores[labels == 1]
    below, not_above = (torch.searchsorted(negatives, positives, right=right).double() for right in (False, True))
    return float((below + not_above).mean() / (2 * len(negatives)))
