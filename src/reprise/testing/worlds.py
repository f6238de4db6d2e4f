"""Small vector environments whose answers are known, to test algorithms of reinforcement learning on in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv

__all__ = ["Countdown", "Match"]

Step = tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class Countdown(VectorEnv):
    """Every step is worth 1, whatever one does; episodes end after a number of steps that is known.

    The observation of environment k is 100 k plus a tenth of the steps taken.

    Args:
        lengths: of the episodes of each environment.
        cut: whether they end by truncation.
        action_space: of one environment; two choices by default.
        spoil: "reward" or "observation": the third step gives environment 1 a number that is not finite.

    Example:
        >>> env = Countdown([1, 2], cut=[False, False])
        >>> env.reset()[0].tolist(), env.step(np.zeros(2))[2].tolist()
        ([[0.0], [100.0]], [True, False])
    """

    def __init__(
        self,
        lengths: Sequence[int],
        cut: Sequence[bool],
        action_space: Space | None = None,
        spoil: str | None = None,
    ) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs, self.spoil = len(lengths), spoil
        self.lengths, self.cut = np.array(lengths), np.array(cut, dtype=bool)
        self.single_observation_space: Space = Box(-np.inf, np.inf, (1,), np.float32)
        self.single_action_space: Space = action_space or Discrete(2)
        self.t, self.steps = np.zeros(self.num_envs, dtype=int), 0

    def _observe(self) -> np.ndarray:
        return (100 * np.arange(self.num_envs) + self.t / 10)[:, None].astype(np.float32)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """All environments at 0."""
        self.t[:] = 0
        return self._observe(), {}

    def step(self, actions: Any) -> Step:
        """One further."""
        self.t += 1
        self.steps += 1
        done = self.t == self.lengths
        infos: dict[str, Any] = {}
        if done.any():  # as Gymnasium's SyncVectorEnv gives it
            last = np.full(self.num_envs, None, dtype=object)
            for i in np.flatnonzero(done):
                last[i] = self._observe()[i]
            infos = {"final_obs": last, "_final_obs": done}
        self.t[done] = 0
        observation, reward = self._observe(), np.ones(self.num_envs)
        if self.steps == 3 and self.spoil == "reward":
            reward[1] = np.nan
        if self.steps == 3 and self.spoil == "observation":
            observation[1] = np.inf
        return observation, reward, done & ~self.cut, done & self.cut, infos


class Match(VectorEnv):
    """Do what you see, ten steps long.

    A number x in [-1, 1] is seen, drawn anew each step. The reward is ``-(action - 1 - x)**2`` for actions in [0, 2],
    or 1 for choosing action 1 when x is above 0 and action 0 when not.

    Args:
        num_envs: side by side.
        discrete: a choice of two instead of a number.
        dictionary: x comes in a dictionary, with another number that says nothing.
        seed: of x.

    Example:
        >>> env = Match(2)
        >>> x, _ = env.reset()
        >>> env.step(1 + x)[1].round(6) + 0.0
        array([0., 0.], dtype=float32)
    """

    def __init__(self, num_envs: int = 8, discrete: bool = False, dictionary: bool = False, seed: int = 0) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs, self.discrete, self.dictionary = num_envs, discrete, dictionary
        self.rng, self.t = np.random.default_rng(seed), 0
        number = Box(-1, 1, (1,), np.float32)
        self.single_observation_space: Space = Dict(x=number, idle=number) if dictionary else number
        self.single_action_space: Space = Discrete(2) if discrete else Box(0, 2, (1,), np.float32)

    def _observe(self) -> Any:
        self.x = self.rng.uniform(-1, 1, (self.num_envs, 1)).astype(np.float32)
        return {"x": self.x, "idle": np.zeros_like(self.x)} if self.dictionary else self.x

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """New episodes everywhere."""
        self.t = 0
        return self._observe(), {}

    def step(self, actions: Any) -> Step:
        """Reward what was done, show the next x."""
        reward = 1.0 * (actions == (self.x[:, 0] > 0)) if self.discrete else -np.square(actions - 1 - self.x)[:, 0]
        self.t += 1
        cut = np.full(self.num_envs, self.t % 10 == 0)
        observation = self._observe()
        infos = {"final_obs": observation, "_final_obs": cut} if cut.any() else {}
        return observation, reward, np.zeros(self.num_envs, dtype=bool), cut, infos
