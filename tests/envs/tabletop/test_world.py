"""The table: actions, observations, ends of episodes, sentences, styles."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.testing import assert_allclose, assert_array_equal

from reprise.envs.tabletop import (
    ALL_TASKS,
    OBJECT_STATE,
    STEP,
    STYLES,
    TASKS,
    Paint,
    Style,
    Tabletop,
    draw_tables,
    phrases,
)
from reprise.envs.tabletop.scene import HEIGHTS, REACH, ZONES


def test_gymnasium_accepts_it() -> None:
    env = gymnasium.make("reprise/Tabletop-v0", obs_mode="image")
    check_env(env.unwrapped, skip_render_check=True)


@pytest.mark.parametrize("obs_mode", ["state", "image"])
def test_observations_are_in_their_space(obs_mode: str) -> None:
    env = Tabletop(3, obs_mode)
    observations, _ = env.reset(seed=0)
    for i in range(3):
        assert env.single_observation_space.contains({name: value[i] for name, value in observations.items()})


def test_the_state_says_where_things_are() -> None:
    env = Tabletop(2)
    state = env.reset(seed=1)[0]["state"]
    for i, scene in enumerate(env.scenes):
        assert_allclose(state[i, :3], scene.hand[:3], atol=1e-6)
        objects = state[i, OBJECT_STATE]
        for j, body in enumerate(HEIGHTS):
            assert_allclose(objects[6 * j : 6 * j + 3], scene.position(body), atol=1e-6)
            assert_allclose(np.arctan2(objects[6 * j + 4], objects[6 * j + 3]), scene.yaw(body), atol=1e-5)
            assert_allclose(objects[6 * j + 5], 1, atol=1e-6)
        assert_allclose(objects[18:], [scene.drawer, scene.button], atol=1e-6)


@pytest.mark.parametrize("axis", range(4))
def test_an_action_moves_the_hand_where_it_says(axis: int) -> None:
    env = Tabletop(2)
    env.reset(seed=0)
    before = env.qpos[:, 23:27].copy()
    actions = np.zeros((2, 5), np.float32)
    actions[:, axis] = [0.5, 7.0]  # what is too large is clipped
    targets = env.controls(actions)
    assert_allclose(targets[:, axis] - before[:, axis], STEP[axis] * np.array([0.5, 1.0]), atol=1e-6)
    for _ in range(2):
        env.step(actions)
    moved = env.qpos[:, 23:27] - before
    assert (moved[:, axis] > STEP[axis] * np.array([0.5, 1.0])).all()
    assert (abs(np.delete(moved, axis, 1)) < 0.1 * moved[:, [axis]]).all()


def test_the_hand_stays_within_reach() -> None:
    env = Tabletop(1, max_episode_steps=None)
    env.reset(seed=0)
    for _ in range(30):
        env.step(np.array([[1, 1, 1, 1, 1]], np.float32))
    assert (env.qpos[0, 23:27] < REACH[:, 1] + 0.01).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_bits_depend_on_neither_threads_nor_neighbours(threads: int) -> None:
    alone, many = Tabletop(1), Tabletop(3, threads=threads)
    alone.reset(seed=11)
    many.reset(seed=9)
    rng = np.random.default_rng(0)
    for _ in range(15):
        actions = rng.uniform(-1, 1, (3, 5)).astype(np.float32)
        one = alone.step(actions[2:])[0]["state"]
        assert_array_equal(one[0], many.step(actions)[0]["state"][2])


def test_sentences_pass_between_processes() -> None:
    alone = Tabletop(2)
    shared = gymnasium.make_vec("reprise/Tabletop-v0", 2, workers=2)
    seen = [env.reset(seed=4)[0] for env in (alone, shared)]
    shared.close()
    assert seen[0]["instruction"].tolist() == seen[1]["instruction"].tolist()
    assert_array_equal(seen[0]["state"], seen[1]["state"])


def place(env: Tabletop, body: str, x: float, y: float, z: float) -> None:
    env.scenes[0].qpos[7 * list(HEIGHTS).index(body) :][:3] = x, y, z


def test_a_task_is_done_only_when_it_is() -> None:
    still = np.array([[0, 0, 0, 0, 1]], np.float32)

    def success(task: str, body: str, x: float, y: float, z: float, raised: float = 0.0) -> bool:
        env = Tabletop(1, autoreset=False)
        env.reset(seed=3, options={"task": task})
        place(env, body, x, y, z)
        env.raised[0] = raised
        return bool(env.step(still)[2][0])

    x, y = ZONES["left"]
    assert success("place-red-left", "red", x, y, 0.02, raised=0.05)
    assert not success("place-red-left", "red", x, -y, 0.02, raised=0.05)  # the wrong side
    assert not success("place-red-left", "blue", x, y, 0.02, raised=0.05)  # the wrong object
    assert not success("place-red-left", "red", x, y, 0.02)  # pushed there
    assert success("push-red-left", "red", x, y, 0.02)
    assert not success("push-red-left", "red", x, y, 0.02, raised=0.05)  # carried there
    assert success("lift-blue", "blue", 0, -0.2, 0.12)
    assert not success("lift-blue", "blue", 0, -0.2, 0.05)


def test_success_ends_the_episode_with_a_reward_of_one() -> None:
    env = Tabletop(1, autoreset=False)
    env.reset(seed=0, options={"task": "open"})
    env.qpos[0, 21] = 0.09
    _, reward, terminated, truncated, infos = env.step(np.zeros((1, 5), np.float32))
    assert reward[0] == 1 and terminated[0] and not truncated[0] and infos["is_success"][0]


def test_episodes_are_truncated() -> None:
    env = Tabletop(2, max_episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(np.zeros((2, 5), np.float32))[3].all() for _ in range(3)]
    assert ends == [False, False, True]


def test_the_task_can_be_chosen_for_each() -> None:
    env = Tabletop(3)
    _, infos = env.reset(seed=0, options={"task": ["open", "press", "stack-blue"]})
    assert [list(ALL_TASKS)[number] for number in infos["task"]] == ["open", "press", "stack-blue"]
    assert all(sentence in phrases(task.name) for sentence, task in zip(env.instructions, env.current, strict=True))


def test_every_task_is_drawn() -> None:
    env = Tabletop(200)
    _, infos = env.reset(seed=0)
    assert {list(ALL_TASKS)[number] for number in infos["task"]} == set(TASKS)


@pytest.mark.parametrize("task", ALL_TASKS)
def test_sentences(task: str) -> None:
    canonical, train, test = (phrases(task, phrasing) for phrasing in ("canonical", "train", "test"))
    assert len(train) >= 13 and len(test) >= 5 and canonical == train[:1]
    assert not set(train) & set(test)
    words = {word for sentence in train for word in sentence.split()}
    assert {word for sentence in test for word in sentence.split()} <= words
    everything = train + test
    assert len(set(everything)) == len(everything) and max(map(len, everything)) <= 96
    others = {sentence for name in ALL_TASKS if name != task for sentence in phrases(name) + phrases(name, "test")}
    assert not set(everything) & others  # a sentence asks for one task only


def test_styles_show_the_same_state() -> None:
    env = Tabletop(3, "image", style="workshop")
    observations, _ = env.reset(seed=0)
    assert_array_equal(draw_tables(env.qpos, "workshop"), observations["image"])
    assert abs(draw_tables(env.qpos, "studio").astype(int) - observations["image"]).mean() > 20


def test_a_style_is_made_of_another() -> None:
    env = Tabletop(1)
    env.reset(seed=0)
    purple = Paint((0.5, 0.0, 0.5))
    painted = draw_tables(env.qpos, replace(STYLES["studio"], palette={"table": purple}), (32, 32))
    darker = draw_tables(env.qpos, replace(STYLES["studio"], ambient=0.3), (32, 32))
    plain = draw_tables(env.qpos, image_size=(32, 32))
    assert painted[0, -1, 0, 1] == 0 and plain[0, -1, 0, 1] > 100
    assert darker.mean() < plain.mean() - 10


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"obs_mode": "rgbd"}, "there are state, image"),
        ({"tasks": ("juggle",)}, "unknown task 'juggle'; there are lift-red"),
        ({"tasks": "press"}, "tasks are names"),
        ({"phrasing": "rude"}, "there are canonical, train, test"),
        ({"style": "cubist"}, "there are studio, workshop"),
        ({"style": Style(palette={"lamp": Paint((0, 0, 0))})}, "the palette paints 'lamp'"),
        ({"style": Style(palette={"red": Paint((0, 0, 0), pattern="fur")})}, "unknown pattern 'fur'"),
    ],
)
def test_wrong_input_is_refused(what: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tabletop(1, **what)


def test_wrong_reset_options_are_refused() -> None:
    env = Tabletop(2)
    with pytest.raises(ValueError, match="unknown task 'juggle'"):
        env.reset(seed=0, options={"task": "juggle"})
    with pytest.raises(ValueError, match="unknown reset option 'tsk'"):
        env.reset(seed=0, options={"tsk": "press"})
    with pytest.raises(ValueError, match="one task for all or 2"):
        env.reset(seed=0, options={"task": ["press"]})
