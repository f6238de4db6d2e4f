import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from reprise.envs import ChunkedEnv, PegInsert, VectorWorld
from reprise.testing import Countdown, Match


class Count(VectorWorld):
    """Counts up by the action; an episode ends above a limit, and is cut after six steps."""

    def __init__(self, num_envs, dictionary=False):
        box = spaces.Box(-9.0, 99.0, (1,), np.float32)
        self.dictionary = dictionary
        space = spaces.Dict({"place": box}) if dictionary else box
        super().__init__(num_envs, space, spaces.Box(-1.0, 1.0, (1,), np.float32), max_episode_steps=6)
        self.place = np.zeros((num_envs, 1), np.float32)

    def reset_world(self, indices, options):
        self.place[indices] = [self.rngs[i].uniform(0, 0.5, 1) for i in indices]
        return {}

    def step_world(self, actions):
        self.place += actions
        return actions[:, 0].copy(), self.place[:, 0] > 2.9, {}

    def observe(self, indices):
        place = self.place[indices].copy()
        return {"place": place} if self.dictionary else place


@pytest.mark.parametrize("dictionary", [False, True])
def test_a_chunk_is_its_steps_and_stops_where_the_episode_does(dictionary):
    env = ChunkedEnv(Count(3, dictionary), 4)
    start, _ = env.reset(seed=0)
    chunks = np.stack([np.full((4, 1), 1.0), np.full((4, 1), 0.25), np.zeros((4, 1))])
    observation, reward, terminated, truncated, infos = env.step(chunks)
    place, before = (o["place"] if dictionary else o for o in (observation, start))
    assert reward.tolist() == [3, 1, 0] and infos["steps"].tolist() == [3, 4, 4] and env.played == 11
    assert terminated.tolist() == [True, False, False] and not truncated.any()
    last = infos["final_obs"][0]["place"] if dictionary else infos["final_obs"][0]
    assert last == pytest.approx(before[0] + 3) and infos["final_obs"][1] is None
    np.testing.assert_allclose(place[1:], before[1:] + np.array([[1], [0]]))
    assert 0 <= place[0, 0] <= 0.5 and env.env.elapsed.tolist() == [0, 4, 4]  # a fresh episode, nothing played in it
    _, reward, terminated, truncated, infos = env.step(np.zeros((3, 4, 1)))
    assert truncated.tolist() == [False, True, True] and infos["steps"].tolist() == [4, 2, 2]


def test_a_time_limit_may_be_told_as_the_end():
    env = ChunkedEnv(Count(2), 6, time_limit_ends=True)
    env.reset(seed=0)
    _, _, terminated, truncated, infos = env.step(np.zeros((2, 6, 1)))
    assert terminated.all() and not truncated.any() and infos["final_obs"][0] is not None


def test_gymnasiums_own_vector_environments_work():
    env = ChunkedEnv(gymnasium.make_vec("Pendulum-v1", 2, "sync", {"autoreset_mode": "SameStep"}), 150)
    env.reset(seed=0)
    env.step(np.zeros((2, 150, 1)))
    _, _, _, truncated, infos = env.step(np.zeros((2, 150, 1)))
    assert truncated.all() and infos["steps"].tolist() == [50, 50]


def test_what_does_not_fit_is_refused():
    with pytest.raises(TypeError, match=r"gymnasium\.vector\.VectorEnv"):
        ChunkedEnv(gymnasium.make("Pendulum-v1"), 4)
    with pytest.raises(ValueError, match="same step"):
        ChunkedEnv(gymnasium.make_vec("Pendulum-v1", 2, "sync"), 4)
    with pytest.raises(ValueError, match="continuous"):
        ChunkedEnv(Match(discrete=True), 4)
    with pytest.raises(ValueError, match="at least one action"):
        ChunkedEnv(PegInsert(2), 0)
    env = ChunkedEnv(PegInsert(2), 4)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"chunks of these environments are \(2, 4, 2\), not \(2, 2\)"):
        env.step(np.zeros((2, 2)))
    env = ChunkedEnv(Countdown([2, 5], [False, False], spaces.Box(-1, 1, (1,))), 4)
    env.reset()
    with pytest.raises(ValueError, match="resets all environments"):
        env.step(np.zeros((2, 4, 1)))
