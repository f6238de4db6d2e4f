"""What learns in the arms, on top of the frozen policy or beside it: each gives a policy, and how many steps its
actions last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gymnasium.vector import VectorEnv

from reprise.data import Normalizer
from reprise.envs import ChunkedEnv, PegInsert, peg_demonstrations
from reprise.policies import (
    BC,
    ChunkedPolicy,
    DiffusionPolicy,
    GaussianChunks,
    ResidualPolicy,
    fit_chunks,
    fit_residual,
)

__all__ = ["EXECUTE", "LEARNERS", "clone"]

EXECUTE = 8  # actions of a chunk that are played


def clone(trial: Any, demonstrations: int) -> DiffusionPolicy:
    """A diffusion policy from so many demonstrations."""
    s = trial.settings
    policy = DiffusionPolicy(
        network="mlp",
        network_options={"width": s.width, "blocks": 3, "step_embed_dim": 32, "activation": "silu"},
        horizon=2 * EXECUTE, history=1, pad_end=None, train_steps=100, inference_steps=s.inference_steps,
    )  # fmt: skip
    episodes = peg_demonstrations("one_slot", demonstrations, trial.seed)
    on_step = lambda step, steps, _: trial.progress(step, steps, "cloning")  # noqa: E731
    return policy.fit(episodes, steps=s.base_steps, learning_rate=1e-3, ema=None, on_step=on_step)


def leave(base: DiffusionPolicy, trial: Any) -> tuple[Any, int]:
    """The cloned policy as it is."""
    return ChunkedPolicy(base, EXECUTE), 1


def add_residual(base: DiffusionPolicy, trial: Any, per_chunk: bool = False) -> tuple[Any, int]:
    """The paper's method; or one correction of a whole chunk, made when the chunk begins."""
    s = trial.settings
    execute, world = 1, PegInsert(s.num_envs)
    env: VectorEnv = world
    policy = ResidualPolicy(base, 6, 2, execute=EXECUTE, hidden=(s.width,) * 2)
    if per_chunk:  # a chunk is then what an action is else
        execute, env = EXECUTE, ChunkedEnv(world, EXECUTE, time_limit_ends=True)
        scale = base.normalizers["actions"]
        policy = ResidualPolicy(
            WholeChunks(base), 6, 2 * EXECUTE, execute=1, hidden=(s.width,) * 2,
            observation_normalizer=base.normalizers["state"],
            action_normalizer=Normalizer(scale.offset.repeat(EXECUTE), scale.scale.repeat(EXECUTE)),
        )  # fmt: skip
    n_steps = s.n_steps // execute
    curves = fit_residual(
        env, policy, s.iterations * n_steps * s.num_envs, n_steps=n_steps, n_epochs=s.n_epochs,
        batch_size=min(s.batch_size, n_steps * s.num_envs), actor_rate=s.actor_rate, critic_rate=s.critic_rate,
        seed=trial.seed, on_step=lambda *told: watch(trial, execute, *told),
    )  # fmt: skip
    trial.count(env_steps=s.iterations * s.n_steps * s.num_envs, epochs=sum(values["epochs"] for values in curves))
    return policy, execute


class WholeChunks:
    """A policy whose chunk is a single long action."""

    def __init__(self, base: DiffusionPolicy) -> None:
        self.base = base

    def plan(self, observation: Any) -> torch.Tensor:
        """(B, 1, EXECUTE * A)."""
        return self.base.plan(observation)[:, :EXECUTE].flatten(1)[:, None]


def tune_chunks(base: DiffusionPolicy, trial: Any) -> tuple[Any, int]:
    """The paper's other use of PPO: on the chunks of a cloned perceptron."""
    s = trial.settings
    cloned = BC(horizon=EXECUTE, width=s.width, blocks=5).fit(
        peg_demonstrations("one_slot", s.demonstrations, trial.seed), steps=s.base_steps, learning_rate=1e-3, ema=None
    )
    chunks = GaussianChunks(cloned, EXECUTE, log_std=s.chunk_log_std, hidden=(s.width,) * 2)
    env = fit_chunks(
        PegInsert(s.num_envs), chunks, s.iterations * s.n_steps * s.num_envs, n_steps=s.n_steps,
        n_epochs=s.n_epochs, learning_rate=s.chunk_rate, seed=trial.seed,
        on_step=lambda *told: watch(trial, EXECUTE, *told),
    )  # fmt: skip
    trial.count(env_steps=env.played)
    return ChunkedPolicy(chunks, EXECUTE), 1


LEARNERS: dict[str, Callable[[DiffusionPolicy, Any], tuple[Any, int]]] = {
    "none": leave,
    "residual": add_residual,
    "residual_per_chunk": lambda base, trial: add_residual(base, trial, per_chunk=True),
    "chunk_ppo": tune_chunks,
}


def watch(trial: Any, execute: int, step: int, total: int, values: dict[str, float]) -> None:
    """Progress, and the success of the exploring policy by environment steps."""
    trial.progress(step, total)
    trial.curve("success while exploring", execute * step, values.get("episode_return", 0.0))
