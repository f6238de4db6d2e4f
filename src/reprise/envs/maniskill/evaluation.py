"""How often a policy succeeds, episode by episode of a fixed list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from reprise.envs.maniskill.env import ManiSkillWorld

__all__ = ["evaluate"]


def evaluate(
    policy: Callable[[Any], Any],
    family: str,
    episodes: Sequence[dict[str, int]],
    *,
    num_envs: int = 10,
    also: Mapping[str, Callable[[Any], bool]] | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Let a policy without memory act in every episode until success or until time is up.

    The environments share the episodes: one that is done begins the next that nobody has begun. What is found for an
    episode does not depend on how many environments there are, if the policy treats every row of a batch alike.

    Args:
        policy: observations of a batch to actions (B, A).
        family: one of ``reprise.envs.maniskill.FAMILIES``.
        episodes: arguments of ``World.reset``, say of :func:`~reprise.envs.maniskill.evaluation_episodes`.
        num_envs: side by side.
        also: what else to look for, by name: asked of the world after every step; true where it was once.
        **options: of :class:`~reprise.envs.maniskill.ManiSkillWorld`.

    Returns:
        For each episode in their order ``success`` (n,), ``steps`` (n,), and ``model_id`` (n,), -1 without one; and
        (n,) booleans for each name in ``also``.

    Raises:
        ValueError: no episodes, or unknown family or option.

    Example:
        >>> from reprise.envs.maniskill import evaluation_episodes
        >>> still = lambda observations: np.zeros((len(observations), 7))
        >>> evaluate(still, "PickCube", evaluation_episodes("PickCube")[:3], max_episode_steps=5)["steps"]
        array([5, 5, 5])
    """
    if not episodes:
        raise ValueError("there are no episodes to evaluate on")
    env = ManiSkillWorld(min(num_envs, len(episodes)), family, autoreset=False, **options)
    env.reset(seed=0)
    ids = [episode.get("model_id", -1) for episode in episodes]
    found = {"success": np.zeros(len(episodes), bool), "steps": np.zeros(len(episodes), int), "model_id": np.array(ids)}
    looks = dict(also or {})
    found |= {name: np.zeros(len(episodes), bool) for name in looks}
    running = np.full(env.num_envs, -1)  # the episode in each environment; -1: none is left, it idles
    waiting = list(range(len(episodes)))
    over = np.ones(env.num_envs, bool)
    while True:
        for i in np.flatnonzero(over):
            running[i] = waiting.pop(0) if waiting else -1
        if (running < 0).all():
            env.close()
            return found
        if over.any():
            observations = _begin(env, over, [episodes[max(number, 0)] for number in running.tolist()])
        observations, _, terminated, truncated, infos = env.step(np.asarray(policy(observations)))
        for i in np.flatnonzero(running >= 0):
            for name, look in looks.items():
                found[name][running[i]] |= look(env.worlds[i])
        over = terminated | truncated
        for i in np.flatnonzero(over & (running >= 0)):
            found["success"][running[i]] = infos["success"][i]
            found["steps"][running[i]] = env.elapsed[i]


def _begin(env: ManiSkillWorld, which: np.ndarray, episodes: Sequence[dict[str, int]]) -> Any:
    options: dict[str, Any] = {"reset_mask": which, "episode_seed": np.array([[e["seed"]] for e in episodes])}
    if "model_id" in episodes[0]:
        options["model_id"] = np.array([[e["model_id"]] for e in episodes])
    return env.reset(options=options)[0]
