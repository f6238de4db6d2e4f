"""Demonstrations of the tasks as :class:`reprise.data.Episodes`, and their pictures in any style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from reprise.data.episodes import Episodes
from reprise.envs.tabletop.experts import STAGES, STRATEGIES, Expert
from reprise.envs.tabletop.styles import Style
from reprise.envs.tabletop.tasks import ALL_TASKS, TASKS
from reprise.envs.tabletop.world import PROPRIOCEPTION, Tabletop, draw_tables

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
            what is recorded is undisturbed, so that recovery is in the data.
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
    env = Tabletop(num_envs, tasks=tasks, autoreset=False, **options)
    chosen = {name: _strategies(name, strategies) for name in env.tasks}
    jobs = [(name, number) for name in env.tasks for number in range(per_task)]
    waiting = [(job, 0) for job in range(len(jobs))]
    found: dict[int, dict[str, Any]] = {}
    numbers = {name: i for i, name in enumerate(ALL_TASKS)}
    running: list[_Run | None] = [None] * num_envs
    while True:
        idle = [i for i, run in enumerate(running) if run is None]
        if idle and (waiting or env._over.any()):  # the world steps all environments: those without work idle
            begin: list[tuple[int, int, int] | None] = []
            seeds: list[int | None] = [None] * num_envs
            names = [jobs[0][0]] * num_envs
            mask = np.zeros(num_envs, bool)
            for i in idle:
                mask[i] = True
                begin.append((i, *waiting.pop(0)) if waiting else None)
                if begin[-1] is None:
                    seeds[i] = 0
                    continue
                name, number = jobs[begin[-1][1]]
                names[i] = name
                seeds[i] = _seed(seed, numbers[name], number, begin[-1][2])
            observations, _ = env.reset(seed=seeds, options={"reset_mask": mask, "task": names})
            for entry in begin:
                if entry is None:
                    continue
                i, job, attempt = entry
                name, number = jobs[job]
                way = chosen[name][number % len(chosen[name])]
                rng = np.random.default_rng(_seed(seed, numbers[name], number, attempt) + 1)
                expert = Expert(ALL_TASKS[name], env.scenes[i], way, rng, bool(rng.random() < detours))
                running[i] = _Run(job, attempt, expert, rng, env.instructions[i].item())
        if all(run is None for run in running):
            env.close()
            break
        actions = np.zeros((num_envs, 5), np.float32)
        for i, run in enumerate(running):
            if run is not None:
                action = np.clip(next(run.expert), -1, 1).astype(np.float32)
                run.record(observations["state"][i], action, env.qpos[i])
                actions[i] = action
                if noise:
                    actions[i, :4] += noise * run.rng.standard_normal(4)
        observations, _, terminated, truncated, _ = env.step(actions)
        for i, run in enumerate(running):
            if run is not None and (terminated[i] or truncated[i]):
                running[i] = None
                if terminated[i]:
                    name, number = jobs[run.job]
                    found[run.job] = run.episode(numbers[name], STRATEGIES[ALL_TASKS[name].verb].index(run.expert.strategy))
                elif run.attempt + 1 < ATTEMPTS:
                    waiting.append((run.job, run.attempt + 1))
                else:
                    raise RuntimeError(f"the expert failed at {jobs[run.job]} {ATTEMPTS} times; with less noise?")
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


class _Run:
    """One attempt at a demonstration."""

    def __init__(self, job: int, attempt: int, expert: Expert, rng: np.random.Generator, instruction: str) -> None:
        self.job, self.attempt, self.expert, self.rng, self.instruction = job, attempt, expert, rng, instruction
        self.rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]] = []

    def record(self, state: np.ndarray, action: np.ndarray, qpos: np.ndarray) -> None:
        self.rows.append((state, action, qpos.astype(np.float32), STAGES.index(self.expert.stage)))

    def episode(self, task: int, strategy: int) -> dict[str, Any]:
        state, actions, qpos, stage = (np.stack(column) for column in zip(*self.rows, strict=True))
        extras = {"qpos": qpos, "stage": stage}
        extras |= {"task": np.full(len(stage), task), "strategy": np.full(len(stage), strategy)}
        return {
            "observations": {"state": state},
            "actions": actions,
            "instruction": self.instruction,
            "extras": extras,
        }


def _seed(seed: int, task: int, number: int, attempt: int) -> int:
    return int(np.random.SeedSequence((seed, task, number, attempt)).generate_state(1)[0])


def _strategies(task: str, strategies: Sequence[str] | None) -> tuple[str, ...]:
    known = STRATEGIES[ALL_TASKS[task].verb]
    chosen = tuple(way for way in known if strategies is None or way in strategies)
    if not chosen:
        raise ValueError(f"none of {strategies} does {task}; there are {', '.join(known)}")
    return chosen
