import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from reprise.envs import PushT, VectorWorld
from reprise.policies import evaluate

BOX = Box(-100.0, 100.0, (1,), np.float32)


class Ladder(VectorWorld):
    """Climb by the action; from a start that the seed gives, to 3. Rewards are heights, and fall after the top."""

    def __init__(self, num_envs=1, **options):
        super().__init__(num_envs, BOX, BOX, max_episode_steps=5, **options)
        self.height = np.zeros(num_envs)

    def reset_world(self, indices, options):
        self.height[indices] = [self.rngs[i].uniform(0, 1) for i in indices]
        if "height" in options:
            self.height[indices] = np.asarray(options["height"])[indices]
        return {"is_success": np.zeros(len(indices), bool)}

    def step_world(self, actions):
        self.height = self.height + actions[:, 0]
        done = self.height >= 3
        return self.height.copy(), done, {"is_success": done.copy()}

    def observe(self, indices):
        return self.height[indices, None].astype(np.float32)

    def draw(self, index):
        return np.full((2, 2, 3), max(0, int(10 * self.height[index])), np.uint8)


class Climber:
    """Climbs by its gain; remembers how often it was asked since it was last reset."""

    def __init__(self, gain=1.0):
        self.gain, self.asked, self.masks = gain, 0, []

    def act(self, observation):
        self.asked += 1
        self.seen = observation
        return np.full((len(observation), 1), self.gain)

    def reset(self, mask=None):
        self.masks.append(mask)


@pytest.mark.parametrize("autoreset", [True, False])
def test_episodes_are_counted_once_whatever_happens_afterwards(autoreset):
    env = Ladder(3, autoreset=autoreset)
    options = {"height": [2.5, 1.5, -9.0]}
    climber = Climber()
    result = evaluate(climber, env, options=options)
    assert result.success.tolist() == [True, True, False]
    assert result.lengths.tolist() == [1, 2, 5]
    assert result.returns.tolist() == [3.5, 2.5 + 3.5, -8 - 7 - 6 - 5 - 4]
    assert result.best_rewards.tolist() == [3.5, 3.5, -4]
    assert result.success_rate == pytest.approx(2 / 3) and len(result.seconds) == 5 and (result.seconds > 0).all()
    assert climber.masks[0] is None and climber.masks[1].tolist() == [True, False, False] and climber.masks[-1] is None


def test_gymnasium_environments_of_every_mode():
    for mode in AutoresetMode:
        env = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 3, autoreset_mode=mode)
        result = evaluate(lambda seen: np.ones(len(seen), int), env, episodes=4, seed=5)
        assert result.success is None and np.isnan(result.success_rate)
        np.testing.assert_array_equal(result.returns, result.lengths)
        expected = []
        for i in range(4):
            single = gymnasium.make("CartPole-v1")
            single.reset(seed=5 + i)
            expected.append(next(t for t in range(1, 99) if any(single.step(1)[2:4])))
        assert result.lengths.tolist() == expected


def test_starts_are_those_of_the_seed_however_many_environments_there_are():
    starts = {}
    for B in (1, 4, 7):
        result = evaluate(Climber(0.0), Ladder(B), episodes=7, seed=3)
        starts[B] = result.returns / 5
    np.testing.assert_allclose(starts[1], starts[4])
    np.testing.assert_allclose(starts[1], starts[7])
    assert len(np.unique(starts[1])) == 7


def test_what_is_shown_and_where_it_starts_may_depend_on_the_episode():
    climber = Climber(0.0)
    shown = []
    evaluate(
        climber, Ladder(2), episodes=3,
        options=lambda episodes: {"height": 10.0 * episodes - 50},
        observe=lambda seen, episodes: shown.append((seen[:, 0].tolist(), episodes.tolist())) or seen,
    )  # fmt: skip
    assert shown[0] == ([-50, -40], [0, 1]) and shown[5] == ([-30, -20], [2, 3]) and len(shown) == 10


def test_films_stand_still_when_an_episode_is_over():
    env = Ladder(3, render_mode="rgb_array")
    result = evaluate(Climber(), env, episodes=5, options=lambda episodes: {"height": [1.5, -9.0, 0.0]}, film=2)
    assert result.frames.shape == (6, 2, 4, 3)
    assert result.frames[:, 0, 0, 0].tolist() == [15, 25, 25, 25, 25, 25]
    with pytest.raises(ValueError, match="rgb_array"):
        evaluate(Climber(), Ladder(2), film=1)


def test_push_t_is_played():
    result = evaluate(lambda seen: seen[:, 2:4], PushT(2, max_episode_steps=15), episodes=3)
    assert result.returns.shape == (3,) and (result.best_rewards >= 0).all() and not result.success.any()


def test_refusals():
    with pytest.raises(TypeError, match="VectorEnv is needed, not TimeLimit"):
        evaluate(Climber(), gymnasium.make("CartPole-v1"))
    with pytest.raises(ValueError, match="at least one episode"):
        evaluate(Climber(), Ladder(2), episodes=0)
