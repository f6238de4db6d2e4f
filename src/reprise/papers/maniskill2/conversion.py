"""Does one set of demonstrations, recorded in joint positions, serve all controllers once it is converted?

Experts solve episodes of two families. Their demonstrations are expressed in each other controller's actions and
replayed from the start; the baseline feeds the same numbers to another controller as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reprise.envs.maniskill import Demonstrations, convert, demonstrate, replay
from reprise.papers.maniskill2.pictures import draw_conversion


@dataclass(frozen=True)
class Settings:
    control_mode: str = "pd_joint_pos"  # what demonstrations are converted into
    converted: bool = True  # or their numbers are taken for actions of that controller
    families: tuple[str, ...] = ("PickCube", "StackCube")  # of tasks
    episodes: int = 25  # demonstrations of each family


def prepare(trial: Any) -> dict[str, Demonstrations]:
    """This seed's demonstrations, in joint positions."""
    s = trial.settings
    rng = np.random.default_rng(trial.seed)
    shared = {}
    for family in s.families:
        seeds = rng.integers(2**31, size=s.episodes).tolist()
        shared[family] = demonstrate(family, ({"seed": seed} for seed in seeds))  # those that end in success
    return shared


def measure(trial: Any) -> dict[str, float]:
    """Convert, replay, and count the episodes that still end in success."""
    s = trial.settings
    metrics = {}
    for number, family in enumerate(s.families, 1):
        source = trial.shared[family]
        demonstrations = _in_other_words(source, s.control_mode, s.converted)
        again = replay(demonstrations).trajectories
        metrics[f"success[{family}]"] = float(np.mean([trajectory.success[-1] for trajectory in again]))
        lengths = [sum(len(t.actions) for t in d.trajectories) for d in (source, demonstrations)]
        metrics[f"length[{family}]"] = lengths[1] / lengths[0]
        trial.count(env_steps=sum(len(t.actions) for t in again))
        trial.progress(number, len(s.families))
    return metrics


def _in_other_words(source: Demonstrations, control_mode: str, converted: bool) -> Demonstrations:
    if converted:
        return convert(source, control_mode, keep_failures=True)
    trajectories = [replace(trajectory, control_mode=control_mode) for trajectory in source.trajectories]
    return replace(source, control_mode=control_mode, trajectories=trajectories)


def figure(results: Any) -> Figure:
    """Success after conversion, by controller and family."""
    return draw_conversion(results)
