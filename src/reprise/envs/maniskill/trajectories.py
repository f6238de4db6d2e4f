"""Demonstrations: recorded from experts, written and read as HDF5 with JSON beside it, and replayed.

Source: Gu et al., ManiSkill2, ICLR 2023, section 3.4 and appendix (format of demonstrations).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from reprise.envs.maniskill.env import make_world
from reprise.envs.maniskill.experts import run_expert
from reprise.envs.maniskill.world import World
from reprise.files import written_whole

__all__ = [
    "Demonstrations",
    "Recorder",
    "Trajectory",
    "demonstrate",
    "load_demonstrations",
    "replay",
    "save_demonstrations",
]

Array = np.ndarray


@dataclass(frozen=True)
class Trajectory:
    """One episode.

    Args:
        actions: (T, A) float32.
        success: (T,) bool, after each action.
        env_states: (T + 1, D) float64, before the first and after each action; see ``World.get_state``.
        reset_kwargs: arguments of ``World.reset``, seed and perhaps model_id.
        control_mode: in which the actions are.
        obs: (T + 1, ...) arrays by name, nested, or empty.
    """

    actions: Array
    success: Array
    env_states: Array
    reset_kwargs: dict[str, int]
    control_mode: str
    obs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Demonstrations:
    """Trajectories of one family, with what is needed to make its world again.

    Args:
        family: of tasks.
        options: of the world, beside the modes.
        trajectories: in order.
        control_mode, obs_mode: of all of them.
    """

    family: str
    options: dict[str, Any]
    trajectories: list[Trajectory]
    control_mode: str
    obs_mode: str = "none"

    def world(self, **options: Any) -> World:
        """The world in which they were recorded, with other options where given."""
        modes = {"control_mode": self.control_mode, "obs_mode": self.obs_mode}
        return make_world(self.family, **(modes | self.options | options))


class Recorder:
    """Writes down what happens in a world from its reset on."""

    def __init__(self, world: World, reset_kwargs: dict[str, int]) -> None:
        self.world, self.reset_kwargs = world, reset_kwargs
        self.actions: list[Array] = []
        self.success: list[bool] = []
        self.states = [world.get_state()]
        self.observations = [world.observe()]

    def __call__(self, action: Array) -> None:
        """After each step."""
        self.actions.append(np.asarray(action, dtype=np.float32))
        self.success.append(self.world.success())
        self.states.append(self.world.get_state())
        self.observations.append(self.world.observe())

    def trajectory(self) -> Trajectory:
        """What has been written down."""
        size = self.world.controller.size
        return Trajectory(
            np.stack(self.actions) if self.actions else np.zeros((0, size), np.float32),
            np.array(self.success, dtype=bool),
            np.stack(self.states),
            self.reset_kwargs,
            self.world.control_mode,
            _stack(self.observations),
        )


def _stack(observations: list[Any]) -> dict[str, Any]:
    if observations[0] is None:
        return {}
    if not isinstance(observations[0], dict):
        return {"state": np.stack(observations)}

    def stack(items: list[Any]) -> Any:
        if isinstance(items[0], dict):
            return {name: stack([item[name] for item in items]) for name in items[0]}
        return np.stack(items)

    return stack(observations)


def demonstrate(
    family: str,
    episodes: Iterable[dict[str, int]],
    *,
    obs_mode: str = "none",
    keep_failures: bool = False,
    **options: Any,
) -> Demonstrations:
    """Let the scripted expert of a family act, in ``pd_joint_pos``.

    Args:
        family: with an expert.
        episodes: arguments of ``World.reset`` for each.
        obs_mode: of the observations to record.
        keep_failures: also keep episodes in which the expert failed.
        **options: of the world.

    Example:
        >>> demos = demonstrate("PickCube", [{"seed": 3}])
        >>> demos.trajectories[0].success[-1]
        np.True_
    """
    world = make_world(family, control_mode="pd_joint_pos", obs_mode=obs_mode, **options)
    trajectories = []
    for reset_kwargs in episodes:
        world.reset(**reset_kwargs)
        recorder = Recorder(world, _fixed(world, reset_kwargs))
        if run_expert(world, recorder) or keep_failures:
            trajectories.append(recorder.trajectory())
    return Demonstrations(family, options, trajectories, "pd_joint_pos", obs_mode)


def _fixed(world: World, reset_kwargs: dict[str, int]) -> dict[str, int]:
    """With the model that was drawn, so that the same object comes from another object set, too."""
    return reset_kwargs if world.model_id is None else reset_kwargs | {"model_id": world.model_id}


def replay(
    demonstrations: Demonstrations, *, obs_mode: str = "none", use_env_states: bool = False, **options: Any
) -> Demonstrations:
    """Perform the recorded actions again, to record other observations or to see whether they still succeed.

    Args:
        demonstrations: to replay.
        obs_mode: of the observations to record.
        use_env_states: put the world into the recorded state after every step.
        **options: of the world.

    Raises:
        ValueError: a control mode other than that of the demonstrations (see :func:`convert`).
    """
    mode = options.get("control_mode", demonstrations.control_mode)
    if mode != demonstrations.control_mode:
        raise ValueError(
            f"these demonstrations are in {demonstrations.control_mode}, not in {mode}; "
            f"convert(demonstrations, {mode!r}) re-expresses them"
        )
    world = demonstrations.world(obs_mode=obs_mode, **options)
    replayed = []
    for trajectory in demonstrations.trajectories:
        world.reset(**trajectory.reset_kwargs)
        recorder = Recorder(world, trajectory.reset_kwargs)
        for action, state in zip(trajectory.actions, trajectory.env_states[1:], strict=True):
            world.set_action(action)
            world.step()
            if use_env_states:
                kept = world.controller.get_state()
                world.set_state(state)
                world.controller.set_state(kept)
            recorder(action)
        replayed.append(recorder.trajectory())
    return Demonstrations(
        demonstrations.family, demonstrations.options | options, replayed, demonstrations.control_mode, obs_mode
    )


def save_demonstrations(demonstrations: Demonstrations, path: str | Path) -> None:
    """Write demonstrations as ``path`` (HDF5) and the same name with ``.json``.

    HDF5: a group ``traj_i`` for each, with ``actions`` [T, A] float32, ``success`` [T] bool, ``env_states`` [T + 1, D]
    and, if observed, ``obs``. JSON: ``env_info`` with family and options, ``episodes`` with the arguments of reset.

    Args:
        demonstrations: to write.
        path: ends in .h5; the published name is ``trajectory.{obs_mode}.{control_mode}.h5``.
    """
    path = Path(path)
    world = demonstrations.world(obs_mode="none")
    description = {
        "env_info": {
            "env_id": demonstrations.family,
            "max_episode_steps": world.max_episode_steps,
            "env_kwargs": demonstrations.options
            | {"obs_mode": demonstrations.obs_mode, "control_mode": demonstrations.control_mode},
        },
        "episodes": [
            {
                "episode_id": i,
                "reset_kwargs": {name: int(value) for name, value in trajectory.reset_kwargs.items()},
                "control_mode": trajectory.control_mode,
                "elapsed_steps": len(trajectory.actions),
                "info": {"success": bool(trajectory.success[-1:].any())},
            }
            for i, trajectory in enumerate(demonstrations.trajectories)
        ],
    }
    with written_whole(path) as temporary, h5py.File(temporary, "w") as file:
        for i, trajectory in enumerate(demonstrations.trajectories):
            group = file.create_group(f"traj_{i}")
            group["actions"] = trajectory.actions
            group["success"] = trajectory.success
            group["env_states"] = trajectory.env_states
            _write(group, "obs", trajectory.obs)
    with written_whole(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(description, indent=2), encoding="utf-8")


def _write(group: h5py.Group, name: str, value: Any) -> None:
    if not isinstance(value, dict):
        group.create_dataset(name, data=value, compression="gzip" if value.ndim > 3 else None)
    elif value:
        inner = group.create_group(name)
        for key, item in value.items():
            _write(inner, key, item)


def _read(item: h5py.Group | h5py.Dataset) -> Any:
    return {key: _read(value) for key, value in item.items()} if isinstance(item, h5py.Group) else item[()]


def load_demonstrations(path: str | Path, only: Sequence[int] | None = None) -> Demonstrations:
    """Read what :func:`save_demonstrations` wrote.

    Args:
        path: of the HDF5 file; the JSON file lies beside it.
        only: indices of trajectories to read; all by default.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: a file is damaged, or they do not belong together.
    """
    path = Path(path)
    for needed in (path, path.with_suffix(".json")):
        if not needed.is_file():
            raise FileNotFoundError(
                f"no {needed}: demonstrations are an HDF5 file with a JSON file of its name beside it"
            )
    try:
        description = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        env = dict(description["env_info"]["env_kwargs"])
        obs_mode, control_mode = env.pop("obs_mode"), env.pop("control_mode")
        with h5py.File(path) as file:
            trajectories = list(_trajectories(file, description["episodes"], only))
        family = description["env_info"]["env_id"]
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} or its JSON file is damaged: {error}") from error
    return Demonstrations(family, env, trajectories, control_mode, obs_mode)


def _trajectories(file: h5py.File, episodes: list[Any], only: Sequence[int] | None) -> Iterator[Trajectory]:
    for i in range(len(episodes)) if only is None else only:
        group, episode = file[f"traj_{i}"], episodes[i]
        actions, success, states = (group[name][()] for name in ("actions", "success", "env_states"))
        steps = episode["elapsed_steps"]
        if not len(actions) == len(success) == len(states) - 1 == steps:
            raise KeyError(f"traj_{i} has {len(actions)} actions and {len(states)} states, which is not {steps} steps")
        if not (np.isfinite(actions).all() and np.isfinite(states).all()):
            raise KeyError(f"traj_{i} has actions or states that are not finite")
        obs = _read(group["obs"]) if "obs" in group else {}
        yield Trajectory(actions, success, states, episode["reset_kwargs"], episode["control_mode"], obs)
