"""Short films of environments: GIF by Pillow, MP4 where imageio-ffmpeg is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from reprise.files import written_whole

__all__ = ["record", "side_by_side", "write_video"]


def record(
    env: gymnasium.Env | gymnasium.vector.VectorEnv,
    policy: Callable[[Any], Any] | None = None,
    steps: int = 100,
    seed: int | None = None,
    columns: int = 4,
) -> np.ndarray:
    """Pictures of an environment, or of a vector of them side by side, while a policy acts.

    A single environment is recorded to the end of its episode at most.

    Args:
        env: made with ``render_mode="rgb_array"``.
        policy: observation to action, both as the environment has them; None draws random actions.
        steps: at most.
        seed: of the reset, and of random actions.
        columns: environments side by side.

    Returns:
        (T, H, W, 3) bytes, the first before the first action.

    Raises:
        ValueError: the environment is not drawn.

    Example:
        >>> env = gymnasium.make("CartPole-v1", render_mode=None)
        >>> record(env)
        Traceback (most recent call last):
        ...
        ValueError: make the environment with render_mode="rgb_array" to record it
    """
    if env.render_mode != "rgb_array":
        raise ValueError('make the environment with render_mode="rgb_array" to record it')
    single = isinstance(env, gymnasium.Env)
    observation, _ = env.reset(seed=seed)
    if policy is None:
        env.action_space.seed(seed)
    frames = [side_by_side(env.render(), columns)]
    for _ in range(steps):
        action = env.action_space.sample() if policy is None else policy(observation)
        observation, _, terminated, truncated, _ = env.step(action)
        frames.append(side_by_side(env.render(), columns))
        if single and (terminated or truncated):
            break
    return np.stack(frames)


def write_video(frames: np.ndarray | Sequence[np.ndarray], path: str | Path, fps: float = 10.0) -> Path:
    """Write a GIF or an MP4, by the ending of the path; whole or not at all.

    Args:
        frames: (T, H, W, 3) bytes.
        path: ending in .gif or .mp4.
        fps: pictures a second; GIF knows hundredths of a second.

    Returns:
        The path.

    Raises:
        ValueError: other frames, or another ending.
        ModuleNotFoundError: an MP4 without imageio-ffmpeg.
    """
    path = Path(path)
    array = np.asarray(frames)
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8 or not len(array):
        raise ValueError(f"frames are bytes of shape (T, H, W, 3) with T > 0, not {array.dtype} of {array.shape}")
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"a film ends in .gif or .mp4, not {path.name!r}")
    if not fps > 0:
        raise ValueError(f"fps must be above 0, not {fps}")
    with written_whole(path) as temporary:
        if path.suffix == ".gif":
            _write_gif(array, temporary, fps)
        else:
            _write_mp4(array, temporary, fps)
    return path


def _write_gif(frames: np.ndarray, path: Path, fps: float) -> None:
    from PIL import Image

    # One palette for all pictures, or colours would flicker.
    sample = frames[np.linspace(0, len(frames) - 1, min(8, len(frames))).astype(int)]
    palette = Image.fromarray(np.concatenate(list(sample))).quantize(255, dither=Image.Dither.NONE)
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    duration = max(20, round(1000 / fps))
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=duration, loop=0)


def _write_mp4(frames: np.ndarray, path: Path, fps: float) -> None:
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("MP4 needs imageio-ffmpeg: pip install imageio-ffmpeg, or write a .gif") from error
    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")  # the codec wants even sides
    size = (even.shape[2], even.shape[1])
    writer = imageio_ffmpeg.write_frames(str(path), size, fps=fps, macro_block_size=1)
    writer.send(None)
    for frame in even:
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def side_by_side(pictures: Any, columns: int) -> np.ndarray:
    """Pictures (H, W, 3) of environments in rows of ``columns``, as one picture; a single one as it is."""
    if isinstance(pictures, np.ndarray) and pictures.ndim == 3:
        return pictures
    rows = [list(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    while len(rows) > 1 and len(rows[-1]) < columns:
        rows[-1].append(np.full_like(pictures[0], 255))
    return np.concatenate([np.concatenate(row, 1) for row in rows])
