"""Soft actor-critic: learn values of actions from everything seen so far, and a policy that is as random as it can be.

Source: Haarnoja, Zhou, Hartikainen, Tucker, Ha, Tan, Kumar, Zhu, Gupta, Abbeel and Levine, Soft Actor-Critic
Algorithms and Applications, arXiv 1812.05905.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from reprise.nn.stacked import StackedMLP
from reprise.rl.buffers import ReplayBuffer
from reprise.rl.distributions import squashed_log_prob
from reprise.rl.episodes import EpisodeLog
from reprise.rl.files import load_state, read, write
from reprise.rl.vector import Actions, check_vector_env, final_observations, flatten, observation_size, put, tensors
from reprise.training.fit import Diverged
from reprise.training.flat_adam import FlatAdam, flatten as flatten_parameters

__all__ = ["SAC", "QNetworks", "TanhGaussianActor"]

NOT_SETTINGS = ("self", "env", "buffer", "actor", "critics", "seed", "device")
OnStep = Callable[[int, int, dict[str, float]], None]


class TanhGaussianActor(nn.Module):
    """A Gaussian squashed by tanh, whose mean and deviation both depend on what is observed.

    Args:
        observation_size, action_size: numbers.
        hidden, activation, layer_norm: of the perceptron.
        log_std_bounds: the logarithm of the deviation is kept between these.

    Example:
        >>> actor = TanhGaussianActor(3, 2)
        >>> action, log_prob = actor(torch.zeros(5, 3), torch.randn(5, 2))
        >>> action.shape, log_prob.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
        layer_norm: bool = False,
        log_std_bounds: tuple[float, float] = (-20.0, 2.0),
    ) -> None:
        super().__init__()
        self.body = StackedMLP(
            1, observation_size, hidden, 2 * action_size, activation=activation, layer_norm=layer_norm
        )
        self.log_std_bounds = log_std_bounds

    def parameters_of(self, observation: Tensor | dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the deviation (B, A), before the tanh."""
        mean, log_std = self.body(flatten(observation))[0].chunk(2, -1)
        return mean, log_std.clamp(*self.log_std_bounds)

    def forward(self, observation: Tensor | dict[str, Tensor], noise: Tensor) -> tuple[Tensor, Tensor]:
        """Observations and standard normal noise (B, A) to actions (B, A) in [-1, 1] and log densities (B,)."""
        return squashed_log_prob(*self.parameters_of(observation), noise)


class QNetworks(nn.Module):
    """Several critics that value an action, computed together.

    Args:
        observation_size, action_size: numbers.
        n_critics: networks.
        hidden, activation, layer_norm: of each.

    Example:
        >>> QNetworks(3, 2, 10)(torch.zeros(5, 3), torch.zeros(5, 2)).shape
        torch.Size([10, 5])
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        n_critics: int = 2,
        *,
        hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        size = observation_size + action_size
        self.body = StackedMLP(n_critics, size, hidden, 1, activation=activation, layer_norm=layer_norm)

    def forward(self, observation: Tensor | dict[str, Tensor], action: Tensor) -> Tensor:
        """Observations and actions (B, A) to values (n_critics, B)."""
        return self.body(torch.cat([flatten(observation), action], -1))[..., 0]


class SAC:
    """Learn a policy over continuous actions from rewards, off-policy.

    Args:
        env: steps in all environments at once and starts finished ones again in the same step; its actions are a
            bounded box, onto which [-1, 1] is stretched.
        learning_rate: of Adam for actor, critics and temperature; ``actor_adam.learning_rate`` and so on may be
            changed afterwards.
        buffer_size: transitions kept.
        learning_starts: environment steps of uniformly random actions before the first update.
        batch_size: transitions per update.
        tau: share of the critics that goes into their slow copies at each update.
        gamma: discount.
        utd: updates per environment step (not per vector step).
        n_critics: how many.
        combine: critics are joined by their "min" or "mean".
        n_step: rewards that are summed before a value is asked.
        temperature: weight of the entropy; None learns it, towards ``target_entropy``.
        initial_temperature: where learning it begins.
        target_entropy: nats; None is minus the number of action dimensions.
        hidden, activation, layer_norm: of actor and critics; the norm is the critics' alone.
        actor, critics: other networks instead.
        buffer: filled elsewhere, to learn from, too.
        seed: of weights, noise, samples and the first reset; None takes one from PyTorch's global generator.
        device: of networks and buffer.

    Attributes:
        actor, critics, target: networks; the target is the critics' slow copy.
        judges: the networks whose values the actor climbs: the critics.
        buffer: the :class:`~reprise.rl.ReplayBuffer`.
        steps, updates: taken so far.

    Raises:
        TypeError: the environment is not a vector environment.
        ValueError: settings or spaces that do not fit.

    Example:
        >>> import gymnasium
        >>> env = gymnasium.make_vec("Pendulum-v1", 2, "sync", {"autoreset_mode": "SameStep"})
        >>> sac = SAC(env, hidden=(16, 16), learning_starts=32, batch_size=32, seed=0).learn(64)
        >>> sac.act(np.zeros((3, 3))).shape, sac.steps, sac.updates
        ((3, 1), 64, 32)
    """

    def __init__(
        self,
        env: VectorEnv,
        *,
        learning_rate: float = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        utd: float = 1.0,
        n_critics: int = 2,
        combine: str = "min",
        n_step: int = 1,
        temperature: float | None = None,
        initial_temperature: float = 1.0,
        target_entropy: float | None = None,
        hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
        layer_norm: bool = False,
        actor: TanhGaussianActor | None = None,
        critics: QNetworks | None = None,
        buffer: ReplayBuffer | None = None,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = {key: value for key, value in locals().items() if key not in NOT_SETTINGS}
        check_vector_env(env)
        self.actions = Actions(env.single_action_space, normalize=True)
        if self.actions.discrete:
            raise ValueError(f"SAC acts by continuous numbers, not {env.single_action_space}; use PPO")
        if combine not in ("min", "mean"):
            raise ValueError(f'combine is "min" or "mean", not {combine!r}')
        if buffer_size < batch_size:
            raise ValueError(f"a buffer of {buffer_size} transitions is smaller than a batch of {batch_size}")
        if utd <= 0:
            raise ValueError(f"utd is a number of updates above 0 per environment step, not {utd}")
        self.env, self.device = env, torch.device(device)
        self.learning_starts, self.batch_size, self.tau, self.gamma = learning_starts, batch_size, tau, gamma
        self.utd, self.combine = utd, combine
        self.target_entropy = -float(self.actions.size) if target_entropy is None else target_entropy

        seed = int(torch.randint(2**31, ())) if seed is None else seed
        self.seed: int | None = seed  # of the next reset
        self.generator = torch.Generator(self.device).manual_seed(seed)
        if buffer is None:
            buffer = ReplayBuffer(buffer_size, n_step=n_step, gamma=gamma, seed=seed, device=self.device)
        self.buffer = buffer
        sizes = observation_size(env.single_observation_space), self.actions.size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            shape: dict[str, Any] = {"hidden": hidden, "activation": activation}
            self.actor = (actor or TanhGaussianActor(*sizes, **shape)).to(self.device)
            critics = critics or QNetworks(*sizes, n_critics, **shape, layer_norm=layer_norm)
        self.critics, self.target = critics.to(self.device), copy.deepcopy(critics).to(self.device)
        self.judges = self.critics
        first = initial_temperature if temperature is None else temperature
        self.log_temperature = nn.Parameter(torch.tensor([first], device=self.device).log())
        self.actor_adam = FlatAdam(self.actor.parameters(), learning_rate)
        self.critic_adam = FlatAdam(self.critics.parameters(), learning_rate)
        self.temperature_adam = FlatAdam([self.log_temperature], learning_rate) if temperature is None else None
        self.target.requires_grad_(False)
        self.slow = flatten_parameters(self.target.parameters())
        self.slow.copy_(self.critic_adam.vector)

        self.steps = self.updates = 0
        self.owed = 0.0  # updates
        self.observation: Any = None  # until the first reset
        self.episodes = EpisodeLog(env.num_envs)

    # --- learning -----------------------------------------------------------------------------------------------------

    def learn(self, total_steps: int, on_step: OnStep | None = None) -> SAC:
        """Take at least so many further environment steps, and the updates that go with them.

        Args:
            total_steps: in all environments together.
            on_step: called about fifty times with (steps of this call so far, total_steps, values): the mean
                ``episode_return`` and ``episode_length`` of the last 100 episodes, ``critic_loss``, ``actor_loss``,
                ``entropy`` (nats), ``q`` and ``temperature`` of the last update, ``steps_per_second``.

        Returns:
            self

        Raises:
            ValueError: the environment gives NaN or infinite rewards or observations.
            Diverged: a loss is not finite.
        """
        begun, start, told = self.steps, time.perf_counter(), 0
        losses: dict[str, Tensor] = {}
        while self.steps - begun < total_steps:
            self.step()
            losses = self.improve() or losses
            done = self.steps - begun
            if done >= total_steps or 50 * done >= (told + 1) * total_steps:
                told = 50 * done // total_steps
                values = {key: float(value) for key, value in losses.items()}
                if not all(np.isfinite(list(values.values()))):
                    raise Diverged(f"SAC diverged after {self.updates} updates ({values}); lower the learning rate")
                values |= self.episodes.summary() | {"steps_per_second": done / (time.perf_counter() - start)}
                if on_step is not None:
                    on_step(done, total_steps, values)
        return self

    @torch.no_grad()
    def step(self) -> None:
        """Act once in every environment, store what happens, and owe the updates for it."""
        if self.observation is None:
            self.observation, _ = self.env.reset(seed=self.seed)
            self.seed = None
        N = self.env.num_envs
        action = self._explore(N) if self.steps < self.learning_starts else self._act(self.observation)
        action, (observation, reward, terminated, truncated, infos) = self._play(action)
        done = terminated | truncated
        next_observation = observation
        if done.any():
            ended = np.flatnonzero(done)
            next_observation = put(observation, ended, final_observations(infos, ended))
        self.buffer.add(self.observation, action, reward, next_observation, terminated, truncated)
        self.episodes.add(reward, done)
        self.observation = observation
        self.steps += N
        if self.steps > self.learning_starts and len(self.buffer) >= self.batch_size:
            self.owed += self.utd * min(N, self.steps - self.learning_starts)

    def improve(self) -> dict[str, Tensor]:
        """Make the updates that are owed: the losses of the last of them, or nothing."""
        losses: dict[str, Tensor] = {}
        while self.owed >= 1:
            losses = self.update(self.buffer.sample(self.batch_size))
            self.owed -= 1
        return losses

    def _explore(self, size: int) -> Tensor:
        """Actions in [-1, 1] before the first update."""
        return 2 * torch.rand(size, self.actions.size, generator=self.generator, device=self.device) - 1

    def _act(self, observation: Any) -> Tensor:
        """Samples of the actor."""
        observation = tensors(observation, self.device)
        size = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
        return self.actor(observation, self._noise(size))[0]

    def _play(self, action: Tensor) -> tuple[Tensor, Any]:
        """Let the environments step: what the buffer shall hold as the action, and what they say."""
        return action, self.env.step(self.actions(action.cpu().numpy()))

    def _slow_q(self, observation: Any, action: Tensor) -> Tensor:
        """Values (n_critics, B) of what the actor would do next."""
        return self.target(observation, action)

    def update(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One step of critics, actor and temperature, and of the slow copy.

        Args:
            batch: as :meth:`ReplayBuffer.sample <reprise.rl.ReplayBuffer.sample>` returns it; rewards may be replaced.

        Returns:
            ``critic_loss``, ``actor_loss``, ``entropy``, ``q`` and ``temperature``, each a tensor of one number.
        """
        observation, size = batch["observation"], len(batch["reward"])
        temperature = self.log_temperature.detach().exp()[0]
        with torch.no_grad():
            next_action, next_log_prob = self.actor(batch["next_observation"], self._noise(size))
            next_q = self._join(self._slow_q(batch["next_observation"], next_action))
            target = batch["reward"] + batch["discount"] * (next_q - temperature * next_log_prob)

        self.critic_adam.zero_grad()
        q = self.critics(observation, batch["action"])
        critic_loss = 0.5 * (q - target).square().mean(1).sum()
        critic_loss.backward()
        self.critic_adam.step()

        self.actor_adam.zero_grad()
        action, log_prob = self.actor(observation, self._noise(size))
        self.judges.requires_grad_(False)  # the actor's gradient goes through them, and leaves none in them
        actor_loss = (temperature * log_prob - self._join(self.judges(observation, action))).mean()
        actor_loss.backward()
        self.judges.requires_grad_(True)
        self.actor_adam.step()

        entropy = -log_prob.detach().mean()
        if self.temperature_adam is not None:
            self.temperature_adam.gradient.copy_(entropy - self.target_entropy)
            self.temperature_adam.step()
        self.slow.lerp_(self.critic_adam.vector, self.tau)
        self.updates += 1
        losses = {"critic_loss": critic_loss, "actor_loss": actor_loss, "entropy": entropy, "q": q.mean()}
        return {key: value.detach() for key, value in losses.items()} | {"temperature": temperature}

    def _join(self, q: Tensor) -> Tensor:
        return q.amin(0) if self.combine == "min" else q.mean(0)

    def _noise(self, size: int) -> Tensor:
        return torch.randn(size, self.actions.size, generator=self.generator, device=self.device)

    # --- using what was learned ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, observation: Any, deterministic: bool = True) -> np.ndarray:
        """Actions for the environment.

        Args:
            observation: (B, ...) array, or a dictionary of such.
            deterministic: tanh of the mean; otherwise a sample.

        Returns:
            (B, ...) as the action space of one environment has it.
        """
        if not deterministic:
            return self.actions(self._act(observation).cpu().numpy())
        return self.actions(self.actor.parameters_of(tensors(observation, self.device))[0].tanh().cpu().numpy())

    def _parts(self) -> dict[str, Any]:
        names = ("actor", "critics", "target", "actor_adam", "critic_adam", "temperature_adam")
        return {name: part for name in names if (part := getattr(self, name)) is not None}

    def save(self, path: Path | str) -> None:
        """Write ``path.safetensors`` (networks and optimisers) and ``path.json``; the buffer is not kept."""
        facts = {
            "algorithm": type(self).__name__,
            "settings": self.settings,
            "steps": self.steps,
            "updates": self.updates,
        }
        write(path, self._parts(), facts | {"temperature": float(self.log_temperature.detach().exp())})

    @classmethod
    def load(cls, path: Path | str, env: VectorEnv, **changed: Any) -> SAC:
        """Read what :meth:`save` wrote; :meth:`learn` goes on as soon as its buffer holds a batch again.

        Args:
            path: as given to :meth:`save`.
            env: like the one that was learned in.
            **changed: settings that shall differ, ``buffer``, ``seed``, ``device``, and what else was given.

        Raises:
            ValueError: the file holds another algorithm, or weights of other shapes.
        """
        facts = read(path, cls.__name__)
        sac = cls(env, **facts["settings"] | changed)
        load_state(path, sac._parts(), sac.device)
        sac.log_temperature.data.fill_(facts["temperature"]).log_()
        sac.steps, sac.updates = facts["steps"], facts["updates"]
        return sac
