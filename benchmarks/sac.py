"""SAC against Stable-Baselines3 at equal settings, and against the matrix products that an update cannot do without."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium
import torch

from benchmarks.table import Row, absent, compare
from reprise.rl import SAC

UPDATES, STEPS = 10, 50
PRODUCTS = 16  # of 256 x 256 x 256 in an update of one actor and two critics, forward and backward


def rows() -> Iterator[Row]:
    """Updates alone, then acting and updating, one update per step."""
    ours = SAC(gymnasium.make_vec("Pendulum-v1", 1, "sync", {"autoreset_mode": "SameStep"}), seed=0).learn(400)
    x, y = torch.randn(2, 256, 256)
    work = f"SAC, {UPDATES} updates, batch 256, 2 layers of 256, two critics"

    def update() -> None:
        for _ in range(UPDATES):
            ours.update(ours.buffer.sample(256))

    def products() -> None:
        for _ in range(UPDATES * PRODUCTS):
            torch.mm(x, y)

    yield from compare(work, update, {"its matrix products alone: the limit": products}, tolerance=None)
    try:
        import stable_baselines3 as sb3
    except ImportError:
        yield from absent(work, "stable-baselines3", "not installed")
        return
    peer = sb3.SAC("MlpPolicy", "Pendulum-v1", seed=0, device="cpu").learn(400)
    yield from compare(work, update, {"stable-baselines3": lambda: peer.train(UPDATES, 256)}, tolerance=None)
    yield from compare(
        f"SAC, Pendulum-v1, {STEPS} steps with an update each",
        lambda: ours.learn(STEPS),
        {"stable-baselines3": lambda: peer.learn(STEPS, reset_num_timesteps=False)},
        tolerance=None,
    )
