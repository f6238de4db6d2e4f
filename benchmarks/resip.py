"""Acting and learning with a residual policy against Stable-Baselines3's PPO with an equal perceptron."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import nn

from benchmarks.ppo import FUSED, as_sb3
from benchmarks.table import Row, absent, compare
from reprise.envs import PegInsert
from reprise.policies import ResidualPolicy
from reprise.policies.resip import ResidualEnv
from reprise.rl import TargetKLPPO

STEPS, EPOCHS = 40, 4  # an episode of all environments, and passes over it


class Hover:
    """A base policy that costs nothing, so that what is timed is the residual's part."""

    def plan(self, observation: Any) -> np.ndarray:
        """Eight times the same."""
        return np.zeros((len(observation), 8, 2), np.float32)


def rows() -> Iterator[Row]:
    """Roll-outs alone, then roll-outs and updates; the peer learns in the same world without a base policy."""
    work = f"ResiP, {STEPS} steps of all environments, two layers of 256"
    for count in (16, 64, 256):
        size = f"{count} environments"
        settings: dict[str, Any] = {"n_steps": STEPS, "batch_size": count * STEPS // 2, "n_epochs": EPOCHS, "seed": 0}
        policy = ResidualPolicy(Hover(), 6, 2)
        ours = TargetKLPPO(ResidualEnv(PegInsert(count), policy), policy.net, target_kl=1e9, **settings)
        try:
            import stable_baselines3 as sb3
        except ImportError:
            yield from absent(work, "stable-baselines3", "not installed", size)
            continue
        shape = {"net_arch": [256, 256], "activation_fn": nn.ReLU}
        peer = sb3.PPO("MlpPolicy", as_sb3(PegInsert(count)), policy_kwargs=shape | FUSED, device="cpu", **settings)
        collect = _collecting(peer)
        best = {"stable-baselines3, fused Adam": collect}
        yield from compare(f"{work}: acting", ours.collect, best, size=size, tolerance=None)
        best = {"stable-baselines3, fused Adam": lambda peer=peer, collect=collect: (collect(), peer.train())}
        yield from compare(
            f"{work}: acting and {EPOCHS} epochs",
            lambda ours=ours: ours.update(ours.collect()),
            best,
            size=size,
            tolerance=None,
        )


def _collecting(peer: Any) -> Callable[[], None]:
    _, callback = peer._setup_learn(10**9)

    def collect() -> None:
        peer.collect_rollouts(peer.env, callback, peer.rollout_buffer, STEPS)

    return collect
