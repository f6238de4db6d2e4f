"""Diffusion steering: improve a frozen policy by choosing the noise it starts from.

A diffusion or flow policy that is sampled without further noise is a function of what it observes and of its initial
noise: chunk = plan(observation, noise). Usually the noise is drawn from N(0, I). Here a small policy chooses it, and
learns by soft actor-critic which noise leads to reward, while the weights of the frozen policy, or even what kind of
thing it is, stay unknown. Every noise gives something that the demonstrators might have done, so exploration makes
sense from the first step on.

DSRL-SAC is soft actor-critic with the noise as its action. DSRL-NA also values chunks of actions, and tells its critic
of noises what the chunks are worth that they lead to; since many noises lead to the same chunk, it learns from less,
and from transitions whose noise nobody wrote down.

Source: Wagenmaker, Nakamoto, Zhang, Park, Yagoub, Nagabandi, Gupta and Levine, Steering Your Diffusion Policy with
Latent Space Reinforcement Learning, CoRL 2025, arXiv 2506.15799.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from reprise.data.finite import all_finite
from reprise.envs.chunks import ChunkedEnv
from reprise.nn.stacked import StackedLinear
from reprise.rl.files import load_state, read, write
from reprise.rl.sac import SAC, QNetworks, TanhGaussianActor
from reprise.rl.vector import Actions, check_vector_env, flatten, observation_size, take, tensors
from reprise.training.flat_adam import FlatAdam

__all__ = ["DSRL", "SteeredPolicy"]

NOT_SETTINGS = ("self", "env", "policy", "seed", "device", "__class__")


class DSRL(SAC):
    """Learn which noise a frozen policy should start from.

    Args:
        env: steps in all environments at once and starts finished ones again in the same step; its actions are a
            bounded box.
        policy: an object with ``plan(observation, noise)``, or such a function: a batch of observations (tensors) and
            noise (B, *noise_shape) to actions (B, at least execute, A) in the units of the environment. It must be
            deterministic, and depend on nothing else. DDIM with eta 0 and flows are; DDPM is not.
        execute: actions that are played of each plan.
        noise_shape: of the noise of one plan; None is (execute, A).
        variant: "na" (noise aliasing) or "sac".
        noise_bound: b, the actor chooses each number of the noise in -b..b.
        utd: updates after every chunk of the vector environment (all its environments together count once).
        distill_steps: steps of the critics of noises after those; "na" only.
        hidden: widths of the layers of actor and critics, tanh after a layer norm in each.
        warm_up: chunks in each environment for which the policy is not steered and nothing is learned.
        time_limit_ends: nothing comes after a time limit, as published; False bootstraps there.
        n_critics, combine, gamma, tau, target_entropy, learning_rate, batch_size, buffer_size, seed, device: of
            :class:`~reprise.rl.SAC`; gamma is per chunk.
        initial_temperature: of the entropy, which is learned.

    Attributes:
        noise_critics: Q^W, which value noises in "na". ``critics`` value chunks there, and noises in "sac".
        planner: the frozen policy.
        env: the environment as chunks; ``env.played`` are its steps.

    Raises:
        TypeError: the environment is not a vector environment.
        ValueError: settings or spaces that do not fit, and at the first chunk: a policy that is not deterministic or
            ignores its noise, plans of another shape, or not finite.

    Example:
        >>> from reprise.envs import PegInsert
        >>> env = PegInsert(4, task="two_slots")
        >>> dsrl = DSRL(env, lambda observation, noise: noise.tanh(), execute=4, hidden=(16,), warm_up=2, batch_size=8)
        >>> steered = dsrl.learn(16).steered()
        >>> dsrl.env.played, steered.plan(np.zeros((3, 6))).shape
        (64, torch.Size([3, 4, 2]))
    """

    def __init__(
        self,
        env: VectorEnv,
        policy: Any,
        *,
        execute: int,
        noise_shape: Sequence[int] | None = None,
        variant: str = "na",
        noise_bound: float = 1.5,
        utd: int = 20,
        distill_steps: int = 10,
        hidden: Sequence[int] = (2048, 2048, 2048),
        n_critics: int = 2,
        combine: str = "min",
        gamma: float = 0.99,
        tau: float = 0.005,
        target_entropy: float = 0.0,
        initial_temperature: float = 1.0,
        learning_rate: float = 3e-4,
        batch_size: int = 256,
        buffer_size: int = 1_000_000,
        warm_up: int = 1500,
        time_limit_ends: bool = True,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        settings = {key: value for key, value in locals().items() if key not in NOT_SETTINGS}
        if variant not in ("na", "sac"):
            raise ValueError(f'variant is "na" or "sac", not {variant!r}')
        if noise_bound <= 0 or distill_steps < 1 or warm_up < 0:
            raise ValueError(
                f"noise_bound and distill_steps are above 0 and warm_up is not below, not {noise_bound}, "
                f"{distill_steps} and {warm_up}"
            )
        check_vector_env(env)
        chunked = ChunkedEnv(env, execute, time_limit_ends=time_limit_ends)
        self.planner = FrozenPlanner(policy, chunked, noise_shape, device)
        self.variant, self.noise_bound, self.distill_steps = variant, noise_bound, distill_steps
        seed = int(torch.randint(2**31, ())) if seed is None else seed
        sizes = observation_size(env.single_observation_space), self.planner.noise_size
        chunk_size = self.planner.actions.size
        shape: dict[str, Any] = {"hidden": tuple(hidden), "activation": "tanh", "layer_norm": True}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            actor = TanhGaussianActor(*sizes, **shape)
            critics = QNetworks(sizes[0], chunk_size if variant == "na" else sizes[1], n_critics, **shape)
            noise_critics = QNetworks(*sizes, n_critics, **shape) if variant == "na" else None
        super().__init__(
            chunked, actor=actor, critics=critics, learning_rate=learning_rate, buffer_size=buffer_size,
            learning_starts=warm_up * env.num_envs, batch_size=batch_size, tau=tau, gamma=gamma,
            utd=utd / env.num_envs, combine=combine, initial_temperature=initial_temperature,
            target_entropy=target_entropy, seed=seed, device=device,
        )  # fmt: skip
        self.settings = settings
        if noise_critics is not None:
            self.noise_critics = self.judges = noise_critics.to(self.device)
            self.noise_adam = FlatAdam(self.noise_critics.parameters(), learning_rate)

    # --- learning: what differs from soft actor-critic in the environment's own actions -------------------------------

    def _noise(self, size: int) -> Tensor:
        return torch.randn(size, self.planner.noise_size, generator=self.generator, device=self.device)

    def _explore(self, size: int) -> Tensor:
        """The unsteered policy; noises that are to be learned from stay within the bound."""
        noise = self._noise(size) / self.noise_bound
        return noise if self.variant == "na" else noise.clamp(-1, 1)

    def _play(self, action: Tensor) -> tuple[Tensor, Any]:
        """Plan from the chosen noise and play it; "na" remembers the chunk, "sac" the noise."""
        observation, noise = tensors(self.observation, self.device), self.noise_bound * action
        self.planner.check_once(observation, noise)
        chunk = self.planner(observation, noise)
        outcome = self.env.step(self.actions(chunk.cpu().numpy()))
        return (chunk if self.variant == "na" else action), outcome

    def _slow_q(self, observation: Any, action: Tensor) -> Tensor:
        """Q of what the next noise leads to."""
        if self.variant == "na":
            action = self.planner(observation, self.noise_bound * action)
        return self.target(observation, action)

    def improve(self) -> dict[str, Tensor]:
        """The updates that are owed, and the distillation that follows them."""
        losses = super().improve()
        if losses and self.variant == "na":
            losses["distill_loss"] = self.distill()
        return losses

    def distill(self) -> Tensor:
        """Tell the critics of noises, one by one, what the chunks are worth that noises from N(0, I) lead to.

        Returns:
            The last loss.
        """
        count = self.distill_steps * self.batch_size
        index = torch.randint(self.buffer.size, (count,), generator=self.buffer.generator, device=self.device)
        observation, noise = take(self.buffer.storage["observation"], index), self._noise(count)
        with torch.no_grad():  # neither the policy nor the critics of chunks change meanwhile: all at once
            values = self.critics(observation, self.planner(observation, noise))
        observation = flatten(observation)
        for start in range(0, count, self.batch_size):
            part = slice(start, start + self.batch_size)
            self.noise_adam.zero_grad()
            told = self.noise_critics(observation[part], noise[part] / self.noise_bound)
            loss = 0.5 * (told - values[:, part]).square().mean(1).sum()
            loss.backward()
            self.noise_adam.step()
        return loss.detach()

    def add_offline(
        self, observation: Any, chunk: Any, reward: Any, next_observation: Any, terminated: Any
    ) -> None:  # fmt: skip
        """Learn from transitions of others, too; "na" only, for nobody knows the noises behind them.

        Args:
            observation, next_observation: (M, ...) before and after each chunk.
            chunk: (M, execute, A) in the units of the environment.
            reward: (M,) sums over the chunks.
            terminated: (M,) whether nothing comes after.

        Raises:
            ValueError: variant "sac"; shapes.
        """
        if self.variant != "na":
            raise ValueError('transitions without noise need variant="na"; "sac" learns from the noises themselves')
        self.buffer.add(observation, self.planner.normalised(chunk), reward, next_observation, terminated)

    def train(self, updates: int) -> dict[str, Tensor]:
        """Make updates without acting, say on offline data; distillation follows every ``utd`` of them.

        Returns:
            The last losses.

        Raises:
            ValueError: the buffer holds less than a batch.
        """
        losses: dict[str, Tensor] = {}
        for done in range(0, updates, self.settings["utd"]):
            self.owed = min(self.settings["utd"], updates - done)
            losses = self.improve()
        return losses

    # --- using what was learned ---------------------------------------------------------------------------------------

    def act(self, observation: Any, deterministic: bool = False) -> np.ndarray:
        """Chunks for the environment.

        Args:
            observation: (B, ...) array, or a dictionary of such.
            deterministic: from the actor's mean; as published, a sample of it also in evaluation.

        Returns:
            (B, execute, A) in the units of the environment.
        """
        observation = tensors(observation, self.device)
        with torch.no_grad():
            action = self.actor.parameters_of(observation)[0].tanh() if deterministic else self._act(observation)
            return self.actions(self.planner(observation, self.noise_bound * action).cpu().numpy())

    def steered(self, deterministic: bool = False) -> SteeredPolicy:
        """The policy with its learned noise, to be used wherever a policy is."""
        return SteeredPolicy(
            self.planner.policy, self.actor, self.planner.noise_shape, self.noise_bound, deterministic=deterministic
        )

    def _parts(self) -> dict[str, Any]:
        parts = super()._parts()
        if self.variant == "na":
            parts |= {"noise_critics": self.noise_critics, "noise_adam": self.noise_adam}
        return parts


class SteeredPolicy:
    """A frozen policy and the actor that chooses its noise.

    Args:
        policy: with ``plan(observation, noise)``, or such a function.
        actor: a :class:`~reprise.rl.TanhGaussianActor` over the noise.
        noise_shape: of the noise of one plan.
        noise_bound: b, by which the actor's -1..1 is stretched.
        deterministic: from the actor's mean instead of a sample.

    Example:
        >>> actor = TanhGaussianActor(6, 8, hidden=(16,))
        >>> steered = SteeredPolicy(lambda observation, noise: noise, actor, (4, 2), 1.5)
        >>> steered.plan(np.zeros((5, 6))).shape
        torch.Size([5, 4, 2])
    """

    def __init__(
        self,
        policy: Any,
        actor: TanhGaussianActor,
        noise_shape: Sequence[int],
        noise_bound: float,
        *,
        deterministic: bool = False,
    ) -> None:
        self.policy, self.actor, self.noise_shape = policy, actor, tuple(noise_shape)
        self.noise_bound, self.deterministic = noise_bound, deterministic
        self.device = next(actor.parameters()).device

    @torch.no_grad()
    def plan(self, observation: Any, noise: Tensor | None = None) -> Tensor:
        """What the policy plans from the noise that the actor chooses.

        Args:
            observation: (B, ...) array, or a dictionary of such.
            noise: (B, *noise_shape) standard normal numbers for the actor's sample; None draws them.

        Returns:
            (B, H, A) as the policy gives it.
        """
        observation = tensors(observation, self.device)
        mean, log_std = self.actor.parameters_of(observation)
        if not self.deterministic:
            noise = torch.randn_like(mean) if noise is None else noise.reshape(mean.shape).to(mean)
            mean = torch.addcmul(mean, log_std.exp(), noise)
        chosen = (self.noise_bound * mean.tanh()).reshape(len(mean), *self.noise_shape)
        return _as_plan(self.policy)(observation, chosen)

    def act(self, observation: Any) -> np.ndarray:
        """(B, A) the first actions of new plans; :class:`~reprise.policies.ChunkedPolicy` plans less often."""
        return np.asarray(self.plan(observation))[:, 0]

    def reset(self, mask: Any = None) -> None:
        """Let the policy forget all environments, or those of a mask (B,), if it remembers any."""
        if hasattr(self.policy, "reset"):
            self.policy.reset(mask)

    def save(self, path: Path | str) -> None:
        """Write the actor as ``path.safetensors`` and its sizes as ``path.json``; the policy is not written."""
        layers = [layer for layer in self.actor.body.layers if isinstance(layer, StackedLinear)]
        facts = {
            "algorithm": "SteeredPolicy", "noise_shape": self.noise_shape, "noise_bound": self.noise_bound,
            "deterministic": self.deterministic, "widths": [layer.weight.shape[1] for layer in layers],
        }  # fmt: skip
        write(path, {"actor": self.actor}, facts)

    @classmethod
    def load(cls, path: Path | str, policy: Any, device: torch.device | str = "cpu") -> SteeredPolicy:
        """Read what :meth:`save` wrote, for the same frozen policy."""
        facts = read(path, "SteeredPolicy")
        (size, *hidden), shape = facts["widths"], facts["noise_shape"]
        actor = TanhGaussianActor(size, math.prod(shape), hidden=hidden, activation="tanh", layer_norm=True).to(device)
        load_state(path, {"actor": actor}, torch.device(device))
        return cls(policy, actor, shape, facts["noise_bound"], deterministic=facts["deterministic"])


class FrozenPlanner:
    """A policy as a function of noise: its plans, cut to what is executed, in [-1, 1] and flat."""

    def __init__(
        self, policy: Any, env: ChunkedEnv, noise_shape: Sequence[int] | None, device: torch.device | str
    ) -> None:
        self.policy, self.plan, self.device = policy, _as_plan(policy), torch.device(device)
        self.actions = Actions(env.single_action_space, normalize=True)
        self.shape = (env.execute, *env.env.single_action_space.shape)  # type: ignore[misc]
        self.noise_shape = tuple(self.shape if noise_shape is None else noise_shape)
        self.noise_size = math.prod(self.noise_shape)
        self.middle = torch.as_tensor(self.actions.middle, dtype=torch.float32, device=self.device)
        self.half = torch.as_tensor(self.actions.half, dtype=torch.float32, device=self.device)
        self.checked = False

    @torch.no_grad()
    def __call__(self, observation: Any, noise: Tensor) -> Tensor:
        """Observations and noise (B, noise_size) to chunks (B, execute * A) in [-1, 1]."""
        return self.normalised(self.plan(observation, noise.reshape(len(noise), *self.noise_shape)))

    def normalised(self, plan: Any) -> Tensor:
        """(B, H, A) in the units of the environment to (B, execute * A) in [-1, 1]."""
        plan = torch.as_tensor(plan, dtype=torch.float32, device=self.device)
        execute, *action = self.shape
        if plan.ndim < 2 or plan.shape[1] < execute or plan.shape[2:] != tuple(action):
            raise ValueError(
                f"plans are (B, at least {execute}, {', '.join(map(str, action))}), not {tuple(plan.shape)}; execute "
                "fewer actions, or let the policy plan further"
            )
        chunk = plan[:, :execute].flatten(1)
        if not all_finite(chunk):
            raise ValueError(f"the plan of row {int(chunk.isfinite().all(1).int().argmin())} is not finite")
        return ((chunk - self.middle) / self.half).clamp_(-1, 1)

    def check_once(self, observation: Any, noise: Tensor) -> None:
        """Refuse a policy that rolls dice of its own, or whose plans do not depend on the noise."""
        if self.checked:
            return
        plans = [self(observation, other) for other in (noise, noise, -noise.roll(1, 1) - 1)]
        if not torch.equal(plans[0], plans[1]):
            raise ValueError(
                "the policy is not deterministic: the same observation and noise gave two different plans. Sample it "
                "without further noise (DDIM with eta=0, or a flow) and in evaluation mode"
            )
        if torch.equal(plans[0], plans[2]):
            raise ValueError("the policy ignores its noise: other noise gave the same plans, so it cannot be steered")
        self.checked = True


def _as_plan(policy: Any) -> Any:
    if isinstance(policy, Mapping) or not callable(plan := getattr(policy, "plan", policy)):
        raise TypeError(f"a policy has plan(observation, noise), or is such a function, unlike {type(policy).__name__}")
    return plan
