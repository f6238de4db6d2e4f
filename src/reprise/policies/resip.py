"""Residual reinforcement learning on top of a frozen policy that plans in chunks.

A cloned policy that plans chunks is good at where to go and bad at the last millimetre: a chunk runs with its eyes
closed. Here its weights stay as they are, and a small Gaussian perceptron that is asked at every step, and sees what is
there now and what the chunk would do next, adds a small correction. It begins at exactly zero, explores close to the
plan, and learns by PPO from sparse rewards.

Source: Ankile, Simeonov, Shenfeld, Torne and Agrawal, From Imitation to Refinement: Residual RL for Precise Assembly,
2024, arXiv 2407.16677.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor, nn

from reprise.data.normalize import Normalizer
from reprise.policies.chunking import ChunkedPolicy
from reprise.rl.distributions import Gaussian
from reprise.rl.episodes import EpisodeLog
from reprise.rl.files import load_state, read, write
from reprise.rl.ppo import OnStep
from reprise.rl.target_kl import TargetKLPPO
from reprise.rl.vector import Actions, check_vector_env, flatten, observation_size, tensors

__all__ = ["ResidualActorCritic", "ResidualEnv", "ResidualPolicy", "RewardScaling", "fit_residual"]

SEEN = 3.0  # scaled observations are held within -3..3


class ResidualActorCritic(nn.Module):
    """The correction and its value: two perceptrons with nothing in common but the input.

    Args:
        inputs: numbers in what is seen and in the base policy's action together.
        action_dim: A.
        hidden: widths of the layers of either, ReLU after each.
        log_std: logarithm of the standard deviation of every correction.
        learn_std: whether it is learned; as published it is not, since it would collapse.

    Source: table of the appendix: hidden layers Kaiming-normal, the actor's last zero and without bias, the critic's
    orthogonal with gain 0.25 and bias 0.25.

    Example:
        >>> net = ResidualActorCritic(68, 10)
        >>> distribution, value = net(torch.zeros(3, 68))
        >>> distribution.mean.abs().max().item(), value.shape
        (0.0, torch.Size([3]))
    """

    def __init__(
        self,
        inputs: int,
        action_dim: int,
        *,
        hidden: Sequence[int] = (256, 256),
        log_std: float = -1.0,
        learn_std: bool = False,
    ) -> None:
        super().__init__()
        self.actor = _perceptron(inputs, hidden, action_dim, bias=False)
        self.critic = _perceptron(inputs, hidden, 1, bias=True)
        nn.init.orthogonal_(self.actor[-1].weight, 0.0)  # type: ignore[arg-type]
        nn.init.orthogonal_(self.critic[-1].weight, 0.25)  # type: ignore[arg-type]
        nn.init.constant_(self.critic[-1].bias, 0.25)  # type: ignore[arg-type]
        self.log_std = nn.Parameter(torch.full((action_dim,), float(log_std)), requires_grad=learn_std)

    def forward(self, features: Tensor) -> tuple[Gaussian, Tensor]:
        """(B, inputs) to the distribution of unscaled corrections and values (B,)."""
        return self.behaviour(features), self.critic(features)[:, 0]

    def behaviour(self, features: Tensor) -> Gaussian:
        """(B, inputs) to the distribution of unscaled corrections."""
        return Gaussian(self.actor(features), self.log_std)

    def groups(self) -> list[list[nn.Parameter]]:
        """The actor's parameters and the critic's."""
        return [[*self.actor.parameters(), self.log_std], [*self.critic.parameters()]]


class ResidualPolicy:
    """A frozen policy plus a learned correction at every step.

    Args:
        base: has ``plan(observation) -> (B, H, A)`` in the units of the environment; nothing else is asked of it.
        obs_dim: O, numbers in an observation.
        action_dim: A.
        execute: actions of a plan that are played before the next; every environment has its own queue of them.
        scale: alpha, by which corrections are multiplied.
        hidden, log_std, learn_std: of the :class:`ResidualActorCritic`.
        observation_normalizer, action_normalizer: bring observations and actions to about -1..1. None takes those of
            the base (``base.normalizers``: "state" and "actions"), if it has some, else leaves them as they are.

    Attributes:
        net: the :class:`ResidualActorCritic`.

    Raises:
        ValueError: a negative scale, sizes that differ from the normalizers'; at the call actions of another size.

    Example:
        >>> class Base:
        ...     def plan(self, observation):
        ...         return np.zeros((len(observation), 8, 2))
        >>> policy = ResidualPolicy(Base(), obs_dim=6, action_dim=2)
        >>> policy.act(np.zeros((4, 6))).shape
        (4, 2)
    """

    def __init__(
        self,
        base: Any,
        obs_dim: int,
        action_dim: int,
        *,
        execute: int = 8,
        scale: float = 0.1,
        hidden: Sequence[int] = (256, 256),
        log_std: float = -1.0,
        learn_std: bool = False,
        observation_normalizer: Normalizer | None = None,
        action_normalizer: Normalizer | None = None,
    ) -> None:
        if not scale >= 0:
            raise ValueError(f"scale must not be negative, not {scale}")
        self.settings = {
            "obs_dim": obs_dim, "action_dim": action_dim, "execute": execute, "scale": scale, "hidden": list(hidden),
            "log_std": log_std, "learn_std": learn_std,
        }  # fmt: skip
        self.base, self.scale, self.execute = base, scale, execute
        self.obs_dim, self.action_dim = obs_dim, action_dim
        own = getattr(base, "normalizers", {})
        self.observations = _fitting(observation_normalizer or own.get("state"), obs_dim, "observations")
        self.actions = _fitting(action_normalizer or own.get("actions"), action_dim, "actions")
        self.net = ResidualActorCritic(
            obs_dim + action_dim, action_dim, hidden=hidden, log_std=log_std, learn_std=learn_std
        )
        self.queue = ChunkedPolicy(base, execute)

    def base_action(self, observation: Any) -> np.ndarray:
        """(B, A) what the base policy does now, from the queues of its plans; every call moves them on."""
        action = np.asarray(self.queue.act(observation), np.float32)
        if action.shape[1:] != (self.action_dim,):
            raise ValueError(
                f"the base policy's actions have {action.shape[1:]} numbers, not action_dim {self.action_dim}"
            )
        return action

    def features(self, observation: Any, base_action: np.ndarray) -> Tensor:
        """(B, O + A) what the correction is computed from: both scaled, the observation held within -3..3."""
        seen = self.observations(flatten(tensors(observation, self._device())))
        doing = self.actions(torch.as_tensor(base_action, device=self._device()))
        return torch.cat([seen.clamp_(-SEEN, SEEN), doing], 1)

    def corrected(self, base_action: np.ndarray, residual: np.ndarray) -> np.ndarray:
        """(B, A) base action plus scaled correction; exactly the base action where the correction is 0."""
        return base_action + self.scale * self.actions.scale.cpu().numpy() * residual

    @torch.no_grad()
    def act(self, observation: Any, deterministic: bool = True, generator: torch.Generator | None = None) -> np.ndarray:
        """Actions for now.

        Args:
            observation: (B, O) array, or a dictionary of such.
            deterministic: the mean of the correction; otherwise a sample.
            generator: of samples.

        Returns:
            (B, A) in the units of the environment.
        """
        base_action = self.base_action(observation)
        residual = self.net(self.features(observation, base_action))[0]
        mean = residual.mean
        if not deterministic:
            mean = residual.sample(torch.randn(mean.shape, generator=generator, device=mean.device))
        return self.corrected(base_action, mean.cpu().numpy())

    def reset(self, mask: Any = None) -> None:
        """Drop the plans of all environments, or of those of a mask (B,) alone."""
        self.queue.reset(mask)

    def save(self, path: Path | str) -> None:
        """Write the correction and the scales as ``path.safetensors``, settings as ``path.json``; not the base."""
        write(path, self._parts(), {"algorithm": "ResidualPolicy", "settings": self.settings})

    @classmethod
    def load(cls, path: Path | str, base: Any, device: torch.device | str = "cpu") -> ResidualPolicy:
        """Read what :meth:`save` wrote, for the same frozen policy."""
        settings = read(path, "ResidualPolicy")["settings"]
        observations, actions = (
            Normalizer(torch.zeros(size), torch.ones(size)) for size in (settings["obs_dim"], settings["action_dim"])
        )  # of the right sizes; the stored scales follow
        policy = cls(base, **settings, observation_normalizer=observations, action_normalizer=actions)
        for part in policy._parts().values():
            part.to(device)
        load_state(path, policy._parts(), torch.device(device))
        return policy

    def _parts(self) -> dict[str, Any]:
        return {"net": self.net, "observations": self.observations, "actions": self.actions}

    def _device(self) -> torch.device:
        return self.net.log_std.device


class RewardScaling:
    """Divide rewards by their running standard deviation; their mean stays in, so that signs and zeros do.

    The variance is that of all rewards so far (Welford), a step of all environments at a time; results lie in -5..5.

    Example:
        >>> scaling = RewardScaling()
        >>> scaling(np.array([0.0, 0.0])).tolist(), bool(scaling(np.array([0.0, 1.0]))[1] > 1)
        ([0.0, 0.0], True)
    """

    def __init__(self, limit: float = 5.0) -> None:
        self.mean, self.variance, self.count, self.limit = 0.0, 1.0, 1e-4, limit

    def __call__(self, rewards: np.ndarray) -> np.ndarray:
        """(N,) to (N,)."""
        n, delta = len(rewards), float(rewards.mean()) - self.mean
        total = self.count + n
        spread = self.variance * self.count + float(rewards.var()) * n + delta**2 * self.count * n / total
        self.mean, self.variance, self.count = self.mean + delta * n / total, spread / total, total
        return np.clip(rewards / np.sqrt(self.variance + 1e-8), -self.limit, self.limit)


class ResidualEnv(VectorEnv):
    """What the correction lives in: it sees observation and base action, and acts on what the base leaves undone.

    An end by a time limit is told as termination, as published.

    Args:
        env: the environment.
        policy: the base in it is asked, and its queues are kept here.
        scale_rewards: divide rewards by their running deviation.

    Raises:
        ValueError: sizes that do not fit; at a step, a base action outside the action space.
    """

    def __init__(self, env: VectorEnv, policy: ResidualPolicy, scale_rewards: bool = True) -> None:
        check_vector_env(env)
        if not isinstance(env.single_action_space, Box):
            raise ValueError(f"corrections are added to continuous actions, not to {env.single_action_space}")
        self.executed = Actions(env.single_action_space, normalize=False)
        sizes = observation_size(env.single_observation_space), self.executed.size
        if sizes != (policy.obs_dim, policy.action_dim):
            raise ValueError(
                f"the environment has {sizes[0]} numbers in an observation and {sizes[1]} in an action, the policy was "
                f"made for obs_dim {policy.obs_dim} and action_dim {policy.action_dim}"
            )
        self.env, self.policy, self.num_envs, self.metadata = env, policy, env.num_envs, env.metadata
        self.scaling = RewardScaling() if scale_rewards else None
        self.single_observation_space = Box(-np.inf, np.inf, (sum(sizes),), np.float32)
        self.single_action_space = Box(-100.0, 100.0, sizes[1:], np.float32)  # standard deviations are below 1
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self.action_space = batch_space(self.single_action_space, env.num_envs)
        self.base_action = np.zeros((env.num_envs, sizes[1]), np.float32)
        self.episodes = EpisodeLog(env.num_envs, 4 * env.num_envs)  # of unscaled rewards

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """All environments and all queues."""
        observation, infos = self.env.reset(seed=seed, options=options)
        self.policy.reset()
        return self._see(observation), infos

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Corrections (N, A), unscaled, for the base actions that were seen."""
        executed = self.executed(self.policy.corrected(self.base_action, np.asarray(actions)))
        observation, reward, terminated, truncated, _ = self.env.step(executed)
        done = terminated | truncated
        self.episodes.add(reward, done)
        if done.any():
            self.policy.reset(done)
        reward = reward if self.scaling is None else self.scaling(np.asarray(reward))
        return self._see(observation), reward, done, np.zeros_like(done), {}

    def close(self, **options: Any) -> None:
        """Close the environment below."""
        self.env.close(**options)

    def _see(self, observation: Any) -> np.ndarray:
        self.base_action = self.policy.base_action(observation)
        low, high = self.executed.low, self.executed.high
        slack = 1e-3 * np.maximum(1.0, np.abs(self.base_action))
        if ((self.base_action < low - slack) | (self.base_action > high + slack)).any():
            raise ValueError(
                f"the base policy's actions go from {self.base_action.min():g} to {self.base_action.max():g}, outside "
                f"of {self.env.single_action_space}; are they in other units?"
            )
        return self.policy.features(observation, self.base_action).cpu().numpy()


