"""Scripted experts: they see the whole state, plan grasps and straight motions, and act in ``pd_joint_pos``.

Source: Gu et al., ManiSkill2, ICLR 2023, section 3.4 (demonstrations by motion planning).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from reprise.envs.maniskill.planning import (
    EpisodeOver,
    Planner,
    Unreachable,
    find_grasps,
    hand_points,
    pointing,
    signed_distance,
)
from reprise.envs.maniskill.poses import exp_rotation, inverse, make_pose
from reprise.envs.maniskill.tasks import AvoidObstacles, PegInsertionSide, PickCube, PickSingle, StackCube, TurnFaucet
from reprise.envs.maniskill.world import World

__all__ = ["EXPERTS", "run_expert"]

Array = np.ndarray
DOWN = np.array([0.0, 0.0, -1.0])


def _shift(pose: Array, offset: Any) -> Array:
    """A pose moved by an offset (3,) in the world."""
    return make_pose(np.ascontiguousarray(pose[:3, :3]), pose[:3, 3] + offset)


def _back(pose: Array, distance: float) -> Array:
    """A pose moved back along the direction in which the hand points."""
    return _shift(pose, -distance * pose[:3, 2])


def _first_reachable(planner: Planner, grasps: list[Array], back: float, avoid: list[int]) -> Array:
    """The first grasp that can be reached from behind, and lifted from, with the open hand free there."""
    volume = hand_points(0.04)
    for grasp in grasps:
        hand = grasp[:3, 3] + volume @ grasp[:3, :3].T
        if avoid and signed_distance(planner.world, avoid, hand).min() < 0.001:
            continue
        try:
            behind = _back(grasp, back)
            q = planner.path(planner.tcp(), planner.q, behind)[-1]
            q = planner.path(behind, q, grasp)[-1]
            planner.path(grasp, q, _shift(grasp, [0, 0, 0.1]))
            return grasp
        except Unreachable:
            continue
    raise Unreachable


def _take(planner: Planner, grasps: list[Array], back: float = 0.1, avoid: tuple[str, ...] = ()) -> Array:
    """Approach, close the fingers; the pose at which they closed. Bodies to avoid are given by name."""
    grasp = _first_reachable(planner, grasps, back, [geom for name in avoid for geom in planner.world.geoms_of(name)])
    planner.move(_back(grasp, back), settle=0.2)
    planner.move(grasp, speed=0.25)
    planner.grip(-1.0)
    return grasp


def _cube_grasps(planner: Planner, cube: Array) -> list[Array]:
    """From above, fingers along an edge."""
    poses = [make_pose(pointing(DOWN, side * cube[:3, axis]), cube[:3, 3]) for axis in (0, 1) for side in (1, -1)]
    return planner.nearest(poses)


def pick_cube(world: PickCube, planner: Planner) -> None:
    """Grasp from above, carry the cube to the goal, hold still."""
    grasp = _take(planner, _cube_grasps(planner, world.pose("cube")))
    planner.move(_shift(grasp, world.goal - world.position("cube")))
    planner.move(_shift(planner.tcp(), world.goal - world.position("cube")))
    planner.wait()


def stack_cube(world: StackCube, planner: Planner) -> None:
    """Grasp A from above, lift it, carry it over B, lower it, let go, rise."""
    grasp = _take(planner, _cube_grasps(planner, world.pose("cubeA")), avoid=("cubeB",))
    planner.move(_shift(grasp, [0, 0, 0.1]), settle=0.2)
    goal = world.position("cubeB") + np.array([0, 0, 0.04])
    planner.move(_shift(planner.tcp(), goal - world.position("cubeA") + [0, 0, 0.05]), settle=0.1)
    planner.move(_shift(planner.tcp(), goal - world.position("cubeA")), speed=0.15)
    planner.grip(1.0, 6)
    planner.move(_shift(planner.tcp(), [0, 0, 0.06]))
    planner.wait()


def pick_single(world: PickSingle, planner: Planner) -> None:
    """The best grasp found on the object, then to the goal; once more if it slips."""
    rng = np.random.default_rng(0)
    geoms = world.geoms_of("object")
    for _ in range(3):
        grasps = [grasp.pose for grasp in find_grasps(world, geoms, world.centre(), rng)]
        both = [pose for grasp in grasps for pose in planner.nearest([grasp, grasp @ HALF_TURN])]
        _take(planner, both)
        planner.move(_shift(planner.tcp(), [0, 0, 0.02]))
        if world.is_grasping("object"):
            for _ in range(3):
                planner.move(_carry(planner, world.centre(), world.goal))
            planner.wait(10)
        planner.grip(1.0)
        planner.move(_shift(planner.tcp(), [0, 0, 0.1]), settle=0.2)


def _carry(planner: Planner, centre: Array, goal: Array) -> Array:
    """A pose of the TCP that takes what it holds from centre (3,) to goal (3,), turned about the vertical at need."""
    tcp = planner.tcp()
    for angle in (0.0, 0.5, -0.5, 1.0, -1.0, 1.6, -1.6, 2.4, -2.4):
        turn = exp_rotation(np.array([0.0, 0.0, angle]))
        pose = make_pose(turn @ tcp[:3, :3], goal + turn @ (tcp[:3, 3] - centre))
        try:
            planner.path(tcp, planner.q, pose)
            return pose
        except Unreachable:
            continue
    raise Unreachable


HALF_TURN = make_pose(np.diag([-1.0, -1.0, 1.0]), np.zeros(3))  # about the hand's axis: the fingers change places


def peg_insertion_side(world: PegInsertionSide, planner: Planner) -> None:
    """Grasp behind the middle, bring the peg in line before the hole, correct what is off, push in."""
    length = world.asset[0]
    peg = world.pose("peg")
    grip = peg[:3, 3] - 0.5 * length * peg[:3, 0]
    grasps = [make_pose(pointing(DOWN, side * peg[:3, 1]), grip) for side in (1, -1)]
    grasp = _take(planner, planner.nearest(grasps))
    planner.move(_shift(grasp, [0, 0, 0.1]), settle=0.2)

    def towards(x: float) -> Array:
        """The pose of the TCP that would bring the peg's head to x in the frame of the hole."""
        target = world.hole_pose() @ make_pose(np.eye(3), np.array([x - length, 0, 0]))
        in_hand = inverse(planner.tcp()) @ world.pose("peg")  # as commanded: what the peg's weight does is in it
        return target @ inverse(in_hand)

    planner.move(towards(-length - 0.05), settle=0.1)
    for _ in range(2):
        planner.move(towards(-length - 0.03))
    for x in np.linspace(-length, 0.0, 6):
        planner.move(towards(x), speed=0.15)
    planner.wait()


