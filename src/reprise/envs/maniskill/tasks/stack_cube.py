"""StackCube: put one cube upon another and let go."""

from __future__ import annotations

from typing import Any

import numpy as np

from reprise.envs.maniskill.poses import to_pose7, yaw_quaternion
from reprise.envs.maniskill.tasks.pick_cube import HALF, cube_mjcf
from reprise.envs.maniskill.world import World

__all__ = ["StackCube"]


class StackCube(World):
    """Two cubes of 4 cm: the red one (A) has to rest on the green one (B).

    Success: A on B, A at rest, and not held. Source: table of the families in the appendix, row 2.
    """

    max_reward = 15.0

    def scene(self) -> tuple[str, str]:
        return "", cube_mjcf("cubeA", "1 0 0 1") + cube_mjcf("cubeB", "0 1 0 1")

    def place(self, rng: np.random.RandomState) -> None:
        middle = rng.uniform(-0.1, 0.1, 2)
        radius = np.hypot(HALF, HALF) + 1e-3
        first = rng.uniform([-0.1, -0.2], [0.1, 0.2])
        while True:
            second = rng.uniform([-0.1, -0.2], [0.1, 0.2])
            if np.linalg.norm(second - first) > 2 * radius:
                break
        for name, offset in (("cubeA", first), ("cubeB", second)):
            self.set_pose(name, [*(middle + offset), HALF], yaw_quaternion(rng.uniform(0, 2 * np.pi)))
        self.place_robot(rng)

    def evaluate(self) -> dict[str, Any]:
        offset = self.position("cubeA") - self.position("cubeB")
        sideways = np.linalg.norm(offset[:2]) <= np.hypot(HALF, HALF) + 0.005
        on = bool(sideways and abs(offset[2] - 2 * HALF) <= 0.005)
        speed, turn = self.velocity("cubeA")
        static = speed <= 1e-3 and turn <= 1e-2
        grasped = self.is_grasping("cubeA")
        return {
            "is_cubeA_grasped": grasped,
            "is_cubeA_on_cubeB": on,
            "is_cubeA_static": static,
            "success": on and static and not grasped,
        }

    def dense_reward(self, info: dict[str, Any]) -> float:
        """Stages: turn and reach, grasp, carry above B, let go and come to rest."""
        if info["success"]:
            return 15.0
        tcp, A, B = self.tcp_pose(), self.pose("cubeA"), self.pose("cubeB")
        # how upright the hand is: its z axis points down and its y axis along an edge of the cube
        yaw = np.abs(A[:3, :2].T @ tcp[:3, 1]).max()
        upright = np.clip(-tcp[2, 2], 0, 1) * yaw
        reached = 1 - np.tanh(5 * np.linalg.norm(tcp[:3, 3] - A[:3, 3]))
        reward = reached + upright
        if info["is_cubeA_on_cubeB"]:
            speed, turn = self.velocity("cubeA")
            opening = min(self.opening() / 0.08, 1.0)
            released = opening if info["is_cubeA_grasped"] else 1.0
            return 8 + 2 * released + 2 * (1 - np.tanh(10 * speed)) + (1 - np.tanh(turn))
        if info["is_cubeA_grasped"]:
            goal = B[:3, 3] + [0, 0, 2 * HALF]
            sideways = np.linalg.norm(A[:2, 3] - goal[:2])
            lifted = np.clip((A[2, 3] - HALF) / (2 * HALF), 0, 1)
            reward += 1 + lifted + 1 - np.tanh(5 * sideways) + 1 - np.tanh(5 * np.linalg.norm(A[:3, 3] - goal))
        return reward

    def privileged_observation(self) -> dict[str, np.ndarray]:
        A, B = self.pose("cubeA"), self.pose("cubeB")
        tcp = self.tcp()
        return {
            "cubeA_pose": to_pose7(A),
            "cubeB_pose": to_pose7(B),
            "tcp_to_cubeA_pos": A[:3, 3] - tcp,
            "tcp_to_cubeB_pos": B[:3, 3] - tcp,
            "cubeA_to_cubeB_pos": B[:3, 3] - A[:3, 3],
        }
