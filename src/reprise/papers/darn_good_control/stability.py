"""Does the advantage of PPO over constant escapement survive where the fishery is another one than assumed?

Every number of Model 4 is perturbed, the rule tuned and PPO trained again on what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reprise.envs.fisheries import MODELS
from reprise.papers.darn_good_control.learning import train, tune_rule
from reprise.papers.darn_good_control.pictures import draw_stability
from reprise.rl.darn_good_control import ConstantEscapement, Learned, Rule, evaluate


@dataclass(frozen=True)
class Settings:
    learn: bool = True  # PPO, or else constant escapement
    spreads: tuple[float, ...] = (0.04, 0.08, 0.12, 0.16, 0.2)  # relative deviation of every number of the model
    episodes: int = 1_000  # that a rule is judged on
    grid: int = 26  # points per harvested species: escapements to 1
    replicates: int = 100  # episodes per point
    steps: int = 300_000  # of PPO, in all environments together
    num_envs: int = 64  # environments of PPO
    n_steps: int = 64  # years between its updates
    batch_size: int = 256  # transitions per update
    n_epochs: int = 6  # passes over the years between updates
    learning_rate: float = 1e-3  # of Adam, at first
    decay: bool = True  # the learning rate falls linearly to zero; as published it does not
    gae_lambda: float = 0.95  # 1 as published
    log_std_init: float = -1.0  # of mortality in [-1, 1]; 0 as published
    time_limit: int = 200  # years of an episode of training; 0 for no limit, as published


def measure(trial: Any) -> dict[str, float]:
    """One perturbed fishery per spread, the same for both arms."""
    s = trial.settings
    rewards = {}
    for i, spread in enumerate(s.spreads):
        fishery = MODELS[4].perturbed(spread, np.random.default_rng([trial.seed, i]))
        rule: Rule
        if s.learn:
            rule = Learned(train(fishery, s, trial))
        else:
            rule = ConstantEscapement(tune_rule(ConstantEscapement, 1.0, fishery, s, trial.seed))
        rewards[f"{spread:g}"] = evaluate(rule, fishery, s.episodes, [trial.seed, 4])["reward"]
        trial.progress(i + 1, len(s.spreads))
    metrics = {f"reward[{spread}]": reward for spread, reward in rewards.items()}
    return metrics | {"mean_reward": float(np.mean(list(rewards.values())))}


def figure(results: Any) -> Figure:
    """Rewards on every perturbed fishery."""
    return draw_stability(results)
