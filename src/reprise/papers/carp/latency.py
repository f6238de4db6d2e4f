"""How long does a chunk take, from the observation to the actions, with one environment and one thread?

The networks have their first random weights: time does not depend on what was learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from reprise.nn import parameters
from reprise.papers.carp.decoding import decoded, make_policy, passes
from reprise.policies import Shapes

WAYS = {"carp": ("greedy",), "per_step": ("greedy",), "diffusion": ("DDIM-10", "DDPM-100")}
ACTIONS = 400  # that the paper's times are for, 8 of each chunk


@dataclass(frozen=True)
class Settings:
    depth: int = 8  # blocks of the transformers
    widths: tuple[int, ...] = (256, 512, 1024)  # channels of the diffusion policy's network
    observed: int = 20  # numbers in an observation of Push-T, of which two are seen
    rounds: int = 20  # at least, of each comparison; one of DDPM at published size takes eight seconds
    seconds: float = 2.0  # at least, of each side of a comparison


def measure(trial: Any) -> dict[str, float]:
    """Count the passes of each network and time CARP in alternation with each of the others."""
    s, metrics, plans = trial.settings, dict[str, float](), dict[str, Any]()
    observation = torch.randn(1, s.observed)
    for method, ways in WAYS.items():
        policy = make_policy(method, depth=s.depth, widths=s.widths, execute=8)
        policy.setup(Shapes({"state": (s.observed,)}, action=2))
        metrics[f"parameters[{method}]"] = float(parameters(policy.module))
        for way in ways:
            cell, variant = way if method == "diffusion" else method, decoded(policy, way)
            metrics[f"passes[{cell}]"] = float(passes(variant, observation))
            plans[cell] = lambda variant=variant: variant.plan(observation)
    ours = plans.pop("carp")
    for done, (cell, plan) in enumerate(plans.items()):
        trial.progress(done, len(plans), cell)
        compared = trial.compare_speed({"carp": ours, cell: plan}, tolerance=None, rounds=s.rounds, seconds=s.seconds)
        metrics |= {f"ratio[{cell}]": compared.ratio, f"self_ratio[{cell}]": compared.self_ratio}
        metrics |= {f"seconds[{name}]": ACTIONS / 8 * median for name, median in compared.medians.items()}
    return metrics
