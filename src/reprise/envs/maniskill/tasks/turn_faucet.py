"""TurnFaucet: open a faucet by its handle, whatever that looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import mujoco
import numpy as np

from reprise.envs.maniskill.poses import to_pose7, yaw_quaternion
from reprise.envs.maniskill.world import World

__all__ = ["Faucet", "TurnFaucet", "faucet"]


@dataclass(frozen=True)
class Faucet:
    """A faucet, 30 cm at its largest extent.

    Args:
        kind: of handle: "lever" (one arm), "knob" (a disc with a fin), "cross" (two bars).
        axis: about which it turns: "up" (on top of the post), "side" (beside it, as a horizontal axle).
        handles: one or two; the first is the one to open.
        lower, upper: limits of its angle in radians; upper is infinite for a handle that turns without end.
        height, reach: of the post and of the spout, in metres.
        size: length of an arm of the handle, in metres.
        thickness: its radius.
    """

    kind: str
    axis: str
    handles: int
    lower: float
    upper: float
    height: float
    reach: float
    size: float
    thickness: float


def faucet(seed: int) -> Faucet:
    """A faucet from a seed.

    Example:
        >>> faucet(0) == faucet(0), faucet(0) == faucet(1)
        (True, False)
    """
    rng = np.random.default_rng((seed, 10))
    kind = ("lever", "knob", "cross")[rng.integers(3)]
    axis = ("up", "side")[rng.integers(2)]
    lower = float(rng.uniform(-0.3, 0.3))
    endless = kind == "cross" and rng.random() < 0.5
    upper = np.inf if endless else lower + float(rng.uniform(0.35, 0.6) * np.pi)
    height, reach = rng.uniform(0.1, 0.16), rng.uniform(0.1, 0.15)
    size = rng.uniform(0.06, 0.09)
    numbers = [float(value) for value in (height, reach, size, rng.uniform(0.007, 0.011))]
    return Faucet(kind, axis, int(rng.integers(1, 3)), lower, upper, *numbers)


def _handle(f: Faucet, index: int) -> str:
    """A handle: hinged at its own origin about its own z axis."""
    r, a = f.thickness, f.size
    bars = {
        "lever": f'<geom type="capsule" fromto="0 0 .02 {a} 0 .03" size="{r}"/>',
        "knob": f'<geom type="cylinder" pos="0 0 .015" size="{0.4 * a} .012"/>'
        f'<geom type="box" pos="{0.45 * a} 0 .03" size="{0.45 * a} {r} .015"/>',
        "cross": f'<geom type="capsule" fromto="{-a} 0 .025 {a} 0 .025" size="{r}"/>'
        f'<geom type="capsule" fromto="0 {-a} .025 0 {a} .025" size="{r}"/>',
    }
    side = 1 if index == 0 else -1
    if f.axis == "up":
        # A single handle sits on the post, a pair on both sides of it.
        place = f'pos="0 {side * 0.09 if f.handles == 2 else 0} {0.06 if f.handles == 2 else f.height}"'
    else:
        place = f'pos="0 {side * 0.03} {0.7 * f.height}" quat="{0.5**0.5} {-side * 0.5**0.5} 0 0"'
    limits = f'range="{f.lower} {f.upper}"' if np.isfinite(f.upper) else 'limited="false"'
    colour = 'rgba=".2 .8 .3 1"' if index == 0 else 'rgba=".6 .6 .7 1"'
    return (
        f'<body name="handle{index}" {place}><joint name="switch{index}" axis="0 0 1" {limits} damping="2" '
        f'frictionloss=".1" armature=".001"/>'
        f'<geom type="cylinder" pos="0 0 .01" size=".012 .012"/>{bars[f.kind]}</body>'
    ).replace("<geom ", f'<geom class="fixture" {colour} ')


class TurnFaucet(World):
    """A faucet stands on the floor; its green handle has to be turned through nine tenths of its range.

    Success: angle beyond q_min + 0.9 (q_max - q_min), or a quarter turn of a handle without limits. 60 faucets to
    train, 18 to test. Source: table of the families in the appendix, row 10; its scanned
    faucets are replaced by generated ones.
    """

    max_reward = 10.0
    # The arm is drawn back, hand pointing down, so that no faucet stands where the hand starts.
    home = np.array([0.0, -np.pi / 8, 0.0, -3 * np.pi / 4, 0.0, 5 * np.pi / 8, np.pi / 4, 0.04, 0.04])
    objects: ClassVar[dict[str, range]] = {"train": range(60), "test": range(60, 78)}
    evaluations: ClassVar[dict[str, int]] = {"train": 5, "test": 17}

    def scene(self) -> tuple[str, str]:
        assert self.model_id is not None
        self.faucet = f = faucet(self.model_id)
        end = 0.9 * f.height
        spout = (
            '<geom type="cylinder" pos="0 0 .01" size=".05 .01"/>'
            f'<geom type="capsule" fromto="0 0 .02 0 0 {f.height - 0.015}" size=".015"/>'
            f'<geom type="capsule" fromto="0 0 {0.8 * f.height} {f.reach} 0 {end}" size=".012"/>'
            f'<geom type="capsule" fromto="{f.reach} 0 {end} {f.reach} 0 {end - 0.03}" size=".012"/>'
        )
        if f.axis == "up" and f.handles == 2:
            spout += '<geom type="box" pos="0 0 .03" size=".03 .12 .03"/>'
        spout = spout.replace("<geom ", '<geom class="fixture" rgba=".75 .75 .8 1" ')
        handles = "".join(_handle(f, index) for index in range(f.handles))
        return "", f'<body name="faucet" mocap="true">{spout}{handles}</body>'

    def place(self, rng: np.random.RandomState) -> None:
        xy = rng.uniform(-0.05, 0.05, 2)
        yaw = np.pi + rng.uniform(-np.pi / 12, np.pi / 12)  # the spout towards the robot
        self.set_pose("faucet", [*xy, 0], yaw_quaternion(yaw))
        f = self.faucet
        for index in range(f.handles):
            self.data.joint(f"switch{index}").qpos = f.lower
        self.target = f.lower + (0.9 * (f.upper - f.lower) if np.isfinite(f.upper) else np.pi / 2)
        self._switch = int(self.model.joint("switch0").qposadr[0])
        self._handle_geoms = self.geoms_of("handle0")
        self._finger_geoms = [self.model.geom(name).id for name in ("finger1", "finger2")]
        self.goal = np.array([self.target])
        self.place_robot(rng)

    def angle(self) -> float:
        """Of the handle, in radians."""
        return float(self.data.qpos[self._switch])

    def remember(self) -> None:
        self._before = self.target - self.angle()

    def evaluate(self) -> dict[str, Any]:
        left = self.target - self.angle()
        return {"angle_left": left, "success": bool(left < 0)}

    def finger_distance(self) -> float:
        """The least distance between a finger and the handle, in metres."""
        distances = [
            mujoco.mj_geomDistance(self.model, self.data, finger, geom, 1.0, None)
            for finger in self._finger_geoms
            for geom in self._handle_geoms
        ]
        return max(min(distances), 0.0)

    def dense_reward(self, info: dict[str, Any]) -> float:
        """Near the handle, far turned, and turning the right way since the last step."""
        if info["success"]:
            return 10.0
        left = info["angle_left"]
        turning = -np.tanh(2 * (left - self._before)) * (1 if left >= 0 else -1)
        return 1 - np.tanh(5 * self.finger_distance()) + 3 * (1 - np.tanh(2 * max(left, 0.0))) + 5 * turning

    def goal_observation(self) -> dict[str, np.ndarray]:
        """Which link is the handle: the middle of its geoms at the start is what a camera would be asked for."""
        return {"target_angle_diff": np.array([self.target - self.angle()]), "target_link_pos": self.handle_position()}

    def handle_position(self) -> np.ndarray:
        """Mean (3,) of the centres of the handle's parts in the world."""
        return self.data.geom_xpos[self._handle_geoms].mean(0)

    def privileged_observation(self) -> dict[str, np.ndarray]:
        joint = self.data.joint("switch0")
        return {
            "faucet_pose": to_pose7(self.pose("faucet")),
            "target_joint_axis": joint.xaxis.copy(),
            "target_joint_pos": joint.xanchor.copy(),
            "handle_pose": to_pose7(self.pose("handle0")),
        }