def turn_faucet(world: TurnFaucet, planner: Planner) -> None:
    """Closed fingers beside the handle, then round its axis; a better place to push from if they slip off."""
    rng = np.random.default_rng(0)
    planner.gripper = -1.0
    while True:
        try:
            approach, arc = _plan_push(world, planner, rng)
            planner.move(approach, settle=0.5, speed=0.8, turn=3.0)
            for pose in arc:
                planner.move(pose, settle=np.inf, speed=0.3)
            planner.wait(3)
        except Unreachable:
            pass
        planner.move(_back(planner.tcp(), 0.06), settle=1.0, speed=0.6)


def _plan_push(world: TurnFaucet, planner: Planner, rng: np.random.Generator) -> tuple[Array, list[Array]]:
    """A pose before the handle, and poses from behind it round the axis that push it as far as can be."""
    joint = world.data.joint("switch0")
    axis, anchor = joint.xaxis.copy(), joint.xanchor.copy()
    geoms = world.geoms_of("handle0")
    fixed = [geom for geom in np.flatnonzero(world.model.geom_contype == 1).tolist() if geom not in geoms]
    volume = hand_points(0.0)
    palm = volume[:, 2] < -0.05
    left = world.target - world.angle() + 0.2
    best: tuple[float, tuple[Array, list[Array]]] | None = None
    for _ in range(1500):
        geom = int(rng.choice(geoms))
        half = world.model.geom_aabb[geom, 3:]
        point = world.data.geom_xpos[geom] + world.data.geom_xmat[geom].reshape(3, 3) @ (rng.uniform(-1, 1, 3) * half)
        arm = point - anchor
        arm = arm - axis * (arm @ axis)
        radius = np.linalg.norm(arm)
        if radius < 0.02:
            continue
        tangent = np.cross(axis, arm) / radius
        lean, sideways = rng.choice([0.0, 0.4, 0.8]), rng.uniform(-1, 1)  # from straight down to away from the robot
        direction = np.array([np.sin(lean) * np.cos(sideways), np.sin(lean) * np.sin(sideways), -np.cos(lean)])
        turn = rng.uniform(0, np.pi)
        R = pointing(direction, np.array([np.cos(turn), np.sin(turn), 0.0]))
        # Back from the handle until the fingers are free of it.
        for distance in np.arange(0.01, 0.05, 0.004):
            start = make_pose(R, point - distance * tangent)
            if signed_distance(world, geoms, start[:3, 3] + volume @ R.T).min() > 0.003:
                break
        else:
            continue
        follows = rng.random() < 0.5
        share_of_all = rng.choice([1.0, 0.7, 0.5])  # the rest is left to the next push
        angle = share_of_all * left
        arc, swept, seen_by_handle = [], [volume @ R.T + _back(start, 0.05)[:3, 3]], []
        for share in np.linspace(0, 1, 9):
            turned = exp_rotation(axis * share * (angle + distance / radius))
            pose = make_pose(turned @ R if follows else R, anchor + turned @ (start[:3, 3] - anchor))
            arc.append(pose)
            swept.append(pose[:3, 3] + volume @ pose[:3, :3].T)
            handle = exp_rotation(axis * max(share * (angle + distance / radius) - distance / radius, 0.0))
            seen_by_handle.append((swept[-1] - anchor) @ handle + anchor)  # as if the hand moved and the handle did not
        cloud = np.concatenate(swept)
        free = min(signed_distance(world, fixed, cloud).min(), cloud[:, 2].min())
        touch = signed_distance(world, geoms, np.concatenate([swept[0], *seen_by_handle])).reshape(10, -1)
        if free < 0.004 or touch[0].min() < 0.004 or touch[:, palm].min() < 0.002 or touch.min() < -0.008:
            continue
        score = share_of_all + radius - 0.01 * lean + 0.5 * min(free, 0.02)
        if best is not None and score <= best[0]:
            continue
        try:
            approach = _back(start, 0.08)
            q = planner.path(planner.tcp(), planner.q, approach)[-1]
            for before, after in zip([approach, *arc], arc, strict=False):
                q = planner.path(before, q, after)[-1]
        except Unreachable:
            continue
        best = score, (approach, arc)
    if best is None:
        raise Unreachable
    return best[1]


