"""Proximal policy optimisation.

Act for a while in many environments, estimate how much better each action was than expected, and climb that estimate
for a few epochs without going far from the policy that acted.

Source: Schulman, Wolski, Dhariwal, Radford and Klimov, Proximal Policy Optimization Algorithms, arXiv 1707.06347.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from reprise.rl.actor_critic import ActorCritic
from reprise.rl.distributions import Distribution
from reprise.rl.episodes import EpisodeLog
from reprise.rl.files import load_state, read, write
from reprise.rl.gae import gae
from reprise.rl.ppo_gradient import accumulate_gradient, has_closed_form
from reprise.rl.vector import Actions, check_vector_env, final_observations, observation_size, take, tensors
from reprise.training.fit import Diverged
from reprise.training.flat_adam import FlatAdam

__all__ = ["PPO"]

NEEDED = ("observation", "action", "log_prob", "advantage", "return")  # of a minibatch
OnStep = Callable[[int, int, dict[str, float]], None]


class PPO:
    """Learn a policy from rewards.

    Args:
        env: steps in all environments at once and starts finished ones again in the same step. What is observed is a
            Box, or a Dict of Boxes, and goes to the policy as it is: scale it to about one.
        learning_rate: of Adam; the attribute may be changed between iterations, say by ``on_step``.
        n_steps: vector steps per iteration; the batch has ``n_steps * env.num_envs`` transitions.
        batch_size: transitions per update. A last batch of an epoch may be smaller.
        n_epochs: passes over the batch.
        gamma: discount.
        gae_lambda: of :func:`~reprise.rl.gae`.
        clip_range: ratios of probabilities gain nothing beyond 1 -+ this.
        normalize_advantage: to mean 0 and deviation 1, over each "minibatch", the whole "batch", or None.
        ent_coef: weight of the entropy in the objective.
        vf_coef: weight of the squared error of the values.
        value_error_clip: squared errors above it have no gradient (RLlib's ``vf_clip_param``); None for no limit.
        max_grad_norm: the gradient is shortened to this; None for no limit.
        kl_coef: weight of the divergence from the policy that acted. It is multiplied by 1.5 after an iteration whose
            divergence was above twice ``kl_target``, and halved after one below half of it.
        kl_target: nats.
        normalize_actions: the Gaussian acts in [-1, 1], stretched linearly onto the box and clipped there; otherwise
            in the box's own units, clipped.
        hidden, activation, log_std_init: of the :class:`~reprise.rl.ActorCritic`.
        policy: another module instead; ``policy(observation)`` gives a distribution over actions and values (B,), and
            ``policy.behaviour(observation)``, if there is such a method, the distribution alone.
        seed: of weights, noise, batches and the first reset; None takes one from PyTorch's global generator.
        device: of the policy.

    Attributes:
        policy: the network.
        steps: environment steps taken so far, in all environments together.
        adam: the optimiser; ``adam.steps`` are the updates so far.

    Raises:
        TypeError: the environment is not a vector environment.
        ValueError: settings or spaces that do not fit.

    Example:
        >>> import gymnasium
        >>> env = gymnasium.make_vec("CartPole-v1", 4, "sync", {"autoreset_mode": "SameStep"})
        >>> ppo = PPO(env, n_steps=64, seed=0).learn(512)
        >>> ppo.act(np.zeros((2, 4))).shape, ppo.steps
        ((2,), 512)
    """

    def __init__(
        self,
        env: VectorEnv,
        *,
        learning_rate: float = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float = 0.2,
        normalize_advantage: str | None = "minibatch",
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        value_error_clip: float | None = None,
        max_grad_norm: float | None = 0.5,
        kl_coef: float = 0.0,
        kl_target: float = 0.01,
        normalize_actions: bool = False,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        log_std_init: float = 0.0,
        policy: nn.Module | None = None,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = {
            key: value for key, value in locals().items() if key not in ("self", "env", "policy", "device", "seed")
        }
        check_vector_env(env)
        if batch_size < 2 or n_steps * env.num_envs < batch_size:
            raise ValueError(
                f"batch_size {batch_size} does not fit {n_steps} steps of {env.num_envs} environments; it must be "
                f"between 2 and {n_steps * env.num_envs}"
            )
        if normalize_advantage not in ("minibatch", "batch", None):
            raise ValueError(f'normalize_advantage is "minibatch", "batch" or None, not {normalize_advantage!r}')
        self.env, self.device = env, torch.device(device)
        self.learning_rate, self.n_steps, self.batch_size, self.n_epochs = learning_rate, n_steps, batch_size, n_epochs
        self.gamma, self.gae_lambda, self.clip_range = gamma, gae_lambda, clip_range
        self.normalize_advantage, self.ent_coef, self.vf_coef = normalize_advantage, ent_coef, vf_coef
        self.value_error_clip, self.max_grad_norm = value_error_clip, max_grad_norm
        self.kl_coef, self.kl_target = kl_coef, kl_target
        self.actions = Actions(env.single_action_space, normalize_actions)

        seed = int(torch.randint(2**31, ())) if seed is None else seed
        self.seed: int | None = seed  # of the next reset
        initial, self.generator = torch.Generator().manual_seed(seed), torch.Generator(self.device).manual_seed(seed)
        self.policy = policy or ActorCritic(
            observation_size(env.single_observation_space),
            self.actions.size,
            discrete=self.actions.discrete,
            hidden=hidden,
            activation=activation,
            log_std_init=log_std_init,
            generator=initial,
        )
        self.policy.to(self.device)
        self.adam = FlatAdam(self.policy.parameters(), learning_rate, eps=1e-5)
        self.steps = 0
        self.observation: Any = None  # until the first reset
        self.episodes = EpisodeLog(env.num_envs)

    # --- learning -----------------------------------------------------------------------------------------------------

    def learn(self, total_steps: int, on_step: OnStep | None = None) -> PPO:
        """Take at least so many further environment steps, in whole iterations.

        Args:
            total_steps: in all environments together.
            on_step: called after every iteration with (steps of this call so far, total_steps, values): the mean
                ``episode_return`` and ``episode_length`` of the last 100 episodes, ``policy_loss``, ``value_loss``,
                ``entropy`` (nats), ``kl`` (nats from the policy that acted), ``clip_fraction``,
                ``explained_variance`` of the returns by the values, ``steps_per_second``.

        Returns:
            self

        Raises:
            ValueError: the environment gives NaN or infinite rewards or observations.
            Diverged: a loss or a weight is not finite.
        """
        begun, start = self.steps, time.perf_counter()
        while self.steps - begun < total_steps:
            batch = self.collect()
            values = self.update(batch)
            values |= self.episodes.summary()
            values["steps_per_second"] = (self.steps - begun) / (time.perf_counter() - start)
            if on_step is not None:
                on_step(self.steps - begun, total_steps, values)
        return self

    @torch.no_grad()
    def collect(self) -> dict[str, Any]:
        """Act for ``n_steps`` vector steps.

        Returns:
            ``observation``, ``action``, ``log_prob``, ``value``, ``advantage`` and ``return`` of all transitions, the
            environments of one step side by side: tensors (n_steps * num_envs, ...); and ``distribution``, which acted.
        """
        T, N = self.n_steps, self.env.num_envs
        if self.observation is None:
            self.observation, _ = self.env.reset(seed=self.seed)
            self.seed = None
        rewards = np.empty((T, N), np.float32)
        terminated, truncated = np.empty((T, N), bool), np.empty((T, N), bool)
        observations: list[Any] = []
        actions: list[Tensor] = []
        ends: list[tuple[int, np.ndarray, Any]] = []  # step, environments, their last observations
        noise: Tensor | None = None
        for t in range(T):
            observations.append(tensors(self.observation, self.device))
            distribution = self._behaviour(observations[t])
            if noise is None:
                noise = distribution.noise(T, generator=self.generator)
            actions.append(distribution.sample(noise[t]))
            self.observation, rewards[t], terminated[t], truncated[t], infos = self.env.step(
                self.actions(actions[t].cpu().numpy())
            )
            self.episodes.add(rewards[t], terminated[t] | truncated[t])
            if len(cut := np.flatnonzero(truncated[t] & ~terminated[t])):
                ends.append((t, cut, tensors(final_observations(infos, cut), self.device)))
        self.steps += T * N
        _refuse_nan(rewards, "reward")
        last = tensors(self.observation, self.device)
        batch: dict[str, Any] = {"observation": _stack(observations), "action": torch.cat(actions)}
        _refuse_nan(batch["observation"], "observation", N)
        distribution, value = self.policy(batch["observation"])
        values = value.view(T, N).cpu().numpy()
        next_values = np.concatenate([values[1:], self.policy(last)[1].cpu().numpy()[None]])
        if ends:
            cut_values = self.policy(_stack([observation for _, _, observation in ends]))[1].cpu().numpy()
            steps = np.concatenate([np.full(len(cut), t) for t, cut, _ in ends])
            next_values[steps, np.concatenate([cut for _, cut, _ in ends])] = cut_values
        advantages = gae(
            rewards, values, next_values, terminated, truncated, gamma=self.gamma, gae_lambda=self.gae_lambda
        )
        batch |= {"distribution": distribution.detach(), "value": value}
        batch["log_prob"] = distribution.log_prob(batch["action"])
        batch["advantage"] = torch.as_tensor(advantages, device=self.device).reshape(-1)
        batch["return"] = batch["advantage"] + value
        return batch

    def _behaviour(self, observation: Any) -> Distribution:
        """What acts; values can wait until the roll-out is whole."""
        alone = getattr(self.policy, "behaviour", None)
        return self.policy(observation)[0] if alone is None else alone(observation)

    def update(self, batch: dict[str, Any]) -> dict[str, float]:
        """Climb the objective for ``n_epochs`` over a batch as :meth:`collect` returns it.

        Raises:
            Diverged: a loss or a weight is not finite.
        """
        size = len(batch["advantage"])
        old = batch["distribution"]
        if self.normalize_advantage == "batch":
            batch = batch | {"advantage": _standardise(batch["advantage"])}
        self.adam.learning_rate = self.learning_rate
        for _ in range(self.n_epochs):
            order = torch.randperm(size, generator=self.generator, device=self.device)
            shuffled = {key: take(batch[key], order) for key in NEEDED}  # so that minibatches are views
            shuffled_old = old[order] if self.kl_coef else None
            for start in range(0, size, self.batch_size):
                part = slice(start, start + self.batch_size)
                minibatch = {key: take(value, part) for key, value in shuffled.items()}
                self._step(minibatch, None if shuffled_old is None else shuffled_old[part])
        return self._judge(batch, old)

    def _step(self, minibatch: dict[str, Any], old: Distribution | None) -> None:
        """One step of Adam."""
        if self.normalize_advantage == "minibatch" and len(minibatch["advantage"]) > 1:
            minibatch["advantage"] = _standardise(minibatch["advantage"])
        self.adam.zero_grad()
        if has_closed_form(self.policy):
            accumulate_gradient(self, minibatch, old)
        else:
            self.loss(minibatch, old).backward()
        self.adam.step(self.max_grad_norm)

    def loss(self, minibatch: dict[str, Any], old: Distribution | None = None) -> Tensor:
        """The loss of a minibatch, with a gradient by the weights of the policy.

        Args:
            minibatch: as :meth:`collect` returns it, with normalised advantages.
            old: the distributions that acted; needed if ``kl_coef`` is not 0.
        """
        distribution, value = self.policy(minibatch["observation"])
        log_ratio = distribution.log_prob(minibatch["action"]) - minibatch["log_prob"]
        self.log_ratio, ratio = log_ratio.detach(), log_ratio.exp()
        advantage = minibatch["advantage"]
        clipped = ratio.clamp(1 - self.clip_range, 1 + self.clip_range)
        policy_loss = -torch.minimum(advantage * ratio, advantage * clipped).mean()
        error = (minibatch["return"] - value).square()
        value_loss = error.clamp(max=self.value_error_clip).mean() if self.value_error_clip else error.mean()
        loss = policy_loss + self.vf_coef * value_loss - self.ent_coef * distribution.entropy().mean()
        if self.kl_coef:
            assert old is not None
            loss = loss + self.kl_coef * old.kl(distribution).mean()
        return loss

    @torch.no_grad()
    def _judge(self, batch: dict[str, Any], old: Distribution) -> dict[str, float]:
        """What the updates have done to the policy, on the whole batch; sets the weight of the divergence."""
        distribution, value = self.policy(batch["observation"])
        ratio = (distribution.log_prob(batch["action"]) - batch["log_prob"]).exp()
        spread = batch["return"].var().clamp_min(1e-12)
        values = {
            "policy_loss": -(batch["advantage"] * ratio).mean(),
            "value_loss": (batch["return"] - value).square().mean(),
            "entropy": distribution.entropy().mean(),
            "kl": old.kl(distribution).mean(),
            "clip_fraction": ((ratio - 1).abs() > self.clip_range).float().mean(),
            "explained_variance": 1 - (batch["return"] - batch["value"]).var() / spread,
        }
        told = {key: float(value) for key, value in values.items()}
        if not all(np.isfinite(list(told.values()))):
            raise Diverged(f"PPO diverged after {self.adam.steps} updates ({told}); lower the learning rate")
        if self.kl_coef and told["kl"] > 2 * self.kl_target:
            self.kl_coef *= 1.5
        elif self.kl_coef and told["kl"] < 0.5 * self.kl_target:
            self.kl_coef *= 0.5
        return told

    # --- using what was learned ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, observation: Any, deterministic: bool = True) -> np.ndarray:
        """Actions for the environment.

        Args:
            observation: (B, ...) array, or a dictionary of such.
            deterministic: the likeliest action; otherwise a sample.

        Returns:
            (B, ...) as the action space of one environment has it.
        """
        distribution, _ = self.policy(tensors(observation, self.device))
        if deterministic:
            return self.actions(distribution.mode().cpu().numpy())
        return self.actions(distribution.sample(distribution.noise(generator=self.generator)).cpu().numpy())

    def save(self, path: Path | str) -> None:
        """Write ``path.safetensors`` (weights and the optimiser's averages) and ``path.json`` (settings and counts)."""
        settings = self.settings | {"learning_rate": self.learning_rate, "kl_coef": self.kl_coef}
        facts = {"algorithm": "PPO", "settings": settings, "steps": self.steps}
        write(path, {"policy": self.policy, "adam": self.adam}, facts)

    @classmethod
    def load(cls, path: Path | str, env: VectorEnv, *, policy: nn.Module | None = None, **changed: Any) -> PPO:
        """Read what :meth:`save` wrote; :meth:`learn` goes on from there, with new episodes.

        Args:
            path: as given to :meth:`save`.
            env: like the one that was learned in.
            policy: a module of the same make, if it was not the default.
            **changed: settings that shall differ, ``seed`` and ``device``.

        Raises:
            ValueError: the file holds another algorithm, or weights of other shapes.
        """
        facts = read(path, "PPO")
        ppo = cls(env, policy=policy, **facts["settings"] | changed)
        load_state(path, {"policy": ppo.policy, "adam": ppo.adam}, ppo.device)
        ppo.steps = facts["steps"]
        return ppo


def _standardise(values: Tensor) -> Tensor:
    centred = values - values.mean()
    return centred.div_(centred.norm().div_(math.sqrt(len(values) - 1)).add_(1e-8))


def _stack(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: _stack([observation[key] for observation in observations]) for key in observations[0]}
    return torch.cat(observations)


def _refuse_nan(values: Any, what: str, environments: int = 0) -> None:
    """Say at which step and in which environment a number was not finite."""
    if isinstance(values, dict):
        for key, part in values.items():
            _refuse_nan(part, f"{what} {key!r}", environments)
        return
    finite = np.isfinite(np.asarray(values.cpu() if isinstance(values, Tensor) else values))
    if not finite.all():
        rows = finite.reshape(-1, environments, *finite.shape[1:]) if environments else finite
        step, env = np.argwhere(~rows)[0][:2]
        raise ValueError(f"environment {env} gave a NaN or infinite {what} at step {step} of the roll-out")
