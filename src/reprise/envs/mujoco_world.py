"""Worlds of MuJoCo models, all environments stepped by one call of mujoco.rollout on several threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import mujoco.rollout
import numpy as np
from gymnasium import spaces

from reprise.envs.raycast import Camera, Poses, RayCaster
from reprise.envs.vector import Info, VectorWorld

__all__ = ["MujocoWorld"]

STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS


class MujocoWorld(VectorWorld):
    """A world whose step is ``frame_skip`` steps of MuJoCo under constant controls.

    A subclass gives :meth:`begin` (how an episode starts), :meth:`outcome` (rewards and ends, for all environments at
    once, from ``qpos``, ``qvel`` and ``sensors``) and ``observe``; :meth:`controls` where an action is not a control.
    No step begins from another's warm start, so an environment's bits depend neither on the others nor on the threads.

    Sensors are those of the last physics step, as in MuJoCo: computed from the state before it was integrated.

    Args:
        model: of all environments, or one for each (of equal sizes).
        num_envs, observation_space, action_space, max_episode_steps: as in :class:`~reprise.envs.VectorWorld`.
        frame_skip: physics steps per step.
        threads: of mujoco.rollout.
        cameras: what :meth:`draw` shows, the first of them; see :class:`~reprise.envs.RayCaster`.
        picture_size: height and width of that picture.

    Attributes:
        state: (N, S) full physics state; ``qpos`` (N, nq), ``qvel`` (N, nv) and ``act`` (N, na) are views of it.
        sensors: (N, nsensordata).
    """

    def __init__(
        self,
        model: mujoco.MjModel | Sequence[mujoco.MjModel],
        num_envs: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        max_episode_steps: int | None,
        *,
        frame_skip: int,
        threads: int = 1,
        cameras: Sequence[str | Camera] | None = None,
        picture_size: tuple[int, int] = (240, 320),
        **options: Any,
    ) -> None:
        super().__init__(num_envs, observation_space, action_space, max_episode_steps, **options)
        self.models = [model] * num_envs if isinstance(model, mujoco.MjModel) else list(model)
        if len(self.models) != num_envs:
            raise ValueError(f"{num_envs} environments take one model or as many, not {len(self.models)}")
        self.model = first = self.models[0]
        self.frame_skip, self.cameras, self.picture_size = frame_skip, cameras, picture_size
        self._shared = isinstance(model, mujoco.MjModel)
        self._data = [mujoco.MjData(first) for _ in range(max(1, min(threads, num_envs)))]
        self._rollout = mujoco.rollout.Rollout(nthread=len(self._data) if len(self._data) > 1 else 0)
        size = mujoco.mj_stateSize(first, STATE)
        self.state = np.zeros((num_envs, size))
        self.qpos = self.state[:, 1 : 1 + first.nq]
        self.qvel = self.state[:, 1 + first.nq : 1 + first.nq + first.nv]
        self.act = self.state[:, 1 + first.nq + first.nv : 1 + first.nq + first.nv + first.na]
        self.sensors = np.zeros((num_envs, first.nsensordata))
        self._states = np.zeros((num_envs, frame_skip, size))
        self._all_sensors = np.zeros((num_envs, frame_skip, first.nsensordata))
        self._controls = np.zeros((num_envs, frame_skip, first.nu))
        self._caster: RayCaster | None = None

    def begin(self, index: int, data: mujoco.MjData, rng: np.random.Generator, options: Mapping[str, Any]) -> None:
        """Put an environment into the first state of an episode; ``data`` is that of a fresh ``mj_resetData``."""
        raise NotImplementedError

    def outcome(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, Info]:
        """Rewards, terminations and information after a step."""
        raise NotImplementedError

    def controls(self, actions: np.ndarray) -> np.ndarray:
        """(N, nu) controls of the actions; by default the actions themselves, within ``actuator_ctrlrange``."""
        low, high = self.model.actuator_ctrlrange.T
        return np.where(self.model.actuator_ctrllimited, np.clip(actions, low, high), actions)

    def reset_world(self, indices: np.ndarray, options: Mapping[str, Any]) -> Info:
        """Begin episodes one by one, by :meth:`begin`."""
        for i in indices:
            model, data = self.models[i], self._data[0]
            mujoco.mj_resetData(model, data)
            self.begin(int(i), data, self.rngs[i], options)
            mujoco.mj_forward(model, data)
            mujoco.mj_getState(model, data, self.state[i], STATE)
            self.sensors[i] = data.sensordata
        return {}

    def step_world(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, Info]:
        """One roll-out of all environments."""
        self._controls[:] = self.controls(actions)[:, None]
        self._rollout.rollout(
            self.model if self._shared else self.models,
            self._data,
            self.state,
            self._controls,
            nstep=self.frame_skip,
            state=self._states,
            sensordata=self._all_sensors,
            skip_checks=False,
        )
        self.state[:] = self._states[:, -1]
        self.sensors[:] = self._all_sensors[:, -1]
        return self.outcome(actions)

    def poses(self, indices: np.ndarray) -> Poses:
        """Where geoms and cameras are, for :class:`~reprise.envs.RayCaster`."""
        count, first = len(indices), self.model
        poses = Poses(
            np.empty((count, first.ngeom, 3)),
            np.empty((count, first.ngeom, 9)),
            np.empty((count, first.ncam, 3)),
            np.empty((count, first.ncam, 9)),
        )
        for row, i in enumerate(indices):
            model, data = self.models[i], self._data[0]
            mujoco.mj_setState(model, data, self.state[i], STATE)
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_camlight(model, data)
            for array, name in zip(poses, Poses._fields, strict=True):
                array[row] = getattr(data, name)
        return poses

    def draw(self, index: int) -> np.ndarray:
        """A picture by the ray caster, with shadows."""
        if self._caster is None or not self._shared:
            height, width = self.picture_size
            self._caster = RayCaster(self.models[index], width, height, self.cameras, shadows=True)
        return self._caster.render(self.poses(np.array([index])))["rgb"][0, 0]

    def close_extras(self, **kwargs: Any) -> None:
        """End the threads."""
        self._rollout.close()
