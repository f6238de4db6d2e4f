import gymnasium
import numpy as np
import pytest

from reprise.envs import PegInsert, peg_demonstrations
from reprise.envs.peg import DEPTH, INSERTED, TASKS, PegTask


def world(task, tips, slots=None, bias=0.0, **options):
    """Environments without chance, with their tips where they should be."""
    env = PegInsert(len(tips), task, **options)
    env.reset(seed=0)
    env.tip, env.chance = np.array(tips, float), np.zeros_like(env.chance)
    env.bias = np.full(len(tips), bias)
    env.slot = np.tile(np.array([0.0] if slots is None else slots, float), (len(tips), 1))
    return env


def test_a_step_in_the_air_goes_a_share_of_the_way():
    env = world("one_slot", [[0.5, 0.6], [0.5, 0.6]], bias=0.05)
    observation = env.step(np.array([[0.55, 0.5], [-1.0, 1.0]]))[0]
    expected = [[0.5 + 0.3 * 0.1, 0.6 - 0.3 * 0.1], [0.5 - 0.08, 0.6 + 0.08]]
    np.testing.assert_allclose(env.tip, expected, atol=1e-12)
    np.testing.assert_allclose(observation[:, :2], expected, atol=1e-6)
    np.testing.assert_allclose(observation[:, 2:4], np.array(expected) - [0.5, 0.6], atol=1e-6)
    np.testing.assert_allclose(observation[:, 4:], [[0.0, -0.1]] * 2)  # the slot, and the error held at 0.1


def test_beside_a_slot_the_peg_slides_on_the_surface_and_in_it_it_is_held():
    env = world("one_slot", [[0.1, 0.02], [0.005, 0.02], [0.009, -0.02]])
    for _ in range(2):
        env.step(np.array([[0.2, -0.5], [0.0, -0.3], [0.05, -0.1]]))
    first = 0.1 + 0.5 * 0.3 * 0.1
    np.testing.assert_allclose(env.tip[0], [first + 0.5 * 0.3 * (0.2 - first), 0.0])
    down = 0.02 - 0.08
    np.testing.assert_allclose(env.tip[1], [0.005 * 0.7**2, down + 0.3 * (-0.3 - down)])
    np.testing.assert_allclose(env.tip[2], [0.01, -0.044 + 0.3 * -0.056])


def test_the_bottom_of_the_slot_ends_the_episode_with_the_reward():
    env = world("one_slot", [[0.0, -0.07], [0.0, 0.5]])
    _, reward, terminated, truncated, infos = env.step(np.array([[0.0, -1.0], [0.0, -1.0]]))
    assert reward.tolist() == [1, 0] and terminated.tolist() == [True, False] and not truncated.any()
    assert infos["final_info"]["is_success"].tolist() == [True, False] and infos["final_obs"][0][1] <= INSERTED
    env = world("two_slots", [[-0.4, -0.08], [0.4, -0.08]], slots=[-0.4, 0.4])
    _, reward, terminated, _, _ = env.step(np.array([[-0.4, -1.0], [0.4, -1.0]]))
    assert reward.tolist() == [0, -1] and terminated.tolist() == [True, False]  # the right slot is worth nothing
    stuck = env.tip[1].copy()
    assert stuck[1] == -DEPTH
    env.step(np.array([[0.0, 1.0], [0.4, 1.0]]))
    assert np.array_equal(env.tip[1], stuck)


def test_time_is_up_after_the_horizon():
    env = PegInsert(2, "two_slots")
    env.reset(seed=0)
    for _ in range(23):
        assert not env.step(np.ones((2, 2)))[3].any()
    _, _, terminated, truncated, _ = env.step(np.ones((2, 2)))
    assert truncated.all() and not terminated.any()
    assert PegInsert(2, max_episode_steps=7).chance.shape == (2, 7, 2)


def test_starts_slots_and_chance_are_drawn_as_published():
    env = PegInsert(2000)
    env.reset(seed=0)
    for values, low, high in (
        (env.slot, -0.6, 0.6), (env.tip[:, 0], -0.8, 0.8), (env.tip[:, 1], 0.6, 0.9), (env.bias, -0.05, 0.05),
    ):  # fmt: skip
        assert low <= values.min() < low + 0.01 * (high - low) and high >= values.max() > high - 0.01 * (high - low)
    knocked = np.abs(env.chance[..., 0]) > 0.03
    assert knocked.mean() == pytest.approx(0.03, abs=0.002) and env.chance[..., 1].std() == pytest.approx(
        0.004, rel=0.02
    )
    env = PegInsert(2000, "two_slots")
    env.reset(seed=0)
    gap = env.slot[:, 1] - env.slot[:, 0]
    assert gap.min() >= 0.4 and env.slot.min() >= -0.6 and env.slot.max() <= 0.6 and not env.bias.any()
    assert np.abs(env.tip[:, 0] - env.slot.mean(1)).max() <= 0.3 and np.abs(env.chance).max() < 0.03


def test_an_environment_does_not_depend_on_its_neighbours():
    few, many = PegInsert(2), PegInsert(5)
    few.reset(seed=3), many.reset(seed=3)
    for t in range(60):
        actions = np.random.default_rng(t).uniform(-1, 1, (5, 2))
        a, b = few.step(actions[:2])[0], many.step(actions)[0]
        assert np.array_equal(a, b[:2])


def test_demonstrators_succeed_and_sloppy_ones_do_not_always():
    good = peg_demonstrations("one_slot", 20, seed=0)
    assert len(good) == 20 and good.extras["is_success"].all() and 10 < good.lengths.mean() < 25
    again = peg_demonstrations("one_slot", 20, seed=0)
    assert np.array_equal(good.actions, again.actions)
    mixed = peg_demonstrations("two_slots", 200, seed=0, sloppiness=0.7, failures=True)
    succeeded = mixed.extras["is_success"][mixed.starts]
    assert 0.2 < succeeded.mean() < 0.5  # half go right, and some of the others miss
    last = mixed.observations["state"][mixed.ends - 1]
    assert (np.abs(last[~succeeded, 2:4]) < 0.02).mean() > 0.8  # cut soon after they came to rest
    with pytest.raises(ValueError, match="at least one episode"):
        peg_demonstrations("one_slot", 0, seed=0)
    impossible = PegTask(1, 0.01, 3, (0.6, 0.9))
    with pytest.raises(ValueError, match="too hard"):
        peg_demonstrations(impossible, 1, seed=0)


def test_gymnasium_makes_it_and_it_can_be_drawn():
    env = gymnasium.make("reprise/PegInsert-v0", task="two_slots", render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    assert observation.shape == (6,) and env.step(np.zeros(2, np.float32))[1] == -1
    picture = env.render()
    assert picture.shape == (192, 288, 3) and picture.dtype == np.uint8
    red, green, blue = picture.astype(int).transpose(2, 0, 1)
    marked = (green > red + 60) & (green > blue + 60)
    x = (np.flatnonzero(marked.any(0)).mean() + 0.5) / 288 * 2 - 1
    assert x == pytest.approx(env.unwrapped.world.slot[0, 0], abs=0.01)  # the left slot is the green one
    with pytest.raises(ValueError, match="unknown task 'three'; there are one_slot, two_slots"):
        PegInsert(1, "three")
    assert TASKS["one_slot"].clearance == 0.01
