"""Let a policy act in many environments at once, from starts that other policies get, too."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from reprise.envs.video import side_by_side

__all__ = ["Evaluation", "evaluate"]

SUCCESS = ("is_success", "success")  # what infos call it


@dataclass(frozen=True)
class Evaluation:
    """What came of N episodes, each from the start of its seed.

    Attributes:
        success: (N,) booleans, whether an episode reached its aim at any step; None if the environment does not say.
        returns: (N,) sums of rewards.
        best_rewards: (N,) the largest reward of each episode.
        lengths: (N,) steps.
        seconds: (n,) of each call of the policy, which answers all environments.
        frames: (T, H, W, 3) bytes, if the environments were filmed; those that are over stand still.
    """

    success: np.ndarray | None
    returns: np.ndarray
    best_rewards: np.ndarray
    lengths: np.ndarray
    seconds: np.ndarray
    frames: np.ndarray | None = None

    @property
    def success_rate(self) -> float:
        """Share of the episodes that succeeded; NaN if the environment does not say."""
        return float("nan") if self.success is None else float(self.success.mean())


def evaluate(
    policy: Any,
    env: VectorEnv,
    episodes: int | None = None,
    *,
    seed: int = 0,
    options: Any = None,
    observe: Callable[[Any, np.ndarray], Any] | None = None,
    film: int = 0,
) -> Evaluation:
    """One episode from each of ``episodes`` starts; the same starts for every policy that is evaluated with this seed.

    Args:
        policy: has ``act(observation) -> (B, A)`` and, if it remembers anything, ``reset(mask=None)``; or a function
            of the observation.
        env: any vector environment of Gymnasium whose episodes end.
        episodes: N; None: one for each environment. More are played in rounds.
        seed: episode i begins from ``seed + i``.
        options: of ``env.reset``: a dictionary, or a function of the numbers (B,) of the episodes that returns one.
        observe: what the policy is shown, say with a goal added: a function of the observation and of the numbers (B,)
            of the episodes; None: the observation.
        film: how many environments are filmed in the first round; make them with ``render_mode="rgb_array"``.

    Raises:
        TypeError: not a vector environment.
        ValueError: nothing to play, or nothing to film.

    Example:
        >>> from reprise.envs import PushT
        >>> result = evaluate(lambda seen: seen[:, 2:4], PushT(4, max_episode_steps=20), episodes=6)
        >>> result.lengths.tolist(), result.success_rate
        ([20, 20, 20, 20, 20, 20], 0.0)
    """
    if not isinstance(env, VectorEnv):
        raise TypeError(f"a gymnasium.vector.VectorEnv is needed, not {type(env).__name__}; wrap it in SyncVectorEnv")
    B = env.num_envs
    N = B if episodes is None else episodes
    if N < 1:
        raise ValueError(f"at least one episode must be played, not {N}")
    if film and env.render_mode != "rgb_array":
        raise ValueError('make the environments with render_mode="rgb_array" to film them')
    act, reset = getattr(policy, "act", policy), getattr(policy, "reset", lambda mask=None: None)
    disabled = env.metadata.get("autoreset_mode") == AutoresetMode.DISABLED

    returns, best, lengths = np.zeros(N), np.full(N, -np.inf), np.zeros(N, np.int64)
    success, told = np.zeros(N, bool), False
    seconds, frames = [], []
    for first in range(0, N, B):
        numbers = np.arange(first, first + B)
        chosen = options(numbers) if callable(options) else options
        observation, _ = env.reset(seed=[seed + int(i) for i in numbers], options=chosen)  # type: ignore[arg-type]
        reset()
        running = numbers < N  # the last round may have environments to spare
        pictures = _pictures(env, film) if first == 0 and film else []
        if pictures:
            frames.append(side_by_side(pictures, 4))
        while running.any():
            shown = observation if observe is None else observe(observation, numbers)
            start = time.perf_counter()
            action = act(shown)
            seconds.append(time.perf_counter() - start)
            observation, reward, terminated, truncated, infos = env.step(action)
            over = np.asarray(terminated) | np.asarray(truncated)
            rows = numbers[running]
            returns[rows] += reward[running]
            best[rows] = np.maximum(best[rows], reward[running])
            lengths[rows] += 1
            reached = _success(infos, B)
            if reached is not None:
                told = True
                success[rows] |= reached[running]
            if pictures:
                new = _pictures(env, film)
                pictures = [new[i] if running[i] and not over[i] else pictures[i] for i in range(film)]
                frames.append(side_by_side(pictures, 4))
            running &= ~over
            if over.any() and running.any():
                reset(over)
                if disabled:
                    observation, _ = env.reset(options={"reset_mask": over})
    reset()
    return Evaluation(
        success if told else None, returns, best, lengths, np.array(seconds), np.stack(frames) if frames else None
    )


def _success(infos: dict[str, Any], count: int) -> np.ndarray | None:
    """(B,) of the step that was made, whether or not an environment has begun a new episode in it."""
    for key in SUCCESS:
        last = infos.get("final_info", {})
        if key in infos or key in last:
            here = np.asarray(infos.get(key, np.zeros(count)), bool) & infos.get(f"_{key}", np.ones(count, bool))
            there = np.asarray(last.get(key, np.zeros(count)), bool) & last.get(f"_{key}", np.ones(count, bool))
            return np.where(infos.get("_final_info", np.zeros(count, bool)), there, here)
    return None


def _pictures(env: VectorEnv, count: int) -> list[np.ndarray]:
    if hasattr(env, "draw"):  # our worlds draw one at a time
        return [env.draw(i) for i in range(count)]
    rendered: Any = env.render()
    return list(rendered)[:count]
