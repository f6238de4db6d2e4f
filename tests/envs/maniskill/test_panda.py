"""The arm: kinematics against MuJoCo's own and against the closed form of the table, and inverse kinematics."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from reprise.envs.maniskill.panda import (
    ARM_LIMITS,
    DH,
    HOME,
    forward_kinematics,
    inverse_kinematics,
    jacobian,
    panda_mjcf,
)
from reprise.envs.maniskill.poses import (
    exp_rotation,
    from_pose7,
    inverse,
    log_rotation,
    make_pose,
    rotation_to_quaternion,
    to_pose7,
)


@pytest.fixture(scope="module")
def arm():
    xml = f'<mujoco><compiler angle="radian"/><worldbody>{panda_mjcf((0, 0, 0))}</worldbody></mujoco>'
    model = mujoco.MjModel.from_xml_string(xml)
    return model, mujoco.MjData(model)


def draws(n, seed=0):
    return np.random.default_rng(seed).uniform(ARM_LIMITS[:, 0], ARM_LIMITS[:, 1], (n, 7))


def test_the_tcp_starts_where_the_table_puts_it():
    T = forward_kinematics(HOME)
    np.testing.assert_allclose(T[:3, 3], [0.6150, 0, 0.1698], atol=5e-5)
    np.testing.assert_allclose(T[:3, 2], [0, 0, -1], atol=1e-12)  # the hand points straight down


def test_kinematics_is_the_product_of_the_table():
    for q in draws(10):
        T = np.eye(4)
        for (a, alpha, d), angle in zip(DH, q, strict=True):
            link = np.eye(4)
            link[:3, :3] = Rotation.from_euler("x", alpha).as_matrix()
            link[0, 3] = a
            joint = np.eye(4)
            joint[:3, :3] = Rotation.from_euler("z", angle).as_matrix()
            joint[2, 3] = d
            T = T @ link @ joint
        hand = np.eye(4)
        hand[:3, :3] = Rotation.from_euler("z", -45, degrees=True).as_matrix()
        hand[2, 3] = 0.107 + 0.1034
        np.testing.assert_allclose(forward_kinematics(q), T @ hand, atol=1e-12)


def test_kinematics_and_jacobian_are_those_of_the_model(arm):
    model, data = arm
    J = np.empty((6, model.nv))
    for q in draws(20):
        data.qpos[:7] = q
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        tcp = data.site("tcp")
        np.testing.assert_allclose(forward_kinematics(q)[:3, 3], tcp.xpos, atol=1e-12)
        np.testing.assert_allclose(forward_kinematics(q)[:3, :3].ravel(), tcp.xmat, atol=1e-12)
        mujoco.mj_jacSite(model, data, J[:3], J[3:], tcp.id)
        np.testing.assert_allclose(jacobian(q), J[:, :7], atol=1e-12)


def test_limits_are_the_published_ones(arm):
    model, _ = arm
    assert model.jnt_range[:7].tolist() == ARM_LIMITS.tolist()
    assert model.jnt_range[7:].tolist() == [[0, 0.04]] * 2
    assert ARM_LIMITS[3].tolist() == [-3.0718, -0.0698]


def test_fingers_meet_at_the_tcp(arm):
    model, data = arm
    data.qpos[:] = 0
    mujoco.mj_kinematics(model, data)
    inner = [data.geom(name).xpos + sign * 0.005 * data.geom(name).xmat.reshape(3, 3)[:, 1]
             for name, sign in (("finger1", -1), ("finger2", 1))]  # fmt: skip
    np.testing.assert_allclose(inner[0], inner[1], atol=1e-12)
    tip = (data.site("tcp").xpos - inner[0]) @ data.site("tcp").xmat.reshape(3, 3)
    assert abs(tip[0]) < 1e-12 and abs(tip[1]) < 1e-12 and 0 < tip[2] < 0.027


def test_inverse_kinematics_reaches_what_is_near_and_refuses_what_is_far():
    rng = np.random.default_rng(1)
    for _ in range(50):
        q = np.clip(HOME[:7] + rng.normal(0, 0.3, 7), *ARM_LIMITS.T)
        target = forward_kinematics(q)
        found = inverse_kinematics(target, HOME)
        assert found is not None
        np.testing.assert_allclose(forward_kinematics(found), target, atol=2e-6)
        assert (found >= ARM_LIMITS[:, 0]).all() and (found <= ARM_LIMITS[:, 1]).all()
    assert inverse_kinematics(make_pose(np.eye(3), np.array([2.0, 0, 0])), HOME) is None


def test_inverse_kinematics_of_where_the_arm_is_moves_nothing():
    assert np.array_equal(inverse_kinematics(forward_kinematics(HOME), HOME), HOME[:7])


def test_rotations_are_those_of_scipy():
    rng = np.random.default_rng(2)
    for scale in (1e-9, 1e-3, 1.0, 3.0):
        vector = rng.normal(size=3)
        vector *= scale / np.linalg.norm(vector)
        R = exp_rotation(vector)
        np.testing.assert_allclose(R, Rotation.from_rotvec(vector).as_matrix(), atol=1e-12)
        np.testing.assert_allclose(log_rotation(R), vector, atol=1e-9)
        expected = Rotation.from_matrix(R).as_quat(canonical=True, scalar_first=True)
        np.testing.assert_allclose(rotation_to_quaternion(R), expected, atol=1e-12)
        T = make_pose(R, vector)
        np.testing.assert_allclose(from_pose7(to_pose7(T)), T, atol=1e-12)
        np.testing.assert_allclose(inverse(T) @ T, np.eye(4), atol=1e-12)
    for axis in np.eye(3):  # half turns, where the formula by the trace fails
        np.testing.assert_allclose(np.abs(log_rotation(exp_rotation(np.pi * axis))), np.pi * axis, atol=1e-9)
