"""Scattering as a step of a scikit-learn pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin

from reprise.nn.scattering.images import Scattering2D

__all__ = ["ScatteringTransformer"]


class ScatteringTransformer(TransformerMixin, BaseEstimator):
    """Pictures to scattering coefficients, as scikit-learn wants it.

    Args:
        J: the largest scale is 2^J pixels.
        shape: height and width.
        L: angles in half a turn.
        max_order: 1 or 2.
        batch_size: pictures at a time.

    Example:
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.svm import LinearSVC
        >>> pictures, labels = np.random.rand(20, 64), np.arange(20) % 2
        >>> model = make_pipeline(ScatteringTransformer(J=1, shape=(8, 8)), LinearSVC()).fit(pictures, labels)
        >>> model.predict(pictures).shape
        (20,)
    """

    def __init__(
        self, J: int = 2, shape: tuple[int, int] = (28, 28), L: int = 8, max_order: int = 2, batch_size: int = 256
    ) -> None:
        self.J, self.shape, self.L, self.max_order, self.batch_size = J, shape, L, max_order, batch_size

    def fit(self, X: Any, y: Any = None) -> ScatteringTransformer:
        """Make the filters; nothing is learned.

        Raises:
            ValueError: as :class:`Scattering2D`.
        """
        self.scattering_ = Scattering2D(self.J, self.shape, self.L, self.max_order)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Scatter pictures.

        Args:
            X: (n, H, W) or (n, H · W) numbers.

        Returns:
            (n, features) float32.

        Raises:
            ValueError: the pictures are of another shape, or not finite.
            sklearn.exceptions.NotFittedError: before ``fit``.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        pictures = torch.as_tensor(np.asarray(X, dtype=np.float32))
        H, W = self.shape
        if pictures.ndim not in (2, 3) or pictures[:1].numel() != H * W * len(pictures[:1]):
            raise ValueError(f"pictures are (n, {H}, {W}) or (n, {H * W}), not {tuple(pictures.shape)}")
        pictures = pictures.reshape(-1, H, W)
        with torch.inference_mode():
            parts = [self.scattering_(part).flatten(1) for part in pictures.split(self.batch_size)]
        return torch.cat(parts).numpy()
