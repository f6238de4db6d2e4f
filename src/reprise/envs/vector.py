"""Worlds written once, for a batch of environments: the vector environment is the world, the single one a batch of one.

A world says what a reset of some environments and a step of all are; the base here adds what every vector environment
of Gymnasium owes its users. Environment i draws from a generator of its own, seeded by ``seed + i``, so that
its bits do not depend on how many others there are, nor on how they are split among processes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

__all__ = ["SingleEnv", "VectorWorld", "checked_actions", "make_vector"]

METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

Observation = np.ndarray | dict[str, Any]  # dictionaries may be nested
Info = dict[str, Any]


class VectorWorld(VectorEnv):
    """Base of all worlds: seeding, truncation, automatic resets in the same step, final observations, checked actions.

    A subclass gives :meth:`reset_world`, :meth:`step_world` and :meth:`observe`, and :meth:`draw` if it can be seen.
    Where an episode ends, ``infos["final_obs"]`` holds its last observation and ``infos["final_info"]`` its last
    information, while the observation that is returned is the first of the next episode. Truncation is told only where
    the episode did not terminate: bootstrap there.

    Args:
        num_envs: how many environments.
        observation_space: of one environment, a Box or a Dict of Boxes, perhaps nested.
        action_space: of one environment, a Box or Discrete.
        max_episode_steps: when an episode is truncated; None never.
        autoreset: False leaves ended episodes to ``reset(options={"reset_mask": ...})``.
        render_mode: "rgb_array" or None.

    Raises:
        ValueError: no environment, or an unknown render mode.

    Example:
        >>> class Drift(VectorWorld):
        ...     def __init__(self, num_envs=1, **options):
        ...         box = spaces.Box(-9.0, 9.0, (1,))
        ...         super().__init__(num_envs, box, box, max_episode_steps=10, **options)
        ...         self.place = np.zeros((num_envs, 1), np.float32)
        ...     def reset_world(self, indices, options):
        ...         self.place[indices] = [self.rngs[i].uniform(-1, 1, 1) for i in indices]
        ...         return {}
        ...     def step_world(self, actions):
        ...         self.place += actions
        ...         return -abs(self.place[:, 0]), abs(self.place[:, 0]) > 2, {}
        ...     def observe(self, indices):
        ...         return self.place[indices].copy()
        >>> env = Drift(3)
        >>> start, _ = env.reset(seed=0)
        >>> _, _, terminated, truncated, infos = env.step(np.array([[0.0], [4.0], [0.0]]))
        >>> terminated.tolist(), bool(infos["final_obs"][1] > 2)
        ([False, True, False], True)
    """

    metadata = METADATA

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        max_episode_steps: int | None,
        *,
        autoreset: bool = True,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"a vector environment has at least one environment, not {num_envs}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f'unknown render mode {render_mode!r}; there are "rgb_array" and None')
        self.num_envs, self.max_episode_steps, self.render_mode = num_envs, max_episode_steps, render_mode
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        mode = AutoresetMode.SAME_STEP if autoreset else AutoresetMode.DISABLED
        self.metadata = type(self).metadata | {"autoreset_mode": mode}
        self.rngs: list[np.random.Generator] = []
        self.elapsed = np.zeros(num_envs, np.int64)  # steps of the current episodes
        self._over = np.ones(num_envs, bool)  # episodes that have ended, or never begun

    def reset_world(self, indices: np.ndarray, options: Mapping[str, Any]) -> Info:
        """Begin new episodes in some environments; chance is drawn from ``self.rngs[i]`` alone.

        Returns:
            Arrays with a row for each index.
        """
        raise NotImplementedError

    def step_world(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, Info]:
        """Step all environments: rewards, whether the episodes terminated, and arrays with a row for each."""
        raise NotImplementedError

    def observe(self, indices: np.ndarray) -> Observation:
        """The observations of some environments, in arrays that nobody else holds."""
        raise NotImplementedError

    def draw(self, index: int) -> np.ndarray:
        """A picture (H, W, 3) of one environment."""
        raise NotImplementedError(f"{type(self).__name__} cannot be drawn")

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Info]:
        """Begin new episodes in all environments, or in those of ``options["reset_mask"]``.

        Args:
            seed: environment i gets ``seed + i``, or its own of a list; None goes on with the generators there are.
            options: for :meth:`reset_world`, but for ``reset_mask``.
        """
        chosen = dict(options or {})
        mask = chosen.pop("reset_mask", None)
        indices = np.arange(self.num_envs) if mask is None else np.flatnonzero(self._checked_mask(mask))
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, (int, np.integer)) else seed
        if seeds is not None and len(seeds) != self.num_envs:
            raise ValueError(f"{self.num_envs} environments take as many seeds, not {len(seeds)}")
        if not self.rngs:
            self.rngs = [np.random.default_rng() for _ in range(self.num_envs)]
        for i in indices.tolist():
            if seeds is not None and seeds[i] is not None:
                self.rngs[i] = gymnasium.utils.seeding.np_random(seeds[i])[0]
        infos: Info = {}
        _write(infos, self._begin(indices, chosen), indices, self.num_envs)
        return self.observe(np.arange(self.num_envs)), infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Step all environments.

        Raises:
            ValueError: actions of another shape, or not finite.
            RuntimeError: an episode has ended, or never begun, and there are no automatic resets.
        """
        if self._over.any():
            raise RuntimeError(f"environment {int(np.argmax(self._over))} has no running episode; call reset first")
        everyone = np.arange(self.num_envs)
        rewards, terminated, info = self.step_world(checked_actions(actions, self.action_space))
        self.elapsed += 1
        truncated = np.zeros(self.num_envs, bool)
        if self.max_episode_steps is not None:
            truncated = (self.elapsed >= self.max_episode_steps) & ~terminated
        over = terminated | truncated
        observations = self.observe(everyone)
        infos: Info = {}
        _write(infos, info, everyone, self.num_envs)
        if over.any() and self.metadata["autoreset_mode"] == AutoresetMode.DISABLED:
            self._over |= over
        elif over.any():
            ended = np.flatnonzero(over)
            final_info: Info = {}
            _write(final_info, {key: value[ended] for key, value in info.items()}, ended, self.num_envs)
            for key in info:  # what is told about these environments now belongs to the new episode
                infos[f"_{key}"] = infos[f"_{key}"] & ~over
            final_obs = np.full(self.num_envs, None)
            for i in ended.tolist():
                final_obs[i] = _row(observations, i)
            infos |= {"final_obs": final_obs, "_final_obs": over, "final_info": final_info, "_final_info": over.copy()}
            _write(infos, self._begin(ended, {}), ended, self.num_envs)
            _assign(observations, ended, self.observe(ended))
        return observations, rewards, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One picture for each environment, if the render mode is "rgb_array"."""
        return None if self.render_mode is None else tuple(self.draw(i) for i in range(self.num_envs))

    def _begin(self, indices: np.ndarray, options: Mapping[str, Any]) -> Info:
        self.elapsed[indices] = 0
        self._over[indices] = False
        return self.reset_world(indices, options)

    def _checked_mask(self, mask: Any) -> np.ndarray:
        if not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ValueError(
                f"reset_mask is an array of {self.num_envs} booleans, at least one of them True, not {mask!r}"
            )
        return mask


class SingleEnv(gymnasium.Env):
    """A world as a single Gymnasium environment: what ``gymnasium.make("reprise/...")`` gives.

    Args:
        world: a subclass of :class:`VectorWorld`, or its dotted name "module:class".
        **options: of the world.
    """

    metadata = METADATA

    def __init__(self, world: type[VectorWorld] | str, render_mode: str | None = None, **options: Any) -> None:
        self.world = _find(world)(1, autoreset=False, render_mode=render_mode, **options)
        self.metadata = {key: self.world.metadata[key] for key in ("render_modes", "render_fps")}
        self.render_mode = render_mode
        self.observation_space = self.world.single_observation_space
        self.action_space = self.world.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """As environment 0 of the world."""
        observations, infos = self.world.reset(seed=None if seed is None else [seed], options=options)
        self._np_random = self.world.rngs[0]
        self._np_random_seed = seed if seed is not None else -1
        return _row(observations, 0), _scalars(infos)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        """As environment 0 of the world; after an end, :meth:`reset` must follow."""
        observations, rewards, terminated, truncated, infos = self.world.step(np.asarray(action)[None])
        return _row(observations, 0), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _scalars(infos)

    def render(self) -> Any:
        """A picture (H, W, 3), if the render mode is "rgb_array"."""
        return None if self.render_mode is None else self.world.draw(0)

    def close(self) -> None:
        """Release what the world holds."""
        self.world.close()


def make_vector(world: type[VectorWorld] | str, num_envs: int = 1, workers: int = 0, **options: Any) -> VectorEnv:
    """A world with several environments: what ``gymnasium.make_vec("reprise/...")`` gives.

    Args:
        world: a subclass of :class:`VectorWorld`, or its dotted name "module:class".
        num_envs: how many environments.
        workers: processes among which they are split; 0 keeps all in this one.
        **options: of the world.
    """
    if workers:
        from reprise.envs.workers import WorkerWorld

        return WorkerWorld(world, num_envs, workers, **options)
    return _find(world)(num_envs, **options)


def checked_actions(actions: Any, space: spaces.Space) -> np.ndarray:
    """Actions of a batch as an array of the space's type.

    Raises:
        ValueError: another shape, or a value that is not finite.
    """
    array = np.asarray(actions, space.dtype)
    if array.shape != space.shape:
        raise ValueError(f"actions of these environments have the shape {space.shape}, not {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(1)))
        raise ValueError(f"the action of environment {row} is not finite: {array[row]}")
    return array


def _find(world: type[VectorWorld] | str) -> type[VectorWorld]:
    if not isinstance(world, str):
        return world
    module, _, name = world.partition(":")
    return getattr(importlib.import_module(module), name)


def _map(function: Callable[..., Any], *trees: Any) -> Any:
    """A function of arrays, for nested dictionaries of them that have the same keys."""
    if isinstance(trees[0], dict):
        return {key: _map(function, *(tree[key] for tree in trees)) for key in trees[0]}
    return function(*trees)


def _row(observations: Any, index: int) -> Any:
    return _map(lambda values: values[index].copy(), observations)


def _assign(observations: Any, indices: np.ndarray, rows: Any) -> None:
    _map(lambda values, new: values.__setitem__(indices, new), observations, rows)


def _write(infos: Info, rows: Info, indices: np.ndarray, count: int) -> None:
    """Put rows into infos as Gymnasium does: an array over all environments and a mask of those that have a value."""
    for key, values in rows.items():
        array = np.asarray(values)
        if key not in infos:
            infos[key] = np.zeros((count, *array.shape[1:]), array.dtype)
            infos[f"_{key}"] = np.zeros(count, bool)
        infos[key][indices] = array
        infos[f"_{key}"][indices] = True


def _scalars(infos: Info) -> Info:
    return {key: value[0] for key, value in infos.items() if not key.startswith("_")}
