"""What scripted experts plan with: distances to primitives, the space that a hand takes, grasps, and motions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numba import njit

from reprise.envs.maniskill.panda import forward_kinematics, inverse_kinematics
from reprise.envs.maniskill.poses import exp_rotation, log_rotation, make_pose, rotation_angle
from reprise.envs.maniskill.world import World

__all__ = [
    "EpisodeOver",
    "Grasp",
    "Planner",
    "Unreachable",
    "find_grasps",
    "hand_points",
    "pointing",
    "signed_distance",
]

Array = np.ndarray
BOX, CYLINDER, CAPSULE = (int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}")) for name in ("BOX", "CYLINDER", "CAPSULE"))


class Unreachable(Exception):
    """No inverse kinematics for a pose on the way."""


class EpisodeOver(Exception):
    """The task is done, time is up, or the physics diverged."""


def signed_distance(world: World, geoms: Sequence[int], points: Array) -> Array:
    """Distance (n,) from points (n, 3) in the world to the nearest of some primitives, negative inside.

    Args:
        world: its present state counts.
        geoms: ids of boxes, spheres, capsules and cylinders.
        points: in metres.
    """
    index = np.asarray(geoms)
    model, data = world.model, world.data
    kinds, sizes = model.geom_type[index], model.geom_size[index]
    return _signed_distance(kinds, sizes, data.geom_xpos[index], data.geom_xmat[index], points)


@njit(cache=True)
def _signed_distance(kinds: Array, sizes: Array, centres: Array, turns: Array, points: Array) -> Array:
    nearest = np.full(len(points), np.inf)
    for n in range(len(points)):
        for g in range(len(kinds)):
            x, y, z = points[n, 0] - centres[g, 0], points[n, 1] - centres[g, 1], points[n, 2] - centres[g, 2]
            R = turns[g]
            a = x * R[0] + y * R[3] + z * R[6]
            b = x * R[1] + y * R[4] + z * R[7]
            c = x * R[2] + y * R[5] + z * R[8]
            if kinds[g] == BOX:
                p, q, r = abs(a) - sizes[g, 0], abs(b) - sizes[g, 1], abs(c) - sizes[g, 2]
            elif kinds[g] == CYLINDER:
                p, q, r = np.sqrt(a * a + b * b) - sizes[g, 0], -np.inf, abs(c) - sizes[g, 1]
            else:
                half = sizes[g, 1] if kinds[g] == CAPSULE else 0.0
                c -= min(max(c, -half), half)
                nearest[n] = min(nearest[n], np.sqrt(a * a + b * b + c * c) - sizes[g, 0])
                continue
            outside = np.sqrt(max(p, 0.0) ** 2 + max(q, 0.0) ** 2 + max(r, 0.0) ** 2)
            nearest[n] = min(nearest[n], outside + min(max(p, q, r), 0.0))
    return nearest


def _grid(low: Iterable[float], high: Iterable[float], counts: Iterable[int]) -> Array:
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, counts, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def hand_points(opening: float) -> Array:
    """Points (n, 3) in the frame of the TCP all over the volume of fingers and hand.

    Args:
        opening: position of each finger, 0 to 0.04 m.
    """
    fingers = [
        _grid((-0.0105, side * opening, -0.045), (0.0105, side * (opening + 0.01), 0.0088), (3, 2, 6))
        for side in (1, -1)
    ]
    return np.concatenate([*fingers, _grid((-0.03, -0.1, -0.1), (0.03, 0.1, -0.0374), (3, 7, 3))])


def pointing(direction: Array, closing: Array) -> Array:
    """Rotation (3, 3) of a hand that points in a direction and closes along another, made perpendicular to it."""
    z = np.asarray(direction, dtype=float) / np.linalg.norm(direction)
    y = closing - z * (closing @ z)
    y /= np.linalg.norm(y)
    return np.stack([np.cross(y, z), y, z], 1)


@dataclass(frozen=True)
class Grasp:
    """Where the TCP has to be to close on an object, and how good that looks."""

    pose: Array
    score: float


def find_grasps(
    world: World, geoms: Sequence[int], centre: Array, rng: np.random.Generator, n: int = 300
) -> list[Grasp]:
    """Grasps of an object of primitives that lies on the floor, best first.

    Candidates are drawn: a point of the object, a direction from above tilted by up to 25 degrees, a turn. One
    stands if the open hand is free there, and if both fingers, when they close, meet the object squarely.

    Args:
        world: its present state counts.
        geoms: of the object.
        centre: of mass (3,); grasps near it are preferred.
        rng: draws the candidates.
        n: number of candidates.
    """
    volume = hand_points(0.04)
    pads = _grid((-0.008, 0, -0.008), (0.008, 0, 0.006), (3, 1, 3))
    grasps = []
    for _ in range(n):
        geom = int(rng.choice(geoms))
        half = world.model.geom_aabb[geom, 3:]
        R = world.data.geom_xmat[geom].reshape(3, 3)
        point = world.data.geom_xpos[geom] + R @ (rng.uniform(-0.7, 0.7, 3) * half)
        turn = rng.uniform(0, np.pi)
        tilt = rng.uniform(-0.45, 0.45, 2) * (rng.random() < 0.6)
        hand = exp_rotation(np.append(tilt, 0.0)) @ pointing(
            np.array([0, 0, -1.0]), np.array([np.cos(turn), np.sin(turn), 0])
        )
        reach = max(0.0088 * -hand[2, 2] + 0.0105 * abs(hand[2, 0]) + 0.05 * abs(hand[2, 1]), 0.0) + 0.002
        point[2] = max(point[2], reach)  # the tips stay above the floor
        hits, depths = [], []
        for side in (1, -1):
            at = np.full(len(pads), 0.04)
            for _ in range(12):
                where = point + (pads + np.stack([0 * at, side * at, 0 * at], 1)) @ hand.T
                at = at - np.maximum(signed_distance(world, geoms, where), 0)
            met = at > -0.03
            depths.append(at[met].max() if met.any() else -np.inf)
            first = int(np.argmax(np.where(met, at, -np.inf)))
            where = point + hand @ (pads[first] + [0, side * at[first], 0])
            probes = where + 1e-4 * np.concatenate([np.eye(3), -np.eye(3)])
            d = signed_distance(world, geoms, probes)
            normal = d[:3] - d[3:]
            square = side * (normal @ hand[:, 1]) / (np.linalg.norm(normal) + 1e-12)
            support = (at[met] > depths[-1] - 0.002).sum() if met.any() else 0
            hits.append((square, support))
        width = depths[0] + depths[1]
        if not 0.004 < width < 0.076 or min(hit[0] for hit in hits) < np.cos(np.radians(20)):
            continue
        point = point + hand[:, 1] * (depths[0] - depths[1]) / 2
        inside = point + volume @ hand.T
        if inside[:, 2].min() < 0.001 or signed_distance(world, geoms, inside).min() < 0.002:
            continue
        arm = np.linalg.norm(point - centre)
        support = min(hit[1] for hit in hits)
        score = min(hit[0] for hit in hits) + 0.03 * support - 8 * arm - 0.1 * np.linalg.norm(tilt)
        grasps.append(Grasp(make_pose(hand, point), float(score)))
    return sorted(grasps, key=lambda grasp: -grasp.score)


class Planner:
    """Moves the arm of a world in joint position control along straight lines of the TCP, one action at a time.

    Args:
        world: with control mode ``pd_joint_pos``, just reset.
        on_step: called with every action after the step.
        limit: number of actions.

    Raises:
        ValueError: another control mode.
    """

    def __init__(self, world: World, on_step: Callable[[Array], Any], limit: int) -> None:
        if world.control_mode != "pd_joint_pos":
            raise ValueError(f"experts act in pd_joint_pos, but this world takes {world.control_mode}")
        self.world, self.on_step, self.left = world, on_step, limit
        self.q, self.gripper = world.arm_qpos(), 1.0
        self.base = make_pose(np.eye(3), np.array(world.base))

    def tcp(self) -> Array:
        """The commanded pose (4, 4) of the TCP in the world."""
        return self.base @ forward_kinematics(self.q)

    def step(self, q: Array) -> None:
        """One action.

        Raises:
            EpisodeOver: the task is done, time is up, or the physics diverged.
        """
        self.q = q
        # As recorded: a replay is exact only if the arm was told what is written down.
        action = np.append(q, self.gripper).astype(np.float32)
        self.world.set_action(action)
        self.world.step()
        self.on_step(action)
        self.left -= 1
        if self.world.unstable or self.left <= 0 or self.world.success():
            raise EpisodeOver

    def path(self, start: Array, q: Array, goal: Array, speed: float = 0.4, turn: float = 1.6) -> list[Array]:
        """Joint angles along a straight line between two poses in the world, from q on.

        Args:
            start, goal: poses (4, 4).
            q: joint angles at the start.
            speed, turn: at most, in m/s and rad/s.

        Raises:
            Unreachable: somewhere on the way.
        """
        axis = log_rotation(np.ascontiguousarray(start[:3, :3].T @ goal[:3, :3]))
        move = goal[:3, 3] - start[:3, 3]
        seconds = max(np.linalg.norm(move) / speed, np.linalg.norm(axis) / turn)
        n = max(int(np.ceil(seconds * self.world.control_freq)), 1)
        path = []
        for share in np.arange(1, n + 1) / n:
            pose = make_pose(start[:3, :3] @ exp_rotation(share * axis), start[:3, 3] + share * move - self.base[:3, 3])
            found = inverse_kinematics(pose, q)
            if found is None or np.abs(found - q).max() > 0.5:
                raise Unreachable
            q = found
            path.append(q)
        return path

    def follow(self, path: Iterable[Array], settle: float = 0.03) -> None:
        """Command joint angles one after the other, then wait until no joint is faster than ``settle`` rad/s."""
        for q in path:
            self.step(q)
        for _ in range(20):
            if self.world.robot_is_static(settle):
                return
            self.step(self.q)

    def move(self, goal: Array, settle: float = 0.03, **speeds: float) -> None:
        """Take the TCP to a pose (4, 4) in the world in a straight line."""
        self.follow(self.path(self.tcp(), self.q, goal, **speeds), settle)

    def grip(self, action: float, steps: int = 10) -> None:
        """Close (-1) or open (1) the gripper, or something between, and wait."""
        self.gripper = action
        for _ in range(steps):
            self.step(self.q)

    def wait(self, steps: int = 1000) -> None:
        """Hold still."""
        for _ in range(steps):
            self.step(self.q)

    def nearest(self, poses: Iterable[Array]) -> list[Array]:
        """Poses in the order of how little the hand has to turn for them."""
        now = self.tcp()[:3, :3]
        return sorted(poses, key=lambda pose: rotation_angle(now, pose[:3, :3]))
