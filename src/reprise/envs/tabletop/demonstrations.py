"""Demonstrations of the tasks as :class:`reprise.data.Episodes`, and their pictures in any style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from reprise.data.episodes import Episodes
from reprise.envs.tabletop.experts import STAGES, STRATEGIES, Expert
from reprise.envs.tabletop.styles import Style
from reprise.envs.tabletop.tasks import ALL_TASKS, TASKS, Scene
from reprise.envs.tabletop.world import NUMBERS, PROPRIOCEPTION, Tabletop, draw_tables

__all__ = ["demonstrate", "with_pictures"]

ATTEMPTS = 10


def demonstrate(
    tasks: Sequence[str] = TASKS,
    per_task: int = 50,
    seed: int = 0,
    *,
    strategies: Sequence[str] | None = None,
    noise: float = 0.0,
    detours: float = 0.0,
    num_envs: int = 32,
    **options: Any,
) -> Episodes:
    """Let the experts act until each task has been done as often as asked for; failures are drawn anew.

    An episode depends on seed, task and its number alone. It has ``state`` observations, its instruction, and as extras
    of every step ``qpos`` (29,), ``stage`` (a number of ``STAGES``), ``task`` (of ``ALL_TASKS``) and ``strategy`` (of
    the task's ``STRATEGIES``).

    Args:
        tasks: names out of ``ALL_TASKS``.
        per_task: episodes of each.
        seed: of everything that is drawn.
        strategies: the only ones that are used; None uses all of each task in turn.
        noise: standard deviation of a disturbance of the motion that is carried out, as a share of the largest action;
            what is recorded is undisturbed, so that recovery is in the data. Beyond 0.2 many attempts fail.
        detours: share of episodes in which the hand first goes round by a way-point.
        num_envs: side by side.
        **options: of :class:`Tabletop`, say ``phrasing`` or ``threads``.

    Raises:
        ValueError: unknown task, or one that none of the strategies does.
        RuntimeError: the experts failed at an episode ten times in a row.

    Example:
        >>> episodes = demonstrate(("press", "lift-red"), per_task=2)
        >>> len(episodes), episodes.observations["state"].shape[1], episodes.actions.shape[1]
        (4, 26, 5)
    """
    env = Tabletop(num_envs, tasks=tasks, **options)
    ways = {name: _strategies(name, strategies) for name in env.tasks}
    jobs = [(name, number) for name in env.tasks for number in range(per_task)]
    waiting = [(job, 0) for job in range(len(jobs))]
    found: dict[int, dict[str, Any]] = {}
    while waiting:
        batch, waiting = waiting[:num_envs], waiting[num_envs:]
        attempts = []
        for job, attempt in batch:
            name, number = jobs[job]
            attempts.append(_Attempt(name, ways[name][number % len(ways[name])], (seed, number, attempt), detours))
        _perform(env, attempts, noise)
        for (job, attempt), made in zip(batch, attempts, strict=True):
            if made.success:
                found[job] = made.episode()
            elif attempt + 1 < ATTEMPTS:
                waiting.append((job, attempt + 1))
            else:
                raise RuntimeError(f"the expert failed at {jobs[job][0]} {ATTEMPTS} times in a row; with less noise?")
    env.close()
    return Episodes.of([found[job] for job in range(len(jobs))])


def with_pictures(
    episodes: Episodes, style: str | Style = "studio", image_size: tuple[int, int] = (64, 64)
) -> Episodes:
    """Demonstrations as an environment with ``obs_mode="image"`` would have observed them.

    Args:
        episodes: of :func:`demonstrate`.
        style: a name out of ``STYLES``, or a :class:`Style`.
        image_size: height and width.

    Raises:
        ValueError: the episodes hold no ``qpos``.
    """
    if "qpos" not in episodes.extras:
        raise ValueError("pictures are drawn from the extra 'qpos', which these episodes lack")
    state = episodes.observations["state"][:, PROPRIOCEPTION]
    pictures = draw_tables(episodes.extras["qpos"], style, image_size)
    return replace(episodes, observations={"state": state, "image": pictures})


class _Attempt:
    """One attempt at a demonstration."""

    def __init__(self, task: str, strategy: str, key: tuple[int, int, int], detours: float) -> None:
        number = NUMBERS[task]
        self.task, self.strategy, self.detours = task, strategy, detours
        self.seed, own = np.random.SeedSequence((number, *key)).generate_state(2).tolist()
        self.rng = np.random.default_rng(own)
        self.kind = {"task": number, "strategy": STRATEGIES[ALL_TASKS[task].verb].index(strategy)}
        self.rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]] = []
        self.over = self.success = False

    def begin(self, scene: Scene, instruction: str) -> None:
        detour = bool(self.rng.random() < self.detours)
        self.expert = Expert(ALL_TASKS[self.task], scene, self.strategy, self.rng, detour)
        self.instruction = instruction

    def act(self, state: np.ndarray) -> np.ndarray:
        action = np.clip(next(self.expert), -1, 1).astype(np.float32)
        qpos = self.expert.scene.qpos.astype(np.float32)
        self.rows.append((state, action, qpos, STAGES.index(self.expert.stage)))
        return action

    def episode(self) -> dict[str, Any]:
        state, actions, qpos, stage = (np.stack(column) for column in zip(*self.rows, strict=True))
        extras = {"qpos": qpos, "stage": stage} | {key: np.full(len(stage), value) for key, value in self.kind.items()}
        return {
            "observations": {"state": state},
            "actions": actions,
            "instruction": self.instruction,
            "extras": extras,
        }


def _perform(env: Tabletop, attempts: Sequence[_Attempt], noise: float) -> None:
    """Side by side; where an attempt is over, or none was begun, the environment idles."""
    idle = env.num_envs - len(attempts)
    seeds = [attempt.seed for attempt in attempts] + [0] * idle
    observations, _ = env.reset(seed=seeds, options={"task": [a.task for a in attempts] + [env.tasks[0]] * idle})
    for attempt, scene, instruction in zip(attempts, env.scenes, env.instructions.tolist(), strict=False):
        attempt.begin(scene, instruction)
    while not all(attempt.over for attempt in attempts):
        actions = np.zeros((env.num_envs, 5), np.float32)
        for i, attempt in enumerate(attempts):
            if not attempt.over:
                actions[i] = attempt.act(observations["state"][i])
                if noise:
                    actions[i, :4] += noise * attempt.rng.standard_normal(4)
        observations, _, terminated, truncated, _ = env.step(actions)
        for attempt, success, end in zip(attempts, terminated, truncated, strict=False):
            if not attempt.over and (success or end):
                attempt.over, attempt.success = True, bool(success)


def _strategies(task: str, strategies: Sequence[str] | None) -> tuple[str, ...]:
    known = STRATEGIES[ALL_TASKS[task].verb]
    chosen = tuple(way for way in known if strategies is None or way in strategies)
    if not chosen:
        raise ValueError(f"none of {', '.join(strategies or ())} does {task}; there are {', '.join(known)}")
    return chosen
