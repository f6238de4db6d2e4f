"""OpenCabinetDoor and OpenCabinetDrawer: drive up to a cabinet and open one of its doors or drawers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import mujoco
import numpy as np

from reprise.envs.maniskill.observations import Camera, look
from reprise.envs.maniskill.panda import panda_mjcf
from reprise.envs.maniskill.world import World
from reprise.envs.raycast import Camera as Onlooker

__all__ = ["Cabinet", "OpenCabinetDoor", "OpenCabinetDrawer", "cabinet"]


@dataclass(frozen=True)
class Cabinet:
    """A cabinet whose front looks along -x, with one compartment above the other.

    Args:
        depth, width, height: half extents in metres.
        doors: whether the compartments have doors, else drawers.
        hinges: for each compartment, 1 with the hinge at +y, -1 at -y; drawers have none.
        handles: for each compartment "bar" or "knob".
        travel: of each door in radians, or of each drawer in metres.
    """

    depth: float
    width: float
    height: float
    doors: bool
    hinges: tuple[int, ...]
    handles: tuple[str, ...]
    travel: tuple[float, ...]


def cabinet(seed: int, doors: bool) -> Cabinet:
    """A cabinet from a seed, with one to three doors or one to four drawers.

    Example:
        >>> cabinet(0, doors=True) == cabinet(0, doors=True)
        True
    """
    rng = np.random.default_rng((seed, 11 + doors))
    depth, width, height = rng.uniform([0.15, 0.2, 0.3], [0.25, 0.35, 0.45]).tolist()
    n = int(rng.integers(1, 4 if doors else 5))
    travel = rng.uniform(0.45 * np.pi, 0.75 * np.pi, n) if doors else rng.uniform(1.0, 1.5, n) * depth
    hinges, kinds = rng.choice([-1, 1], n).tolist(), rng.choice(["bar", "knob"], n).tolist()
    return Cabinet(depth, width, height, doors, tuple(hinges), tuple(kinds), tuple(travel.tolist()))


OVERHEAD = {
    f"overhead_camera_{i}": Camera(
        (0, 0, 1.5), (float(np.cos(yaw)), float(np.sin(yaw)), 0.5), 160, 400, 60.0, mounted=True
    )
    for i, yaw in enumerate(np.radians([0, 120, -120]))
}
THICK = 0.01  # half thickness of boards


def _board(size: tuple[float, float, float], pos: tuple[float, float, float], rgba: str = ".75 .6 .4 1") -> str:
    numbers = [" ".join(f"{value:.17g}" for value in values) for values in (size, pos)]
    return f'<geom class="fixture" type="box" size="{numbers[0]}" pos="{numbers[1]}" rgba="{rgba}"/>'


def _handle(kind: str, y: float, upright: bool, rgba: str) -> str:
    """A handle in front of the plane x = 0: a bar on two posts, or a knob on one."""
    solid = f'class="fixture" rgba="{rgba}"'
    if kind == "knob":
        stalk = f'<geom {solid} type="capsule" fromto="0 {y} 0 -.03 {y} 0" size=".008"/>'
        return stalk + f'<geom {solid} type="sphere" pos="-.045 {y} 0" size=".02"/>'
    ends = [(y, -0.05), (y, 0.05)] if upright else [(y - 0.05, 0.0), (y + 0.05, 0.0)]
    posts = "".join(f'<geom {solid} type="capsule" fromto="0 {b} {c} -.045 {b} {c}" size=".007"/>' for b, c in ends)
    (b, c), (d, e) = ends
    return posts + f'<geom {solid} type="capsule" fromto="-.045 {b} {c} -.045 {d} {e}" size=".009"/>'


def _compartment(c: Cabinet, index: int) -> str:
    """A door or drawer, closed, at its place in the front."""
    n = len(c.travel)
    half = (c.height - THICK) / n
    z = -c.height + THICK / 2 + half * (2 * index + 1)
    front = (THICK, c.width - 0.002, half - 0.004)
    rgba = "{rgba}"
    if c.doors:
        side = c.hinges[index]
        edge = side * c.width  # the hinge; the board lies on the other side of it
        parts = _board(front, (0, -edge, 0)) + _handle(c.handles[index], -1.75 * edge, True, rgba)
        joint = f'axis="0 0 {-side}" range="0 {c.travel[index]}"'
        pos = f"{-c.depth - THICK} {edge} {z}"
        kind = "hinge"
    else:
        inner = c.depth - 2 * THICK
        parts = _board(front, (0, 0, 0)) + _handle(c.handles[index], 0, False, rgba)
        parts += _board((inner, c.width - 0.04, THICK / 2), (THICK + inner, 0, -half + 0.02))
        parts += "".join(
            _board((inner, THICK / 2, half / 2), (THICK + inner, side * (c.width - 0.04), -half / 2 + 0.01))
            for side in (-1, 1)
        )
        joint = f'axis="-1 0 0" range="0 {c.travel[index]}"'
        pos = f"{-c.depth - THICK} 0 {z}"
        kind = "slide"
    parts = parts.replace("{rgba}", ".3 .3 .35 1")
    return f'<body name="link{index}_" pos="{pos}"><joint name="cabinet{index}" type="{kind}" {joint}/>{parts}</body>'


class _OpenCabinet(World):
    """What doors and drawers share."""

    max_reward = 10.0
    mobile = True
    onlooker = Onlooker((-2.3, 1.7, 1.6), (-0.6, 0.0, 0.5), fovy=42)
    base = (0.1, 0.0, 0.35)  # of the arm, on the torso of the robot
    home = np.array([0.0, 0.0, 0.0, -1.5, 0.0, 3.0, 0.78, 0.02, 0.02])
    doors: ClassVar[bool]

    def scene(self) -> tuple[str, str]:
        assert self.model_id is not None
        self.cabinet = c = cabinet(self.model_id, self.doors)
        d, w, h = c.depth, c.width, c.height
        carcass = _board((THICK, w, h), (d - THICK, 0, 0))
        for side in (-1, 1):
            carcass += _board((d, w, THICK), (0, 0, side * (h - THICK)))
            carcass += _board((d, THICK, h), (0, side * (w - THICK), 0))
        links = "".join(_compartment(c, index) for index in range(len(c.travel)))
        return "", f'<body name="cabinet" pos="0 0 {h}">{carcass}{links}</body>'

    def robot(self) -> str:
        solid = 'contype="2" conaffinity="0"'
        return (
            '<body name="mobile"><joint name="base_x" type="slide" axis="1 0 0"/>'
            '<joint name="base_y" type="slide" axis="0 1 0"/><joint name="base_yaw" axis="0 0 1"/>'
            f'<geom type="box" pos="0 0 .17" size=".25 .2 .15" mass="60" {solid} rgba=".3 .35 .45 1"/>'
            f"{''.join(look(name, camera) for name, camera in OVERHEAD.items())}"
            '<body name="torso"><joint name="torso" type="slide" axis="0 0 1" range="0 .4"/>'
            f'<geom type="box" pos="0 0 .34" size=".15 .12 .02" mass="10" {solid} rgba=".4 .45 .55 1"/>'
            f"{panda_mjcf(self.base)}</body></body>"
        )

    def place_cameras(self) -> dict[str, Camera]:
        """Three on a mast of the robot, which look all around, instead of one that stands in the scene."""
        return OVERHEAD | {"hand_camera": Camera((0, 0, 0), (0, 0, 1), mounted=True)}

    def place(self, rng: np.random.RandomState) -> None:
        n = len(self.cabinet.travel)
        self.goal = np.array([float(rng.randint(n))])
        for index in range(n):
            joint = self.model.joint(f"cabinet{index}")
            joint.frictionloss[:], joint.damping[:] = rng.uniform(0.05, 0.15), rng.uniform(5, 20)
        distance, bearing = rng.uniform(1.6, 1.8), np.pi + rng.uniform(-0.1, 0.1) * np.pi
        heading = bearing - np.pi + rng.uniform(-0.05, 0.05) * np.pi
        self.drives.qpos[:4] = [distance * np.cos(bearing), distance * np.sin(bearing), heading, 0.0]
        self.place_robot(rng)

    @property
    def target_index(self) -> int:
        """Which door or drawer is to be opened, counted from below."""
        return int(self.goal[0])

    def opened(self) -> float:
        """How far it is open, in radians or metres."""
        return float(self.data.joint(f"cabinet{self.target_index}").qpos[0])

    def remember(self) -> None:
        self._before = self.pose(f"link{self.target_index}_")

    def link_speed(self) -> tuple[float, float]:
        """Speed (m/s) of the door's or drawer's origin and rate of its rotation (rad/s) over the last step."""
        before, now = self._before, self.pose(f"link{self.target_index}_")
        centre = np.array([0.0, -self.cabinet.hinges[self.target_index] * self.cabinet.width * self.doors, 0.0, 1.0])
        move = np.linalg.norm((now @ centre - before @ centre)[:3])
        turn = np.arccos(np.clip((np.trace(before[:3, :3].T @ now[:3, :3]) - 1) / 2, -1, 1))
        return float(move * self.control_freq), float(turn * self.control_freq)

    def evaluate(self) -> dict[str, Any]:
        speed, turn = self.link_speed()
        opened = self.opened() / (0.9 * self.cabinet.travel[self.target_index])
        static = speed <= 0.1 and turn <= 1
        return {"open_share": opened, "link_static": static, "success": bool(opened >= 1 and static)}

    def _handle(self) -> list[int]:
        """Ids of the handle's geoms: all of the door or drawer that is no board."""
        geoms = self.geoms_of(f"link{self.target_index}_")
        return [geom for geom in geoms if self.model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_BOX]

    def handle_distance(self) -> float:
        """The least distance between a finger and the handle, in metres."""
        fingers = [self.model.geom(name).id for name in ("finger1", "finger2")]
        pairs = [(finger, geom) for finger in fingers for geom in self._handle()]
        return max(min(mujoco.mj_geomDistance(self.model, self.data, *pair, 5.0, None) for pair in pairs), 0.0)

    def dense_reward(self, info: dict[str, Any]) -> float:
        """Stages: reach the handle, open, come to rest."""
        if info["success"]:
            return 10.0
        away = self.handle_distance()
        reward = 1 - np.tanh(away) + 1 - np.tanh(10 * away) + 4 * float(np.clip(info["open_share"], 0, 1))
        if info["open_share"] >= 1:
            reward += 1 - np.tanh(self.link_speed()[0])
        return reward

    def goal_observation(self) -> dict[str, np.ndarray]:
        return {"target_link_pos": self.handle_position()}

    def handle_position(self) -> np.ndarray:
        """Mean (3,) of the centres of the handle's parts in the world."""
        return self.data.geom_xpos[self._handle()].mean(0)

    def privileged_observation(self) -> dict[str, np.ndarray]:
        joint = self.data.joint(f"cabinet{self.target_index}")
        left = 0.9 * self.cabinet.travel[self.target_index] - self.opened()
        return {
            "target_angle_diff": np.array([left]),
            "target_joint_axis": joint.xaxis.copy(),
            "target_joint_pos": joint.xanchor.copy(),
        }


class OpenCabinetDoor(_OpenCabinet):
    """A mobile arm, 1.6 to 1.8 m away, has to open one door of a cabinet; 42 to train, 10 to test.

    Success: open by nine tenths of its range, and the door at rest. Source: table of the families in the appendix, row
    11; the cabinets are generated.
    """

    doors = True
    objects: ClassVar[dict[str, range]] = {"train": range(42), "test": range(42, 52)}
    evaluations: ClassVar[dict[str, int]] = {"train": 5, "test": 25}


class OpenCabinetDrawer(_OpenCabinet):
    """A mobile arm, 1.6 to 1.8 m away, has to pull out one drawer of a cabinet; 25 to train, 10 to test.

    Success: open by nine tenths of its range, and the drawer at rest. Source: table of the families in the appendix,
    row 12; the cabinets are generated.
    """

    doors = False
    objects: ClassVar[dict[str, range]] = {"train": range(25), "test": range(25, 35)}
    evaluations: ClassVar[dict[str, int]] = {"train": 5, "test": 25}
