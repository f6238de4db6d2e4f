"""Windows of states and actions whose goals come from later in the same episode: play data becomes goal-conditioned."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from reprise.data.episodes import Episodes

__all__ = ["HindsightRows", "HindsightWindows"]


class HindsightRows(NamedTuple):
    """Numbers of steps, by which arrays of all steps are gathered.

    Attributes:
        window: (B, k) of the window.
        goal: (B, G) of the goal; of the last steps of the episode where it is missing.
        missing: (B,) True where nothing comes after the window: the goal is then left out.
    """

    window: np.ndarray
    goal: np.ndarray
    missing: np.ndarray


class HindsightWindows:
    """Every window of k steps that lies inside an episode, with G consecutive later states as its goal.

    There is no padding: an episode of T steps has T - k + 1 windows. The goal of a window that starts at i begins at a
    step drawn uniformly from [i + k + min_sep, T - G), anew each time; where there is none it is missing.

    Args:
        episodes: the source; arrays are gathered, never copied whole.
        window: k.
        goal_len: G.
        min_sep: steps between the window and the first goal that may be drawn.
        tail_only: the goal is always the last G states of the episode.

    Raises:
        ValueError: lengths below 1, a negative separation, or no episode as long as a window and a goal.

    Source: Reuss et al., Goal-Conditioned Imitation Learning using Score-based Diffusion Policies, RSS 2023, and the
    code released with it (the range of the goals).

    Example:
        >>> count = np.arange(8, dtype=np.float32)[:, None]
        >>> windows = HindsightWindows(Episodes({"state": count}, count, ends=np.array([8])), window=3, goal_len=2)
        >>> len(windows)
        6
        >>> batch = windows.gather(np.array([2]), np.random.default_rng(0))
        >>> batch["observations"]["state"][0, :, 0].tolist(), batch["goal"]["state"][0, :, 0].tolist()
        ([2.0, 3.0, 4.0], [5.0, 6.0])
    """

    def __init__(
        self, episodes: Episodes, window: int, goal_len: int = 1, *, min_sep: int = 0, tail_only: bool = False
    ) -> None:
        if window < 1 or goal_len < 1 or min_sep < 0:
            raise ValueError(
                f"window and goal_len are at least 1 and min_sep at least 0, not {window}, {goal_len} and {min_sep}"
            )
        longest = int(episodes.lengths.max())
        if longest < max(window, goal_len):
            raise ValueError(
                f"the longest of {len(episodes)} episodes has {longest} steps; a window takes {window} and a goal "
                f"{goal_len}: choose shorter ones"
            )
        self.episodes, self.window, self.goal_len = episodes, window, goal_len
        self.min_sep, self.tail_only = min_sep, tail_only
        steps = np.arange(episodes.steps)
        ends = episodes.ends[episodes.episode_of(steps)]
        starts = episodes.starts[episodes.episode_of(steps)]
        fits = (steps + window <= ends) & (ends - starts >= goal_len)
        self.starts, self.ends = steps[fits], ends[fits]

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self, chosen: np.ndarray, generator: np.random.Generator) -> HindsightRows:
        """Steps of some windows and of freshly drawn goals.

        Args:
            chosen: (B,) numbers of windows.
            generator: draws the goals.
        """
        starts, ends = self.starts[chosen], self.ends[chosen]
        tail = ends - self.goal_len
        first = starts + self.window + self.min_sep
        missing = first >= tail
        goal = tail
        if self.tail_only:
            missing = np.zeros_like(missing)
        else:
            drawn = first + (generator.random(len(starts)) * (tail - first)).astype(np.int64)
            goal = np.where(missing, tail, drawn)
        return HindsightRows(
            starts[:, None] + np.arange(self.window), goal[:, None] + np.arange(self.goal_len), missing
        )

    def gather(self, chosen: np.ndarray, generator: np.random.Generator) -> dict[str, Any]:
        """A batch: windows of states and actions, and their goals.

        Returns:
            ``observations``: name to (B, k, ...); ``actions``: (B, k, A); ``goal``: name to (B, G, ...);
            ``goal_missing``: (B,) booleans, True where nothing comes after the window.
        """
        rows = self.rows(chosen, generator)
        sources = self.episodes.observations
        return {
            "observations": {name: torch.from_numpy(array[rows.window]) for name, array in sources.items()},
            "actions": torch.from_numpy(self.episodes.actions[rows.window]),
            "goal": {name: torch.from_numpy(array[rows.goal]) for name, array in sources.items()},
            "goal_missing": torch.from_numpy(rows.missing),
        }
