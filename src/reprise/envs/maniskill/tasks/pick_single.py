"""PickSingle: take one of many objects to a point in space and hold it there."""

from __future__ import annotations

from typing import Any, ClassVar

import mujoco
import numpy as np

from reprise.envs.maniskill.objects import compound_object, primitives_mjcf
from reprise.envs.maniskill.poses import to_pose7, yaw_quaternion
from reprise.envs.maniskill.world import World, goal_marker

__all__ = ["PickSingle"]

GRID, WINDOW = 10, 0.12  # points along a side of the map of heights, and its side in metres
DOWN = np.array([0.0, 0.0, -1.0])


class PickSingle(World):
    """A compound object (:mod:`reprise.envs.maniskill.objects`) has fallen to the floor; 200 to train, 50 to test.

    Success: centre of mass within 2.5 cm of the goal, arm at rest. Source: table of the families in the appendix, rows
    3 and 4; its scanned and evolved objects are replaced by generated ones. The state has, beyond the published one,
    ``obj_heights``: how the object looked from above where it had fallen; without, no state would tell objects apart.
    """

    max_reward = 10.0
    objects: ClassVar[dict[str, range]] = {"train": range(200), "test": range(200, 250)}
    evaluations: ClassVar[dict[str, int]] = {"train": 1, "test": 2}

    def scene(self) -> tuple[str, str]:
        assert self.model_id is not None
        geoms = primitives_mjcf(compound_object(self.model_id))
        return "", f'<body name="object" pos="0 0 .2"><freejoint/>{geoms}</body>{goal_marker()}'

    def place(self, rng: np.random.RandomState) -> None:
        self.drives.qpos[:] = self.home  # out of the way while the object falls
        position = rng.uniform(-0.1, 0.1, 2)
        turn = yaw_quaternion(rng.uniform(0, 2 * np.pi))
        self.set_pose("object", [0, 0, 0], turn)
        mujoco.mj_kinematics(self.model, self.data)
        lowest = self._corners()[:, 2].min()
        self.set_pose("object", [*position, 0.002 - lowest], turn)
        self.settle(1.0)
        mujoco.mj_comPos(self.model, self.data)
        corners = self._corners()
        self.size = float(np.linalg.norm(corners.max(0) - corners.min(0)))
        self.heights = self._seen_from_above()
        self.place_robot(rng)
        start = self.centre()
        while True:
            goal = np.append(rng.uniform([-0.15, -0.25], [0.15, 0.25]), 0.0)
            goal[2] = min(start[2] + rng.uniform(0, 0.5), 0.5)
            if np.linalg.norm(goal - start) > 0.05:
                break
        self.goal = goal
        self.set_pose("goal", goal)

    def _corners(self) -> np.ndarray:
        """Corners (n, 3) of the boxes around the parts, in the world."""
        geoms = self.geoms_of("object")
        signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(-1, 3)
        R = self.data.geom_xmat[geoms].reshape(-1, 3, 3)
        centre, half = self.model.geom_aabb[geoms, :3], self.model.geom_aabb[geoms, 3:]
        local = centre[:, None] + signs * half[:, None]
        return (np.einsum("gij,gcj->gci", R, local) + self.data.geom_xpos[geoms][:, None]).reshape(-1, 3)

    def _seen_from_above(self) -> np.ndarray:
        """Heights (GRID, GRID) of the object around its centre, 0 where it is not."""
        x, y, _ = self.centre()
        offsets = np.linspace(-WINDOW / 2, WINDOW / 2, GRID)
        only_objects, hit = np.array([1, 0, 0, 0, 0, 0], np.uint8), np.zeros(1, np.int32)
        heights = np.zeros((GRID, GRID))
        for i, j in np.ndindex(GRID, GRID):
            eye = np.array([x + offsets[i], y + offsets[j], 1.0])
            away = mujoco.mj_ray(self.model, self.data, eye, DOWN, only_objects, 0, -1, hit)
            heights[i, j] = 1.0 - away if away >= 0 else 0.0
        return heights

    def clearance(self) -> float:
        """How far above the floor the lowest point of the object is, in metres, as boxes around its parts have it."""
        return float(self._corners()[:, 2].min())

    def centre(self) -> np.ndarray:
        """The object's centre of mass (3,) in the world."""
        return self.data.xipos[self._bodies["object"]].copy()

    def evaluate(self) -> dict[str, Any]:
        placed = bool(np.linalg.norm(self.centre() - self.goal) <= 0.025)
        static = self.robot_is_static()
        return {"is_obj_placed": placed, "is_robot_static": static, "success": placed and static}

    def dense_reward(self, info: dict[str, Any]) -> float:
        if info["success"]:
            return 10.0
        centre = self.centre()
        away = max(float(np.linalg.norm(self.tcp() - centre)) - self.size, 0.0)
        reward = 1 - np.tanh(3 * away)
        if self.is_grasping("object", max_angle=30):
            reward += 3 + 3 * (1 - np.tanh(3 * np.linalg.norm(centre - self.goal)))
        return reward

    def goal_observation(self) -> dict[str, np.ndarray]:
        return {"goal_pos": self.goal}

    def privileged_observation(self) -> dict[str, np.ndarray]:
        pose = self.pose("object")
        return {
            "obj_pose": to_pose7(pose),
            "tcp_to_obj_pos": self.centre() - self.tcp(),
            "obj_to_goal_pos": self.goal - self.centre(),
            "obj_heights": self.heights,
        }
