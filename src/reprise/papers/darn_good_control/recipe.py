"""Does a learned policy manage a fishery better than the simple rule that was tuned on the very same model?

Constant mortality and constant escapement are tuned on a grid, PPO is trained and smoothed by a Gaussian process, and
all of them are judged on the same fresh episodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reprise.envs.fisheries import MODELS, Fishery
from reprise.papers.darn_good_control.learning import make_ppo, train, tune_rule
from reprise.papers.darn_good_control.pictures import draw
from reprise.rl.darn_good_control import (
    ConstantEscapement,
    ConstantMortality,
    DynamicProgram,
    Learned,
    Rule,
    implied_escapement,
    simulate,
    smooth_rule,
)

SHOWN = 12  # episodes kept for the figure


@dataclass(frozen=True)
class Settings:
    rule: str = "ppo"  # "mortality", "escapement", "ppo", "smooth" (PPO and Gaussian process) or "dynamic_program"
    fraction: float = 1.0  # of the tuned mortality
    deterministic: bool = True  # PPO acts by its mean; the paper evaluates samples
    model: int = 4  # of the four fisheries
    episodes: int = 1_000  # that a rule is judged on
    grid: int = 51  # points per harvested species: mortalities to 0.5, escapements to 1
    replicates: int = 100  # episodes per point
    steps: int = 400_000  # of PPO, in all environments together
    num_envs: int = 64  # environments of PPO
    n_steps: int = 64  # years between its updates
    batch_size: int = 256  # transitions per update
    n_epochs: int = 6  # passes over the years between updates
    learning_rate: float = 1e-3  # of Adam, at first
    decay: bool = True  # the learning rate falls linearly to zero; as published it does not
    gae_lambda: float = 0.95  # 1 as published
    log_std_init: float = -1.0  # of mortality in [-1, 1]; 0 as published
    time_limit: int = 200  # years of an episode of training; 0 for no limit, as published
    n_main: int = 51  # points along the main axis of each grid of the Gaussian process
    n_side: int = 5  # and along the others
    points: int = 20  # per species of the dynamic programme


def prepare(trial: Any) -> dict[str, Any]:
    """Both rules tuned and PPO trained on the model; and where PPO's own episodes lead."""
    s, fishery = trial.settings, MODELS[trial.settings.model]
    tuned = {
        "mortality": tune_rule(ConstantMortality, 0.5, fishery, s, trial.seed),
        "escapement": tune_rule(ConstantEscapement, 1.0, fishery, s, trial.seed),
    }
    ppo = train(fishery, s, trial)
    visited = simulate(Learned(ppo), fishery, 100, [trial.seed, 1], record=True).populations
    assert visited is not None
    visited = visited[np.isfinite(visited).all(-1)]
    return tuned | {"ppo": ppo.policy.state_dict(), "visited": visited}


def measure(trial: Any) -> dict[str, float]:
    """Judge one rule on fresh episodes, the same for every arm."""
    s, fishery = trial.settings, MODELS[trial.settings.model]
    rule = make_rule(fishery, s, trial)
    result = simulate(rule, fishery, s.episodes, [trial.seed, 2])
    trial.count(env_steps=int(result.length.sum()))
    shown = simulate(rule, fishery, SHOWN, [trial.seed, 3], record=True)
    assert shown.populations is not None
    np.savez(trial.folder / "episodes.npz", populations=shown.populations)
    metrics = {key: result.summary()[key] for key in ("reward", "reward_sd", "recorded", "full")}
    if fishery.species > 1:
        metrics["predator_effect"] = _predator_effect(rule, trial.shared["visited"])
    maps = implied_escapement(rule, _map_points(trial.shared["visited"]))
    np.savez(trial.folder / "map.npz", escapement=maps, visited=trial.shared["visited"][::50])
    return metrics


def make_rule(fishery: Fishery, s: Settings, trial: Any) -> Rule:
    """The rule of an arm."""
    if s.rule == "mortality":
        return ConstantMortality(trial.shared["mortality"]).fraction(s.fraction)
    if s.rule == "escapement":
        return ConstantEscapement(trial.shared["escapement"])
    if s.rule == "dynamic_program":
        return DynamicProgram(fishery, s.points)
    ppo = make_ppo(fishery, s, trial.seed, trial.device)
    ppo.policy.load_state_dict(trial.shared["ppo"])
    if s.rule == "ppo":
        return Learned(ppo, s.deterministic)
    if s.rule == "smooth":
        return smooth_rule(Learned(ppo), trial.shared["visited"], n_main=s.n_main, n_side=s.n_side, seed=trial.seed)
    raise ValueError(f'rule is "mortality", "escapement", "ppo", "smooth" or "dynamic_program", not {s.rule!r}')


def _map_points(visited: np.ndarray, side: int = 41) -> np.ndarray:
    """Populations X, or X and Z, on a grid over [0, 1], Y at the median of where PPO's episodes lead."""
    axis = np.linspace(0, 1, side + 1)[1:]
    if visited.shape[1] == 1:
        return axis[:, None]
    x, z = np.meshgrid(axis, axis)
    return np.stack([x, np.full_like(x, np.median(visited[:, 1])), z], -1).reshape(-1, 3)


def _predator_effect(rule: Rule, visited: np.ndarray) -> float:
    """Change of the escapement, all fisheries together, from few predators to many (tenth and ninetieth percentile)."""
    few, many = visited.copy(), visited.copy()
    few[:, 2], many[:, 2] = np.quantile(visited[:, 2], (0.1, 0.9))
    return float((implied_escapement(rule, many) - implied_escapement(rule, few)).sum(1).mean())


def figure(results: Any) -> Figure:
    """Rewards and full episodes by rule, the policies over the state space, and episodes."""
    return draw(results)
