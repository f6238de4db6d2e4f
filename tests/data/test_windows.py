import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from reprise.data import Episodes, Windows


def numbered(lengths):
    """Observation and action name their episode and step."""
    rows = np.concatenate([[(i, k) for k in range(length)] for i, length in enumerate(lengths)]).astype(np.float32)
    return Episodes({"state": rows, "image": rows.astype(np.uint8)[:, None]}, 10 * rows, np.cumsum(lengths))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(1, 4), st.integers(1, 6), st.integers(-3, 2),
    st.sampled_from([None, "final", "future"]), st.integers(0, 2**31),
)  # fmt: skip
def test_no_window_crosses_the_end_of_its_episode(lengths, history, future, first_action, goal, seed):
    whole = numbered(lengths)
    windows = Windows(whole, history, future, first_action=first_action, goal=goal)
    batch = windows.gather(np.arange(len(windows)), np.random.default_rng(seed))
    episode, step = whole.observations["state"].T
    length = np.array(lengths)[episode.astype(int)]
    seen, done = batch["observations"]["state"], batch["actions"] / 10
    assert (seen[..., 0] == torch.from_numpy(episode)[:, None]).all()
    assert (done[..., 0] == torch.from_numpy(episode)[:, None]).all()
    at = step[:, None] + np.arange(1 - history, 1)
    np.testing.assert_array_equal(seen[..., 1], np.maximum(at, 0))
    np.testing.assert_array_equal(batch["history_padding"], at < 0)
    at = step[:, None] + first_action + np.arange(future)
    np.testing.assert_array_equal(done[..., 1], np.clip(at, 0, length[:, None] - 1))
    np.testing.assert_array_equal(batch["padding"], (at < 0) | (at >= length[:, None]))
    np.testing.assert_array_equal(batch["step"], step)
    np.testing.assert_array_equal(batch["episode"], episode)
    if goal is not None:
        there, ahead = batch["goal"]["state"].numpy(), batch["goal_distance"].numpy()
        np.testing.assert_array_equal(there[:, 0], episode)
        np.testing.assert_array_equal(there[:, 1] - step, ahead)
        left = length - 1 - step
        assert (ahead <= left).all() and (ahead[left > 0] >= 1).all()
        assert goal == "future" or (ahead == left).all()


def test_drawn_goals_are_uniform_within_the_horizon():
    windows = Windows(numbered([9, 30]), goal="future", goal_horizon=4)
    distance = windows.gather(np.full(8000, 2), np.random.default_rng(0))["goal_distance"]
    counts = torch.bincount(distance, minlength=6)
    assert counts[0] == counts[5] == 0 and (counts[1:5].float() / 2000 - 1).abs().max() < 0.1


def test_batches_bring_each_window_once_an_epoch_and_repeat_by_seed():
    windows = Windows(numbered([3, 8]), history=2, future=2, goal="future", observations=["state"])
    first, again = (list(windows.batches(4, seed=3, epochs=2)) for _ in range(2))
    assert len(first) == 4 and set(first[0]["observations"]) == {"state"}
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a["actions"], b["actions"]) and torch.equal(a["goal_distance"], b["goal_distance"])
    whole = list(windows.batches(4, seed=3, drop_last=False))
    assert [len(batch["step"]) for batch in whole] == [4, 4, 3]
    seen = sorted((int(e), int(s)) for batch in whole for e, s in zip(batch["episode"], batch["step"], strict=True))
    assert seen == [(0, k) for k in range(3)] + [(1, k) for k in range(8)]


def test_single_windows_make_a_data_loader():
    windows = Windows(numbered([3, 2]), history=2)
    assert windows[4]["observations"]["state"].tolist() == [[1, 0], [1, 1]] and windows[-1]["step"] == 1
    loader = torch.utils.data.DataLoader(windows, batch_size=5)
    (batch,) = loader
    assert torch.equal(batch["observations"]["image"], windows[torch.arange(5)]["observations"]["image"])
    with pytest.raises(IndexError, match="there are 5 windows, and none of number 5"):
        windows[5]


def test_what_is_refused():
    whole = numbered([3])
    with pytest.raises(ValueError, match="at least 1, not 0, 1"):
        Windows(whole, history=0)
    with pytest.raises(ValueError, match="unknown goal 'last'; there are None, 'future', 'final'"):
        Windows(whole, goal="last")
    with pytest.raises(ValueError, match="unknown observation 'depth'; there are state, image"):
        Windows(whole, observations=["depth"])
    with pytest.raises(ValueError, match="a batch has between 1 and 3 windows, not 4"):
        next(Windows(whole).batches(4, seed=0))
