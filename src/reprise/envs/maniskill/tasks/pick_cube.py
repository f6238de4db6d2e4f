"""PickCube: take a cube to a point in space and hold it there."""

from __future__ import annotations

from typing import Any

import numpy as np

from reprise.envs.maniskill.poses import length, to_pose7, yaw_quaternion
from reprise.envs.maniskill.world import World, goal_marker

__all__ = ["PickCube", "cube_mjcf"]

HALF = 0.02  # of an edge of the cube, in metres


def cube_mjcf(name: str, rgba: str) -> str:
    """A cube of 4 cm that can move freely."""
    geom = f'<geom name="{name}" type="box" size="{HALF} {HALF} {HALF}" rgba="{rgba}"/>'
    return f'<body name="{name}" pos="0 0 {HALF}"><freejoint/>{geom}</body>'


class PickCube(World):
    """A cube of 4 cm lies somewhere on the floor, the goal floats up to half a metre above it.

    Success: cube within 2.5 cm of the goal, arm at rest. Source: table of the families in the appendix, row 1.
    """

    max_reward = 5.0

    def scene(self) -> tuple[str, str]:
        return "", cube_mjcf("cube", ".85 .2 .16 1") + goal_marker()

    def place(self, rng: np.random.RandomState) -> None:
        start = np.append(rng.uniform(-0.1, 0.1, 2), HALF)
        self.set_pose("cube", start, yaw_quaternion(rng.uniform(0, 2 * np.pi)))
        self.place_robot(rng)
        while True:
            goal = np.append(rng.uniform(-0.1, 0.1, 2), start[2] + rng.uniform(0, 0.5))
            if np.linalg.norm(goal - start) >= 0.05:
                break
        self.goal = goal
        self.set_pose("goal", goal)

    def evaluate(self) -> dict[str, Any]:
        placed = length(self.position("cube") - self.goal) <= 0.025
        static = self.robot_is_static()
        return {"is_obj_placed": placed, "is_robot_static": static, "success": placed and static}

    def dense_reward(self, info: dict[str, Any]) -> float:
        if info["success"]:
            return 5.0
        cube = self.position("cube")
        reward = 1 - np.tanh(5 * length(self.tcp() - cube))
        if self.is_grasping("cube"):
            reward += 1 + 1 - np.tanh(5 * length(cube - self.goal))
        return reward

    def goal_observation(self) -> dict[str, np.ndarray]:
        return {"goal_pos": self.goal}

    def privileged_observation(self) -> dict[str, np.ndarray]:
        cube = self.pose("cube")
        return {
            "obj_pose": to_pose7(cube),
            "tcp_to_obj_pos": cube[:3, 3] - self.tcp(),
            "obj_to_goal_pos": self.goal - cube[:3, 3],
        }