def avoid_obstacles(world: AvoidObstacles, planner: Planner) -> None:
    """Along the way that is known to be free, joint by joint in proportion."""
    for q in world.route()[1:]:
        start = planner.q
        n = int(np.ceil(np.abs(q - start).max() / 0.04))
        planner.follow([start + share * (q - start) for share in np.arange(1, n + 1) / n], settle=0.05)
    planner.wait()


EXPERTS: dict[str, Callable[[Any, Planner], None]] = {
    "PickCube": pick_cube,
    "StackCube": stack_cube,
    "PickSingle": pick_single,
    "PegInsertionSide": peg_insertion_side,
    "TurnFaucet": turn_faucet,
    "AvoidObstacles": avoid_obstacles,
}


def run_expert(world: World, on_step: Callable[[Array], Any] = lambda action: None, limit: int | None = None) -> bool:
    """Act from the present state, just reset, until the task is done or time is up; whether it was done.

    Args:
        world: of a family with an expert, in control mode ``pd_joint_pos``.
        on_step: called with every action after the step.
        limit: number of actions; that of the family by default.

    Raises:
        ValueError: no expert for this family, or another control mode.

    Example:
        >>> world = PickCube(control_mode="pd_joint_pos")
        >>> world.reset(seed=3)
        >>> run_expert(world)
        True
    """
    family = type(world).__name__
    if family not in EXPERTS:
        raise ValueError(f"there is no expert for {family}; there are {', '.join(EXPERTS)}")
    planner = Planner(world, on_step, limit or world.max_episode_steps)
    with suppress(EpisodeOver, Unreachable):
        EXPERTS[family](world, planner)
    return not world.unstable and world.success()