def fit_residual(
    env: VectorEnv,
    policy: ResidualPolicy,
    total_steps: int,
    *,
    n_steps: int = 700,
    batch_size: int | None = None,
    n_epochs: int = 50,
    actor_rate: float = 3e-4,
    critic_rate: float = 5e-3,
    target_kl: float = 0.1,
    gamma: float = 0.999,
    gae_lambda: float = 0.95,
    clip_range: float = 0.2,
    warm_up: int = 5,
    seed: int | None = None,
    on_step: OnStep | None = None,
) -> list[dict[str, float]]:
    """Learn the correction by PPO; the base stays as it is.

    Args:
        env: any vector environment that starts finished episodes again in the same step.
        policy: its ``net`` is trained in place.
        total_steps: in all environments together.
        n_steps: vector steps per iteration, as published those of an episode.
        batch_size: transitions per update; None is all of an iteration, as published.
        n_epochs: at most; an iteration ends earlier once the policy is ``target_kl`` away.
        actor_rate, critic_rate, target_kl, warm_up: of :class:`~reprise.rl.TargetKLPPO`.
        gamma, gae_lambda, clip_range: of :class:`~reprise.rl.PPO`.
        seed: of noise, batches and the first reset; None takes one from PyTorch's global generator.
        on_step: called after every iteration with (steps so far, total_steps, values).

    Returns:
        The values of each iteration: what PPO tells, with ``episode_return`` in the environment's own rewards.

    Raises:
        TypeError, ValueError: an environment or sizes that do not fit.
        Diverged: a loss or a weight is not finite.

    Example:
        >>> from reprise.envs import PegInsert
        >>> class Base:
        ...     def plan(self, observation):
        ...         return np.zeros((len(observation), 8, 2))
        >>> policy = ResidualPolicy(Base(), 6, 2, hidden=(16, 16))
        >>> len(fit_residual(PegInsert(16), policy, 640, n_steps=20, n_epochs=2, seed=0))
        2
    """
    world = ResidualEnv(env, policy)
    ppo = TargetKLPPO(
        world, policy.net, actor_rate=actor_rate, critic_rate=critic_rate, target_kl=target_kl, warm_up=warm_up,
        n_steps=n_steps, batch_size=batch_size or n_steps * env.num_envs, n_epochs=n_epochs, gamma=gamma,
        gae_lambda=gae_lambda, clip_range=clip_range, vf_coef=0.5, seed=seed, device=policy.net.log_std.device,
    )  # fmt: skip
    curves: list[dict[str, float]] = []

    def tell(step: int, total: int, values: dict[str, float]) -> None:
        curves.append(values | world.episodes.summary())
        if on_step is not None:
            on_step(step, total, curves[-1])

    ppo.learn(total_steps, tell)
    policy.reset()
    return curves


def _perceptron(inputs: int, hidden: Sequence[int], outputs: int, bias: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        linear = nn.Linear(inputs, width)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs, bias=bias))


def _fitting(normalizer: Normalizer | None, size: int, what: str) -> Normalizer:
    if normalizer is None:
        return Normalizer(torch.zeros(size), torch.ones(size))
    if len(normalizer.offset) != size:
        raise ValueError(f"the normalizer of {what} is for {len(normalizer.offset)} numbers, not {size}")
    return Normalizer(normalizer.offset.clone(), normalizer.scale.clone())
