import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from reprise.rl import gae


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), lam=st.sampled_from([0.0, 0.5, 0.95, 1.0]), gamma=st.sampled_from([0.9, 1.0]))
def test_equals_the_sum_of_the_paper(seed, lam, gamma):
    """Equation 16 written as the double sum that it is, ends of episodes included."""
    rng = np.random.default_rng(seed)
    T, N = 7, 3
    rewards, values, next_values = rng.normal(size=(3, T, N))
    terminated = rng.random((T, N)) < 0.2
    truncated = (rng.random((T, N)) < 0.2) & ~terminated
    expected = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            for k in range(T - t):
                bootstrap = 0 if terminated[t + k, n] else gamma * next_values[t + k, n]
                delta = rewards[t + k, n] + bootstrap - values[t + k, n]
                expected[t, n] += (gamma * lam) ** k * delta
                if terminated[t + k, n] or truncated[t + k, n]:
                    break
    result = gae(rewards, values, next_values, terminated, truncated, gamma=gamma, gae_lambda=lam)
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_lambda_one_is_the_return_minus_the_value():
    rewards, values = np.array([[1.0], [2.0], [3.0]]), np.array([[5.0], [6.0], [7.0]])
    no = np.zeros((3, 1), bool)
    result = gae(rewards, values, np.array([[6.0], [7.0], [8.0]]), no, no, gamma=0.5, gae_lambda=1.0)
    assert result[:, 0].tolist() == [1 + 0.5 * 2 + 0.25 * 3 + 0.125 * 8 - 5, 2 + 0.5 * 3 + 0.25 * 8 - 6, 3 + 4 - 7]


def test_shapes_that_differ_are_refused():
    one, no = np.ones((3, 1)), np.zeros((3, 1), bool)
    with pytest.raises(ValueError, match=r"\(T, N\) alike, not \[\(2, 1\), \(3, 1\)\]"):
        gae(one, one[:2], one, no, no)
