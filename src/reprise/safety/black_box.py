"""A classifier that may only be asked: batches in, class scores out, every image counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reprise.training.fit import predict as predict_module

__all__ = ["BlackBox", "Predict"]

Predict = Callable[[Tensor], Any] | nn.Module


class BlackBox:
    """Ask any classifier for the probabilities of its classes, in batches, and count the images.

    Args:
        predict: takes (N, C, H, W) float32 images in 0..1 and returns (N, K) scores as a tensor or an array. A module
            is called in evaluation mode, on its device and without gradients.
        outputs: what the scores are: "probabilities", or "logits", of which the softmax is taken in double precision.
        batch_size: images per call of ``predict``, at most.

    Attributes:
        queries: how many images ``predict`` has been given.

    Raises:
        ValueError: unknown ``outputs``, a ``batch_size`` below 1; at the call: scores that are not (N, K) with K >= 2,
            not finite, or not what ``outputs`` says.

    Example:
        >>> box = BlackBox(lambda images: images.flatten(1)[:, :3], outputs="logits", batch_size=2)
        >>> box(np.zeros((5, 1, 2, 2), np.float32)).sum(1).tolist(), box.queries
        ([1.0, 1.0, 1.0, 1.0, 1.0], 5)
    """

    def __init__(self, predict: Predict, *, outputs: str = "probabilities", batch_size: int = 256) -> None:
        if not callable(predict):
            raise ValueError(f"predict is called with images and returns scores; a {type(predict).__name__} cannot be")
        if outputs not in ("probabilities", "logits"):
            raise ValueError(f'outputs is "probabilities" or "logits", not {outputs!r}')
        if batch_size < 1:
            raise ValueError(f"batch_size is at least 1, not {batch_size}")
        self.predict, self.outputs, self.batch_size = predict, outputs, batch_size
        self.queries = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images (N, C, H, W), float32 in 0..1, to probabilities (N, K), float64."""
        batches = [images[i : i + self.batch_size] for i in range(0, len(images), self.batch_size)]
        return np.concatenate([self._ask(batch) for batch in batches])

    def _ask(self, images: np.ndarray) -> np.ndarray:
        self.queries += len(images)
        # A copy: a predict that keeps or changes its input must not reach ours.
        batch = torch.from_numpy(images.copy())
        if isinstance(self.predict, nn.Module):
            answer: Any = predict_module(self.predict, batch, batch_size=self.batch_size)
        else:
            with torch.no_grad():
                answer = self.predict(batch)
        scores = np.asarray(answer.cpu() if isinstance(answer, Tensor) else answer, dtype=np.float64)
        if scores.ndim != 2 or len(scores) != len(images) or scores.shape[1] < 2:
            raise ValueError(
                f"predict must return (N, K) scores of K >= 2 classes; given {len(images)} images it returned "
                f"{scores.shape}"
            )
        if not np.isfinite(scores).all():
            raise ValueError("predict returned scores that are not finite")
        if self.outputs == "logits":
            scores = np.exp(scores - scores.max(1, keepdims=True))
            return scores / scores.sum(1, keepdims=True)
        sums = scores.sum(1)
        if scores.min() < -1e-3 or np.abs(sums - 1).max() > 1e-2:
            raise ValueError(
                f"predict returned no probabilities (least entry {scores.min():g}, rows sum to {sums.min():g} to "
                f'{sums.max():g}); if these are logits, say outputs="logits"'
            )
        return scores
