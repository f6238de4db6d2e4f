"""Can choosing its initial noise improve a frozen diffusion policy of an arm that takes a cube to a point in space?

Demonstrators that aim badly leave a policy that often grasps beside the cube. It is cloned once per seed and frozen;
then DSRL-NA learns from nothing but success which noise to start it from.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from reprise.envs.maniskill.sloppy import CubeInHand, sloppy_demonstrations
from reprise.papers.figures import draw_learning
from reprise.policies import DSRL, ChunkedPolicy, DiffusionPolicy, evaluate
from reprise.training import Diverged

EXECUTE = 4  # actions of a chunk


@dataclass(frozen=True)
class Settings:
    steered: bool = True  # or the frozen policy as it is
    demonstrations: int = 100  # that succeed
    sloppiness: float = 0.01  # of the demonstrators' aim, in metres; the cube is 4 cm wide
    base_steps: int = 2_500  # of the diffusion policy's training
    width: int = 128  # of all networks
    max_steps: int = 60  # of an episode; demonstrators need about 25
    num_envs: int = 16  # environments
    warm_up: int = 60  # chunks in each before learning
    chunks: int = 200  # and after
    utd: int = 10  # updates after each chunk of all environments
    distill_steps: int = 20  # after those
    batch_size: int = 128  # transitions per update
    noise_bound: float = 1.5  # b
    learning_rate: float = 1e-3  # of actor, critics and temperature; 3e-4 as published
    temperature: float = 0.005  # at first; 1 as published
    every: int = 50  # chunks between evaluations
    episodes: int = 200  # of an evaluation


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
    """Learn, and play some episodes now and then."""
    s, base = trial.settings, deepcopy(trial.shared)  # which remembers what it saw
    if not s.steered:
        return {"success": success(base, trial)}
    dsrl = DSRL(
        CubeInHand(s.num_envs, max_episode_steps=s.max_steps), base, execute=EXECUTE,
        hidden=(s.width,) * 3, noise_bound=s.noise_bound, utd=s.utd, distill_steps=s.distill_steps, warm_up=s.warm_up,
        learning_rate=s.learning_rate, batch_size=s.batch_size, initial_temperature=s.temperature, seed=trial.seed,
        device=trial.device,
    )  # fmt: skip
    dsrl.learn(s.num_envs * s.warm_up)
    rate = 0.0
    try:
        for done in range(s.every, s.chunks + 1, s.every):
            dsrl.learn(s.num_envs * s.every)
            rate = success(dsrl.steered(), trial)
            trial.curve("success", dsrl.env.played, rate)  # type: ignore[attr-defined]
            trial.progress(done, s.chunks)
    except Diverged:
        rate = 0.0
    trial.count(env_steps=dsrl.env.played, updates=dsrl.updates)  # type: ignore[attr-defined]
    return {"success": rate}


def success(policy: Any, trial: Any) -> float:
    """Share of episodes that end well, from starts that both arms of a seed have in common."""
    s = trial.settings
    env = CubeInHand(min(20, s.episodes), max_episode_steps=s.max_steps)
    found = evaluate(ChunkedPolicy(policy, EXECUTE), env, s.episodes, seed=10_000_000 + 1_000 * trial.seed)
    return found.success_rate


def figure(results: Any) -> Figure:
    """Success by arm, and how it grows with experience."""
    return draw_learning(results, "success", "success", "share of episodes")
