import os
from pathlib import Path

import numpy as np
import pytest

from reprise.data.lerobot import read_flat
from reprise.envs import PushT, coverage, keypoints
from reprise.envs.push_t import AREA, GOAL, draw_boards

DEMONSTRATIONS = Path(os.environ.get("REPRISE_DATA", "/nowhere")) / "pusht" / "train.parquet"


def follow(env, seed, steps):
    """The finger goes for the block again and again, so that there is contact."""
    generator = np.random.default_rng(seed)
    for k in range(steps):
        if k % 8 == 0:
            aim = env.poses[:, 2:4] + generator.normal(scale=25, size=(env.num_envs, 2))
        yield np.clip(aim, 0, 512).astype(np.float32)


def test_the_world_is_gym_pushts():
    """Starts, states, rewards and ends agree with the published environment along 200 steps of pushing."""
    gym_pusht = pytest.importorskip("gym_pusht.envs.pusht")
    theirs = gym_pusht.PushTEnv(obs_type="state")
    env = PushT(1)
    for seed in range(2):
        observation, _ = theirs.reset(seed=seed)
        np.testing.assert_allclose(env.reset(seed=seed)[0][0], observation, rtol=1e-6)
        moved = env.poses[0].copy()
        for action in follow(env, seed, 100):
            _, reward, terminated, _, info = theirs.step(action[0])
            _, rewards, ends, _, infos = env.step(action)
            assert bool(ends[0]) == bool(terminated)
            if terminated:
                break
            there = [*theirs.agent.position, *theirs.block.position, theirs.block.angle]
            np.testing.assert_allclose(env.poses[0], there, atol=1e-9)
            np.testing.assert_allclose([rewards[0], infos["coverage"][0]], [reward, info["coverage"]], atol=1e-9)
            np.testing.assert_allclose(
                keypoints(env.poses[:, 2:])[0], theirs.get_keypoints(theirs._block_shapes), atol=1e-9
            )
        assert np.abs(env.poses[0, 2:4] - moved[2:4]).max() > 10  # it was pushed
        for size in (96, 680):
            theirs.visualization_width = theirs.visualization_height = size
            theirs._last_action = None
            gap = np.abs(theirs.render().astype(int) - draw_boards(env.poses, (size, size))[0])
            assert gap.mean() < 1.5 and (gap > 100).mean() < 0.005


@pytest.mark.skipif(not DEMONSTRATIONS.is_file(), reason="the human demonstrations are not on this machine")
def test_human_demonstrations_come_out_again():
    """From their first state on, the recorded actions lead through the recorded states, step by step."""
    recorded = read_flat(DEMONSTRATIONS, cameras=())[:3]
    states = recorded.observations["state"].astype(float)
    env = PushT(1, max_episode_steps=None)
    for start, end in zip(recorded.starts, recorded.ends, strict=True):
        env.reset(seed=0)
        board = env.boards[0]
        board.finger.position, board.block.angle = tuple(states[start, :2]), states[start, 4]
        board.block.position = tuple(states[start, 2:4])
        for k in range(start, min(end - 1, start + 60)):
            env.step(recorded.actions[k : k + 1])
            turn = (env.poses[0, 4] - states[k + 1, 4] + np.pi) % (2 * np.pi) - np.pi
            assert np.abs(env.poses[0, :4] - states[k + 1, :4]).max() < 0.01 and abs(turn) < 1e-3
        assert np.abs(states[k, 2:4] - states[start, 2:4]).max() > 1  # the block was moved


def test_coverage_is_the_area_in_common():
    """Against a count of points on a fine grid, and the limits."""
    generator = np.random.default_rng(0)
    poses = GOAL + generator.normal(scale=(25, 25, 0.7), size=(6, 3))
    side = np.arange(100, 420, 0.5)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)

    def inside(pose):
        dx, dy = (grid - pose[:2]).T
        x, y = np.cos(pose[2]) * dx + np.sin(pose[2]) * dy, np.cos(pose[2]) * dy - np.sin(pose[2]) * dx
        return ((abs(x) < 60) & (y > 0) & (y < 30)) | ((abs(x) < 15) & (y >= 30) & (y < 120))

    counted = [(inside(pose) & inside(GOAL)).sum() * 0.25 / AREA for pose in poses]
    np.testing.assert_allclose(coverage(poses), counted, atol=0.005)
    np.testing.assert_allclose(
        coverage(np.stack([GOAL, GOAL + np.array([0, 0, 2 * np.pi]), GOAL + 200])), [1, 1, 0], atol=1e-12
    )
    with pytest.raises(ValueError, match=r"poses are \(N, 3\)"):
        coverage(GOAL)


def test_success_ends_the_episode():
    env = PushT(2, autoreset=False)
    env.reset(seed=0)
    board = env.boards[0]
    board.block.angle = float(GOAL[2])
    board.block.position = 256, 256
    board.finger.position = 450, 450
    _, rewards, terminated, truncated, infos = env.step(np.array([[450.0, 450.0], [0.0, 0.0]]))
    assert terminated.tolist() == [True, False] and rewards[0] == 1 and infos["is_success"].tolist() == [True, False]
    assert infos["coverage"][0] == pytest.approx(1) and not truncated.any()


def test_observations():
    state, _ = PushT(3).reset(seed=5)
    corners, _ = PushT(3, obs_mode="keypoints").reset(seed=5)
    images, _ = PushT(3, obs_mode="image", image_size=(48, 64)).reset(seed=5)
    np.testing.assert_allclose(corners[:, :16].reshape(3, 8, 2), keypoints(state[:, 2:]), atol=1e-3)
    np.testing.assert_array_equal(corners[:, 16:], state[:, :2])
    np.testing.assert_array_equal(images["state"], state[:, :2])
    assert images["image"].shape == (3, 48, 64, 3)
    for picture, place in zip(images["image"], state, strict=True):  # the finger is where it should be, and blue
        row, column = int(place[1] / 512 * 48), int(place[0] / 512 * 64)
        assert int(picture[row, column, 2]) - int(picture[row, column, 0]) > 100


def test_what_is_refused():
    with pytest.raises(ValueError, match="unknown obs_mode 'pixels'; there are state, keypoints, image"):
        PushT(1, obs_mode="pixels")
    env = PushT(2)
    with pytest.raises(ValueError, match=r"of shape \(5,\) or \(2, 5\), not \(3,\)"):
        env.reset(options={"state": np.zeros(3)})
    env.reset(seed=0)
    env.step(np.full((2, 2), 1e6))  # clipped to the board
    for _ in range(20):
        observation = env.step(np.full((2, 2), 1e6))[0]
    assert observation[:, :2].max() <= 513
