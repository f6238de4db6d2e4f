import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from reprise.rl import ReplayBuffer


def fill(buffer, steps, num_envs, seed=0, p=0.3):
    """Random streams: the observation of environment k before step t is (k, t), the one after it (k, t + 0.5)."""
    rng = np.random.default_rng(seed)
    reward = rng.normal(size=(steps, num_envs)).astype(np.float32)
    terminated = rng.random((steps, num_envs)) < p / 2
    truncated = (rng.random((steps, num_envs)) < p / 2) & ~terminated
    k = np.arange(num_envs)
    for t in range(steps):
        before, after = np.stack([k, 0 * k + t], 1), np.stack([k, 0 * k + t + 0.5], 1)
        buffer.add(before, np.ones((num_envs, 1)), reward[t], after, terminated[t], truncated[t])
    return reward, terminated, truncated


@settings(max_examples=40, deadline=None)
@given(
    n_step=st.integers(1, 4), num_envs=st.integers(1, 3), steps=st.integers(1, 12), capacity=st.integers(3, 20),
    seed=st.integers(0, 100),
)  # fmt: skip
def test_chains_are_the_sums_written_by_hand(n_step, num_envs, steps, capacity, seed):
    buffer = ReplayBuffer(capacity, n_step=n_step, gamma=0.9, seed=seed)
    reward, terminated, truncated = fill(buffer, steps, num_envs, seed)
    assert buffer.size == min(steps * num_envs, buffer.capacity)
    chains = buffer.chain(torch.arange(buffer.size))
    seen = set()
    for row in range(buffer.size):
        k, t = (int(value) for value in chains["observation"][row])
        seen.add((k, t))
        total, weight, last = 0.0, 1.0, t
        for i in range(t, min(t + n_step, steps)):
            total, weight, last = total + weight * reward[i, k], 0.9 * weight, i
            if terminated[i, k] or truncated[i, k]:
                break
        assert float(chains["reward"][row]) == pytest.approx(total, abs=1e-5)
        assert float(chains["discount"][row]) == pytest.approx(0 if terminated[last, k] else weight)
        assert chains["next_observation"][row].tolist() == [k, last + 0.5]
    if n_step > 1:  # what is kept is the newest
        kept = buffer.capacity // num_envs
        assert seen == {(k, t) for k in range(num_envs) for t in range(max(0, steps - kept), steps)}


def test_dictionaries_and_transitions_from_elsewhere():
    buffer = ReplayBuffer(10, seed=0)
    for n in (3, 5):
        observation = {"a": np.full((n, 2), n), "b": np.zeros((n, 1))}
        buffer.add(observation, np.zeros((n, 1)), np.arange(n), observation, np.ones(n, bool))
    batch = buffer.sample(8)
    assert batch["observation"]["a"].shape == (8, 2) and set(batch["observation"]["a"].flatten().tolist()) <= {3, 5}
    assert batch["discount"].eq(0).all()


def test_samples_are_uniform_and_repeat_with_the_seed():
    def draw():
        buffer = ReplayBuffer(50, seed=1)
        buffer.add(np.zeros((50, 1)), np.zeros((50, 1)), np.arange(50), np.zeros((50, 1)), np.zeros(50, bool))
        return torch.cat([buffer.sample(50)["reward"] for _ in range(100)])

    first = draw()
    assert torch.equal(first, draw())
    counts = first.long().bincount(minlength=50)
    assert counts.min() > 60 and counts.max() < 145


def test_wrong_input():
    with pytest.raises(ValueError, match="at least 1, not 0 and 1"):
        ReplayBuffer(0)
    buffer = ReplayBuffer(6, n_step=2)
    with pytest.raises(ValueError, match="holds 0 transitions, fewer than a batch of 4"):
        buffer.sample(4)
    fill(buffer, 1, 2)
    with pytest.raises(ValueError, match="need 2 environments at every step, not 3"):
        fill(buffer, 1, 3)
    one = np.ones((2, 1))
    with pytest.raises(ValueError, match=r"observation is \(2, 1\), not \(2, 2\) as before"):
        buffer.add(one, one, np.ones(2), one, np.zeros(2, bool))
    with pytest.raises(ValueError, match=r"row 1 .* has a NaN or infinite reward"):
        buffer.add(np.ones((2, 2)), one, np.array([0, np.nan]), np.ones((2, 2)), np.zeros(2, bool))
    with pytest.raises(ValueError, match="8 transitions at once do not fit into a buffer of 6"):
        fill(ReplayBuffer(6), 1, 8)
