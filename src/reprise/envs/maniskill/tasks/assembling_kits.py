"""AssemblingKits: put a letter-like solid into the hole of a board that it fits."""

from __future__ import annotations

from typing import Any, ClassVar

import mujoco
import numpy as np

from reprise.envs.maniskill.kits import THICKNESS, Box, kit, piece_boxes, slot_walls, symmetry
from reprise.envs.maniskill.poses import make_pose, to_pose7, yaw_quaternion
from reprise.envs.maniskill.world import MARKERS, World
from reprise.envs.raycast import Camera as Onlooker, RayCaster

__all__ = ["AssemblingKits"]

COLOURS = (".9 .35 .25 1", ".25 .5 .9 1", ".3 .7 .35 1", ".95 .75 .2 1", ".6 .4 .8 1", ".2 .7 .75 1")
BOARD = ".28 .21 .17 1"


class AssemblingKits(World):
    """A board with 4 to 6 holes (:mod:`reprise.envs.maniskill.kits`); all solids but one are in place, the last lies on
    top of the board.

    Success: within 2 cm of its hole, turned right to 4 degrees, up to its symmetry, and down in it to 3 mm. Source:
    table of the families in the appendix, row 8. Solids that are in place stay there; holes are turned by quarters.
    """

    max_reward = 10.0
    objects: ClassVar[dict[str, range]] = {"train": range(237), "test": range(237, 337)}
    evaluations: ClassVar[dict[str, int]] = {"train": 1, "test": 1}
    camera = ((0.2, 0, 0.4), (0, 0, 0))
    onlooker = Onlooker((0.45, 0.45, 0.5), (-0.12, 0.0, 0.14), fovy=42)

    def pick(self, rng: np.random.RandomState) -> tuple[int, int]:
        """The kit, and which of its solids is to be placed."""
        assert self.model_id is not None
        return self.model_id, int(rng.randint(len(kit(self.model_id).holes)))

    def scene(self) -> tuple[str, str]:
        model_id, which = self.asset
        self.kit = kit(model_id)
        self.slot = self.kit.holes[which]
        board = "".join(
            _box(wall, f'class="fixture" rgba="{BOARD}"')
            for place, slot in enumerate(self.kit.slots)
            for wall in slot_walls(slot, place)
        )
        others = "".join(
            f'<body pos="{slot.position[0]} {slot.position[1]} 0" euler="0 0 {slot.quarters * np.pi / 2}">'
            + "".join(_box(box, f'class="fixture" rgba="{COLOURS[i]}"') for box in piece_boxes(slot.shape))
            + "</body>"
            for i, slot in enumerate(self.kit.holes)
            if i != which
        )
        piece = "".join(_box(box, f'rgba="{COLOURS[which]}"') for box in piece_boxes(self.slot.shape))
        turn = f'euler="0 0 {self.slot.quarters * np.pi / 2}"'
        goal = "".join(
            _box(box, f'group="{MARKERS}" contype="0" conaffinity="0" rgba=".2 .8 .35 1"', height=0.001)
            for box in piece_boxes(self.slot.shape)
        )
        x, y = self.slot.position
        hole = f'<body name="goal" pos="{x} {y} {THICKNESS - 0.002}" {turn}>{goal}</body>'
        return "", (
            f'<body name="piece" pos="0 0 {THICKNESS}"><freejoint/>{piece}</body>'
            f'<body name="kit">{board}{others}{hole}</body>'
        )

    def place(self, rng: np.random.RandomState) -> None:
        self.goal = np.array([*self.slot.position, 0.0])
        while True:  # anywhere on the board, but not over the hole
            xy = rng.uniform([-0.05, -0.085], [0.05, 0.085])
            if np.linalg.norm(xy - self.goal[:2]) > 0.07:
                break
        self.start = np.array([*xy, THICKNESS])
        self.set_pose("piece", self.start, yaw_quaternion(rng.uniform(0, 2 * np.pi)))
        self.place_robot(rng)

    def goal_pose(self) -> np.ndarray:
        """Pose (4, 4) of the piece in its hole."""
        angle = self.slot.quarters * np.pi / 2
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
        return make_pose(turn, self.goal)

    def goal_mask(self, camera: str = "base_camera") -> np.ndarray:
        """Where a camera sees the open hole: (H, W) booleans."""
        view = self.cameras[camera]
        height, width = self.image_size or (view.height, view.width)
        caster = RayCaster(self.model, width, height, [camera], channels=("body",), groups=(0, 1, 2, MARKERS))
        mujoco.mj_camlight(self.model, self.data)
        return caster.render(self.data)["body"][0] == self._bodies["goal"]

    def evaluate(self) -> dict[str, Any]:
        piece = self.pose("piece")
        away = float(np.linalg.norm(piece[:2, 3] - self.goal[:2]))
        period = symmetry(self.slot.shape)
        yaw = np.arctan2(piece[1, 0], piece[0, 0]) - self.slot.quarters * np.pi / 2
        turn = float(abs((yaw + period / 2) % period - period / 2))
        placed, turned, down = away < 0.02, turn < np.radians(4), bool(piece[2, 3] < 0.003)
        return {
            "pos_diff_norm": away,
            "rot_diff": turn,
            "pos_correct": placed,
            "rot_correct": turned,
            "in_slot": down,
            "success": placed and turned and down,
        }

    def dense_reward(self, info: dict[str, Any]) -> float:
        """Stages: reach, grasp, bring over the hole, turn and keep level, let go."""
        if info["success"]:
            return 10.0
        piece = self.pose("piece")
        reward = 1 - np.tanh(4 * max(float(np.linalg.norm(self.tcp() - piece[:3, 3])) - 0.01, 0.0))
        grasped = self.is_grasping("piece", max_angle=30)
        right = info["pos_correct"] and info["rot_correct"]
        level = 2 - np.tanh(0.4 * info["rot_diff"]) - np.tanh(1 - piece[2, 2])
        if right:
            reward += 1
        if grasped or right:
            reward += 2 + (1 - np.tanh(4 * info["pos_diff_norm"])) + level
            if right and level > 0.98:
                reward += min(self.opening() / 0.08, 1.0) if grasped else 1.0
        return reward

    def goal_observation(self) -> dict[str, np.ndarray]:
        return {"obj_init_pos": self.start, "obj_goal_pos": self.goal}

    def privileged_observation(self) -> dict[str, np.ndarray]:
        piece = self.pose("piece")
        return {
            "obj_pose": to_pose7(piece),
            "goal_pose": to_pose7(self.goal_pose()),
            "tcp_to_obj_pos": piece[:3, 3] - self.tcp(),
            "obj_to_goal_pos": self.goal - piece[:3, 3],
        }


def _box(box: Box, attributes: str, height: float = THICKNESS) -> str:
    """A box that stands on z = 0 of its body."""
    x0, x1, y0, y1 = box
    size = f"{(x1 - x0) / 2:.9g} {(y1 - y0) / 2:.9g} {height / 2}"
    return f'<geom type="box" size="{size}" pos="{(x0 + x1) / 2:.9g} {(y0 + y1) / 2:.9g} {height / 2}" {attributes}/>'
