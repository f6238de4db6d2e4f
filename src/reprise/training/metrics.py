"""How good predictions are."""

from __future__ import annotations

from torch import Tensor

__all__ = ["accuracy"]


def accuracy(scores: Tensor, labels: Tensor, k: int = 1) -> float:
    """The share of rows whose label is among the k highest scores; a row with a non-finite score counts as wrong.

    Args:
        scores: (N, K), one score per class.
        labels: (N,) integers in 0..K-1.
        k: 1 <= k <= K.

    Raises:
        ValueError: shapes or k do not fit, or there are no rows.

    Example:
        >>> scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4], [float("nan"), 1.0, 0.0]])
        >>> labels = torch.tensor([1, 2, 1])
        >>> round(accuracy(scores, labels), 3), round(accuracy(scores, labels, k=2), 3)
        (0.333, 0.667)
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not len(scores):
        raise ValueError(
            f"scores are (N, K) and labels (N,), N > 0, not {tuple(scores.shape)} and {tuple(labels.shape)}"
        )
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k = {k} does not fit {scores.shape[1]} classes")
    hits = (scores.topk(k, dim=1).indices == labels[:, None]).any(1)
    return float((hits & scores.isfinite().all(1)).double().mean())
