import sys

import numpy as np
import pytest
from PIL import Image

from reprise.envs import PushT, SingleEnv, record, write_video


def test_a_gif_of_a_policy(tmp_path):
    env = SingleEnv(PushT, render_mode="rgb_array", max_episode_steps=6)
    frames = record(env, lambda observation: observation[2:4], steps=50, seed=0)
    assert frames.shape == (7, 384, 384, 3) and (frames[0] != frames[-1]).any()  # to the end of the episode
    path = write_video(frames, tmp_path / "push.gif", fps=10)
    with Image.open(path) as film:
        assert film.n_frames == 7 and film.size == (384, 384) and film.info["duration"] == 100
        film.seek(6)
        assert np.abs(np.asarray(film.convert("RGB")).astype(int) - frames[-1]).mean() < 3


def test_several_environments_stand_side_by_side():
    env = PushT(3, render_mode="rgb_array")
    frames = record(env, steps=2, seed=0, columns=2)
    assert frames.shape == (3, 768, 768, 3) and (frames[:, 384:, 384:] == 255).all()
    np.testing.assert_array_equal(frames, record(env, steps=2, seed=0, columns=2))


def test_what_is_refused(tmp_path, monkeypatch):
    frames = np.zeros((2, 5, 7, 3), np.uint8)
    with pytest.raises(ValueError, match=r"ends in \.gif or \.mp4, not 'a.avi'"):
        write_video(frames, tmp_path / "a.avi")
    with pytest.raises(ValueError, match="frames are bytes of shape"):
        write_video(frames / 255, tmp_path / "a.gif")
    with pytest.raises(ValueError, match="fps must be above 0"):
        write_video(frames, tmp_path / "a.gif", fps=0)
    with pytest.raises(ValueError, match='make the environment with render_mode="rgb_array"'):
        record(PushT(1))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ModuleNotFoundError, match="MP4 needs imageio-ffmpeg"):
        write_video(frames, tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_an_mp4(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = np.zeros((12, 33, 47, 3), np.uint8)
    path = write_video(frames, tmp_path / "a.mp4")
    assert next(ffmpeg.read_frames(str(path)))["size"] == (48, 34)
