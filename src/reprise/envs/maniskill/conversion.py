"""Conversion of demonstrations between controllers: the same motion in another one's actions.

Source: Gu et al., ManiSkill2, ICLR 2023, section 3.4 and appendix (converting demonstrations).
"""

from __future__ import annotations

import numpy as np

from reprise.envs.maniskill.controllers import CombinedController, EndEffectorPose, JointPosition, JointVelocity
from reprise.envs.maniskill.panda import forward_kinematics
from reprise.envs.maniskill.trajectories import Demonstrations, Recorder, Trajectory
from reprise.envs.maniskill.world import World

__all__ = ["CONVERTIBLE", "convert"]

Array = np.ndarray

# arm modes into which demonstrations in pd_joint_pos can be converted
CONVERTIBLE = (
    "pd_joint_delta_pos",
    "pd_joint_target_delta_pos",
    "pd_joint_vel",
    "pd_ee_delta_pos",
    "pd_ee_delta_pose",
    "pd_ee_target_delta_pos",
    "pd_ee_target_delta_pose",
)


def convert(
    demonstrations: Demonstrations,
    control_mode: str,
    *,
    obs_mode: str = "none",
    use_env_states: bool = False,
    keep_failures: bool = False,
) -> Demonstrations:
    """Express demonstrations in another controller's actions, by following the old ones with the new.

    Two worlds run side by side. After each step of the first, the second is given the action that takes it to where the
    first was told to go. Where that action had to be clipped, a second one follows, computed anew from where the first
    one led. Only trajectories that end in success are kept.

    Args:
        demonstrations: in ``pd_joint_pos``, or ``pd_joint_delta_pos`` to come back from there.
        control_mode: one of :data:`CONVERTIBLE`, or ``pd_joint_pos`` to come back from ``pd_joint_delta_pos``.
        obs_mode: of the observations to record.
        use_env_states: put the second world into the state of the first after every step.
        keep_failures: keep all.

    Raises:
        ValueError: a pair of modes between which there is no conversion.

    Example:
        >>> from reprise.envs.maniskill.trajectories import demonstrate
        >>> demos = demonstrate("PickCube", [{"seed": 3}])
        >>> converted = convert(demos, "pd_ee_delta_pose")
        >>> converted.trajectories[0].actions.shape[1], converted.trajectories[0].success[-1]
        (7, np.True_)
    """
    source_mode = demonstrations.control_mode
    forwards = source_mode == "pd_joint_pos" and control_mode in CONVERTIBLE
    backwards = (source_mode, control_mode) == ("pd_joint_delta_pos", "pd_joint_pos")
    if not (forwards or backwards):
        raise ValueError(
            f"no conversion from {source_mode} to {control_mode}; there is one from pd_joint_pos to "
            f"{', '.join(CONVERTIBLE)}, and one from pd_joint_delta_pos to pd_joint_pos"
        )
    source = demonstrations.world(obs_mode="none")
    world = demonstrations.world(control_mode=control_mode, obs_mode=obs_mode)
    converted = []
    for trajectory in demonstrations.trajectories:
        recorder = _follow(source, world, trajectory, use_env_states)
        if keep_failures or recorder.success[-1:] == [True]:
            converted.append(recorder.trajectory())
    return Demonstrations(demonstrations.family, demonstrations.options, converted, control_mode, obs_mode)


def _follow(source: World, world: World, trajectory: Trajectory, use_env_states: bool) -> Recorder:
    source.reset(**trajectory.reset_kwargs)
    world.reset(**trajectory.reset_kwargs)
    recorder = Recorder(world, trajectory.reset_kwargs)
    for action in trajectory.actions:
        source.set_action(action)
        targets = source.controller.parts["arm"].target.copy()  # type: ignore[attr-defined]
        source.step()
        for _ in range(2):
            arm, clipped = _towards(world.controller, targets, world.control_freq)
            follow = np.append(arm, action[-1]).astype(np.float32)
            world.set_action(follow)
            world.step()
            if use_env_states:
                kept = world.controller.get_state()
                world.set_state(source.get_state())
                world.controller.set_state(kept)
            recorder(follow)
            if not clipped or recorder.success[-1]:
                break
        if recorder.success[-1] or world.unstable:
            break
    return recorder


def _towards(controller: CombinedController, targets: Array, control_freq: int) -> tuple[Array, bool]:
    """The action of the arm that drives its joints to targets (7,), and whether it had to be clipped."""
    arm = controller.parts["arm"]
    if isinstance(arm, EndEffectorPose):
        action = arm.action_towards(forward_kinematics(targets))
    elif isinstance(arm, JointVelocity):
        action = arm.unscale((targets - arm.drives.qpos) * control_freq)
    elif isinstance(arm, JointPosition):
        origin = arm.target if arm.use_target else arm.drives.qpos
        action = arm.unscale(targets - origin if arm.delta else targets)
    else:
        raise TypeError(f"no conversion to {type(arm).__name__}")
    if not arm.normalized:
        return action, False
    within = np.clip(action, -1, 1)
    if len(action) == 6:  # a rotation is clipped by its length
        within[3:] = action[3:] / max(np.linalg.norm(action[3:]), 1.0)
    return within, bool(np.abs(within - action).max() > 1e-9)
