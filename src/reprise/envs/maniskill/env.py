"""The tasks as Gymnasium environments, and the fixed list of episodes on which policies are compared."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from reprise.envs.maniskill.tasks import FAMILIES
from reprise.envs.maniskill.world import World

__all__ = ["ManiSkillEnv", "evaluation_episodes", "make_task", "make_world"]

FIRST_EVALUATION_SEED = 2**31  # of evaluation episodes; those of training are drawn below


def make_world(family: str, **options: Any) -> World:
    """The world of a family of tasks, without Gymnasium around it.

    Args:
        family: one of ``reprise.envs.maniskill.FAMILIES``.
        **options: of :class:`~reprise.envs.maniskill.world.World`.

    Raises:
        ValueError: unknown family, or an option that the world refuses.

    Example:
        >>> world = make_world("PickCube", control_mode="pd_joint_pos")
        >>> world.reset(seed=7)
        >>> world.set_action(np.append(world.arm_qpos(), 1.0))
        >>> world.step()
        >>> world.success()
        False
    """
    _check(family)
    return FAMILIES[family](**options)


class ManiSkillEnv(gymnasium.Env):
    """One world as a Gymnasium environment.

    An episode ends (terminated) with success, or when the physics diverges: ``info["reason"]`` then says so, the reward
    is 0, and the observation is the last one before. It is cut off (truncated) after the steps that the family allows.

    Args:
        family: one of ``reprise.envs.maniskill.FAMILIES``.
        max_episode_steps: those of the family by default.
        render_mode: "rgb_array", what the first camera sees, or None.
        **options: of :class:`~reprise.envs.maniskill.world.World`.

    Raises:
        ValueError: unknown family or render mode, or an option that the world refuses.

    Example:
        >>> env = make_task("PickCube", control_mode="pd_ee_delta_pose")
        >>> observation, info = env.reset(seed=0)
        >>> observation.shape, env.action_space.shape
        ((48,), (7,))
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 as Gymnasium has it

    def __init__(
        self, family: str, *, max_episode_steps: int | None = None, render_mode: str | None = None, **options: Any
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f'render_mode is "rgb_array" or None, not {render_mode!r}')
        self.world = make_world(family, **options)
        self.family, self.render_mode, self.options = family, render_mode, options
        self.max_episode_steps = max_episode_steps or self.world.max_episode_steps
        self.action_space = self.world.action_space
        self.observation_space = _space_of(self._observe())
        self.elapsed_steps = 0
        self._last: Any = None

    def _observe(self) -> Any:
        observation = self.world.observe()
        return np.zeros(0, np.float32) if observation is None else observation  # Gymnasium knows no empty observation

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: of the episode; without one it is drawn, from what the last seed began.
            options: ``{"model_id": ...}`` chooses the object in families with several.

        Raises:
            ValueError: unknown option or model id.
        """
        super().reset(seed=seed)
        unknown = set(options or {}) - {"model_id"}
        if unknown:
            raise ValueError(f"unknown reset option {sorted(unknown)[0]!r}; there is model_id")
        episode = int(self.np_random.integers(FIRST_EVALUATION_SEED)) if seed is None else seed
        self.world.reset(episode, **(options or {}))
        self.elapsed_steps = 0
        self._last = self._observe()
        info = {"episode_seed": episode, "model_id": self.world.model_id}
        return self._last, {name: value for name, value in info.items() if value is not None}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One action, one control period.

        Raises:
            ValueError: action of wrong shape or not finite.
        """
        self.world.set_action(action)
        self.world.step()
        self.elapsed_steps += 1
        truncated = self.elapsed_steps >= self.max_episode_steps
        if self.world.unstable:
            reason = "the physics diverged: a position, velocity or acceleration was not finite or grew too large"
            return self._last, 0.0, True, truncated, {"success": False, "reason": reason}
        info = self.world.evaluate()
        self._last = self._observe()
        info["elapsed_steps"] = self.elapsed_steps
        return self._last, self.world.reward(info), info["success"], truncated, info

    def render(self) -> Any:
        """The picture of the first camera (H, W, 3), uint8."""
        return None if self.render_mode is None else self.world.draw(next(iter(self.world.cameras)))[0]


def make_task(family: str, obs_mode: str = "state", **options: Any) -> ManiSkillEnv:
    """A family of tasks as a Gymnasium environment; options as in :class:`ManiSkillEnv`.

    Example:
        >>> env = make_task("StackCube", control_mode="pd_joint_delta_pos", reward_mode="sparse")
        >>> env.reset(seed=1)[1]
        {'episode_seed': 1}
    """
    return ManiSkillEnv(family, obs_mode=obs_mode, **options)


def evaluation_episodes(family: str, object_set: str = "train") -> list[dict[str, int]]:
    """The fixed list of episodes on which a policy is compared: arguments of ``World.reset``.

    A hundred episodes for families with one scene or with scenes drawn anew; for the others a few of every object. No
    seed is ever drawn in training.

    Args:
        family: one of ``reprise.envs.maniskill.FAMILIES``.
        object_set: "train" or "test"; families with one scene have the same list for both.

    Raises:
        ValueError: unknown family or object set.

    Example:
        >>> len(evaluation_episodes("PickCube")), evaluation_episodes("PickSingle", "test")[0]
        (100, {'seed': 2147483648, 'model_id': 200})
    """
    _check(family)
    if object_set not in ("train", "test"):
        raise ValueError(f'object_set is "train" or "test", not {object_set!r}')
    world = FAMILIES[family]
    if not world.objects:
        return [{"seed": FIRST_EVALUATION_SEED + i} for i in range(100)]
    ids = [model_id for model_id in world.objects[object_set] for _ in range(world.evaluations[object_set])]
    return [{"seed": FIRST_EVALUATION_SEED + i, "model_id": model_id} for i, model_id in enumerate(ids)]


def _check(family: str) -> None:
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; there are {', '.join(FAMILIES)}")


def _space_of(observation: Any) -> spaces.Space:
    if isinstance(observation, dict):
        return spaces.Dict({name: _space_of(value) for name, value in observation.items()})
    if observation.dtype.kind == "f":
        return spaces.Box(-np.inf, np.inf, observation.shape, observation.dtype)
    if observation.dtype.kind == "b":
        return spaces.Box(0, 1, observation.shape, np.bool_)
    limits = np.iinfo(observation.dtype)
    return spaces.Box(limits.min, limits.max, observation.shape, observation.dtype)
