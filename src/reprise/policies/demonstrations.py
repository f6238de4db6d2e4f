"""Demonstrations as a policy sees them in training: scaled windows of episodes, with encoded instructions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reprise.data.windows import Windows

__all__ = ["Batch", "Demonstrations", "Objective", "to_device", "trained_steps"]

Batch = dict[str, Any]
HELD = 64 * 2**20  # bytes of windows that are cut once, rather than for each batch


class Demonstrations:
    """Windows to train on, and what else belongs to their episodes.

    Args:
        windows: of scaled episodes; anything with ``gather(steps, generator)`` that tells the ``episode`` of each.
        steps: (N,) numbers of the windows that count.
        text: (E, D) encoded instructions; None without.
        device: where batches go.

    Example:
        >>> from reprise.data import Episodes
        >>> walk = Episodes({"state": np.zeros((8, 3))}, np.zeros((8, 1), np.float32), np.array([8]))
        >>> demonstrations = Demonstrations(Windows(walk, future=2), np.arange(7))
        >>> demonstrations.gather(np.array([0, 6]))["actions"].shape
        torch.Size([2, 2, 1])
    """

    def __init__(
        self, windows: Windows, steps: np.ndarray, text: Tensor | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.windows, self.steps, self.text, self.device = windows, steps, text, torch.device(device)

    def __len__(self) -> int:
        return len(self.steps)

    def gather(self, steps: np.ndarray, generator: np.random.Generator | None = None) -> Batch:
        """The windows of some steps; ``generator`` draws goals."""
        if self._all is None:
            return self._cut(steps, generator)
        return _select(self._all, torch.as_tensor(steps, device=self.device))

    @cached_property
    def _all(self) -> Batch | None:
        """The windows of all steps; None where they are many or hold goals that are drawn."""
        if self.windows.goal == "future" or len(self.windows) * _size(self._cut(np.arange(1))) > HELD:
            return None
        return self._cut(np.arange(len(self.windows)))

    def _cut(self, steps: np.ndarray, generator: np.random.Generator | None = None) -> Batch:
        batch = self.windows.gather(steps, generator)
        if self.text is not None:
            batch["instruction"] = self.text[batch["episode"]]
        return batch if self.device.type == "cpu" else to_device(batch, self.device)

    def some(self, limit: int, seed: int) -> Batch:
        """At most ``limit`` windows, drawn by a seed."""
        generator = np.random.default_rng(seed)
        return self.gather(generator.permutation(self.steps)[:limit], generator)


class Objective(nn.Module):
    """The loss of demonstrations as a network of the numbers of their steps: what the one supervised loop can minimise.

    Args:
        module: the network that is trained.
        loss: of a batch.
        demonstrations: where batches come from.
    """

    def __init__(self, module: nn.Module, loss: Callable[[Batch], Tensor], demonstrations: Demonstrations) -> None:
        super().__init__()
        self.module, self.loss, self.demonstrations = module, loss, demonstrations
        self.rng = np.random.default_rng(int(torch.randint(2**31, ())))  # of goals

    def forward(self, steps: Tensor) -> Tensor:
        """The loss, (), of the windows of some steps."""
        return self.loss(self.demonstrations.gather(steps.cpu().numpy(), self.rng))


def trained_steps(windows: Windows, pad_start: int | None = None, pad_end: int | None = None) -> np.ndarray:
    """The steps whose windows lie within their episode, but for so many steps before its start and after its end.

    Args:
        windows: cut from episodes.
        pad_start, pad_end: steps that may be repeated; None: any.

    Returns:
        (N,) numbers of steps.

    Raises:
        ValueError: there is none: every episode is too short.

    Example:
        >>> from reprise.data import Episodes
        >>> walks = Episodes({"state": np.zeros((8, 3))}, np.zeros((8, 1), np.float32), np.array([3, 8]))
        >>> trained_steps(Windows(walks, history=2, future=3), pad_start=0, pad_end=0)
        array([4, 5])
    """
    episodes = windows.episodes
    behind, ahead = max(windows.history - 1, -windows.first_action), max(windows.first_action + windows.future - 1, 0)
    step = np.arange(episodes.steps)
    keep = np.ones(len(step), bool)
    if pad_start is not None:
        keep &= step - behind + pad_start >= episodes.starts.repeat(episodes.lengths)
    if pad_end is not None:
        keep &= step + ahead - pad_end < episodes.ends.repeat(episodes.lengths)
    if not keep.any():
        raise ValueError(
            f"a window takes {behind + 1 + ahead} steps ({behind} back, {ahead} ahead), of which {pad_start} may lie "
            f"before the start and {pad_end} after the end of an episode, but the longest episode has "
            f"{int(episodes.lengths.max())} steps"
        )
    return np.flatnonzero(keep)


def _select(tree: Any, rows: Tensor) -> Any:
    """Some rows of a tensor, or of a dictionary of such."""
    if isinstance(tree, dict):
        return {key: _select(value, rows) for key, value in tree.items()}
    return tree.index_select(0, rows)


def _size(tree: Any) -> int:
    """Bytes of a tensor, or of a dictionary of such."""
    return sum(map(_size, tree.values())) if isinstance(tree, dict) else tree.nbytes


def to_device(tree: Any, device: torch.device) -> Any:
    """A tensor, or a dictionary of such, moved."""
    if isinstance(tree, dict):
        return {key: to_device(value, device) for key, value in tree.items()}
    return tree.to(device)
