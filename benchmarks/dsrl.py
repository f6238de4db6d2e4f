"""Gradient steps of DSRL against Stable-Baselines3's SAC with equal networks, and noise-chosen plans a second."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from benchmarks.table import Row, absent, compare
from reprise.envs import PegInsert
from reprise.policies import DSRL, DiffusionPolicy
from reprise.policies.imitation import Shapes

UPDATES, BATCH, WIDTH = 10, 256, 256


def rows() -> Iterator[Row]:
    """DSRL-SAC does what SAC does; DSRL-NA denoises in every target and distils besides."""
    base = DiffusionPolicy(
        network="mlp", network_options={"width": 128}, horizon=4, history=1, train_steps=20, inference_steps=5
    )
    base.setup(Shapes({"state": (6,)}, action=2))
    learners = {}
    for variant in ("sac", "na"):
        learners[variant] = DSRL(
            PegInsert(32, "two_slots"), base, execute=4, variant=variant, hidden=(WIDTH,) * 3, batch_size=BATCH,
            warm_up=20, seed=0,
        )  # fmt: skip
        learners[variant].learn(20 * 32)
    sac, na = learners["sac"], learners["na"]

    def update_sac() -> None:
        for _ in range(UPDATES):
            sac.update(sac.buffer.sample(BATCH))

    def update_na() -> None:
        na.train(UPDATES)

    work = f"DSRL-SAC, {UPDATES} updates, batch {BATCH}, 3 layers of {WIDTH} with layer norm, two critics"
    try:
        import stable_baselines3 as sb3
    except ImportError:
        yield from absent(work, "stable-baselines3", "not installed")
        return
    peer = _peer(sb3)
    yield from compare(work, update_sac, {"stable-baselines3": lambda: peer.train(UPDATES, BATCH)}, tolerance=None)
    work = f"DSRL-NA, {UPDATES} updates and 10 distillations, batch {BATCH}, targets denoised in 5 steps"
    name = "stable-baselines3 SAC, which neither denoises nor distils"
    yield from compare(work, update_na, {name: lambda: peer.train(UPDATES, BATCH)}, tolerance=None)
    try:
        import diffusers
    except ImportError:
        yield from absent("plans", "diffusers", "not installed")
        return
    scheduler = diffusers.DDIMScheduler(20, beta_schedule="squaredcos_cap_v2", clip_sample=True)
    scheduler.set_timesteps(5)
    states, noise = np.zeros((256, 6), np.float32), torch.randn(256, 4, 2)

    @torch.inference_mode()
    def loop() -> torch.Tensor:
        x, condition = noise, torch.as_tensor(states)
        for t in scheduler.timesteps:
            x = scheduler.step(base.module["net"](x, t.expand(256), condition), t, x, eta=0.0).prev_sample
        return x

    yield from compare(
        "256 plans of 4 actions from given noise, 5 steps", lambda: base.plan(states, noise), {"diffusers": loop},
        tolerance=1e-4,
    )  # fmt: skip


def _peer(sb3: object) -> object:
    """SAC with the same networks on the same numbers of observations and actions."""
    import gymnasium

    class Noise(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (6,))
        action_space = gymnasium.spaces.Box(-1, 1, (8,))

        def reset(self, *, seed: object = None, options: object = None) -> tuple[np.ndarray, dict]:
            return np.zeros(6, np.float32), {}

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
            return np.zeros(6, np.float32), 0.0, False, False, {}

    peer = sb3.SAC(  # type: ignore[attr-defined]
        "MlpPolicy", Noise(), policy_kwargs={"net_arch": [WIDTH] * 3, "activation_fn": nn.Tanh}, seed=0, device="cpu"
    )
    for part, nets in (
        (peer.actor, [peer.actor.latent_pi]),
        (peer.critic, peer.critic.q_networks),
        (peer.critic_target, peer.critic_target.q_networks),
    ):
        for net in nets:
            _normalise(net)
        part.optimizer = torch.optim.Adam(part.parameters(), 3e-4)
    return peer.learn(400)


def _normalise(net: nn.Sequential) -> None:
    """Put a layer norm before every tanh."""
    layers = list(net)
    net._modules.clear()
    for layer in layers:
        if isinstance(layer, nn.Tanh):
            net.append(nn.LayerNorm(WIDTH))
        net.append(layer)
