"""Does a policy learned from many objects pick up objects that it never saw, where one learned from few does not?

Experts pick generated objects; their demonstrations are followed by poses of the hand, without pauses and under
disturbances, and a network learns the actions that lead back from states. Both arms have as many demonstrations, from
few objects or from many. Beside success, which asks for the object at its goal and at rest, it is counted how often the
object was lifted at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

from reprise.data import Normalizer
from reprise.envs.maniskill import FAMILIES, Demonstrations, demonstrate, disturb, evaluate
from reprise.papers.maniskill2.pictures import draw_generalisation
from reprise.training import fit

FAMILY, CONTROL_MODE = "PickSingle", "pd_ee_delta_pose_align"
WORST = ("success[train]", "success[held-out]", "lifted[train]", "lifted[held-out]")


@dataclass(frozen=True)
class Settings:
    objects: int = 20  # that demonstrations are of
    demonstrations: int = 200  # in all, spread evenly over the objects
    copies: int = 2  # how often each is followed, with other disturbances
    chance: float = 0.3  # of a disturbance in a step
    size: float = 0.1  # its standard deviation, of the largest action
    widths: tuple[int, ...] = (256, 256, 256)  # of the hidden layers
    steps: int = 10_000  # optimiser steps
    batch_size: int = 256  # states per step
    learning_rate: float = 1e-3  # peak of Adam: 2 % linear warm-up, then cosine to zero
    episodes: int = 100  # on training objects, and as many on held-out ones
    max_steps: int = 150  # of an episode; experts need about 45 without pauses


def measure(trial: Any) -> dict[str, float]:
    """Demonstrate, follow, clone, and count successes on both kinds of objects."""
    s = trial.settings
    rng = np.random.default_rng(trial.seed)
    kinds = {name: rng.permutation(list(ids)) for name, ids in FAMILIES[FAMILY].objects.items()}
    known = kinds["train"][: s.objects]
    demonstrations = disturb(
        _demonstrate(known, s.demonstrations, rng), CONTROL_MODE, rng, copies=s.copies, chance=s.chance, size=s.size
    )
    trial.progress(1, 4)
    policy = _clone(demonstrations, trial)
    trial.progress(2, 4)
    if policy is None:
        return dict.fromkeys(WORST, 0.0) | {"gap": 1.0}

    @torch.inference_mode()
    def act(states: np.ndarray) -> np.ndarray:
        return policy(torch.as_tensor(states, device=trial.device)).cpu().numpy()

    metrics: dict[str, float] = {}
    for name, ids in (("train", known), ("held-out", kinds["test"])):
        episodes = _episodes(ids, s.episodes, rng)
        options = {"control_mode": CONTROL_MODE, "max_episode_steps": s.max_steps, "also": {"lifted": _lifted}}
        found = evaluate(act, FAMILY, episodes, **options)
        metrics |= {f"{what}[{name}]": float(found[what].mean()) for what in ("success", "lifted")}
    return metrics | {"gap": metrics["success[train]"] - metrics["success[held-out]"]}


def _lifted(world: Any) -> bool:
    return world.clearance() > 0.03


def _episodes(ids: np.ndarray, count: int, rng: np.random.Generator) -> list[dict[str, int]]:
    """Arguments of reset, as many of every object as can be."""
    seeds = rng.integers(2**31, size=count).tolist()
    return [{"seed": seed, "model_id": int(ids[i % len(ids)])} for i, seed in enumerate(seeds)]


def _demonstrate(ids: np.ndarray, count: int, rng: np.random.Generator) -> Demonstrations:
    """Successes of the expert; an episode that it fails in is drawn anew with the same object, up to four times."""
    kept, missing = [], [int(ids[i % len(ids)]) for i in range(count)]
    for _ in range(5):
        seeds = rng.integers(2**31, size=len(missing)).tolist()
        episodes = ({"seed": seed, "model_id": model_id} for seed, model_id in zip(seeds, missing, strict=True))
        found = demonstrate(FAMILY, episodes, keep_failures=True).trajectories
        kept += [trajectory for trajectory in found if trajectory.success[-1:].any()]
        missing = [trajectory.reset_kwargs["model_id"] for trajectory in found if not trajectory.success[-1:].any()]
    return Demonstrations(FAMILY, {}, kept, "pd_joint_pos")


class Unscaled(nn.Module):
    """The last layer: from standardised actions to actions."""

    def __init__(self, scale: Normalizer) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, actions: torch.Tensor) -> torch.Tensor:
        """(B, A) to (B, A)."""
        return self.scale.inverse(actions)


def _clone(demonstrations: Demonstrations, trial: Any) -> nn.Module | None:
    """A network from states to actions, both standardised, by mean squared error; None if its training diverged."""
    s = trial.settings
    states = torch.from_numpy(np.concatenate([t.obs["state"][:-1] for t in demonstrations.trajectories]))
    actions = torch.from_numpy(np.concatenate([t.actions for t in demonstrations.trajectories]))
    sizes = (states.shape[1], *s.widths)
    layers: list[nn.Module] = [Normalizer.standard(states)]
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    policy = nn.Sequential(*layers, nn.Linear(sizes[-1], actions.shape[1])).to(trial.device)
    scale = Normalizer.standard(actions)  # fingers move by far more than the hand
    history = fit(
        policy,
        states,
        scale(actions),
        loss=F.mse_loss,
        steps=s.steps,
        batch_size=min(s.batch_size, len(states)),
        learning_rate=s.learning_rate,
        schedule="cosine",
        warmup=0.02,
        on_step=lambda step, total, values: trial.curve("loss", step, values["loss"]),
        diverged="stop",
    )
    trial.count(updates=history.steps, states=len(states), demonstrations=len(demonstrations.trajectories))
    return nn.Sequential(policy, Unscaled(scale)).to(trial.device) if history.diverged_at is None else None


def figure(results: Any) -> Figure:
    """Success against the number of objects, on those of training and on others."""
    return draw_generalisation(results)
