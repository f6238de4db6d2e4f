"""PegInsertionSide: push a peg sideways into a hole."""

from __future__ import annotations

from typing import Any

import numpy as np

from reprise.envs.maniskill.panda import HOME
from reprise.envs.maniskill.poses import inverse, make_pose, to_pose7, yaw_quaternion
from reprise.envs.maniskill.world import World
from reprise.envs.raycast import Camera as Onlooker

__all__ = ["PegInsertionSide", "block_with_hole"]

CLEARANCE = 0.003  # between peg and each wall of the hole


def block_with_hole(depth: float, half: float, hole: float, centre: tuple[float, float], rgba: str) -> str:
    """Four boxes around a square hole that runs along x.

    Args:
        depth: half of the block's extent along x, in metres.
        half: of its extents along y and z.
        hole: half of the side of the hole.
        centre: of the hole in (y, z).
    """
    y, z = centre
    walls: list[tuple[tuple[float, float, float], tuple[float, float, float]]] = []
    for side in (-1, 1):
        thickness = (half - side * y - hole) / 2  # beside the hole, over the whole height
        walls.append(((depth, thickness, half), (0, side * (half - thickness), 0)))
        thickness = (half - side * z - hole) / 2  # above and below it
        walls.append(((depth, hole, thickness), (0, y, side * (half - thickness))))
    return "".join(
        f'<geom class="fixture" type="box" size="{a} {b} {c}" pos="{p} {q} {r}" rgba="{rgba}"/>'
        for (a, b, c), (p, q, r) in walls
    )


class PegInsertionSide(World):
    """A peg lies on the floor; its orange head has to go into the hole of a block. Sizes are drawn every episode.

    Success: the head is inside, within the hole's walls and at most 1.5 cm short of the block's middle. Only the head's
    position counts. Source: table of the families in the appendix, row 6.
    """

    max_reward = 25.0
    home = np.concatenate([HOME[:6], [-np.pi / 4], HOME[7:]])
    camera = ((0, -0.3, 0.2), (0, 0, 0.1))
    onlooker = Onlooker((0.6, -0.6, 0.5), (-0.12, 0.08, 0.14), fovy=42)

    def pick(self, rng: np.random.RandomState) -> tuple[float, float, float, float]:
        """Half length and half width of the peg, and centre (y, z) of the hole."""
        length, radius = float(rng.uniform(0.075, 0.125)), float(rng.uniform(0.015, 0.025))
        y, z = 0.5 * (length - radius) * rng.uniform(-1, 1, 2)
        return length, radius, float(y), float(z)

    def scene(self) -> tuple[str, str]:
        length, radius, y, z = self.asset
        half = f"{length / 2} {radius} {radius}"
        peg = (
            f'<geom name="head" type="box" size="{half}" pos="{length / 2} 0 0" rgba=".93 .5 .2 1"/>'
            f'<geom name="tail" type="box" size="{half}" pos="{-length / 2} 0 0" rgba=".2 .5 .9 1"/>'
        )
        block = block_with_hole(length, length, radius + CLEARANCE, (y, z), "1 .84 .5 1")
        return "", (
            f'<body name="peg" pos="0 0 {radius}"><freejoint/>{peg}</body>'
            f'<body name="block" mocap="true" pos="0 .3 {length}">{block}</body>'
        )

    def place(self, rng: np.random.RandomState) -> None:
        length, radius, _, _ = self.asset
        xy = rng.uniform([-0.1, -0.3], [0.1, 0.0])
        yaw = np.pi / 2 + rng.uniform(-np.pi / 3, np.pi / 3)
        self.set_pose("peg", [*xy, radius], yaw_quaternion(yaw))
        xy = rng.uniform([-0.05, 0.2], [0.05, 0.4])
        yaw = np.pi / 2 + rng.uniform(-np.pi / 8, np.pi / 8)
        self.set_pose("block", [*xy, length], yaw_quaternion(yaw))
        self.place_robot(rng)

    def hole_pose(self) -> np.ndarray:
        """Pose (4, 4) of the middle of the hole; its x axis runs along it, inwards."""
        _, _, y, z = self.asset
        return self.pose("block") @ make_pose(np.eye(3), np.array([0.0, y, z]))

    def head_pose(self) -> np.ndarray:
        """Pose (4, 4) of the end of the peg's head."""
        return self.pose("peg") @ make_pose(np.eye(3), np.array([self.asset[0], 0.0, 0.0]))

    def evaluate(self) -> dict[str, Any]:
        head = (inverse(self.hole_pose()) @ self.head_pose())[:3, 3]
        hole = self.asset[1] + CLEARANCE
        inside = bool(head[0] >= -0.015 and abs(head[1]) <= hole and abs(head[2]) <= hole)
        return {"peg_head_pos_at_hole": head, "success": inside}

    def dense_reward(self, info: dict[str, Any]) -> float:
        """Stages: reach behind the middle of the peg, grasp, bring head and body in line with the hole, push in."""
        if info["success"]:
            return 25.0
        length = self.asset[0]
        peg, hole = self.pose("peg"), self.hole_pose()
        grip = peg[:3, 3] - 0.5 * length * peg[:3, 0]
        reward = 1 - np.tanh(4 * np.linalg.norm(self.tcp() - grip))
        if not self.is_grasping("peg", max_angle=20):
            return reward
        in_hole = inverse(hole)
        head = info["peg_head_pos_at_hole"]
        middle = (in_hole @ peg)[:3, 3]
        off = np.linalg.norm(head[1:]), np.linalg.norm(middle[1:])
        reward += 2 + 3 * (1 - np.tanh(0.5 * sum(off) + 4.5 * max(off)))
        if max(off) < self.asset[1] + CLEARANCE:
            reward += 3 + 5 * (1 - np.tanh(5 * max(-head[0], 0.0)))
        return reward

    def privileged_observation(self) -> dict[str, np.ndarray]:
        length, radius, _, _ = self.asset
        return {
            "peg_pose": to_pose7(self.pose("peg")),
            "peg_half_size": np.array([length, radius, radius]),
            "box_hole_pose": to_pose7(self.hole_pose()),
            "box_hole_radius": np.array([radius + CLEARANCE]),
        }
