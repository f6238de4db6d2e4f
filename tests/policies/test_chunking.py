import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from reprise.policies import ChunkedPolicy


class Clock:
    """Chunks that say what was observed when they were planned, and the place in the chunk."""

    def __init__(self, horizon=5, first_action=0):
        self.horizon, self.first_action, self.planned = horizon, first_action, []

    def plan(self, observation):
        x = observation["x"] if isinstance(observation, dict) else observation
        self.planned.append(len(x))
        place = np.broadcast_to((np.arange(self.horizon) + self.first_action)[None, :, None], (len(x), self.horizon, 1))
        return np.concatenate([np.repeat(x[:, None], self.horizon, 1), place], -1)


class Remembering(Clock):
    def __init__(self, **options):
        super().__init__(**options)
        self.seen, self.forgotten = [], []

    def observe(self, observation):
        self.seen.append(observation[0, 0])

    def plan(self, observation, environments=None):
        self.seen.append(observation[0, 0])
        return super().plan(observation[environments])

    def reset(self, mask=None):
        self.forgotten.append(mask)


def at(t, B):
    """(B, 2): the time, and the number of the environment."""
    return np.stack([np.full(B, float(t)), np.arange(B, dtype=float)], 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.lists(st.lists(st.booleans(), min_size=4, max_size=4), max_size=12))
def test_every_environment_has_a_queue_of_its_own(B, execute, resets):
    policy = ChunkedPolicy(Clock(), execute=execute)
    begun = np.zeros(B)
    for t, mask in enumerate([[False] * 4, *resets]):
        mask = np.array(mask[:B])
        policy.reset(mask)
        begun = np.where(mask, t, begun)
        age = (t - begun) % execute
        action = policy.act(at(t, B))
        np.testing.assert_array_equal(action, np.stack([t - age, np.arange(B), age], 1))


def test_only_empty_queues_are_refilled():
    clock = Clock()
    policy = ChunkedPolicy(clock, execute=3)
    for t in range(4):
        policy.act({"x": at(t, 5), "instruction": "go"})
        if t == 0:
            policy.reset(np.array([True, False, False, False, False]))
    assert clock.planned == [5, 1, 4]
    assert policy.left.tolist() == [0, 2, 2, 2, 2]


def test_a_policy_that_remembers_sees_every_observation():
    remembering = Remembering(horizon=4, first_action=-1)
    policy = ChunkedPolicy(remembering, execute=2)
    actions = [policy.act(at(t, 3)) for t in range(5)]
    assert remembering.seen == [0, 1, 2, 3, 4] and remembering.planned == [3, 3, 3]
    assert [int(action[0, 2]) for action in actions] == [0, 1, 0, 1, 0]  # what lies in the past is skipped
    mask = np.array([True, False, False])
    policy.reset(mask)
    policy.reset()
    assert remembering.forgotten[0] is mask and remembering.forgotten[1] is None


def test_refusals():
    with pytest.raises(ValueError, match="at least one action"):
        ChunkedPolicy(Clock(), execute=0)
    with pytest.raises(ValueError, match=r"of which 4 actions are executed from place 2 on is \(3, at least 6, A\)"):
        ChunkedPolicy(Clock(first_action=-2), execute=4).act(at(0, 3))
    policy = ChunkedPolicy(Clock(), execute=5)
    policy.act(at(0, 3))
    with pytest.raises(ValueError, match="3 environments have plans and 2 came"):
        policy.act(at(0, 2))
    with pytest.raises(ValueError, match="a mask of 3"):
        policy.reset(np.array([True, False]))
