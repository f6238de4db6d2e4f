"""What BESO and its baselines share: windows of scaled states and actions, training, and a history per environment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from reprise.data.episodes import Episodes
from reprise.data.finite import all_finite
from reprise.data.hindsight import HindsightWindows
from reprise.data.normalize import Normalizer
from reprise.policies.observations import checked_mask, named, tensor_of
from reprise.rl.files import load_state, read, write
from reprise.training.fit import Diverged, OnStep
from reprise.training.flat_adam import FlatAdam

__all__ = ["HistoryPolicy"]


class Scaled(nn.Module):
    """A network, the scales of what goes in and comes out, and what is stored with them."""

    bounds: Tensor
    told: Tensor

    def __init__(self, net: nn.Module, obs_dim: int, action_dim: int, told: list[int]) -> None:
        super().__init__()
        self.net = net
        self.states = Normalizer(torch.zeros(obs_dim), torch.ones(obs_dim))
        self.actions = Normalizer(torch.zeros(action_dim), torch.ones(action_dim))
        self.register_buffer("bounds", torch.tensor([[-math.inf], [math.inf]]).repeat(1, action_dim))  # of actions
        mask = torch.zeros(obs_dim).index_fill_(0, torch.tensor(told), 1.0)
        self.register_buffer("told", mask, persistent=False)  # by goals


class HistoryPolicy:
    """A goal-conditioned policy that sees the last states and its own last actions; one action per observation.

    Subclasses give the network (:meth:`make_network`), the loss of a batch of windows and the prediction.

    Args:
        window: k, states that the policy sees; at the start of an episode there are fewer.
        goal_len: G, consecutive states in a goal.
        goal_entries: numbers of the state that a goal tells; the others are 0. None tells all.
        observations: names of the observations that make up the state, put one after the other.
        scale: standardise states and bring actions to [-1, 1]; False leaves both as they are.
        device: where the network is.
        **network: further sizes of the network: embed_dim, n_layers, n_heads, attn_drop, resid_drop, ...
    """

    def __init__(
        self,
        *,
        window: int = 5,
        goal_len: int = 1,
        goal_entries: Sequence[int] | None = None,
        observations: Sequence[str] = ("state",),
        scale: bool = True,
        device: str | torch.device = "cpu",
        **network: Any,
    ) -> None:
        self.window, self.goal_len, self.scale = window, goal_len, scale
        self.goal_entries = None if goal_entries is None else list(goal_entries)
        self.observations, self.device = list(observations), torch.device(device)
        self.network = network | {"window": window, "goal_len": goal_len}
        self._scaled: Scaled | None = None
        self._length: Tensor | None = None

    def make_network(self, obs_dim: int, action_dim: int) -> nn.Module:
        raise NotImplementedError

    def loss(self, states: Tensor, actions: Tensor, goals: Tensor) -> Tensor:
        """Of a batch of scaled windows: (B, k, obs_dim), (B, k, action_dim) and (B, G, obs_dim)."""
        raise NotImplementedError

    def predict(self, states: Tensor, past: Tensor, goals: Tensor | None, last: Tensor) -> Tensor:
        """The scaled action for the state at (B,) ``last`` of (B, t, obs_dim) states; beyond it anything may stand.

        ``past`` (B, t, action_dim) has the actions taken at the states before.
        """
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """What the policy was made with, as JSON can hold it."""
        names = ("goal_entries", "observations", "scale")
        return {name: getattr(self, name) for name in names} | self.network

    def build(self, obs_dim: int, action_dim: int) -> Self:
        """Make the network for states and actions of these sizes; :meth:`fit` does so by itself."""
        entries = self.goal_entries
        if entries is not None and not all(0 <= entry < obs_dim for entry in entries):
            raise ValueError(f"goal_entries are numbers of the {obs_dim} entries of a state, unlike {entries}")
        told = list(range(obs_dim)) if entries is None else entries
        self._scaled = Scaled(self.make_network(obs_dim, action_dim), obs_dim, action_dim, told)
        self._scaled.to(self.device).eval()
        self.reset()
        return self

    @property
    def module(self) -> Scaled:
        """The network with its scales.

        Raises:
            RuntimeError: there is none yet.
        """
        if self._scaled is None:
            raise RuntimeError(f"this {type(self).__name__} has learned nothing yet; call fit, or load, first")
        return self._scaled

    @property
    def net(self) -> Any:
        """The network that :meth:`make_network` made."""
        return self.module.net

    def fit(
        self,
        episodes: Episodes,
        *,
        steps: int = 60_000,
        batch_size: int = 1024,
        learning_rate: float = 1e-4,
        schedule: str = "step",
        weight_decay: float = 0.0,
        ema: float = 0.999,
        on_step: OnStep | None = None,
    ) -> Self:
        """Learn from windows of the episodes, with goals from later in the same episode, drawn anew each time.

        A second call goes on from the weights and with the scales there are. The weights that act afterwards are a
        moving average of those trained, with decay min(ema, (1 + n) / (10 + n)) at step n. The defaults are those
        published for Block-Push. Chance comes from PyTorch's global generator.

        Args:
            episodes: demonstrations or play, at least one of them as long as a window.
            steps: optimiser steps.
            batch_size: windows per step.
            learning_rate: of Adam, at the start.
            schedule: "step" multiplies it by 0.99 every 100 steps, as published; "cosine" takes it to zero.
            weight_decay: decoupled, as in AdamW.
            ema: largest decay of the moving average.
            on_step: called about fifty times with (step, steps in all, {"loss": mean since the last call}).

        Raises:
            ValueError: episodes that are too short, or of other sizes than before; a missing observation; settings.
            reprise.training.Diverged: a loss or a weight is not finite; says where.
        """
        if schedule not in ("step", "cosine"):
            raise ValueError(f'schedule is "step" or "cosine", not {schedule!r}')
        if min(steps, batch_size) < 1 or not 0 <= ema < 1:
            raise ValueError(
                f"steps and batch_size are at least 1 and ema in [0, 1), not {steps}, {batch_size} and {ema}"
            )
        windows = HindsightWindows(episodes, self.window, self.goal_len)
        states, actions = self._data(episodes)
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        net = self.net.train()
        adam = FlatAdam(net.parameters(), learning_rate)
        average, recent, every = adam.vector.clone(), list[float](), max(1, steps // 50)
        told = self.module.told
        for step in range(steps):
            rows = windows.rows(rng.integers(len(windows), size=batch_size), rng)
            window, goal = (torch.from_numpy(part).to(self.device) for part in (rows.window, rows.goal))
            goals = states[goal] * told
            goals[torch.from_numpy(rows.missing)] = 0.0
            adam.learning_rate = learning_rate * _factor(schedule, step, steps)
            adam.zero_grad()
            value = self.loss(states[window], actions[window], goals)
            value.backward()
            recent.append(float(value.detach()))
            if not math.isfinite(recent[-1]):
                raise Diverged(f"training diverged at step {step + 1} of {steps}; lower the learning rate")
            if weight_decay:
                adam.vector.mul_(1 - adam.learning_rate * weight_decay)
            adam.step()
            average.lerp_(adam.vector, 1 - min(ema, (1 + step) / (10 + step)))
            if (step + 1) % every == 0 or step + 1 == steps:
                if on_step is not None:
                    on_step(step + 1, steps, {"loss": sum(recent) / len(recent)})
                recent.clear()
        if not all_finite(average):
            raise Diverged(f"training diverged in the last of {steps} steps; lower the learning rate")
        adam.vector.copy_(average)
        net.eval()
        self.reset()
        return self

    def reset(self, mask: Any = None) -> None:
        """Forget the history of all environments, or of those where the (B,) mask is True."""
        if mask is None:
            self._length = None
        elif self._length is not None:
            chosen = torch.from_numpy(checked_mask(mask, len(self._length)))
            self._length = self._length.masked_fill(chosen.to(self.device), 0)

    @torch.inference_mode()
    def act(self, observation: Any, goal: Any = None) -> Any:
        """One action for each environment, from what it has seen since its last :meth:`reset`.

        Args:
            observation: (B, obs_dim), or a dictionary that has the observations by their names, with or without
                "observation." before them, and perhaps "goal".
            goal: (B, obs_dim), or (B, G, obs_dim), in the units of the states.

        Returns:
            (B, action_dim) in the units of the demonstrations; an array for arrays, a tensor for tensors.

        Raises:
            RuntimeError: nothing has been learned.
            ValueError: shapes, values that are not finite, another number of environments than before.
        """
        module = self.module
        parts = named(observation, self.observations)
        goal = parts.get("goal") if goal is None else goal
        state, arrays = self._joined(parts), not isinstance(parts[self.observations[0]], Tensor)
        if goal is not None:
            many = np.ndim(goal) == 3
            goal = tensor_of(goal, "goal", (self.goal_len, state.shape[1])[1 - many :], self.device)
            if len(goal) != len(state):
                raise ValueError(f"{len(state)} observations take as many goals, not {len(goal)}")
            goal = goal if many else goal[:, None].expand(-1, self.goal_len, -1)
            goal = module.states(goal) * module.told
        last = self._remember(module.states(state))
        t, rows = int(last.max()) + 1, torch.arange(len(state), device=self.device)
        action = self.predict(self._states[:, :t], self._actions[:, :t], goal, last)
        action = action.clamp(*module.bounds)
        self._actions[rows, last] = action
        action = module.actions.inverse(action)
        return action.cpu().numpy() if arrays else action

    def save(self, folder: Path | str) -> None:
        """Write ``policy.safetensors`` (weights and scales) and ``policy.json`` (settings) into a folder."""
        sizes = {"obs_dim": len(self.module.states.offset), "action_dim": len(self.module.actions.offset)}
        facts = {"algorithm": type(self).__name__, "settings": self.settings(), **sizes}
        write(Path(folder) / "policy", {"policy": self.module}, facts)

    @classmethod
    def load(cls, folder: Path | str, device: str | torch.device = "cpu") -> Self:
        """The policy that :meth:`save` wrote.

        Raises:
            ValueError: the folder holds another policy.
        """
        path = Path(folder) / "policy"
        facts = read(path, cls.__name__)
        policy = cls(**facts["settings"], device=device).build(facts["obs_dim"], facts["action_dim"])
        load_state(path, {"policy": policy.module}, policy.device)
        return policy

    def prepare(self, actions: Tensor) -> None:
        """Called once with all (T, action_dim) scaled actions, before training."""

    def _data(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """All states and actions; the scales are set by the first episodes that are learned from."""
        states = self._joined(episodes.observations)
        actions = torch.from_numpy(np.asarray(episodes.actions, np.float32)).to(self.device)
        if self._scaled is not None:
            if actions.shape[1] != (size := len(self.module.actions.offset)):
                raise ValueError(f"this policy was built for actions of {size} numbers, not {actions.shape[1]}")
        else:
            self.build(states.shape[1], actions.shape[1])
        module = self.module
        fresh = bool(module.bounds.isinf().any())
        if fresh and self.scale:
            module.states.load_state_dict(Normalizer.standard(states).state_dict())
            module.actions.load_state_dict(Normalizer.min_max(actions).state_dict())
        states, actions = module.states(states), module.actions(actions)
        if fresh:
            low, high = actions.amin(0), actions.amax(0)
            module.bounds.copy_(torch.stack([low - 0.1 * low.abs(), high + 0.1 * high.abs()]))
            self.prepare(actions)
        return states, actions

    def _joined(self, observations: Mapping[str, Any]) -> Tensor:
        """(B, obs_dim) out of named observations."""
        if lacking := [name for name in self.observations if name not in observations]:
            raise ValueError(f"there is no observation {lacking[0]!r}; there are {', '.join(observations)}")
        parts = [torch.as_tensor(observations[name], dtype=torch.float32) for name in self.observations]
        joined = parts[0] if len(parts) == 1 else torch.cat([part.flatten(1) for part in parts], 1)
        width = (len(self.module.states.offset),) if self._scaled is not None else joined.shape[1:]
        return tensor_of(joined, "observation", width, self.device)

    def _remember(self, state: Tensor) -> Tensor:
        """Append a state to the history of each environment; the number of its place, (B,)."""
        count = len(state)
        if self._length is None:
            self._states = state.new_zeros(count, self.window, state.shape[1])
            self._actions = state.new_zeros(count, self.window, len(self.module.actions.offset))
            self._length = torch.zeros(count, dtype=torch.long, device=self.device)
        if len(self._length) != count:
            raise ValueError(f"{len(self._length)} environments have acted before, now {count}; call reset first")
        full = (self._length == self.window)[:, None, None]
        self._states, self._actions = (
            torch.where(full, history.roll(-1, 1), history) for history in (self._states, self._actions)
        )
        last = self._length.clamp(max=self.window - 1)
        self._states[torch.arange(count, device=self.device), last] = state
        self._length = last + 1
        return last


def _factor(schedule: str, step: int, steps: int) -> float:
    return 0.99 ** (step // 100) if schedule == "step" else 0.5 * (1 + math.cos(math.pi * step / steps))
