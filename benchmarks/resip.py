"""Acting and learning with a residual policy against Stable-Baselines3's PPO with an equal perceptron."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import nn

from benchmarks.table import Row, absent, compare
from reprise.envs import PegInsert
from reprise.policies import ResidualPolicy
from reprise.policies.resip import ResidualEnv
from reprise.rl import TargetKLPPO

NUM_ENVS, STEPS, EPOCHS = 64, 20, 4


class Hover:
    """A base policy that costs nothing, so that what is timed is the residual's part."""

    def plan(self, observation: Any) -> np.ndarray:
        """Eight times the same."""
        return np.zeros((len(observation), 8, 2), np.float32)


def rows() -> Iterator[Row]:
    """Roll-outs alone, then roll-outs and updates; the peer learns in the same world without a base policy."""
    work = f"ResiP, {NUM_ENVS * STEPS} steps in {NUM_ENVS} environments, two layers of 256"
    policy = ResidualPolicy(Hover(), 6, 2)
    world = ResidualEnv(PegInsert(NUM_ENVS), policy)
    ours = TargetKLPPO(
        world, policy.net, n_steps=STEPS, batch_size=NUM_ENVS * STEPS // 2, n_epochs=EPOCHS, target_kl=1e9, seed=0
    )
    try:
        import stable_baselines3 as sb3
    except ImportError:
        yield from absent(work, "stable-baselines3", "not installed")
        return
    peer = sb3.PPO(
        "MlpPolicy", _as_sb3(PegInsert(NUM_ENVS)), n_steps=STEPS, batch_size=NUM_ENVS * STEPS // 2, n_epochs=EPOCHS,
        policy_kwargs={"net_arch": [256, 256], "activation_fn": nn.ReLU}, seed=0, device="cpu",
    )  # fmt: skip
    _, callback = peer._setup_learn(10**9)

    def collect() -> None:
        peer.collect_rollouts(peer.env, callback, peer.rollout_buffer, STEPS)

    yield from compare(f"{work}: acting", ours.collect, {"stable-baselines3": collect}, tolerance=None)

    def learn() -> None:
        collect()
        peer.train()

    yield from compare(
        f"{work}: acting and {EPOCHS} epochs", lambda: ours.update(ours.collect()), {"stable-baselines3": learn},
        tolerance=None,
    )  # fmt: skip


def _as_sb3(world: PegInsert) -> Any:
    """The same vectorised world as Stable-Baselines3 wants it."""
    from stable_baselines3.common.vec_env import VecEnv

    class Wrapped(VecEnv):
        def __init__(self) -> None:
            super().__init__(world.num_envs, world.single_observation_space, world.single_action_space)

        def reset(self) -> Any:
            return world.reset(seed=0)[0]

        def step_async(self, actions: np.ndarray) -> None:
            self.actions = actions

        def step_wait(self) -> Any:
            observation, reward, terminated, truncated, infos = world.step(self.actions)
            done = terminated | truncated
            told: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
            for i in np.flatnonzero(done):
                told[i] = {"terminal_observation": infos["final_obs"][i], "TimeLimit.truncated": bool(truncated[i])}
            return observation, reward.astype(np.float32), done, told

        def close(self) -> None: ...
        def get_attr(self, name: str, indices: Any = None) -> Any:
            return [None] * self.num_envs

        def set_attr(self, name: str, value: Any, indices: Any = None) -> None: ...
        def env_method(self, name: str, *args: Any, indices: Any = None, **options: Any) -> Any: ...
        def env_is_wrapped(self, wrapper: Any, indices: Any = None) -> Any:
            return [False] * self.num_envs

    return Wrapped()
