"""Windows of episodes: what was seen up to a step, what was done from it on, and goals out of what came later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprise.data.episodes import Episodes

__all__ = ["Windows"]

GOALS = ("future", "final")


class Windows:
    """One window for each step of each episode; none crosses the end of its episode.

    ``windows[index]`` gathers a batch, a dictionary of

    - ``observations``: name to (B, history, ...), the last of them that of the step itself. Before the start of an
      episode its first observation is repeated.
    - ``history_padding``: (B, history) booleans, True where it is repeated.
    - ``actions``: (B, future, A), the first of them at the step plus ``first_action``. Beyond either end of the episode
      the nearest action is repeated.
    - ``padding``: (B, future) booleans, True where it is repeated: no loss there.
    - ``step``, ``episode``: (B,) numbers of the step within its episode, and of the episode.
    - with a goal, ``goal``: name to (B, ...), an observation of the same episode, and ``goal_distance``: (B,) how many
      steps later it was seen.

    Args:
        episodes: the source; arrays are gathered, never copied whole.
        history: observations in a window.
        future: actions in a window.
        first_action: of the chunk, relative to the step; ``1 - history`` starts it beside the first observation.
        goal: None, "final" (the last observation of the episode) or "future" (one drawn uniformly from the steps
            after this one, the step itself only at the end of its episode: hindsight).
        goal_horizon: how many steps later a drawn goal may lie; None to the end of the episode.
        observations: names to gather; None takes all.
        goal_observations: names of what a goal consists of; None takes what is observed.

    Raises:
        ValueError: lengths below 1, an unknown goal or observation.

    Source: action chunks with padding as in Zhao et al., ACT, RSS 2023, and Chi et al., Diffusion Policy, RSS 2023;
    hindsight goals as in Andrychowicz et al., NeurIPS 2017 ("future"), and Lynch et al., CoRL 2019.

    Example:
        >>> count = np.arange(5, dtype=np.float32)[:, None]
        >>> episodes = Episodes({"x": count}, count, ends=np.array([3, 5]))
        >>> batch = Windows(episodes, history=2, future=3)[torch.tensor([1, 3])]
        >>> batch["observations"]["x"][..., 0].tolist(), batch["actions"][..., 0].tolist()
        ([[0.0, 1.0], [3.0, 3.0]], [[1.0, 2.0, 2.0], [3.0, 4.0, 4.0]])
        >>> batch["padding"].tolist()
        [[False, False, True], [False, False, True]]
    """

    def __init__(
        self,
        episodes: Episodes,
        history: int = 1,
        future: int = 1,
        *,
        first_action: int = 0,
        goal: str | None = None,
        goal_horizon: int | None = None,
        observations: Sequence[str] | None = None,
        goal_observations: Sequence[str] | None = None,
    ) -> None:
        if history < 1 or future < 1 or (goal_horizon is not None and goal_horizon < 1):
            raise ValueError(
                f"history, future and goal_horizon are at least 1, not {history}, {future}, {goal_horizon}"
            )
        if goal is not None and goal not in GOALS:
            raise ValueError(f"unknown goal {goal!r}; there are None, {', '.join(map(repr, GOALS))}")
        names = tuple(episodes.observations) if observations is None else tuple(observations)
        goal_names = names if goal_observations is None else tuple(goal_observations)
        if unknown := [name for name in (*names, *goal_names) if name not in episodes.observations]:
            raise ValueError(f"unknown observation {unknown[0]!r}; there are {', '.join(episodes.observations)}")
        self.episodes, self.history, self.future = episodes, history, future
        self.first_action, self.goal, self.goal_horizon = first_action, goal, goal_horizon
        self.names, self.goal_names = names, goal_names

    def __len__(self) -> int:
        return self.episodes.steps

    def __getitem__(self, index: Any) -> dict[str, Any]:
        """The windows of some steps; a single number gives one without the batch axis, so that a DataLoader works.

        Drawn goals come from NumPy's global generator; :meth:`gather` takes one of your own.

        Raises:
            IndexError: there is no such step.
        """
        steps = np.asarray(index)
        if steps.ndim == 0:
            if not -len(self) <= steps < len(self):  # iteration over windows ends here
                raise IndexError(f"there are {len(self)} windows, and none of number {int(steps)}")
            return _first(self.gather(steps[None]))
        return self.gather(steps)

    def gather(self, steps: np.ndarray, generator: np.random.Generator | None = None) -> dict[str, Any]:
        """The windows of some steps.

        Args:
            steps: (B,) numbers of steps, or B booleans as long as there are steps.
            generator: draws the goals.
        """
        steps = np.asarray(steps)
        if steps.dtype == bool or (steps < 0).any():
            steps = np.arange(len(self))[steps]
        episode = self.episodes.episode_of(steps)
        first, last = self.episodes.starts[episode][:, None], self.episodes.ends[episode][:, None] - 1
        seen = steps[:, None] + np.arange(1 - self.history, 1)
        done = steps[:, None] + np.arange(self.first_action, self.first_action + self.future)
        batch: dict[str, Any] = {
            "observations": self._observations(self.names, np.maximum(seen, first)),
            "history_padding": torch.from_numpy(seen < first),
            "actions": torch.from_numpy(self.episodes.actions[np.clip(done, first, last)]),
            "padding": torch.from_numpy((done < first) | (done > last)),
            "step": torch.from_numpy(steps - first[:, 0]),
            "episode": torch.from_numpy(episode),
        }
        if self.goal is not None:
            distance = last[:, 0] - steps
            if self.goal == "future":
                reach = distance if self.goal_horizon is None else np.minimum(distance, self.goal_horizon)
                draw = np.random.random if generator is None else generator.random
                distance = np.minimum(1 + (draw(len(steps)) * reach).astype(np.int64), reach)
            batch["goal"] = self._observations(self.goal_names, steps + distance)
            batch["goal_distance"] = torch.from_numpy(distance)
        return batch

    def batches(self, batch_size: int, seed: int, epochs: int = 1, drop_last: bool = True) -> Iterator[dict[str, Any]]:
        """Shuffled batches; the same seed gives the same batches and goals.

        Args:
            batch_size: windows in a batch.
            seed: of order and goals.
            epochs: how often each window comes.
            drop_last: whether a smaller last batch of an epoch is left out.

        Raises:
            ValueError: no batch would be full.
        """
        if batch_size < 1 or (drop_last and batch_size > len(self)):
            raise ValueError(f"a batch has between 1 and {len(self)} windows, not {batch_size}")
        generator = np.random.default_rng(seed)
        for _ in range(epochs):
            order = generator.permutation(len(self))
            stop = len(self) - len(self) % batch_size if drop_last else len(self)
            for start in range(0, stop, batch_size):
                yield self.gather(order[start : start + batch_size], generator)

    def _observations(self, names: Sequence[str], steps: np.ndarray) -> dict[str, Tensor]:
        return {name: torch.from_numpy(self.episodes.observations[name][steps]) for name in names}


def _first(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: _first(value) if isinstance(value, dict) else value[0] for key, value in batch.items()}
