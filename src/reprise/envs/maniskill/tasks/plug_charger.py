"""PlugCharger: put the two prongs of a charger into a wall socket."""

from __future__ import annotations

from typing import Any

import numpy as np

from reprise.envs.maniskill.poses import inverse, make_pose, rotation_angle, to_pose7, yaw_quaternion
from reprise.envs.maniskill.world import World

__all__ = ["PlugCharger"]

PRONG = (8e-3, 0.75e-3, 3.2e-3)  # half extents; the prongs stand at y = +-GAP
GAP = 7e-3
BODY = (0.02, 0.015, 0.012)
CLEARANCE = 5e-4
SOCKET = (0.01, 0.05, 0.05)
HALF_TURN = np.diag([1.0, -1.0, -1.0])  # about the prongs' axis: it fits this way round, too
FACING = np.diag([-1.0, -1.0, 1.0])  # the charger looks into the socket, whose x axis looks out of it


def _socket_mjcf() -> str:
    """Five boxes around two holes; the front is the plane x = 0, and x points out of it."""
    width, height = PRONG[1] + CLEARANCE, PRONG[2] + CLEARANCE
    above, beside = (SOCKET[2] - height) / 2, (SOCKET[1] - GAP - width) / 2
    boxes = [((SOCKET[0], GAP - width, height), (0.0, 0.0))]
    for side in (-1, 1):
        boxes.append(((SOCKET[0], SOCKET[1], above), (0.0, side * (height + above))))
        boxes.append(((SOCKET[0], beside, height), (side * (GAP + width + beside), 0.0)))
    return "".join(
        f'<geom class="fixture" type="box" size="{a} {b} {c}" pos="{-SOCKET[0]} {y} {z}" rgba="1 1 1 1"/>'
        for (a, b, c), (y, z) in boxes
    )


class PlugCharger(World):
    """A charger lies on the floor, a socket hangs 10 cm above it; the clearance is half a millimetre.

    Success: charger within 5 mm and 0.2 rad of plugged in, either way round. Source: table of the families in the
    appendix, row 7.
    """

    max_reward = 50.0
    camera = ((-0.3, 0, 0.1), (0, 0, 0.1))

    def scene(self) -> tuple[str, str]:
        a, b, c = PRONG
        prongs = "".join(
            f'<geom name="prong{i}" type="box" size="{a} {b} {c}" pos="{a} {side * GAP} 0" rgba=".8 .8 .8 1"/>'
            for i, side in ((1, 1), (2, -1))
        )
        body = (
            f'<geom name="body" type="box" size="{BODY[0]} {BODY[1]} {BODY[2]}" pos="{-BODY[0]} 0 0" rgba="1 1 1 1"/>'
        )
        return "", (
            f'<body name="charger" pos="0 0 .1"><freejoint/>{prongs}{body}</body>'
            f'<body name="receptacle" mocap="true" pos=".1 0 .1">{_socket_mjcf()}</body>'
        )

    def place(self, rng: np.random.RandomState) -> None:
        xy = rng.uniform([-0.1, -0.2], [-0.01 - 2 * PRONG[0], 0.2])
        self.set_pose("charger", [*xy, BODY[2]], yaw_quaternion(rng.uniform(-np.pi / 3, np.pi / 3)))
        xy = rng.uniform([0.01, -0.1], [0.1, 0.1])
        self.set_pose("receptacle", [*xy, 0.1], yaw_quaternion(np.pi + rng.uniform(-np.pi / 8, np.pi / 8)))
        self.place_robot(rng)

    def goal_pose(self) -> np.ndarray:
        """Pose (4, 4) of the charger when it is plugged in."""
        return self.pose("receptacle") @ make_pose(FACING, np.zeros(3))

    def evaluate(self) -> dict[str, Any]:
        charger, goal = self.pose("charger"), self.goal_pose()
        distance = float(np.linalg.norm(charger[:3, 3] - goal[:3, 3]))
        turns = (goal[:3, :3], goal[:3, :3] @ HALF_TURN)
        angle = min(rotation_angle(charger[:3, :3], turn) for turn in turns)
        done = distance <= 5e-3 and angle <= 0.2
        return {"obj_to_goal_dist": distance, "obj_to_goal_angle": angle, "success": done}

    def dense_reward(self, info: dict[str, Any]) -> float:
        """Stages: reach the body, grasp it, bring it in line with the socket, push it in."""
        if info["success"]:
            return 50.0
        charger, goal = self.pose("charger"), self.goal_pose()
        body = charger[:3, 3] - BODY[0] * charger[:3, 0]
        reward = 1 - np.tanh(5 * np.linalg.norm(self.tcp() - body))
        if not self.is_grasping("charger", max_angle=20):
            return reward
        offset = (inverse(goal) @ charger)[:3, 3]
        sideways = float(np.linalg.norm(offset[1:]))
        reward += 2 + 4 * (1 - np.tanh(5 * sideways)) + 4 * (1 - np.tanh(2 * info["obj_to_goal_angle"]))
        if sideways <= 5e-3 and info["obj_to_goal_angle"] <= 0.2:
            reward += 5 + 15 * (1 - np.tanh(10 * abs(offset[0])))
        return reward

    def privileged_observation(self) -> dict[str, np.ndarray]:
        return {
            "charger_pose": to_pose7(self.pose("charger")),
            "receptacle_pose": to_pose7(self.pose("receptacle")),
            "goal_pose": to_pose7(self.goal_pose()),
        }
