"""Experts and the episodes that they leave."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from reprise.data import Windows
from reprise.data.lerobot import read_lerobot, write_lerobot
from reprise.envs.tabletop import (
    ALL_TASKS,
    PROPRIOCEPTION,
    STAGES,
    STRATEGIES,
    Expert,
    Tabletop,
    demonstrate,
    phrases,
    states,
    with_pictures,
)

EVERY = [(task.name, way) for task in ALL_TASKS.values() for way in STRATEGIES[task.verb]]


@pytest.mark.parametrize("way", [0, 1])
def test_experts_do_every_task_in_every_way(way: int) -> None:
    names = [name for name in ALL_TASKS for _ in range(3)]
    env = Tabletop(len(names), tasks=tuple(ALL_TASKS))
    env.reset(seed=1000, options={"task": names})
    experts = [
        Expert(ALL_TASKS[name], scene, STRATEGIES[ALL_TASKS[name].verb][way], np.random.default_rng(i))
        for i, (name, scene) in enumerate(zip(names, env.scenes, strict=True))
    ]
    done = np.zeros(len(names), bool)
    for _ in range(60):
        done |= env.step(np.stack([next(expert) for expert in experts]))[2]
    assert done.mean() >= 0.9
    assert done.reshape(-1, 3).any(1).all()


@pytest.fixture(scope="module")
def episodes():
    return demonstrate(("press", "lift-red"), per_task=4, seed=3)


def test_episodes_have_what_they_promise(episodes) -> None:
    assert len(episodes) == 8
    names = list(ALL_TASKS)
    for i, episode in enumerate(episodes):
        name = "press" if i < 4 else "lift-red"
        assert names[episode.extras["task"][0]] == name
        assert episodes.instructions[i] in phrases(name)
        assert episode.extras["strategy"][0] == i % 2
        assert np.ptp(episode.extras["stage"]) > 0 and episode.extras["stage"].max() < len(STAGES)
    assert_allclose(states(episodes.extras["qpos"]), episodes.observations["state"], atol=1e-5)
    assert np.abs(episodes.actions).max() <= 1


def test_an_episode_depends_on_seed_task_and_number_alone(episodes) -> None:
    fewer = demonstrate(("lift-red",), per_task=2, seed=3, num_envs=1)
    assert_array_equal(fewer.actions, episodes[[4, 5]].actions)
    assert fewer.instructions == episodes[[4, 5]].instructions
    other = demonstrate(("lift-red",), per_task=1, seed=4, num_envs=1)
    assert not np.array_equal(other.observations["state"][0], fewer.observations["state"][0])


def test_recorded_actions_lead_to_success_again(episodes) -> None:
    env = Tabletop(1, tasks=("lift-red",), autoreset=False)
    episode = demonstrate(("lift-red",), per_task=1, seed=5)
    env.reset(seed=0, options={"task": "lift-red"})
    env.qpos[0] = episode.extras["qpos"][0]
    env.qvel[:] = 0
    assert [env.step(action[None])[2][0] for action in episode.actions][-1]


def test_one_strategy_can_be_asked_for() -> None:
    episodes = demonstrate(("rotate",), per_task=3, seed=0, strategies=("clockwise",))
    turned = [scene[-1] - scene[0] for scene in np.split(_yaws(episodes), episodes.ends[:-1])]
    assert all(turn < -1 for turn in turned)


def _yaws(episodes) -> np.ndarray:
    state = episodes.observations["state"]
    return np.unwrap(np.arctan2(state[:, 22], state[:, 21]))


def test_noise_disturbs_what_is_done_and_not_what_is_recorded() -> None:
    calm, shaken = (demonstrate(("press",), per_task=2, seed=0, noise=noise) for noise in (0.0, 0.15))
    first = [episodes.observations["state"][0] for episodes in (calm, shaken)]
    assert_array_equal(first[0], first[1])
    assert_array_equal(calm.actions[0], shaken.actions[0])
    assert not np.allclose(calm.observations["state"][1], shaken.observations["state"][1], atol=1e-4)


def test_a_detour_takes_longer() -> None:
    straight, round_about = (demonstrate(("press",), per_task=3, seed=0, detours=share).steps for share in (0.0, 1.0))
    assert round_about > straight + 6


def test_pictures_are_those_of_the_environment(episodes) -> None:
    pictures = with_pictures(episodes, "workshop", (32, 32))
    env = Tabletop(1, "image", style="workshop", image_size=(32, 32))
    env.reset(seed=0)
    env.qpos[0] = episodes.extras["qpos"][7]
    observed = env.observe(np.array([0]))
    assert np.mean(abs(observed["image"][0].astype(int) - pictures.observations["image"][7]) > 8) < 0.005
    assert_allclose(observed["state"][0], episodes.observations["state"][7, PROPRIOCEPTION], atol=1e-5)


def test_they_survive_being_written_and_read(episodes, tmp_path) -> None:
    write_lerobot(episodes, tmp_path / "table", fps=20)
    again = read_lerobot(tmp_path / "table")
    assert again.instructions == episodes.instructions
    assert_array_equal(again.actions, episodes.actions)
    batch = Windows(again, future=8, goal="final")[np.arange(4)]
    assert batch["actions"].shape == (4, 8, 5)


def test_wrong_input_is_refused(episodes) -> None:
    with pytest.raises(ValueError, match="unknown task 'juggle'"):
        demonstrate(("juggle",), per_task=1)
    with pytest.raises(ValueError, match="none of hook does press; there are closed, spread"):
        demonstrate(("press",), per_task=1, strategies=("hook",))
    with pytest.raises(ValueError, match="press is done by closed, spread, not by 'hook'"):
        Expert(ALL_TASKS["press"], Tabletop(1).scenes[0], "hook", np.random.default_rng(0))
    with pytest.raises(ValueError, match="lack"):
        with_pictures(type(episodes)(episodes.observations, episodes.actions, episodes.ends))
    with pytest.raises(RuntimeError, match="failed at place-red-left 10 times in a row"):
        demonstrate(("place-red-left",), per_task=1, num_envs=1, max_episode_steps=4)
