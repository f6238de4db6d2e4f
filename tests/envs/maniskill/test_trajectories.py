"""Demonstrations: experts, files, replay and conversion."""

from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest

from reprise.envs.maniskill import (
    CONVERTIBLE,
    EXPERTS,
    Demonstrations,
    Trajectory,
    convert,
    demonstrate,
    load_demonstrations,
    make_world,
    replay,
    run_expert,
    save_demonstrations,
)
from reprise.envs.maniskill.controllers import ARM_MODES


@pytest.fixture(scope="module")
def cubes():
    return demonstrate("PickCube", [{"seed": seed} for seed in (1000, 1001)])


@pytest.mark.parametrize("family", EXPERTS)
def test_experts_solve_their_family(family):
    done = demonstrate(family, [{"seed": seed} for seed in (1000, 1001, 1003)])
    assert len(done.trajectories) >= 2
    for trajectory in done.trajectories:
        assert trajectory.success[-1] and not trajectory.success[:-1].any()
        assert trajectory.env_states.shape[0] == len(trajectory.actions) + 1


def test_an_expert_in_another_mode_or_family_is_refused():
    with pytest.raises(ValueError, match="experts act in pd_joint_pos, but this world takes pd_joint_vel"):
        run_expert(make_world("PickCube", control_mode="pd_joint_vel"))
    with pytest.raises(ValueError, match="no expert for OpenCabinetDoor; there are PickCube, "):
        run_expert(make_world("OpenCabinetDoor"))


def test_a_replay_is_exact_and_records_what_is_asked(cubes):
    again = replay(cubes, obs_mode="state")
    for before, after in zip(cubes.trajectories, again.trajectories, strict=True):
        assert np.array_equal(before.env_states, after.env_states)
        assert after.obs["state"].shape == (len(after.actions) + 1, 48)
    forced = replay(cubes, use_env_states=True)
    assert np.array_equal(forced.trajectories[0].env_states, cubes.trajectories[0].env_states)


@pytest.mark.parametrize("mode", CONVERTIBLE)
def test_conversion_keeps_the_motion(cubes, mode):
    converted = convert(cubes, mode, keep_failures=True)
    for trajectory in converted.trajectories:
        assert trajectory.control_mode == mode and np.abs(trajectory.actions).max() <= 1
        assert trajectory.actions.shape[1] == (
            4 if mode.endswith("delta_pos") and "ee" in mode else 7 + ("joint" in mode)
        )
    if mode in ("pd_joint_delta_pos", "pd_joint_target_delta_pos", "pd_ee_delta_pose", "pd_ee_target_delta_pose"):
        assert all(trajectory.success[-1] for trajectory in converted.trajectories)


def test_numbers_fed_to_the_wrong_controller_fail(cubes):
    wrong = dataclasses.replace(cubes, control_mode="pd_joint_delta_pos")
    assert not any(trajectory.success.any() for trajectory in replay(wrong).trajectories)


def test_there_and_back_gives_identical_states():
    """Joint positions that need no clipping, to deltas and back."""
    world = make_world("PickCube", control_mode="pd_joint_pos")
    world.reset(5)
    start = world.arm_qpos()
    rng = np.random.default_rng(0)
    actions = np.cumsum(rng.uniform(-0.01, 0.01, (10, 7)), 0) + start
    actions = np.concatenate([actions, np.ones((10, 1))], 1).astype(np.float32)
    states = np.zeros((11, len(world.get_state())))
    made = Demonstrations("PickCube", {}, [_trajectory(actions, states)], "pd_joint_pos")
    first = replay(made)
    there = convert(first, "pd_joint_delta_pos", keep_failures=True)
    back = convert(there, "pd_joint_pos", keep_failures=True)
    assert len(there.trajectories[0].actions) == len(back.trajectories[0].actions) == 10
    np.testing.assert_allclose(
        there.trajectories[0].env_states[:, :9], first.trajectories[0].env_states[:, :9], atol=1e-6
    )
    np.testing.assert_allclose(back.trajectories[0].actions, actions, atol=1e-6)
    np.testing.assert_allclose(
        back.trajectories[0].env_states[:, :9], first.trajectories[0].env_states[:, :9], atol=1e-6
    )


def _trajectory(actions, states):
    return Trajectory(actions, np.zeros(len(actions), bool), states, {"seed": 5}, "pd_joint_pos")


def test_a_clipped_action_is_followed_by_a_second():
    """A jump of 0.15 rad takes two steps of at most 0.1; one of 0.5 takes no more than two either."""
    world = make_world("PickCube", control_mode="pd_joint_pos")
    world.reset(5)
    state = world.get_state()
    for jump, steps in ((0.05, 1), (0.15, 2), (0.5, 2)):
        action = np.append(world.arm_qpos() + jump, 1.0).astype(np.float32)[None]
        made = Demonstrations("PickCube", {}, [_trajectory(action, np.stack([state, state]))], "pd_joint_pos")
        converted = convert(made, "pd_joint_delta_pos", keep_failures=True).trajectories[0]
        assert len(converted.actions) == steps
        if steps == 2:
            np.testing.assert_allclose(converted.actions[0, :7], 1)


def test_files(cubes, tmp_path):
    observed = replay(cubes, obs_mode="state_dict")
    path = tmp_path / "trajectory.state_dict.pd_joint_pos.h5"
    save_demonstrations(observed, path)
    with h5py.File(path) as file:
        assert sorted(file) == ["traj_0", "traj_1"]
        group = file["traj_0"]
        assert group["actions"].dtype == np.float32 and group["success"].dtype == bool
        assert len(group["env_states"]) == len(group["actions"]) + 1
        assert group["obs/agent/qpos"].shape == (len(group["actions"]) + 1, 9)
    read = load_demonstrations(path)
    assert (read.family, read.control_mode, read.obs_mode) == ("PickCube", "pd_joint_pos", "state_dict")
    for before, after in zip(observed.trajectories, read.trajectories, strict=True):
        assert before.reset_kwargs == after.reset_kwargs
        assert np.array_equal(before.actions, after.actions) and np.array_equal(before.env_states, after.env_states)
    assert np.array_equal(replay(read).trajectories[1].env_states, cubes.trajectories[1].env_states)
    assert len(load_demonstrations(path, only=[1]).trajectories) == 1


def test_damaged_files_are_refused(cubes, tmp_path):
    path = tmp_path / "demos.h5"
    with pytest.raises(FileNotFoundError, match="HDF5 file with a JSON file of its name beside it"):
        load_demonstrations(path)
    save_demonstrations(cubes, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"demos\.h5 or its JSON file is damaged"):
        load_demonstrations(path)
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        del file["traj_1/env_states"]
    with pytest.raises(ValueError, match="is damaged"):
        load_demonstrations(path)
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        file["traj_0/actions"][3] = np.nan
    with pytest.raises(ValueError, match="traj_0 has actions or states that are not finite"):
        load_demonstrations(path)
    path.write_bytes(whole)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        load_demonstrations(path)


def test_demonstrations_of_another_controller_are_refused(cubes):
    with pytest.raises(ValueError, match="in pd_joint_pos, not in pd_joint_vel; convert"):
        replay(cubes, control_mode="pd_joint_vel")
    for mode in set(ARM_MODES) - set(CONVERTIBLE):
        with pytest.raises(ValueError, match=f"no conversion from pd_joint_pos to {mode}"):
            convert(cubes, mode)
