"""Every controller against the closed form of its definition: targets, frames, clipping, gains."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from reprise.envs.maniskill.controllers import ARM_JOINTS, EndEffectorPose, control_modes, make_controller
from reprise.envs.maniskill.env import make_world
from reprise.envs.maniskill.panda import ARM_LIMITS, HOME, forward_kinematics

DIMENSIONS = {
    "pd_joint_pos": 7, "pd_joint_delta_pos": 7, "pd_joint_target_delta_pos": 7, "pd_ee_delta_pos": 3,
    "pd_ee_delta_pose": 6, "pd_ee_delta_pose_align": 6, "pd_ee_target_delta_pos": 3, "pd_ee_target_delta_pose": 6,
    "pd_joint_vel": 7, "pd_joint_pos_vel": 14, "pd_joint_delta_pos_vel": 14, "pd_ee_pose": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def world():
    return make_world("PickCube")


@pytest.fixture
def control(world):
    """A controller of a mode, with the robot at a given configuration."""

    def make(mode, q=HOME[:7], **options):
        world.reset(0)
        world.data.qpos[:7] = q
        return make_controller(mode, world.drives, **options)

    return make


def push(world):
    """Kp times the position targets and Kd times the velocity targets that the drives hold."""
    return world.drives._push.copy()


def demanded(world):
    """The position targets that the drives of the arm hold."""
    return push(world)[:7] / 1000


def run(world, controller, periods):
    """Control periods of physics with whatever targets are set."""
    world.controller = controller
    for _ in range(periods):
        world.step()


TILTED = np.clip(HOME[:7] + np.array([0.3, -0.2, 0.4, 0.3, -0.5, 0.2, 0.6]), *ARM_LIMITS.T)


@pytest.mark.parametrize("mode", DIMENSIONS)
def test_dimensions_and_bounds(control, mode):
    space = control(mode).action_space
    assert space.shape == (DIMENSIONS[mode] + 1,)
    if mode in ("pd_joint_pos", "pd_joint_pos_vel"):
        np.testing.assert_allclose(space.low[:7], ARM_LIMITS[:, 0], rtol=1e-6)
        np.testing.assert_allclose(space.high[:7], ARM_LIMITS[:, 1], rtol=1e-6)
    elif mode != "pd_ee_pose":
        assert (space.low == -1).all() and (space.high == 1).all()
    assert set(control_modes()) == set(DIMENSIONS)


@pytest.mark.parametrize("mode", DIMENSIONS)
def test_scaling_maps_one_to_the_bounds_clips_beyond_and_inverts_exactly(control, mode):
    arm = control(mode).parts["arm"]
    a = np.random.default_rng(0).uniform(-0.5, 0.5, len(arm.low))
    np.testing.assert_allclose(arm.unscale(arm.scale(a)), a, rtol=0, atol=1e-15)
    if not arm.normalized:
        assert arm.scale(a) is a
        return
    ones = np.ones(len(arm.low))
    if len(ones) != 6:  # a rotation is clipped by its length
        np.testing.assert_allclose(arm.scale(ones), arm.high, rtol=1e-15)
        np.testing.assert_allclose(arm.scale(-ones), arm.low, rtol=1e-15)
        np.testing.assert_array_equal(arm.scale(2 * ones), arm.scale(ones))


def test_joint_pos(world, control):
    q = HOME[:7] + np.linspace(-0.2, 0.2, 7)
    controller = control("pd_joint_pos")
    controller.set_action(np.append(q, 1.0))
    np.testing.assert_allclose(demanded(world), q, rtol=1e-14)
    run(world, controller, 60)
    np.testing.assert_allclose(world.arm_qpos(), q, atol=1e-6)  # no gravity is left for the springs to carry


def test_gripper_takes_both_fingers_to_one_target(world, control):
    controller = control("pd_joint_pos")
    for action, target in ((1.0, 0.04), (-1.0, -0.01), (0.0, 0.015), (-3.0, -0.01)):
        controller.set_action(np.append(HOME[:7], action))
        np.testing.assert_allclose(push(world)[7:9] / 1000, [target, target], rtol=1e-12)


def test_delta_adds_to_where_the_joints_are(world, control):
    controller = control("pd_joint_delta_pos")
    a = np.linspace(-1, 1, 7)
    controller.set_action(np.append(a, 1.0))
    np.testing.assert_allclose(demanded(world), HOME[:7] + 0.1 * a, rtol=1e-14)
    run(world, controller, 1)
    q = world.arm_qpos()
    controller.set_action(np.append(a, 1.0))
    np.testing.assert_allclose(demanded(world), q + 0.1 * a, rtol=1e-14)  # what the joints lag behind is forgotten
    assert np.abs(q - HOME[:7] - 0.1 * a).max() > 0.02


def test_target_delta_accumulates_though_the_joints_lag(world, control):
    controller = control("pd_joint_target_delta_pos")
    for _ in range(10):
        controller.set_action(np.append(np.full(7, 0.1), 1.0))
        run(world, controller, 1)
    np.testing.assert_allclose(demanded(world), HOME[:7] + 0.1, rtol=1e-13)
    assert np.abs(world.arm_qpos() - HOME[:7] - 0.1).max() > 5e-3


@pytest.mark.parametrize("target", [False, True])
@pytest.mark.parametrize("dimensions", [3, 6])
def test_end_effector_frame(world, control, target, dimensions):
    """T * [exp(rotation), position]: the move is in the frame of the TCP."""
    name = f"pd_ee_{'target_' if target else ''}delta_{'pos' if dimensions == 3 else 'pose'}"
    controller = control(name, TILTED)
    action = np.array([0.3, -0.5, 0.2, 0.4, -0.3, 0.5])[:dimensions]
    origin = forward_kinematics(TILTED)
    for _ in range(2):
        step = np.eye(4)
        step[:3, 3] = 0.1 * action[:3]
        if dimensions == 6:
            step[:3, :3] = Rotation.from_rotvec(0.1 * action[3:]).as_matrix()
        controller.set_action(np.append(action, 1.0))
        np.testing.assert_allclose(forward_kinematics(demanded(world)), origin @ step, atol=3e-6)
        np.testing.assert_allclose(controller.parts["arm"].target_pose, origin @ step, atol=1e-12)
        run(world, controller, 1)
        origin = origin @ step if target else forward_kinematics(world.arm_qpos())


def test_aligned_frame(world, control):
    """Origin at the TCP, axes of the base: p + position, exp(rotation) R."""
    controller = control("pd_ee_delta_pose_align", TILTED)
    action = np.array([0.3, -0.5, 0.2, 0.4, -0.3, 0.5])
    origin = forward_kinematics(TILTED)
    controller.set_action(np.append(action, 1.0))
    reached = forward_kinematics(demanded(world))
    np.testing.assert_allclose(reached[:3, 3], origin[:3, 3] + 0.1 * action[:3], atol=3e-6)
    expected = Rotation.from_rotvec(0.1 * action[3:]).as_matrix() @ origin[:3, :3]
    np.testing.assert_allclose(reached[:3, :3], expected, atol=3e-6)


def test_base_frame(world, control):
    control("pd_joint_pos", TILTED)
    drives = world.drives.group(ARM_JOINTS)
    controller = EndEffectorPose(drives, np.full(6, -0.1), np.full(6, 0.1), frame="base")
    action = np.array([0.3, -0.5, 0.2, 0.1, -0.1, 0.2])
    step = np.eye(4)
    step[:3, :3], step[:3, 3] = Rotation.from_rotvec(0.1 * action[3:]).as_matrix(), 0.1 * action[:3]
    controller.set_action(action)
    np.testing.assert_allclose(forward_kinematics(demanded(world)), step @ forward_kinematics(TILTED), atol=3e-6)
    with pytest.raises(ValueError, match="unknown frame 'world'; there are ee, align, base"):
        EndEffectorPose(drives, np.full(6, -0.1), np.full(6, 0.1), frame="world")


@pytest.mark.parametrize("frame", EndEffectorPose.FRAMES)
@pytest.mark.parametrize("delta", [True, False])
def test_the_action_towards_a_pose_makes_it_the_target(world, control, frame, delta):
    control("pd_joint_pos", TILTED)
    drives = world.drives.group(ARM_JOINTS)
    controller = EndEffectorPose(drives, np.full(6, -0.1), np.full(6, 0.1), delta, delta=delta, frame=frame)
    pose = forward_kinematics(TILTED + 0.02)
    controller.set_action(controller.action_towards(pose))
    np.testing.assert_allclose(controller.target_pose, pose, atol=1e-12)


def test_a_hand_that_points_down_moves_down_along_its_own_z(world, control):
    up = np.array([0, 0, 0.5, 0, 0, 0, 1.0])
    control("pd_ee_delta_pose").set_action(up)
    assert forward_kinematics(demanded(world))[2, 3] == pytest.approx(0.1698 - 0.05, abs=1e-4)
    control("pd_ee_delta_pose_align").set_action(up)
    assert forward_kinematics(demanded(world))[2, 3] == pytest.approx(0.1698 + 0.05, abs=1e-4)


def test_a_rotation_is_clipped_by_its_length(control):
    arm = control("pd_ee_delta_pose").parts["arm"]
    axis = np.array([1.0, -2.0, 2.0]) / 3
    long, unit, short = (arm.scale(np.r_[0.1, 0.2, 0.3, size * axis]) for size in (5.0, 1.0, 0.3))
    np.testing.assert_allclose(long, unit, rtol=1e-15)
    np.testing.assert_allclose(unit[3:], 0.1 * axis)
    np.testing.assert_allclose(short[3:], 0.03 * axis)


def test_an_absolute_pose(world, control):
    controller = control("pd_ee_pose")
    pose = forward_kinematics(TILTED)
    action = np.r_[pose[:3, 3], Rotation.from_matrix(pose[:3, :3]).as_rotvec(), 1.0]
    controller.set_action(action)
    np.testing.assert_allclose(forward_kinematics(demanded(world)), pose, atol=3e-6)


def test_out_of_reach_the_arm_holds_where_it_is(world, control):
    controller = control("pd_ee_pose", TILTED)
    controller.set_action(np.r_[3.0, 0, 0, 0, 0, 0, 1.0])
    np.testing.assert_allclose(demanded(world), TILTED, rtol=1e-15)


def test_velocity_has_no_spring(world, control):
    controller = control("pd_joint_vel")
    a = np.r_[np.linspace(-1, 1, 7), 1.0]
    controller.set_action(a)
    np.testing.assert_allclose(push(world)[:7] / 100, a[:7])
    assert world.drives._gains[0].tolist() == [0, 100, 100]
    assert world.drives._gains[7].tolist() == [1000, 100, 100]  # of the fingers
    run(world, controller, 5)
    np.testing.assert_allclose(world.data.qvel[:7], a[:7], atol=0.02)


@pytest.mark.parametrize("mode", ["pd_joint_pos_vel", "pd_joint_delta_pos_vel"])
def test_position_and_velocity(world, control, mode):
    controller = control(mode)
    delta = mode == "pd_joint_delta_pos_vel"
    position, velocity = np.linspace(-0.5, 0.5, 7), np.linspace(0.8, -0.8, 7)
    controller.set_action(np.r_[position, velocity, 1.0])
    expected = HOME[:7] + 0.1 * position if delta else position
    np.testing.assert_allclose(push(world)[:7], 1000 * expected + 100 * velocity, rtol=1e-13)


def test_the_force_of_a_drive_is_the_formula_up_to_its_limit(world, control):
    controller = control("pd_joint_pos_vel")
    world.data.qvel[:7] = np.linspace(-0.3, 0.3, 7)
    target = HOME[:7] + np.array([0.01, -0.02, 0.03, 0.04, -0.05, 0.3, -0.3])
    controller.set_action(np.r_[target, np.full(7, 0.1), 1.0])
    force = 1000 * (target - HOME[:7]) + 100 * (0.1 - world.data.qvel[:7])
    np.testing.assert_allclose(controller.parts["arm"].drives.torque, np.clip(force, -100, 100), rtol=1e-9)
    assert (np.abs(force) > 100).sum() == 2


def test_targets_are_held_over_the_substeps_or_move_in_a_straight_line(world, control):
    target = np.append(HOME[:7] + 0.1, 1.0)
    held = control("pd_joint_pos")
    held.set_action(target)
    for _ in range(25):
        held.before_substep()
        np.testing.assert_allclose(demanded(world), target[:7], rtol=1e-14)
    moving = control("pd_joint_pos", interpolate=25)
    moving.set_action(target)
    for substep in range(1, 26):
        moving.before_substep()
        np.testing.assert_allclose(demanded(world), HOME[:7] + 0.1 * substep / 25, rtol=1e-13)


@pytest.mark.parametrize("mode", DIMENSIONS)
def test_reset_makes_the_present_state_the_target(world, control, mode):
    controller = control(mode)
    controller.set_action(0.3 * np.ones(DIMENSIONS[mode] + 1))
    world.data.qpos[:7] = TILTED
    controller.reset()
    np.testing.assert_allclose(demanded(world), 0 * TILTED if mode == "pd_joint_vel" else TILTED, rtol=1e-14)
    expected = {"target_qpos": TILTED, "target_pose": forward_kinematics(TILTED)[:3]}
    for name, value in controller.get_state().get("arm", {}).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-14)


@pytest.mark.parametrize("mode", ["pd_joint_target_delta_pos", "pd_ee_target_delta_pose"])
def test_the_state_of_a_controller_is_its_last_target(world, control, mode):
    action = np.full(DIMENSIONS[mode] + 1, 0.2)
    controller = control(mode)
    controller.set_action(action)
    state = controller.get_state()
    controller.set_action(action)
    first = push(world)
    controller.reset()
    controller.set_state(state)
    controller.set_action(action)
    assert np.array_equal(first, push(world))


def test_gravity_and_coriolis_forces_are_fed_forward(world, control):
    """Without drives a moving arm has M dv/dt = 0, although it is heavy and its joints turn each other."""
    controller = control("pd_joint_pos")
    world.drives.group(world.drives.joints, 0.0, 0.0).set_targets(0.0)
    world.data.qvel[:7] = [0.4, -0.3, 0.5, 0.2, -0.6, 0.3, 0.7]
    before = world.data.qvel[:7].copy()
    run(world, controller, 5)
    np.testing.assert_allclose(world.data.qvel[:7], before, atol=1e-9)


def test_wrong_actions_are_refused_and_change_nothing(world, control):
    controller = control("pd_ee_delta_pose")
    before = push(world)
    with pytest.raises(ValueError, match=r"has shape \(7,\) here \(arm 6, gripper 1\), not \(8,\)"):
        controller.set_action(np.zeros(8))
    with pytest.raises(ValueError, match="entry 2 is not"):
        controller.set_action(np.array([0, 0, np.nan, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match="unknown control mode 'pd_ee'; there are pd_joint_pos, "):
        make_controller("pd_ee", world.drives)
    assert np.array_equal(before, push(world))
