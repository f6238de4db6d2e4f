"""Does a residual repair what a cloned policy of an arm does wrong that takes a cube to a point in space?

Demonstrators that aim badly leave a policy that often grasps beside the cube. It is cloned once per seed and frozen;
then PPO learns from nothing but success how to correct it at every step.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from reprise.envs.maniskill.sloppy import CubeInHand, sloppy_demonstrations
from reprise.papers.figures import draw_learning
from reprise.policies import ChunkedPolicy, DiffusionPolicy, ResidualPolicy, evaluate, fit_residual
from reprise.training import Diverged

EXECUTE = 4  # actions of a chunk that are played


@dataclass(frozen=True)
class Settings:
    residual: bool = True  # or the frozen policy as it is
    demonstrations: int = 100  # that succeed
    sloppiness: float = 0.01  # of the demonstrators' aim, in metres; the cube is 4 cm wide
    base_steps: int = 2_500  # of the diffusion policy's training
    width: int = 128  # of all networks
    max_steps: int = 60  # of an episode; demonstrators need about 25
    num_envs: int = 32  # environments
    iterations: int = 100  # of PPO
    n_steps: int = 60  # steps in each environment between updates: an episode at most
    n_epochs: int = 10  # passes over these
    batch_size: int = 480  # transitions per update
    actor_rate: float = 1e-3  # 3e-4 as published
    critic_rate: float = 5e-3  # as published
    episodes: int = 200  # that a policy is judged on


def prepare(trial: Any) -> DiffusionPolicy:
    """The frozen policy of this seed."""
    s = trial.settings
    base = DiffusionPolicy(
        network="mlp", network_options={"width": s.width, "step_embed_dim": 16}, horizon=EXECUTE, history=1,
        pad_end=None, train_steps=20, inference_steps=5, recompute_epsilon=True,
    )  # fmt: skip
    return base.fit(
        sloppy_demonstrations(s.demonstrations, trial.seed, sloppiness=s.sloppiness, max_steps=s.max_steps),
        steps=s.base_steps, learning_rate=1e-3, ema=None, on_step=lambda i, n, _: trial.progress(i, n),
    )  # fmt: skip


def measure(trial: Any) -> dict[str, float]:
    """Learn on top of the frozen policy, or not, and judge the result."""
    s, base = trial.settings, deepcopy(trial.shared)  # which remembers what it saw
    if not s.residual:
        return {"success": success(ChunkedPolicy(base, EXECUTE), trial)}
    policy = ResidualPolicy(base, 16, 4, execute=EXECUTE, hidden=(s.width,) * 2)

    def watch(step: int, total: int, values: dict[str, float]) -> None:
        trial.progress(step, total)
        trial.curve("success while exploring", step, values.get("episode_return", 0.0))

    try:
        fit_residual(
            CubeInHand(s.num_envs, max_episode_steps=s.max_steps), policy, s.iterations * s.n_steps * s.num_envs,
            n_steps=s.n_steps, n_epochs=s.n_epochs, batch_size=s.batch_size, actor_rate=s.actor_rate,
            critic_rate=s.critic_rate, seed=trial.seed, on_step=watch,
        )  # fmt: skip
    except Diverged:
        return {"success": 0.0}
    trial.count(env_steps=s.iterations * s.n_steps * s.num_envs)
    return {"success": success(policy, trial)}


def success(policy: Any, trial: Any) -> float:
    """Share of episodes that end well, from starts that both arms of a seed have in common."""
    s = trial.settings
    env = CubeInHand(min(20, s.episodes), max_episode_steps=s.max_steps)
    return evaluate(policy, env, s.episodes, seed=10_000_000 + 1_000 * trial.seed).success_rate


def figure(results: Any) -> Figure:
    """Success by arm, and how it grows with experience."""
    return draw_learning(results, "success", "success while exploring", "share of episodes")
