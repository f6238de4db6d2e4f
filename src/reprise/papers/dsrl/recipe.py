"""Can a frozen diffusion policy be improved by choosing its initial noise, and does aliasing noise help?

Sloppy demonstrators put a peg into either of two slots, of which only the left one counts. A diffusion policy is cloned
from them once per seed and frozen; then everybody learns from the same reward and the same number of chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reprise.envs import ChunkedEnv, PegInsert, peg_demonstrations
from reprise.papers.dsrl.pictures import draw, record_paths
from reprise.policies import DSRL, BestOfN, DiffusionPolicy
from reprise.rl import SAC, QNetworks, TanhGaussianActor
from reprise.training import Diverged

Act = Callable[[Any], np.ndarray]  # observations to chunks
TASK = "two_slots"
EXECUTE = 4  # actions of a chunk


@dataclass(frozen=True)
class Settings:
    learner: str = "dsrl"  # "none", "dsrl", "sac" (on the actions themselves) or "best_of_n"
    variant: str = "na"  # of DSRL
    demonstrations: int = 200  # failures among them
    sloppiness: float = 0.7  # of the demonstrators' aim, in clearances
    base_steps: int = 4_000  # of the diffusion policy's training
    width: int = 128  # of all networks
    num_envs: int = 32  # environments
    warm_up: int = 40  # chunks in each before learning
    chunks: int = 150  # and after
    utd: int = 15  # updates after each chunk of all environments
    distill_steps: int = 30  # after those; 10 as published
    batch_size: int = 128  # transitions per update
    noise_bound: float = 1.5  # b
    learning_rate: float = 1e-3  # of actor, critics and temperature; 3e-4 as published
    temperature: float = 0.05  # at first; 1 as published
    proposals: int = 16  # n of the best of n
    every: int = 25  # chunks between evaluations
    episodes: int = 200  # of an evaluation


def prepare(trial: Any) -> DiffusionPolicy:
    """The frozen policy of this seed: network and sampler of the released ones."""
    s = trial.settings
    demonstrations = peg_demonstrations(TASK, s.demonstrations, trial.seed, sloppiness=s.sloppiness, failures=True)
    base = DiffusionPolicy(
        network="mlp", network_options={"width": s.width, "step_embed_dim": 16}, horizon=EXECUTE, history=1,
        pad_end=None, train_steps=20, inference_steps=5, recompute_epsilon=True,
    )  # fmt: skip
    return base.fit(
        demonstrations, steps=s.base_steps, learning_rate=1e-3, ema=None, on_step=lambda i, n, _: trial.progress(i, n)
    )


def measure(trial: Any) -> dict[str, float]:
    """Learn, and play some episodes now and then."""
    s = trial.settings
    if s.learner == "none":
        act: Act = lambda observation: trial.shared.plan(observation).numpy()  # noqa: E731
        np.save(trial.folder / "paths.npy", record_paths(act, EXECUTE))
        rate = success(act, trial)
        return {"success": rate, "area": rate}
    learner, rates = make_learner(trial), []
    act = partial(learner.act, deterministic=False)
    try:
        for _ in range(s.chunks // s.every):
            learner.learn(s.num_envs * s.every)
            rates.append(success(act, trial))
            trial.curve("success", learner.env.played, rates[-1])  # type: ignore[attr-defined]
            trial.progress(len(rates), s.chunks // s.every)
    except Diverged:
        rates.append(0.0)
    np.save(trial.folder / "paths.npy", record_paths(act, EXECUTE))
    trial.count(env_steps=learner.env.played, updates=learner.updates)  # type: ignore[attr-defined]
    return {"success": rates[-1], "area": float(np.mean(rates))}


def make_learner(trial: Any) -> SAC:
    """What learns in this arm, after the same chunks of the unsteered policy."""
    s = trial.settings
    env = PegInsert(s.num_envs, TASK)
    shared: dict[str, Any] = {
        "learning_rate": s.learning_rate, "batch_size": s.batch_size, "initial_temperature": s.temperature,
        "target_entropy": 0.0, "seed": trial.seed, "device": trial.device,
    }  # fmt: skip
    of_dsrl = shared | {
        "execute": EXECUTE, "hidden": (s.width,) * 3, "noise_bound": s.noise_bound, "utd": s.utd,
        "distill_steps": s.distill_steps, "warm_up": s.warm_up,
    }  # fmt: skip
    learner: SAC
    if s.learner == "best_of_n":
        learner = BestOfN(env, trial.shared, proposals=s.proposals, **of_dsrl)
    elif s.learner in ("dsrl", "sac"):
        learner = DSRL(env, trial.shared, variant=s.variant, **of_dsrl)
    else:
        raise ValueError(f'learner is "none", "dsrl", "best_of_n" or "sac", not {s.learner!r}')
    for _ in range(s.warm_up):
        learner.step()
    if s.learner == "sac":  # goes on from there with the chunks themselves as its actions
        sizes = 6, 2 * EXECUTE
        shape: dict[str, Any] = {"hidden": (s.width,) * 3, "activation": "tanh", "layer_norm": True}
        learner = SAC(
            learner.env, actor=TanhGaussianActor(*sizes, **shape), critics=QNetworks(*sizes, **shape),
            utd=s.utd / s.num_envs, learning_starts=0, buffer=learner.buffer, **shared,
        )  # fmt: skip
    return learner


def success(act: Act, trial: Any) -> float:
    """Share of episodes that end well, from starts that all arms of a seed have in common."""
    env = ChunkedEnv(PegInsert(trial.settings.episodes, TASK), EXECUTE)
    observation, _ = env.reset(seed=10_000_000 + 1_000 * trial.seed)
    won, over = np.zeros((2, env.num_envs), bool)
    while not over.all():
        chunks = act(observation)
        observation, _, terminated, truncated, _ = env.step(np.clip(chunks, -1, 1))
        won |= terminated & ~over
        over |= terminated | truncated
    return float(won.mean())


def figure(results: Any) -> Figure:
    """Learning curves, and where the peg goes, unsteered and steered."""
    return draw(results)
