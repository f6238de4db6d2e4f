"""The tasks as Gymnasium environments, and the fixed list of episodes on which policies are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from reprise.envs.maniskill.tasks import FAMILIES
from reprise.envs.maniskill.world import World
from reprise.envs.vector import METADATA, Info, SingleEnv, VectorWorld, _map

__all__ = ["ManiSkillWorld", "evaluation_episodes", "make_task", "make_world"]

FIRST_EVALUATION_SEED = 2**31  # of evaluation episodes; those of training are drawn below
RESET_OPTIONS = {"episode_seed": "seed", "model_id": "model_id"}  # to arguments of World.reset


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


class ManiSkillWorld(VectorWorld):
    """A family of tasks as a vector environment: what ``gymnasium.make_vec("reprise/PickCube-v0")`` gives.

    An episode ends (terminated) with success, or when the physics diverges: ``unstable`` in its information then says
    so, its reward is 0, and its observation is the last one before. It is cut off (truncated) after the steps that the
    family allows. Observations in the modes with pictures are nested dictionaries.

    Args:
        num_envs: how many environments.
        family: one of ``reprise.envs.maniskill.FAMILIES``.
        max_episode_steps: those of the family by default.
        autoreset, render_mode: as in :class:`~reprise.envs.VectorWorld`.
        picture_size: height and width of what ``render`` gives.
        **options: of :class:`~reprise.envs.maniskill.world.World`.

    Raises:
        ValueError: unknown family, or an option that the world refuses.

    Example:
        >>> env = ManiSkillWorld(2, "PickCube", obs_mode="rgbd", image_size=(32, 32))
        >>> observations, infos = env.reset(seed=0)
        >>> observations["image"]["base_camera"]["rgb"].shape
        (2, 32, 32, 3)
    """

    metadata = METADATA | {"render_fps": 20}

    def __init__(
        self,
        num_envs: int = 1,
        family: str = "PickCube",
        *,
        max_episode_steps: int | None = None,
        autoreset: bool = True,
        render_mode: str | None = None,
        picture_size: tuple[int, int] = (240, 320),
        **options: Any,
    ) -> None:
        self.family, self.picture_size = family, picture_size
        self.worlds = [make_world(family, **options) for _ in range(max(num_envs, 1))]
        first = self.worlds[0]
        super().__init__(
            num_envs,
            _space_of(_observe(first)),
            first.action_space,
            max_episode_steps or first.max_episode_steps,
            autoreset=autoreset,
            render_mode=render_mode,
        )
        self._infos: list[dict[str, Any]] = [{}] * num_envs
        self._observations: list[Any] = [None] * num_envs

    def reset_world(self, indices: np.ndarray, options: Mapping[str, Any]) -> Info:
        """Begin episodes; their seeds are drawn, below those of :func:`evaluation_episodes`.

        Args:
            indices: of the environments.
            options: ``episode_seed`` fixes the episode, ``model_id`` chooses the object in families with several; one
                number for all, or an array (N, 1) for all N environments.

        Raises:
            ValueError: unknown option or model id.
        """
        chosen = {name: _spread(name, value, self.num_envs) for name, value in options.items()}
        infos = []
        for i in indices.tolist():
            seed = int(self.rngs[i].integers(FIRST_EVALUATION_SEED))
            own = {"seed": seed} | {RESET_OPTIONS[name]: int(values[i]) for name, values in chosen.items()}
            self.worlds[i].reset(**own)
            self._infos[i] = self.worlds[i].evaluate() | {"unstable": False}
            infos.append({"episode_seed": own["seed"]})
            if self.worlds[i].model_id is not None:
                infos[-1]["model_id"] = self.worlds[i].model_id
        return _columns(infos)

    def step_world(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, Info]:
        """One action and one control period in every environment."""
        rewards = np.zeros(self.num_envs)
        for i, world in enumerate(self.worlds):
            world.set_action(actions[i])
            world.step()
            if world.unstable:
                self._infos[i] |= {"success": False, "unstable": True}
            else:
                info = world.evaluate()
                rewards[i] = world.reward(info)
                self._infos[i] = info | {"unstable": False}
        terminated = np.array([info["success"] or info["unstable"] for info in self._infos])
        return rewards, terminated, _columns(self._infos)

    def observe(self, indices: np.ndarray) -> Any:
        """Observations of some environments; one whose physics diverged keeps its last."""
        for i in indices.tolist():
            if not self.worlds[i].unstable:
                self._observations[i] = _observe(self.worlds[i])
        return _map(lambda *values: np.stack(values), *(self._observations[i] for i in indices.tolist()))

    def draw(self, index: int) -> np.ndarray:
        """An environment as an onlooker sees it, with its goal."""
        return self.worlds[index].picture(*self.picture_size)


def make_task(family: str, obs_mode: str = "state", **options: Any) -> SingleEnv:
    """A family of tasks as a single Gymnasium environment; options as in :class:`ManiSkillWorld`.

    Example:
        >>> env = make_task("StackCube", control_mode="pd_joint_delta_pos", reward_mode="sparse")
        >>> observation, info = env.reset(options={"episode_seed": 1})
        >>> observation.shape, env.action_space.shape, int(info["episode_seed"])
        ((55,), (8,), 1)
    """
    return SingleEnv(ManiSkillWorld, family=family, obs_mode=obs_mode, **options)


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


def _observe(world: World) -> Any:
    observation = world.observe()
    return np.zeros(0, np.float32) if observation is None else observation  # Gymnasium knows no empty observation


def _spread(name: str, value: Any, count: int) -> np.ndarray:
    """A reset option for each of the environments."""
    if name not in RESET_OPTIONS:
        raise ValueError(f"unknown reset option {name!r}; there are {', '.join(RESET_OPTIONS)}")
    array = np.asarray(value)
    if array.shape not in ((), (count, 1)):
        raise ValueError(f"{name} is one number or an array {(count, 1)}, not an array {array.shape}")
    return np.broadcast_to(array.reshape(-1), count)


def _columns(infos: Sequence[Mapping[str, Any]]) -> Info:
    return {name: np.array([info[name] for info in infos]) for name in infos[0]}
