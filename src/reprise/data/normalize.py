"""Bring states and actions to a common range and back; constant dimensions are guarded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from reprise.files import written_whole

__all__ = ["Normalizer"]

FORMAT = "reprise.data.Normalizer"


class Normalizer(nn.Module):
    """y = (x - offset) / scale in the last axis, and back; made by :meth:`min_max`, :meth:`standard` or :meth:`limits`.

    Offset and scale are buffers: they travel with the state dict of the model that holds them.

    Args:
        offset, scale: (D,).

    Raises:
        ValueError: shapes that differ, or a scale that is not above 0.

    Example:
        >>> normalizer = Normalizer.min_max(torch.tensor([[0.0, 5.0], [10.0, 5.0]]))
        >>> normalizer(torch.tensor([2.5, 5.0])), normalizer.inverse(torch.tensor([-0.5, 0.0]))
        (tensor([-0.5000,  0.0000]), tensor([2.5000, 5.0000]))
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, offset: Tensor, scale: Tensor) -> None:
        super().__init__()
        if offset.ndim != 1 or offset.shape != scale.shape:
            raise ValueError(f"offset and scale are (D,) each, not {tuple(offset.shape)} and {tuple(scale.shape)}")
        if not (torch.isfinite(offset).all() and torch.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError(f"offset must be finite and scale finite and above 0, not {offset} and {scale}")
        self.register_buffer("offset", offset.float())
        self.register_buffer("scale", scale.float())

    @classmethod
    def min_max(cls, data: Tensor | np.ndarray) -> Normalizer:
        """The smallest value of each dimension becomes -1, the largest 1; a constant one becomes 0.

        Args:
            data: (..., D), two axes at least.
        """
        rows = _rows(data)
        return cls.limits(rows.min(0).values, rows.max(0).values)

    @classmethod
    def limits(cls, low: Tensor | np.ndarray, high: Tensor | np.ndarray) -> Normalizer:
        """Known limits become -1 and 1, say those of an action space.

        Args:
            low, high: (D,).

        Raises:
            ValueError: a lower limit above the upper one.
        """
        low, high = torch.as_tensor(low, dtype=torch.float64), torch.as_tensor(high, dtype=torch.float64)
        if (low > high).any():
            raise ValueError(f"lower limits must not be above the upper ones: {low} and {high}")
        return cls((low + high) / 2, _guarded((high - low) / 2, torch.maximum(low.abs(), high.abs())))

    @classmethod
    def standard(cls, data: Tensor | np.ndarray) -> Normalizer:
        """Each dimension gets mean 0 and standard deviation 1 (of the population); a constant one becomes 0.

        Args:
            data: (..., D), two axes at least.
        """
        rows = _rows(data)
        return cls(rows.mean(0), _guarded(rows.std(0, correction=0), rows.abs().max(0).values))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to the common range."""
        return (self._checked(x) - self.offset) / self.scale

    def inverse(self, y: Tensor) -> Tensor:
        """(..., D) from the common range back."""
        return self._checked(y) * self.scale + self.offset

    def save(self, path: str | Path) -> None:
        """Write a safetensors file."""
        with written_whole(Path(path)) as temporary:
            save_file(self.state_dict(), temporary, {"format": FORMAT})

    @classmethod
    def load(cls, path: str | Path) -> Normalizer:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or holds something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {path}")
        try:
            with safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get("format") != FORMAT:
                    raise ValueError(f"{path} holds no normalizer, or one written by something else")
                return cls(file.get_tensor("offset"), file.get_tensor("scale"))
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error})") from error

    def _checked(self, x: Tensor) -> Tensor:
        if x.shape[-1:] != self.offset.shape:
            raise ValueError(f"the last axis must have {len(self.offset)} dimensions, not {tuple(x.shape)}")
        return x


def _rows(data: Tensor | np.ndarray) -> Tensor:
    rows = torch.as_tensor(data)
    if rows.ndim < 2 or not rows.numel():
        raise ValueError(f"data are (..., D) with at least one row, not {tuple(rows.shape)}")
    rows = rows.double().flatten(0, -2)
    if not torch.isfinite(rows).all():
        raise ValueError(f"row {int(torch.isfinite(rows).all(1).int().argmin())} of the data is not finite")
    return rows


def _guarded(scale: Tensor, size: Tensor) -> Tensor:
    """1 where a dimension does not change, or by no more than its own rounding: that would be blown up to noise."""
    return torch.where(scale > 1e-6 * size.clamp(min=1e-6), scale, 1.0)
