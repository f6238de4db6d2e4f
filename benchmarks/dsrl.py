"""Gradient steps of DSRL against Stable-Baselines3's SAC with equal networks, and noise-chosen plans a second."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.resources import count_flops
from benchmarks.table import Row, absent, compare
from reprise.envs import PegInsert
from reprise.policies import DSRL, DiffusionPolicy
from reprise.policies.imitation import Shapes

UPDATES, DISTILLATIONS, STEPS, WIDTH = 5, 10, 5, 256
ENVS, WARM_UP = 32, 40  # the buffer holds more than the largest batch


def rows() -> Iterator[Row]:
    """DSRL-SAC does what SAC does; DSRL-NA denoises in every target and distils besides; both ask for plans."""
    base = DiffusionPolicy(
        network="mlp", network_options={"width": 128}, horizon=4, history=1, train_steps=20, inference_steps=STEPS
    )
    base.setup(Shapes({"state": (6,)}, action=2))
    for batch in (64, 256, 1024):
        yield from _updates(base, batch)
    for count in (1, 64, 1024):
        yield from _plans(base, count)


def _updates(base: DiffusionPolicy, batch: int) -> Iterator[Row]:
    sac, na = (
        DSRL(
            PegInsert(ENVS, "two_slots"), base, execute=4, variant=variant, hidden=(WIDTH,) * 3, batch_size=batch,
            utd=UPDATES, distill_steps=DISTILLATIONS, warm_up=WARM_UP, seed=0,
        ).learn(WARM_UP * ENVS)
        for variant in ("sac", "na")
    )  # fmt: skip

    def update() -> None:
        for _ in range(UPDATES):
            sac.update(sac.buffer.sample(batch))

    def update_na() -> None:
        na.train(UPDATES)

    work, size = f"DSRL-SAC, {UPDATES} updates, 3 layers of {WIDTH} with layer norm, two critics", f"batch {batch}"
    try:
        import stable_baselines3 as sb3
    except ImportError:
        yield from absent(work, "stable-baselines3", "not installed", size)
        return
    best, defaults = (_peer(sb3, fused) for fused in (True, False))
    yield from compare(
        work,
        update,
        {"stable-baselines3, fused Adam": lambda: best.train(UPDATES, batch)},
        defaults={"stable-baselines3": lambda: defaults.train(UPDATES, batch)},
        size=size,
        tolerance=None,
        flops=count_flops(update),
    )
    yield from compare(
        f"DSRL-NA, {UPDATES} updates and {DISTILLATIONS} distillations, targets denoised in {STEPS} steps",
        update_na,
        limits={"as many updates of DSRL-SAC, which neither denoises nor distils": update},
        size=size,
        flops=count_flops(update_na),
    )


def _plans(base: DiffusionPolicy, count: int) -> Iterator[Row]:
    work, size = f"plans of 4 actions from given noise, {STEPS} steps", f"{count} states"
    try:
        import diffusers
    except ImportError:
        yield from absent(work, "diffusers", "not installed", size)
        return
    scheduler = diffusers.DDIMScheduler(20, beta_schedule="squaredcos_cap_v2", clip_sample=True)
    scheduler.set_timesteps(STEPS)
    states, noise = np.zeros((count, 6), np.float32), torch.randn(count, 4, 2)

    def ours() -> torch.Tensor:
        return base.plan(states, noise)

    @torch.inference_mode()
    def loop() -> torch.Tensor:
        x, condition = noise, torch.as_tensor(states)
        for t in scheduler.timesteps:
            x = scheduler.step(base.module["net"](x, t.expand(count), condition), t, x, eta=0.0).prev_sample
        return x

    peers = {"diffusers, DDIMScheduler": loop}
    yield from compare(work, ours, peers, size=size, tolerance=1e-4, flops=count_flops(ours))


def _peer(sb3: Any, fused: bool) -> Any:
    """SAC with the same networks on the same numbers of observations and actions."""
    import gymnasium

    class Noise(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (6,))
        action_space = gymnasium.spaces.Box(-1, 1, (8,))

        def reset(self, *, seed: object = None, options: object = None) -> tuple[np.ndarray, dict]:
            return np.zeros(6, np.float32), {}

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
            return np.zeros(6, np.float32), 0.0, False, False, {}

    peer = sb3.SAC(
        "MlpPolicy", Noise(), policy_kwargs={"net_arch": [WIDTH] * 3, "activation_fn": nn.Tanh}, seed=0, device="cpu"
    )
    for part, nets in (
        (peer.actor, [peer.actor.latent_pi]),
        (peer.critic, peer.critic.q_networks),
        (peer.critic_target, peer.critic_target.q_networks),
    ):
        for net in nets:
            _normalise(net)
        part.optimizer = torch.optim.Adam(part.parameters(), 3e-4, fused=fused)
    return peer.learn(400)


def _normalise(net: nn.Sequential) -> None:
    """Put a layer norm before every tanh."""
    layers = list(net)
    net._modules.clear()
    for layer in layers:
        if isinstance(layer, nn.Tanh):
            net.append(nn.LayerNorm(WIDTH))
        net.append(layer)
