"""Episodes: what was observed and done, one after the other in flat arrays, and where each episode ends."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reprise.files import home

__all__ = ["Episodes", "load"]


@dataclass(frozen=True)
class Episodes:
    """E episodes of T steps in all.

    Attributes:
        observations: name to (T, ...) array; pictures are bytes (T, H, W, 3).
        actions: (T, A) float32, what was done at each observation.
        ends: (E,) int64, one past the last step of each episode.
        instructions: one sentence for each episode, or none at all.
        extras: name to (T, ...) array of whatever else was recorded at each step, say ``reward``.

    Raises:
        ValueError: arrays of different lengths, ends that do not rise to T, or values that are not finite.

    Example:
        >>> walks = [{"observations": {"state": np.zeros((n, 2))}, "actions": np.ones((n, 1))} for n in (3, 5)]
        >>> episodes = Episodes.of(walks)
        >>> len(episodes), episodes.steps, episodes.lengths.tolist()
        (2, 8, [3, 5])
    """

    observations: Mapping[str, np.ndarray]
    actions: np.ndarray
    ends: np.ndarray
    instructions: tuple[str, ...] = ()
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.actions.ndim != 2 or not self.observations:
            raise ValueError(f"actions are (T, A) and there is an observation, not actions of {self.actions.shape}")
        steps = len(self.actions)
        named = {**self.observations, **self.extras}
        for name, array in named.items():
            if len(array) != steps:
                raise ValueError(f"{name} has {len(array)} steps, the actions have {steps}")
        if (
            self.ends.ndim != 1
            or not len(self.ends)
            or (np.diff(self.ends, prepend=0) < 1).any()
            or self.ends[-1] != steps
        ):
            raise ValueError(f"ends must rise from above 0 to the {steps} steps there are, not {self.ends}")
        if self.instructions and len(self.instructions) != len(self.ends):
            raise ValueError(f"{len(self.ends)} episodes take as many instructions, not {len(self.instructions)}")
        for name, array in {**named, "actions": self.actions}.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                bad = int(np.argmin(np.isfinite(array.reshape(steps, -1)).all(1)))
                raise ValueError(f"{name} is not finite at step {bad} (episode {int(self.episode_of(bad))})")

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.actions)

    @property
    def starts(self) -> np.ndarray:
        """(E,) the first step of each episode."""
        return np.concatenate([[0], self.ends[:-1]])

    @property
    def lengths(self) -> np.ndarray:
        """(E,) steps of each episode."""
        return self.ends - self.starts

    def episode_of(self, step: np.ndarray | int) -> np.ndarray:
        """Which episode a step belongs to."""
        return np.searchsorted(self.ends, step, side="right")

    def __getitem__(self, index: int | slice | np.ndarray | Sequence[int]) -> Episodes:
        """Some episodes, in the order given.

        Raises:
            IndexError: there is no such episode.
        """
        chosen = np.atleast_1d(np.arange(len(self))[index])
        if not len(chosen):
            raise IndexError("at least one episode must be chosen")
        starts = self.starts
        rows = np.concatenate([np.arange(starts[i], self.ends[i]) for i in chosen])
        return Episodes(
            {name: array[rows] for name, array in self.observations.items()},
            self.actions[rows],
            np.cumsum(self.lengths[chosen]),
            tuple(self.instructions[i] for i in chosen) if self.instructions else (),
            {name: array[rows] for name, array in self.extras.items()},
        )

    def __iter__(self) -> Iterator[Episodes]:
        return (self[i] for i in range(len(self)))

    def split(self, test: int, seed: int) -> tuple[Episodes, Episodes]:
        """Training and test episodes, drawn whole.

        Args:
            test: how many episodes are held out.
            seed: of the draw.

        Raises:
            ValueError: nothing would be left to train on, or to test.
        """
        if not 0 < test < len(self):
            raise ValueError(f"of {len(self)} episodes between 1 and {len(self) - 1} can be held out, not {test}")
        order = np.random.default_rng(seed).permutation(len(self))
        return self[np.sort(order[test:])], self[np.sort(order[:test])]

    @classmethod
    def of(cls, episodes: Sequence[Mapping[str, object] | Episodes]) -> Episodes:
        """Put episodes one after the other.

        Args:
            episodes: each an Episodes, or a dictionary with ``observations`` and ``actions`` (one episode), and
                optionally ``instruction`` and ``extras``.

        Raises:
            ValueError: there are none, they observe different things, or only some have instructions.
        """
        parts = [episode if isinstance(episode, Episodes) else _one(episode) for episode in episodes]
        if not parts:
            raise ValueError("at least one episode is needed")
        kinds = {(tuple(sorted(p.observations)), tuple(sorted(p.extras)), bool(p.instructions)) for p in parts}
        if len(kinds) > 1:
            raise ValueError(f"episodes must record the same things; here some differ: {sorted(kinds)}")
        offsets = np.cumsum([0] + [part.steps for part in parts])
        return cls(
            {name: np.concatenate([part.observations[name] for part in parts]) for name in parts[0].observations},
            np.concatenate([part.actions for part in parts]),
            np.concatenate([part.ends + offset for part, offset in zip(parts, offsets[:-1], strict=True)]),
            sum((part.instructions for part in parts), ()),
            {name: np.concatenate([part.extras[name] for part in parts]) for name in parts[0].extras},
        )


def load(name: str, cameras: Sequence[str] | None = None) -> Episodes:
    """Load demonstrations that :mod:`reprise.data.store` finds: one parquet file, or a folder in LeRobot's layout.

    "pusht" are the human demonstrations of Push-T (206 episodes, 25,650 steps at 10 Hz; Chi et al., 2023): finger and
    block in ``state``, 96x96 ``image``, ``keypoints``.

    Args:
        name: of the set.
        cameras: names of the pictures to read; () reads none, which is much quicker, None all.

    Raises:
        reprise.data.DataMissing: the set is not on this machine.
        ValueError: a file is damaged, or lacks a column.
    """
    from reprise.data import lerobot, store

    roots = [os.environ["REPRISE_DATA"]] if os.environ.get("REPRISE_DATA") else []
    for folder in [*(Path(root) / name for root in roots), home() / "data" / name]:
        if (folder / "meta" / "info.json").is_file():
            return lerobot.read_lerobot(folder, cameras)
    return lerobot.read_flat(store.find(name, "train"), cameras)


def _one(episode: Mapping[str, object]) -> Episodes:
    observations, actions = dict(episode["observations"]), np.asarray(episode["actions"], np.float32)  # type: ignore[call-overload]
    extras: Mapping[str, object] = episode.get("extras", {})  # type: ignore[assignment]
    instruction = episode.get("instruction")
    return Episodes(
        {name: np.asarray(array) for name, array in observations.items()},
        actions,
        np.array([len(actions)]),
        () if instruction is None else (str(instruction),),
        {name: np.asarray(array) for name, array in extras.items()},
    )
