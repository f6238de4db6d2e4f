"""Does a score-based diffusion policy do with play what behaviour cloning cannot, and do three steps suffice?

Two blocks, two targets; the demonstrator draws pairing and order at random. Each policy learns from the same windows
with hindsight goals and is then asked, on new boards, for what a demonstration it has never seen ended with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reprise.envs import BLOCK_ENTRIES, BlockPush, block_push_demonstrations, block_push_goals, block_push_pairs
from reprise.papers.beso.learning import learn, sampled
from reprise.papers.beso.pictures import draw
from reprise.policies.beso.history import HistoryPolicy

SHOWN = 24  # rollouts from one start, for the figure


@dataclass(frozen=True)
class Settings:
    method: str = "beso"  # "beso", "gcbc" or "cbet"
    goal_drop: float = 0.0  # of BESO: each number of a goal is left out with this probability in training
    window: int = 2  # observations that are seen
    embed_dim: int = 64  # width of the transformer
    n_layers: int = 2  # its blocks
    n_heads: int = 4  # its heads
    updates: int = 8_000  # optimiser steps
    batch_size: int = 128  # windows per step
    learning_rate: float = 2e-3  # of Adam at the start; a cosine takes it to zero
    transport: str = "carry"  # "carry" or "push": how the effector moves blocks
    demonstrations: int = 400  # to learn from
    held_out: int = 100  # demonstrations whose last states are goals
    disturbance: float = 0.33  # of the demonstrator's executed action, in maximal steps; what is recorded has none
    rollouts: int = 200  # boards, each with one goal
    limit: int = 120  # steps of a rollout
    steps: tuple[int, ...] = ()  # numbers of denoising steps to compare, besides the usual 3
    scales: tuple[float, ...] = ()  # guidance to compare, besides the usual 1


def prepare(trial: Any) -> dict[str, Any]:
    """This seed's demonstrations, and the last states of others."""
    s = trial.settings
    made = block_push_demonstrations(
        s.demonstrations + s.held_out, trial.seed, transport=s.transport, disturbance=s.disturbance
    )
    train, test = made.split(s.held_out, trial.seed)
    return {"train": train, "finals": test.observations["state"][test.ends - 1]}


def measure(trial: Any) -> dict[str, float]:
    """Train one policy; ask it for the goals, with other steps and scales too."""
    s, shared = trial.settings, trial.shared
    policy = learn(trial, shared["train"], BLOCK_ENTRIES)

    def ask(**sampling: Any) -> tuple[float, float]:
        return rollouts(trial, sampled(policy, **sampling), shared["finals"])

    metrics = dict(zip(("result", "reward"), ask(), strict=True))
    for n in s.steps:
        metrics[f"by_steps[{n}]"] = metrics["result"] if n == 3 else ask(steps=n)[0]
    for scale in s.scales:
        found = ask(guidance=scale) if scale != 1 else (metrics["result"], metrics["reward"])
        metrics[f"by_scale[{scale:g}]"], metrics[f"reward_by_scale[{scale:g}]"] = found
    show(trial, sampled(policy), shared["finals"])
    return metrics


def rollouts(trial: Any, policy: HistoryPolicy | None, finals: np.ndarray) -> tuple[float, float]:
    """Shares of the pairs that were asked for, and of the blocks that came into targets of their own."""
    s = trial.settings
    env = BlockPush(s.rollouts, s.transport, s.limit)
    state, _ = env.reset(seed=1_000_000_007 + 100_003 * trial.seed)
    finals = finals[np.arange(s.rollouts) % len(finals)]
    goals, asked = block_push_goals(finals, state), block_push_pairs(finals)
    pairs, _ = follow(env, policy, state, goals, s.limit)
    rows = np.arange(s.rollouts)[:, None]
    result = pairs[rows, [0, 1], asked].mean()
    reward = np.maximum(pairs[rows, [0, 1], [0, 1]].sum(1), pairs[rows, [0, 1], [1, 0]].sum(1)).mean() / 2
    return float(result), float(reward)


def follow(
    env: BlockPush, policy: HistoryPolicy | None, state: np.ndarray, goals: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of each board at the end of its first episode, and the way (steps, boards, 2) of the effector."""
    pairs, running = np.zeros((env.num_envs, 2, 2), bool), np.ones(env.num_envs, bool)
    way = np.full((limit + 1, env.num_envs, 2), np.nan)
    way[0] = state[:, :2]
    if policy is None:  # it diverged
        return pairs, way
    policy.reset()
    for step in range(limit):
        state, _, terminated, truncated, infos = env.step(policy.act(state, goal=goals))
        over = terminated | truncated
        told = np.where(over[:, None, None], infos.get("final_info", infos)["pairs"], infos["pairs"])
        pairs[running] = told[running]
        running &= ~over
        way[step + 1, running] = state[running, :2]
        if not running.any():
            break
    return pairs, way


def show(trial: Any, policy: HistoryPolicy | None, finals: np.ndarray) -> None:
    """Keep the ways from one start, as far from either block, to one goal, for the figure."""
    s = trial.settings
    env = BlockPush(SHOWN, s.transport, s.limit)
    env.reset(seed=[7] * SHOWN)
    env.effector[:] = (0.5, 0.1)
    state = env.observe(np.arange(SHOWN))
    goals = block_push_goals(finals[:1].repeat(SHOWN, 0), state)
    _, way = follow(env, policy, state, goals, s.limit)
    np.savez(trial.folder / "ways.npz", way=way, start=state[0], goal=goals[0])


def figure(results: Any) -> Figure:
    """Ways from one start to one goal, what was reached, and how steps and guidance change it."""
    return draw(results)
