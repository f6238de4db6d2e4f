"""What policies observe: names, shapes and checks where an observation enters, and the last few of each environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprise.data.episodes import Episodes
from reprise.data.finite import all_finite

__all__ = ["History", "Shapes", "checked_mask", "count_of", "is_picture", "named", "take", "tensor_of"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Shapes:
    """The sizes from which a policy builds its network.

    Attributes:
        observations: name to the shape of one observation: (D,), or (H, W, 3) for pictures.
        action: A, numbers in an action.
        goal: name to shape of what a goal consists of; empty without goals.
        instruction: numbers in an encoded instruction; 0 without.

    Example:
        >>> Shapes({"state": (5,)}, action=2)
        Shapes(observations={'state': (5,)}, action=2, goal={}, instruction=0)
    """

    observations: Mapping[str, Shape]
    action: int
    goal: Mapping[str, Shape] = field(default_factory=dict)
    instruction: int = 0

    def __post_init__(self) -> None:
        for name in ("observations", "goal"):  # as they come out of JSON
            object.__setattr__(self, name, {key: tuple(shape) for key, shape in getattr(self, name).items()})

    @classmethod
    def of(cls, episodes: Episodes, observations: Sequence[str], goal: Sequence[str], instruction: int) -> Shapes:
        """Those of episodes.

        Raises:
            ValueError: an observation is not among them.
        """
        for name in (*observations, *goal):
            if name not in episodes.observations:
                raise ValueError(
                    f"the episodes have no observation {name!r}; they have {', '.join(episodes.observations)}: "
                    "name those with observations=(...)"
                )
        seen = {name: array.shape[1:] for name, array in episodes.observations.items()}
        return cls(
            {name: seen[name] for name in observations},
            episodes.actions.shape[1],
            {name: seen[name] for name in goal},
            instruction,
        )


def is_picture(shape: Shape) -> bool:
    """Whether one observation of this shape is a picture, (H, W, 3)."""
    return len(shape) == 3 and shape[-1] == 3


def named(observation: Any, names: Sequence[str]) -> dict[str, Any]:
    """An observation as a dictionary under our names.

    LeRobot's are understood: ``observation.state`` is ``state``, ``task`` is ``instruction``. What is no dictionary is
    the only observation there is.

    Raises:
        ValueError: an array where several things must be observed.

    Example:
        >>> named({"observation.state": 1, "task": ["go"]}, ["state"]), named(2, ["state"])
        ({'state': 1, 'instruction': ['go']}, {'state': 2})
    """
    if not isinstance(observation, Mapping):
        if len(names) != 1:
            raise ValueError(
                f"an observation is a dictionary with {', '.join(names)}, not {type(observation).__name__}"
            )
        return {names[0]: observation}
    plain = {key.removeprefix("observation."): value for key, value in observation.items()}
    if "task" in plain:
        plain["instruction"] = plain.pop("task")
    return plain


def tensor_of(value: Any, name: str, shape: Shape, device: torch.device) -> Tensor:
    """(B, *shape) floats, or bytes of pictures; pictures may come as floats in 0..1 and with the channels first.

    Raises:
        ValueError: another shape, or numbers that are not finite.
    """
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    tensor = tensor.to(device)
    if is_picture(shape):
        if tensor.shape[1:] == (3, *shape[:2]) and tensor.ndim == 4:
            tensor = tensor.movedim(1, -1)
        if tensor.is_floating_point():
            _check_finite(tensor, name)
            tensor = (tensor * 255).round().clamp(0, 255).to(torch.uint8)
    elif not tensor.is_floating_point() or tensor.dtype == torch.float64:
        tensor = tensor.float()
    if tensor.shape[1:] != shape or tensor.ndim != len(shape) + 1:
        raise ValueError(
            f"{name} must be a batch {('B', *shape)}".replace("'", "") + f", not {tuple(tensor.shape)}"
            + ("; a single observation is a batch of one: observation[None]" if tensor.shape == shape else "")
        )  # fmt: skip
    if tensor.is_floating_point():
        _check_finite(tensor, name)
    return tensor


def _check_finite(tensor: Tensor, name: str) -> None:
    if not all_finite(tensor):
        row = int(tensor.isfinite().flatten(1).all(1).int().argmin())
        raise ValueError(f"{name} of environment {row} is not finite")


def count_of(observation: Any) -> int:
    """How many environments an observation is of.

    Raises:
        ValueError: it holds no array.
    """
    if not isinstance(observation, Mapping):
        return len(observation)
    for value in observation.values():
        if not isinstance(value, (str, Mapping)) and hasattr(value, "__len__"):
            return len(value)
    raise ValueError("an observation holds at least one array (B, ...)")


def take(tree: Any, rows: Any) -> Any:
    """Some rows of an array, a tensor, a list, or a dictionary of them; a single sentence stays what it is."""
    if isinstance(tree, Mapping):
        return {key: take(value, rows) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [tree[i] for i in np.arange(len(tree))[np.asarray(rows)]]
    if isinstance(tree, str):
        return tree
    return tree[torch.as_tensor(rows)] if isinstance(tree, Tensor) else np.asarray(tree)[np.asarray(rows)]


def checked_mask(mask: Any, count: int) -> np.ndarray:
    """(count,) booleans: which environments.

    Raises:
        ValueError: something else.
    """
    array = np.asarray(mask)
    if array.shape != (count,) or array.dtype != bool:
        raise ValueError(f"environments are told by a mask of {count} booleans, not {array.dtype} {array.shape}")
    return array


class History:
    """The last observations of each environment, the first of an episode repeated until there are enough.

    Args:
        length: how many.

    Example:
        >>> history = History(2)
        >>> seen, padding = history.push({"state": torch.tensor([[1.0]])})
        >>> seen, padding = history.push({"state": torch.tensor([[2.0]])})
        >>> seen["state"][..., 0], padding
        (tensor([[1., 2.]]), tensor([[False, False]]))
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.buffers: dict[str, Tensor] = {}  # (B, length, ...)
        self.counts: Tensor | None = None  # (B,) observations of the running episode, at most length

    def push(self, observation: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Add (B, ...) observations; returns (B, length, ...) of each, and (B, length) where they are repeated.

        Raises:
            ValueError: another number of environments than before.
        """
        if self.length == 1:
            row = next(iter(observation.values()))
            padding = torch.zeros(len(row), 1, dtype=torch.bool, device=row.device)
            return {name: value[:, None] for name, value in observation.items()}, padding
        B = len(next(iter(observation.values())))
        if self.counts is None:
            self.counts = torch.zeros(B, dtype=torch.long)
        elif len(self.counts) != B:
            raise ValueError(f"{len(self.counts)} environments are remembered and {B} came: call reset() between them")
        fresh = self.counts == 0
        for name, value in observation.items():
            old = self.buffers.get(name)
            new = value[:, None]
            if old is None:
                self.buffers[name] = new.expand(-1, self.length, *value.shape[1:]).clone()
                continue
            rolled = torch.cat([old[:, 1:], new], 1)
            if bool(fresh.any()):
                rolled[fresh] = new[fresh].expand(-1, self.length, *value.shape[1:])
            self.buffers[name] = rolled
        self.counts = (self.counts + 1).clamp_max(self.length)
        padding = torch.arange(self.length) < self.length - self.counts[:, None]
        return dict(self.buffers), padding.to(value.device)

    def reset(self, mask: Any = None) -> None:
        """Forget all environments, or those of a mask (B,).

        Raises:
            ValueError: the mask is of another number of environments.
        """
        if mask is None:
            self.buffers, self.counts = {}, None
        elif self.counts is not None:
            self.counts[torch.from_numpy(checked_mask(mask, len(self.counts)))] = 0
