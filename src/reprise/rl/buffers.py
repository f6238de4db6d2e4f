"""Transitions of many environments, to be sampled again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprise.rl.vector import take, tensors

__all__ = ["ReplayBuffer"]


class ReplayBuffer:
    """The last transitions, in tensors that are allocated once.

    With ``n_step`` above 1 a sample is a chain of up to so many steps: the rewards are summed with their discounts,
    and the chain ends early where an episode does or where nothing newer is stored. ``discount`` is what the value of
    ``next_observation`` counts for: 0 after termination, ``gamma ** steps`` otherwise, truncation included.

    Args:
        capacity: transitions, in all environments together; the oldest are overwritten.
        n_step: steps per sample.
        gamma: discount per step.
        seed: of the samples; None takes one from PyTorch's global generator.
        device: where the tensors lie.

    Attributes:
        size: transitions stored.

    Raises:
        ValueError: sizes below 1.

    Example:
        >>> buffer = ReplayBuffer(100, gamma=0.9)
        >>> buffer.add(np.zeros((2, 3)), np.zeros((2, 1)), np.ones(2), np.ones((2, 3)), np.array([True, False]))
        >>> sorted(buffer.sample(2))
        ['action', 'discount', 'next_observation', 'observation', 'reward']
    """

    def __init__(
        self,
        capacity: int,
        *,
        n_step: int = 1,
        gamma: float = 0.99,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if capacity < 1 or n_step < 1:
            raise ValueError(f"capacity and n_step are at least 1, not {capacity} and {n_step}")
        self.capacity, self.n_step, self.gamma, self.device = capacity, n_step, gamma, torch.device(device)
        seed = int(torch.randint(2**31, ())) if seed is None else seed
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.size = self.head = self.width = 0  # width: environments that are stored side by side
        self.storage: dict[str, Any] = {}

    def __len__(self) -> int:
        return self.size

    def add(
        self,
        observation: Any,
        action: Any,
        reward: Any,
        next_observation: Any,
        terminated: Any,
        truncated: Any = None,
    ) -> None:
        """Store one step of N environments, or N transitions from elsewhere.

        Args:
            observation: (N, ...) arrays or tensors, or dictionaries of such.
            action: (N, ...).
            reward: (N,).
            next_observation: as ``observation``; at the end of an episode its last one.
            terminated: (N,) whether nothing comes after.
            truncated: (N,) whether the episode was cut there; matters only to chains of several steps.

        Raises:
            ValueError: NaN, shapes unlike those stored before, or another N where samples have several steps.
        """
        rows = {
            "observation": tensors(observation, self.device),
            "action": tensors(action, self.device),
            "reward": tensors(reward, self.device),
            "next_observation": tensors(next_observation, self.device),
            "terminated": torch.as_tensor(np.asarray(terminated, dtype=bool), device=self.device),
        }
        N = len(rows["reward"])
        cut = np.zeros(N, bool) if truncated is None else np.asarray(truncated, dtype=bool)
        rows["done"] = rows["terminated"] | torch.as_tensor(cut, device=self.device)
        if not self.storage:
            if self.n_step > 1:
                self.capacity -= self.capacity % N  # so that the next step of an environment is always N rows on
            if self.capacity < N:
                raise ValueError(f"{N} transitions at once do not fit into a buffer of {self.capacity}")
            self.storage, self.width = {key: self._allocate(value) for key, value in rows.items()}, N
        if self.n_step > 1 and self.width != N:
            raise ValueError(f"samples of {self.n_step} steps need {self.width} environments at every step, not {N}")
        for key in ("observation", "reward", "next_observation", "action"):
            _refuse_nan(rows[key], key)
        positions = (self.head + torch.arange(N, device=self.device)) % self.capacity
        for key, value in rows.items():
            _write(self.storage[key], positions, value, key)
        self.head = (self.head + N) % self.capacity
        self.size = min(self.size + N, self.capacity)

    def sample(self, batch_size: int) -> dict[str, Any]:
        """Transitions at random, with replacement.

        Returns:
            ``observation``, ``action``, ``next_observation`` (B, ...), ``reward`` and ``discount`` (B,).

        Raises:
            ValueError: fewer are stored.
        """
        if not 0 < batch_size <= self.size:
            raise ValueError(f"the buffer holds {self.size} transitions, fewer than a batch of {batch_size}; add first")
        index = torch.randint(self.size, (batch_size,), generator=self.generator, device=self.device)
        return self.chain(index)

    def chain(self, index: Tensor) -> dict[str, Any]:
        """The samples that begin at these rows of the storage."""
        stored = self.storage
        last, reward = index, stored["reward"][index]
        discount = torch.full_like(reward, self.gamma)
        for _ in range(self.n_step - 1):
            newest = (self.head - 1 - last) % self.capacity < self.width
            goes_on = ~(stored["done"][last] | newest)
            last = torch.where(goes_on, (last + self.width) % self.capacity, last)
            reward = reward + torch.where(goes_on, discount * stored["reward"][last], 0)
            discount = torch.where(goes_on, discount * self.gamma, discount)
        return {
            "observation": take(stored["observation"], index),
            "action": stored["action"][index],
            "reward": reward,
            "next_observation": take(stored["next_observation"], last),
            "discount": discount * ~stored["terminated"][last],
        }

    def _allocate(self, rows: Any) -> Any:
        if isinstance(rows, dict):
            return {key: self._allocate(value) for key, value in rows.items()}
        return torch.zeros((self.capacity, *rows.shape[1:]), dtype=rows.dtype, device=self.device)


def _write(storage: Any, positions: Tensor, rows: Any, what: str) -> None:
    if isinstance(storage, dict):
        for key in storage:
            _write(storage[key], positions, rows[key], f"{what} {key!r}")
        return
    if storage.shape[1:] != rows.shape[1:] or len(rows) != len(positions):
        raise ValueError(f"{what} is {tuple(rows.shape)}, not {(len(positions), *storage.shape[1:])} as before")
    storage[positions] = rows


def _refuse_nan(rows: Any, what: str) -> None:
    if isinstance(rows, dict):
        for key, part in rows.items():
            _refuse_nan(part, f"{what} {key!r}")
    elif not bool((finite := rows.isfinite()).all()):
        row = int((~finite).nonzero()[0, 0])
        raise ValueError(f"row {row} (the environment's number) has a NaN or infinite {what}")
