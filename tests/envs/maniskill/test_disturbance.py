"""Demonstrations that show how to recover."""

from __future__ import annotations

import numpy as np
import pytest

from reprise.envs.maniskill import demonstrate, make_world
from reprise.envs.maniskill.disturbance import disturb


@pytest.fixture(scope="module")
def cubes():
    return demonstrate("PickCube", [{"seed": seed} for seed in (1000, 1001)])


def test_without_disturbances_the_recorded_actions_are_those_performed(cubes):
    (first, *_) = disturb(cubes, "pd_ee_delta_pose_align", np.random.default_rng(0), chance=0.0).trajectories
    world = make_world("PickCube", control_mode="pd_ee_delta_pose_align")
    world.reset(**first.reset_kwargs)
    for action in first.actions:
        world.set_action(action)
        world.step()
    assert world.success()
    np.testing.assert_allclose(world.get_state(), first.env_states[-1], atol=1e-6)


def test_disturbed_the_recorded_actions_lead_back(cubes):
    (first, *_) = disturb(cubes, "pd_ee_delta_pose_align", np.random.default_rng(0), chance=1.0).trajectories
    calmly = disturb(cubes, "pd_ee_delta_pose_align", np.random.default_rng(0), chance=0.0).trajectories
    (calm,) = (one for one in calmly if one.reset_kwargs == first.reset_kwargs)
    steps = 8
    strayed = first.obs["state"][1:steps, 25:28] - calm.obs["state"][1:steps, 25:28]  # where the hand is
    led = first.actions[1:steps, :3] - calm.actions[1:steps, :3]
    assert (strayed * led).sum() < -0.5 * np.linalg.norm(strayed) * np.linalg.norm(led)


def test_pauses_are_left_out_and_the_gripper_is_given_time(cubes):
    hurried = disturb(cubes, "pd_ee_delta_pose_align", np.random.default_rng(0), chance=0.0, patience=3).trajectories[0]
    assert len(hurried.actions) < len(cubes.trajectories[0].actions) - 5
    assert hurried.success[-1]


def test_it_follows_joint_positions_with_the_hand_alone(cubes):
    with pytest.raises(ValueError, match="no action"):
        disturb(cubes, "pd_joint_delta_pos", np.random.default_rng(0))
