import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from reprise.data import Episodes, HindsightWindows


def counting(lengths):
    """Episodes whose state tells the episode and the step within it."""
    state = np.concatenate([np.stack([np.full(n, i), np.arange(n)], 1) for i, n in enumerate(lengths)])
    return Episodes({"state": state.astype(np.float32)}, state.astype(np.float32), np.cumsum(lengths))


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    window=st.integers(1, 5),
    goal_len=st.integers(1, 3),
    min_sep=st.integers(0, 3),
    tail_only=st.booleans(),
)
def test_goals_come_after_the_window_in_the_same_episode(lengths, window, goal_len, min_sep, tail_only):
    if max(lengths) < max(window, goal_len):
        with pytest.raises(ValueError, match="choose shorter ones"):
            HindsightWindows(counting(lengths), window, goal_len)
        return
    windows = HindsightWindows(counting(lengths), window, goal_len, min_sep=min_sep, tail_only=tail_only)
    assert len(windows) == sum(max(0, n - window + 1) for n in lengths if n >= goal_len)
    batch = windows.gather(np.arange(len(windows)), np.random.default_rng(0))
    states, goals = batch["observations"]["state"].numpy(), batch["goal"]["state"].numpy()
    assert (np.diff(states[..., 1], axis=1) == 1).all() and (np.diff(goals[..., 1], axis=1) == 1).all()
    assert (batch["actions"].numpy() == states).all()
    assert (states[..., 0] == states[:, :1, 0]).all() and (goals[..., 0] == states[:, :1, 0]).all()
    total = np.array(lengths)[states[:, 0, 0].astype(int)]
    first, begin = states[:, 0, 1] + window + min_sep, goals[:, 0, 1]
    if tail_only:
        assert (begin == total - goal_len).all() and not batch["goal_missing"].any()
    else:
        missing = batch["goal_missing"].numpy()
        assert (missing == (first >= total - goal_len)).all()  # the range leaves the last start out
        assert ((begin >= first) & (begin < total - goal_len))[~missing].all()


def test_goals_are_uniform_over_what_is_left():
    windows = HindsightWindows(counting([14]), 3)
    rng = np.random.default_rng(0)
    starts = windows.rows(np.zeros(20_000, int), rng).goal[:, 0]
    counts = np.bincount(starts, minlength=14)
    assert (counts[:3] == 0).all() and counts[13] == 0
    np.testing.assert_allclose(counts[3:13] / 20_000, 0.1, atol=0.01)


@pytest.mark.parametrize("sizes", [{"window": 0}, {"window": 2, "goal_len": 0}, {"window": 2, "min_sep": -1}])
def test_wrong_sizes(sizes):
    with pytest.raises(ValueError, match="at least"):
        HindsightWindows(counting([5]), **sizes)
