"""The vector environment of all families: nested observations, seeds, processes, episodes to compare policies on."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from reprise.envs.maniskill import FAMILIES, evaluate, evaluation_episodes, make_world
from reprise.envs.maniskill.tasks import PickCube
from reprise.envs.registration import WORLDS

SMALL = {"obs_mode": "rgbd", "image_size": (12, 16), "control_mode": "pd_ee_delta_pose"}


def leaves(tree, path=""):
    if not isinstance(tree, dict):
        return {path: tree}
    return {name: leaf for key, inner in tree.items() for name, leaf in leaves(inner, f"{path}/{key}").items()}


def assert_equal(first, second):
    first, second = leaves(first), leaves(second)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def test_every_family_is_registered():
    registered = {entry["family"] for entry in WORLDS.values() if "family" in entry}
    assert registered == set(FAMILIES)


@pytest.mark.filterwarnings("ignore:.*A Box observation space.*")
def test_pictures_without_opengl(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    env = gymnasium.make("reprise/PickCube-v0", obs_mode="rgbd", control_mode="pd_ee_delta_pose", image_size=(12, 16))
    check_env(env.unwrapped, skip_render_check=True)
    observation, _ = env.reset(seed=0)
    assert len(np.unique(observation["image"]["base_camera"]["rgb"].reshape(-1, 3), axis=0)) > 10
    drawn = gymnasium.make("reprise/PickCube-v0", render_mode="rgb_array", picture_size=(60, 80))
    drawn.reset(seed=0)
    assert drawn.render().shape == (60, 80, 3)


def test_any_number_of_workers_gives_the_same_bits():
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 3, 7)).astype(np.float32)
    runs = []
    for options in ({}, {"workers": 2}):
        env = gymnasium.make_vec("reprise/PegInsertionSide-v0", 3, max_episode_steps=4, **SMALL, **options)
        assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
        observation, info = env.reset(seed=5)
        run = [observation, info["episode_seed"]]
        for action in actions:
            observation, reward, terminated, truncated, info = env.step(action)
            run += [observation, reward, terminated, truncated, info["peg_head_pos_at_hole"]]
            if "final_obs" in info:
                run += list(info["final_obs"])
        runs.append(run)
        env.close()
    assert len(runs[0]) == len(runs[1]) > 2 + 5 * len(actions)  # episodes have ended on the way
    for one, other in zip(*runs, strict=True):
        assert_equal(one, other)


def test_an_environment_does_not_depend_on_the_others():
    single = gymnasium.make("reprise/PickCube-v0")
    env = gymnasium.make_vec("reprise/PickCube-v0", 3)
    together, _ = env.reset(seed=4)
    for i in range(3):
        assert np.array_equal(single.reset(seed=4 + i)[0], together[i])


def test_an_episode_can_be_asked_for():
    env = gymnasium.make_vec("reprise/PickSingle-v0", 2)
    options = {"episode_seed": np.array([[2**31], [2**31 + 1]]), "model_id": np.array([[3], [220]])}
    observations, infos = env.reset(options=options)
    assert infos["model_id"].tolist() == [3, 220] and infos["episode_seed"].tolist() == [2**31, 2**31 + 1]
    world = make_world("PickSingle")
    world.reset(2**31 + 1, model_id=220)
    assert np.array_equal(observations[1], world.observe())


def test_what_is_found_of_an_episode_does_not_depend_on_the_others(monkeypatch):
    """Success is made to be: the hand has sunk to a height that differs between episodes."""
    monkeypatch.setattr(
        PickCube, "evaluate", lambda self: {"success": self.tcp()[2] < 0.1 + 0.5 * self.position("cube")[0]}
    )
    episodes = evaluation_episodes("PickCube")[:5]

    def sink(observations):
        return np.tile([0, 0, 0.2, 0, 0, 0, 1.0], (len(observations), 1))

    options = {"also": {"near": lambda world: world.tcp()[2] < 0.12}, "max_episode_steps": 16}
    alone = evaluate(sink, "PickCube", episodes, num_envs=1, **options)
    together = evaluate(sink, "PickCube", episodes, num_envs=3, **options)
    assert 0 < alone["near"].sum() < len(episodes)
    for name, values in alone.items():
        np.testing.assert_array_equal(values, together[name])
    assert len(set(alone["steps"].tolist())) > 2 and alone["success"].any()
    assert (alone["model_id"] == -1).all()
    with pytest.raises(ValueError, match="no episodes"):
        evaluate(sink, "PickCube", [])
