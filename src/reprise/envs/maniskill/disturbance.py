"""Demonstrations that show how to recover: the hand is jolted on its way, and the way back is what is recorded.

Who clones demonstrations learns nothing about states that no expert ever came to, and drifts into them. Here an
expert's motion is followed under disturbances, and every recorded action leads from where the hand is to where it
should be.

Source: Laskey, Lee, Fox, Dragan and Goldberg, DART: Noise Injection for Robust Imitation Learning, CoRL 2017.
"""

from __future__ import annotations

import numpy as np

from reprise.envs.maniskill.controllers import EndEffectorPose
from reprise.envs.maniskill.panda import forward_kinematics
from reprise.envs.maniskill.trajectories import Demonstrations, Recorder, Trajectory
from reprise.envs.maniskill.world import World

__all__ = ["disturb"]

Array = np.ndarray
REST = 10  # steps at the end, if success needs the arm to be at rest


def disturb(
    demonstrations: Demonstrations,
    control_mode: str,
    rng: np.random.Generator,
    *,
    copies: int = 1,
    chance: float = 0.3,
    size: float = 0.1,
    patience: int = 3,
    obs_mode: str = "state",
) -> Demonstrations:
    """Follow demonstrations with another controller while the hand is pushed about.

    The recorded actions are those that lead back, not those that were performed: a replay does not end where the
    recording does.

    Args:
        demonstrations: in ``pd_joint_pos``.
        control_mode: one that moves the hand to a target pose, say ``pd_ee_target_delta_pose``.
        rng: draws the disturbances.
        copies: how often each demonstration is followed, with other disturbances.
        chance: of a disturbance in a step.
        size: standard deviation of what is added to each number of the arm's action, in the action's units.
        patience: steps that the gripper is given to open or close. All other pauses of the expert are left out: who
            clones them stands still for good, since nothing that is seen says when they are over.
        obs_mode: of the observations to record.

    Returns:
        Those that end in success.

    Raises:
        ValueError: demonstrations in another mode, or a controller that does not move the hand.

    Example:
        >>> from reprise.envs.maniskill.trajectories import demonstrate
        >>> demos = demonstrate("PickCube", [{"seed": 3}])
        >>> jolted = disturb(demos, "pd_ee_target_delta_pose", np.random.default_rng(0), copies=2)
        >>> len(jolted.trajectories), jolted.trajectories[0].obs["state"].shape[1]
        (2, 60)
    """
    if demonstrations.control_mode != "pd_joint_pos":
        raise ValueError(f"demonstrations in pd_joint_pos can be followed, not in {demonstrations.control_mode}")
    world = demonstrations.world(control_mode=control_mode, obs_mode=obs_mode)
    if not isinstance(world.controller.parts["arm"], EndEffectorPose):
        raise ValueError(f"the hand is led by a pose, for which {control_mode} has no action")
    followed = [
        _follow(world, trajectory, rng, chance, size, patience)
        for trajectory in demonstrations.trajectories
        for _ in range(copies)
    ]
    kept = [recorder.trajectory() for recorder in followed if recorder.success[-1:] == [True]]
    return Demonstrations(demonstrations.family, demonstrations.options, kept, control_mode, obs_mode)


def _follow(
    world: World, trajectory: Trajectory, rng: np.random.Generator, chance: float, size: float, patience: int
) -> Recorder:
    world.reset(**trajectory.reset_kwargs)
    recorder = Recorder(world, trajectory.reset_kwargs)
    arm = world.controller.parts["arm"]
    assert isinstance(arm, EndEffectorPose)
    hurried = trajectory.actions[_moving(trajectory.actions, patience)]
    for wanted in np.concatenate([hurried, np.repeat(hurried[-1:], REST, 0)]):
        back = np.clip(arm.action_towards(forward_kinematics(wanted[:-1].astype(float))), -1, 1)
        push = size * rng.normal(size=len(back)) * (rng.random() < chance)
        world.set_action(np.append(back + push, wanted[-1]))
        world.step()
        recorder(np.append(back, wanted[-1]))
        if recorder.success[-1] or world.unstable:
            break
    return recorder


def _moving(actions: Array, patience: int) -> Array:
    """Whether each action is performed: those that move the arm, and some from where the gripper is told another."""
    moved = np.abs(np.diff(actions, axis=0, prepend=np.inf)).max(1) > 1e-6
    gripped = np.diff(actions[:, -1], prepend=actions[0, -1]) != 0
    for step in np.flatnonzero(gripped):
        moved[step : step + patience] = True
    return moved
