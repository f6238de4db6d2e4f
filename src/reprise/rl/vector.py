"""What the algorithms need of a vector environment: checks where it enters, and its observations as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

__all__ = [
    "Actions", "check_vector_env", "final_observations", "flatten", "observation_size", "put", "take",
    "tensors",
]  # fmt: skip


def check_vector_env(env: Any) -> None:
    """Refuse what does not step many environments at once and start finished ones again in the same step.

    Raises:
        TypeError: not a ``gymnasium.vector.VectorEnv``.
        ValueError: autoreset at another time, or observations that are no vectors of numbers.

    Example:
        >>> import gymnasium
        >>> check_vector_env(gymnasium.make("CartPole-v1"))
        Traceback (most recent call last):
        ...
        TypeError: a gymnasium.vector.VectorEnv is needed, not TimeLimit; wrap it: SyncVectorEnv([lambda: env], ...
    """
    if not isinstance(env, VectorEnv):
        raise TypeError(
            f"a gymnasium.vector.VectorEnv is needed, not {type(env).__name__}; wrap it: "
            "SyncVectorEnv([lambda: env], autoreset_mode=AutoresetMode.SAME_STEP)"
        )
    mode = env.metadata.get("autoreset_mode")
    if mode != AutoresetMode.SAME_STEP:
        raise ValueError(
            f"finished environments must start again in the same step, but this one says {mode}; make it with "
            'gymnasium.make_vec(..., vectorization_mode="sync", vector_kwargs={"autoreset_mode": '
            "AutoresetMode.SAME_STEP})"
        )
    observation_size(env.single_observation_space)


def observation_size(space: Space) -> int:
    """Numbers in an observation, all entries of a dictionary together.

    Raises:
        ValueError: neither a Box nor a Dict of Boxes.

    Example:
        >>> observation_size(Dict(state=Box(-1, 1, (3,)), goal=Box(-1, 1, (2,))))
        5
    """
    if isinstance(space, Dict):
        return sum(observation_size(part) for part in space.values())
    if not isinstance(space, Box):
        raise ValueError(f"observations are a Box or a Dict of Boxes, not {space}; wrap it in FlattenObservation")
    return int(np.prod(space.shape))


class Actions:
    """How the actions of a policy reach an environment.

    Args:
        space: of one environment: Box or Discrete.
        normalize: policy actions in [-1, 1] are stretched linearly onto the box.

    Attributes:
        discrete: whether an action is an index.
        size: numbers in an action, or how many actions there are to choose from.

    Raises:
        ValueError: another space; a box without bounds that is to be normalised.

    Example:
        >>> Actions(Box(0, 4, (1,)), normalize=True)(np.array([[0.0], [5.0]], np.float32))[:, 0]
        array([2., 4.], dtype=float32)
    """

    def __init__(self, space: Space, normalize: bool) -> None:
        if not isinstance(space, (Box, Discrete)):
            raise ValueError(f"actions are a Box or Discrete, not {space}")
        self.discrete = isinstance(space, Discrete)
        if isinstance(space, Discrete):
            self.size, self.start = int(space.n), int(space.start)
            return
        self.size, self.shape, self.normalize = int(np.prod(space.shape)), space.shape, normalize
        self.low, self.high = space.low.reshape(-1), space.high.reshape(-1)
        if normalize and not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            raise ValueError(f"actions in [-1, 1] cannot be stretched onto {space}, which has no bounds")
        self.middle, self.half = (self.low + self.high) / 2, (self.high - self.low) / 2

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """(N, A) or (N,) as the policy gives them to what the environments take; a box clips."""
        if self.discrete:
            return actions + self.start if self.start else actions
        if self.normalize:
            actions = self.middle + self.half * actions
        return np.clip(actions, self.low, self.high).reshape(-1, *self.shape)


def tensors(observation: Any, device: torch.device | str = "cpu") -> Any:
    """An observation, or a dictionary of them, as float32 tensors."""
    if isinstance(observation, dict):
        return {key: tensors(value, device) for key, value in observation.items()}
    return torch.as_tensor(np.asarray(observation, dtype=np.float32), device=device)


def take(tree: Any, index: Any) -> Any:
    """``tree[index]`` for an array, a tensor, or a dictionary of them."""
    if isinstance(tree, dict):
        return {key: take(value, index) for key, value in tree.items()}
    return tree[index]


def put(tree: Any, index: np.ndarray, rows: Any) -> Any:
    """A copy of an array, or of a dictionary of them, with other rows at ``index``."""
    if isinstance(tree, dict):
        return {key: put(value, index, rows[key]) for key, value in tree.items()}
    tree = np.array(tree)
    tree[index] = rows
    return tree


def final_observations(infos: dict[str, Any], index: np.ndarray) -> Any:
    """The last observations of the episodes that ended in a step.

    Args:
        infos: of the step, with ``final_obs`` as Gymnasium has it: an array of objects, a stacked array, or a
            dictionary of either.
        index: (M,) environments whose episodes ended.

    Returns:
        array (M, ...) or a dictionary of such.

    Raises:
        ValueError: there are none: the environment does not start again in the same step.
    """
    if "final_obs" not in infos:
        raise ValueError("episodes ended without infos['final_obs']; the environment breaks AutoresetMode.SAME_STEP")

    def stack(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: stack(value) for key, value in part.items() if not key.startswith("_")}
        rows = part[index]
        if rows.dtype != object:
            return rows
        if isinstance(rows[0], dict):
            return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        return np.stack(list(rows))

    return stack(infos["final_obs"])


def flatten(observation: Tensor | dict[str, Any]) -> Tensor:
    """(B, ...) or a dictionary of such, by key in the order of the alphabet, to (B, size)."""
    if isinstance(observation, dict):
        return torch.cat([flatten(observation[key]) for key in sorted(observation)], -1)
    return observation.flatten(1)
