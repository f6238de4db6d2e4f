"""AvoidObstacles: bring the hand to a pose past boxes and a wall."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import mujoco
import numpy as np

from reprise.envs.maniskill.panda import ARM_LIMITS, forward_kinematics
from reprise.envs.maniskill.poses import from_pose7, rotation_angle, to_pose7, yaw_quaternion
from reprise.envs.maniskill.world import World, goal_marker
from reprise.envs.raycast import Camera as Onlooker

__all__ = ["AvoidObstacles"]

BOXES = 4


@cache
def _obstacles(model_id: int) -> tuple[tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]], ...]:
    """Half extents, position and quaternion of the boxes, then of the wall."""
    rng = np.random.default_rng((model_id, 9))
    found = []
    for _ in range(BOXES):
        half = rng.uniform([0.03, 0.03, 0.08], [0.08, 0.08, 0.3])
        radius, bearing = rng.uniform(0.3, 0.65), rng.uniform(-1.2, 1.2)
        position = [radius * np.cos(bearing), radius * np.sin(bearing), half[2]]
        found.append((tuple(half), tuple(position), tuple(yaw_quaternion(rng.uniform(0, np.pi)))))
    wall = ((0.02, 0.8, 0.5), (float(rng.uniform(-0.6, -0.45)), 0.0, 0.5), (1.0, 0.0, 0.0, 0.0))
    return (*found, wall)


class AvoidObstacles(World):
    """Boxes stand around the robot and a wall behind it; a fixed list of episodes, 100 to train, 100 to test.

    Start and goal are free of contact, the straight line between their joint angles is not, and there is a way round by
    one point between them. Success: TCP within 2.5 cm and 15 degrees of the goal. Source: table of the families in the
    appendix, row 9; its list of episodes is replaced by a generated one.
    """

    max_episode_steps = 500
    max_reward = 10.0
    base = (0.0, 0.0, 0.0)
    objects: ClassVar[dict[str, range]] = {"train": range(100), "test": range(100, 200)}
    evaluations: ClassVar[dict[str, int]] = {"train": 1, "test": 1}
    camera = ((1.2, 0, 1.0), (0.2, 0, 0.3))
    onlooker = Onlooker((1.5, 0.9, 1.0), (0.15, 0.0, 0.3), fovy=42)
    routes: ClassVar[dict[int, np.ndarray]] = {}  # what has been searched for already

    def scene(self) -> tuple[str, str]:
        assert self.model_id is not None
        boxes = ""
        for half, position, quaternion in _obstacles(self.model_id):
            numbers = [" ".join(f"{value:.17g}" for value in values) for values in (half, position, quaternion)]
            boxes += (
                f'<geom class="fixture" type="box" size="{numbers[0]}" pos="{numbers[1]}" quat="{numbers[2]}" '
                'rgba=".4 .5 .8 1"/>'
            )
        return "", f'<body name="obstacles">{boxes}</body>{goal_marker(0.025)}'

    def place(self, rng: np.random.RandomState) -> None:
        assert self.model_id is not None
        if self.model_id not in self.routes:
            self.routes[self.model_id] = self._search(np.random.default_rng((self.model_id, 99)))
        start, _, goal = self.routes[self.model_id]
        self.drives.qpos[:] = [*start, 0.04, 0.04]
        self.goal = to_pose7(forward_kinematics(goal))
        self.set_pose("goal", self.goal[:3], self.goal[3:])

    def route(self) -> np.ndarray:
        """Joint angles (3, 7) at the start, at a point between, and at the goal, with nothing in between."""
        assert self.model_id is not None
        return self.routes[self.model_id]

    def _search(self, rng: np.random.Generator) -> np.ndarray:
        low, high = 0.75 * ARM_LIMITS.T + 0.25 * ARM_LIMITS.mean(1)
        low[0], high[0] = -1.4, 1.4
        while True:
            start, goal = self._free(rng, low, high), self._free(rng, low, high)
            if abs(start[0] - goal[0]) < 0.8 or self._clear(start, goal):
                continue
            for _ in range(20):
                between = self._free(rng, low, high)
                if self._clear(start, between) and self._clear(between, goal):
                    return np.stack([start, between, goal])

    def _free(self, rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        while True:
            q = rng.uniform(low, high)
            tcp = forward_kinematics(q)
            if tcp[0, 3] > 0.2 and 0.15 < tcp[2, 3] < 0.8 and not self.touching(q):
                return q

    def _clear(self, start: np.ndarray, goal: np.ndarray) -> bool:
        n = int(np.ceil(np.abs(goal - start).max() / 0.05)) + 1
        return not any(self.touching(start + share * (goal - start)) for share in np.linspace(0, 1, n))

    def touching(self, q: np.ndarray | None = None) -> bool:
        """Whether the robot touches anything, now or at joint angles (7,), where it then stands."""
        if q is not None:
            self.drives.qpos[:] = [*q, 0.04, 0.04]
            mujoco.mj_kinematics(self.model, self.data)
            mujoco.mj_collision(self.model, self.data)
        return bool(self.data.ncon)

    def evaluate(self) -> dict[str, Any]:
        tcp = self.tcp_pose()
        distance = float(np.linalg.norm(tcp[:3, 3] - self.goal[:3]))
        angle = rotation_angle(tcp[:3, :3], from_pose7(self.goal)[:3, :3])
        done = distance <= 0.025 and angle <= np.radians(15)
        return {"distance": distance, "angle": angle, "success": done}

    def dense_reward(self, info: dict[str, Any]) -> float:
        """Near, turned as asked, and not in contact."""
        if info["success"]:
            return 10.0
        near = 4 * (1 - np.tanh(2 * info["distance"])) + 4 * (1 - info["angle"] / np.pi)
        return near - (1.0 if self.touching() else 0.0)

    def goal_observation(self) -> dict[str, np.ndarray]:
        return {"goal_pose": self.goal}

    def privileged_observation(self) -> dict[str, np.ndarray]:
        assert self.model_id is not None
        boxes = [np.concatenate(box) for box in _obstacles(self.model_id)]
        return {"obstacles": np.stack(boxes)}
