"""How the experiments tune their simple rules and train PPO, from the fields that their settings share."""

from __future__ import annotations

from typing import Any

import numpy as np

from reprise.envs.fisheries import Fishery, FisheryVectorEnv
from reprise.rl import PPO
from reprise.rl.darn_good_control import parameter_grid, tune
from reprise.training import Diverged


def tune_rule(family: Any, high: float, fishery: Fishery, s: Any, seed: int) -> np.ndarray:
    """The best parameters of a simple rule."""
    grid = parameter_grid(high, s.grid, fishery.fisheries)
    return tune(family, fishery, grid, replicates=s.replicates, seed=seed)[0]


def make_ppo(fishery: Fishery, s: Any, seed: int, device: Any) -> PPO:
    """PPO as the paper sets it, but for the fields of the settings."""
    env = FisheryVectorEnv(s.num_envs, fishery, time_limit=s.time_limit or None)
    return PPO(
        env, n_steps=s.n_steps, batch_size=s.batch_size, n_epochs=s.n_epochs, learning_rate=s.learning_rate,
        gae_lambda=s.gae_lambda, log_std_init=s.log_std_init, gamma=0.99, clip_range=0.3, vf_coef=1.0,
        value_error_clip=50.0, max_grad_norm=None, normalize_advantage="batch", kl_coef=0.2, kl_target=0.01,
        normalize_actions=True, hidden=(64, 64), seed=seed, device=device,
    )  # fmt: skip


def train(fishery: Fishery, s: Any, trial: Any) -> PPO:
    """PPO after its training; untrained, if that diverges."""
    ppo = make_ppo(fishery, s, trial.seed, trial.device)

    def on_step(step: int, total: int, values: dict[str, float]) -> None:
        trial.on_step(step, total, values)
        if s.decay:
            ppo.learning_rate = s.learning_rate * max(0.0, 1 - step / total)

    try:
        return ppo.learn(s.steps, on_step=on_step)
    except Diverged:
        return make_ppo(fishery, s, trial.seed, trial.device)
