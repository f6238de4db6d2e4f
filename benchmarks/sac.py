"""SAC against Stable-Baselines3 at equal settings, and against the matrix products that an update cannot do without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import torch

from benchmarks.resources import count_flops
from benchmarks.table import Row, absent, compare
from reprise.rl import SAC

UPDATES, STEPS = 5, 10
RANDOM = 1200  # steps before the first update, so that the buffer holds the largest batch
PRODUCTS = 16  # of (batch x 256) (256 x 256) in an update of one actor and two critics, forward and backward
FUSED = {"optimizer_kwargs": {"fused": True}}  # Adam in one kernel


def rows() -> Iterator[Row]:
    """Updates alone, then acting and updating, one update per step."""
    for batch in (64, 256, 1024):
        settings: dict[str, Any] = {"batch_size": batch, "learning_starts": RANDOM, "seed": 0}
        env = gymnasium.make_vec("Pendulum-v1", 1, "sync", {"autoreset_mode": "SameStep"})
        ours, size = SAC(env, **settings).learn(RANDOM), f"batch {batch}"
        update, work = _updates(ours, batch), f"SAC, {UPDATES} updates, 2 layers of 256, two critics"
        options: dict[str, Any] = {"size": size, "tolerance": None, "flops": count_flops(update)}
        limits = {"its matrix products alone": _products(batch)}
        try:
            import stable_baselines3 as sb3
        except ImportError:
            yield from absent(work, "stable-baselines3", "not installed", size)
            yield from compare(work, update, limits=limits, **options)
            continue
        settings["device"] = "cpu"
        best = sb3.SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=FUSED, **settings).learn(RANDOM)
        defaults = sb3.SAC("MlpPolicy", "Pendulum-v1", **settings).learn(RANDOM)
        name = "stable-baselines3, fused Adam"
        yield from compare(
            work,
            update,
            {name: lambda best=best, batch=batch: best.train(UPDATES, batch)},
            defaults={"stable-baselines3": lambda peer=defaults, batch=batch: peer.train(UPDATES, batch)},
            limits=limits,
            **options,
        )
        yield from compare(
            f"SAC, Pendulum-v1, {STEPS} steps with an update each",
            lambda ours=ours: ours.learn(STEPS),
            {name: lambda best=best: best.learn(STEPS, reset_num_timesteps=False)},
            size=size,
            tolerance=None,
        )


def _updates(sac: SAC, batch: int) -> Callable[[], None]:
    def update() -> None:
        for _ in range(UPDATES):
            sac.update(sac.buffer.sample(batch))

    return update


def _products(batch: int) -> Callable[[], None]:
    x, y = torch.randn(batch, 256), torch.randn(256, 256)

    def products() -> None:
        for _ in range(UPDATES * PRODUCTS):
            torch.mm(x, y)

    return products
