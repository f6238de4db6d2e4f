"""Peg in a hole, in the plane: a world where being a little off is failing.

A peg's tip moves in x and y towards a target that the action names, above a table whose surface is y = 0. It fits into
slots that are hardly wider than itself; beside them it slides along the surface. There are two tasks. With one slot
the actuation is off by a bias that nobody sees, and now and then the peg is knocked aside: a plan made in advance
misses, feedback at every step does not. With two slots only the left one counts, and demonstrators use either.

The task of one slot serves :mod:`reprise.policies.resip`, the other :mod:`reprise.policies.dsrl`. All lengths are in
table units; x and y of the targets lie in -1..1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from reprise.data.episodes import Episodes
from reprise.envs.vector import Info, VectorWorld

__all__ = ["TASKS", "PegExpert", "PegInsert", "PegTask", "peg_demonstrations"]

DEPTH, INSERTED = 0.15, -0.135  # of a slot, and where the peg counts as inserted
GAIN, REACH = 0.3, 0.08  # the tip covers this share of its way to the target in a step, and at most this length
NOISE = 0.004  # standard deviation of every step, in x and in y
IMPULSE = 0.05  # length of a knock in x
NEAR = 0.1  # the error in x is seen up to this
HOVER, PRESS = 0.1, -0.2  # targets in y of the demonstrator: while it aligns, and while it inserts
JITTER = 0.01  # standard deviation of its targets
PEG, TALL = 0.05, 0.45  # half the width and the height of the peg in pictures


@dataclass(frozen=True)
class PegTask:
    """The numbers of one task.

    Attributes:
        slots: 1 or 2.
        clearance: half of what a slot is wider than the peg.
        horizon: steps of an episode.
        start_y: the tip starts between these heights.
        bias: the actuation in x is off by up to this, drawn anew in each episode.
        impulse_probability: of a knock, per step.
        step_cost: what is taken from the reward at every step but the one of success.
    """

    slots: int
    clearance: float
    horizon: int
    start_y: tuple[float, float]
    bias: float = 0.0
    impulse_probability: float = 0.0
    step_cost: float = 0.0


TASKS = {
    "one_slot": PegTask(1, 0.01, 40, (0.6, 0.9), bias=0.05, impulse_probability=0.03),
    "two_slots": PegTask(2, 0.05, 24, (0.3, 0.4), step_cost=1.0),
}


class PegInsert(VectorWorld):
    """The world for a batch of environments.

    An action is the target of the tip, (x, y) in -1..1. A step moves the tip by 0.3 of its way there, at most 0.08 in
    x and in y, and adds noise; the target in x is off by the hidden bias. A step through the surface beside a slot
    ends on it and loses half of its motion in x; in a slot x is held within the clearance. The reward is 1 when the
    tip is at the bottom of the (left) slot, which terminates the episode, and 0 before, minus ``step_cost`` at every
    step before. At the bottom of the right slot the peg is stuck. ``infos`` holds ``is_success``.

    Observations, 6 numbers: x, y, the last step in x and y, and then with one slot its x and how far it is from the
    tip in x, held within -0.1..0.1; with two slots the x of both, the left one first.

    Args:
        num_envs: how many environments.
        task: "one_slot", "two_slots" or a :class:`PegTask`.
        max_episode_steps: instead of the task's horizon.
        **options: of :class:`~reprise.envs.VectorWorld`.

    Attributes:
        tip: (N, 2). ``slot`` (N, slots) and ``bias`` (N,) are where slots are and how far the actuation is off.

    Raises:
        ValueError: no such task.

    Example:
        >>> env = PegInsert(8, task="two_slots")
        >>> observation, _ = env.reset(seed=0)
        >>> observation.shape, env.step(np.zeros((8, 2)))[1].tolist()[0]
        ((8, 6), -1.0)
    """

    def __init__(
        self,
        num_envs: int = 1,
        task: str | PegTask = "one_slot",
        max_episode_steps: int | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(task, PegTask):
            if task not in TASKS:
                raise ValueError(f"unknown task {task!r}; there are {', '.join(TASKS)}")
            task = TASKS[task]
        self.task = task
        horizon = task.horizon if max_episode_steps is None else max_episode_steps
        box = spaces.Box(-2.0, 2.0, (6,), np.float32)
        super().__init__(num_envs, box, spaces.Box(-1.0, 1.0, (2,), np.float32), horizon, **options)
        self.tip, self.moved = np.zeros((num_envs, 2)), np.zeros((num_envs, 2))
        self.slot, self.bias = np.zeros((num_envs, task.slots)), np.zeros(num_envs)
        self.chance = np.zeros((num_envs, horizon, 2))  # what each step of the episode adds, drawn when it begins
        self._everyone = np.arange(num_envs)

    def reset_world(self, indices: np.ndarray, options: Mapping[str, Any]) -> Info:
        """New slots, a new start and all the chance of the episode."""
        task, horizon = self.task, self.chance.shape[1]
        for i in indices.tolist():
            rng = self.rngs[i]
            u = rng.random(5)
            if task.slots == 1:
                self.slot[i], x = -0.6 + 1.2 * u[0], -0.8 + 1.6 * u[2]
            else:
                left = -0.6 + 0.8 * u[0]
                self.slot[i] = left, left + 0.4 + (0.2 - left) * u[1]
                x = self.slot[i].mean() + 0.3 * (2 * u[2] - 1)
            self.tip[i] = x, task.start_y[0] + (task.start_y[1] - task.start_y[0]) * u[3]
            self.bias[i] = task.bias * (2 * u[4] - 1)
            self.chance[i] = NOISE * rng.standard_normal((horizon, 2))
            if task.impulse_probability:
                knock = rng.random((2, horizon))
                side = np.where(knock[1] < 0.5, -IMPULSE, IMPULSE)
                self.chance[i, :, 0] += np.where(knock[0] < task.impulse_probability, side, 0.0)
        self.moved[indices] = 0
        return {"is_success": np.zeros(len(indices), bool)}

    def step_world(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, Info]:
        """Move all tips, slots permitting."""
        before, clearance = self.tip, self.task.clearance
        target = np.clip(actions, -1, 1).astype(float)
        target[:, 0] += self.bias
        step = np.clip(GAIN * (target - before), -REACH, REACH) + self.chance[self._everyone, self.elapsed]
        after = before + step
        beside = np.abs(after[:, :1] - self.slot) > clearance  # (N, slots)
        inside, sinks = before[:, 1] < 0, after[:, 1] < 0
        blocked = sinks & ~inside & beside.all(1)
        after[blocked, 0] -= 0.5 * step[blocked, 0]
        after[blocked, 1] = 0
        if (held := inside | (sinks & ~blocked)).any():
            nearest = np.abs(self.slot - before[:, :1]).argmin(1) if self.task.slots > 1 else 0
            middle = self.slot[self._everyone, nearest]
            after[:, 0] = np.where(held, np.clip(after[:, 0], middle - clearance, middle + clearance), after[:, 0])
            np.maximum(after[:, 1], -DEPTH, out=after[:, 1])
            if self.task.slots > 1:
                stuck = inside & (before[:, 1] <= INSERTED)  # in the right slot: in the left one it would be over
                after[stuck] = before[stuck]
        success = after[:, 1] <= INSERTED
        if self.task.slots > 1:
            success &= np.abs(after[:, 0] - self.slot[:, 0]) <= clearance + 1e-9
        self.moved, self.tip = after - before, after
        return success - self.task.step_cost * 1.0, success, {"is_success": success.copy()}

    def observe(self, indices: np.ndarray) -> np.ndarray:
        """See the class."""
        tip, slot = self.tip[indices], self.slot[indices]
        if self.task.slots == 1:
            slot = np.concatenate([slot, np.clip(slot - tip[:, :1], -NEAR, NEAR)], 1)
        return np.concatenate([tip, self.moved[indices], slot], 1, dtype=np.float32)

    def draw(self, index: int) -> np.ndarray:
        """A picture of 192x288: the table with its slots, the bottom of the one that counts in green, and the peg."""
        height, width = 192, 288
        x = np.linspace(-1, 1, width, endpoint=False)[None] + 1 / width
        y = np.linspace(1, -0.35, height, endpoint=False)[:, None] - 0.675 / height
        picture = np.ones((height, width, 3))
        _paint(picture, x, y, (-2, 2), (-1, 0), (0.62, 0.65, 0.70))
        for k, slot in enumerate(self.slot[index]):
            sides = slot - PEG - self.task.clearance, slot + PEG + self.task.clearance
            _paint(picture, x, y, sides, (-DEPTH, 0.02), (1.0, 1.0, 1.0))
            _paint(picture, x, y, sides, (-DEPTH - 0.03, -DEPTH), (0.17, 0.63, 0.17) if k == 0 else (0.4, 0.4, 0.4))
        tip_x, tip_y = self.tip[index]
        _paint(picture, x, y, (tip_x - PEG, tip_x + PEG), (tip_y, tip_y + TALL), (0.85, 0.37, 0.01))
        return (255 * picture + 0.5).astype(np.uint8)


class PegExpert:
    """A demonstrator that knows the bias: it aligns above a slot, then presses down; targets jitter a little.

    Args:
        world: that it acts in; all its episodes must have just begun.
        rng: draws the tolerance within which it begins to press, one for each episode, between a half and two
            clearances; with two slots which one it uses, and how far beside it aims.
        sloppiness: standard deviation of the aim, in clearances.
    """

    def __init__(self, world: PegInsert, rng: np.random.Generator, sloppiness: float = 0.0) -> None:
        self.world, self.rng, N = world, rng, world.num_envs
        chosen = rng.integers(world.task.slots, size=N)
        self.aim = world.slot[np.arange(N), chosen] + sloppiness * world.task.clearance * rng.standard_normal(N)
        self.tolerance = world.task.clearance * rng.uniform(0.5, 2.0, N)
        self.presses = np.zeros(N, bool)

    def act(self) -> np.ndarray:
        """(N, 2) targets."""
        self.presses |= np.abs(self.world.tip[:, 0] - self.aim) < self.tolerance
        target = np.stack([self.aim - self.world.bias, np.where(self.presses, PRESS, HOVER)], 1)
        return np.clip(target + JITTER * self.rng.standard_normal(target.shape), -1, 1).astype(np.float32)


def peg_demonstrations(
    task: str | PegTask, episodes: int, seed: int, *, sloppiness: float = 0.0, failures: bool = False, rest: int = 4
) -> Episodes:
    """Episodes of :class:`PegExpert`.

    Args:
        task: of :class:`PegInsert`.
        episodes: how many.
        seed: of worlds and demonstrator.
        sloppiness: of the demonstrator, in clearances.
        failures: keep those that do not succeed, too.
        rest: an episode is cut so many steps after the peg came to rest; otherwise frames of a peg that lies still
            would outnumber all others.

    Returns:
        Episodes with ``state`` (T, 6), and ``is_success`` among the extras, whether the episode ends well.

    Raises:
        ValueError: no episodes, or none out of a thousand succeeds.

    Example:
        >>> demonstrations = peg_demonstrations("one_slot", 10, seed=0)
        >>> len(demonstrations), bool(demonstrations.extras["is_success"].all())
        (10, True)
    """
    if episodes < 1:
        raise ValueError(f"at least one episode is demonstrated, not {episodes}")
    kept: list[dict[str, Any]] = []
    for batch in range(100):
        played = _play(PegInsert(max(10, episodes), task), [seed, batch], sloppiness, rest)
        kept += [episode for episode in played if failures or episode["extras"]["is_success"][0]]
        if len(kept) >= episodes:
            return Episodes.of(kept[:episodes])
    raise ValueError(f"of {100 * max(10, episodes)} demonstrations only {len(kept)} succeeded; the task is too hard")


def _play(world: PegInsert, seed: list[int], sloppiness: float, rest: int) -> list[dict[str, Any]]:
    """One episode in each environment."""
    rng = np.random.default_rng(seed)
    observation, _ = world.reset(seed=rng.integers(2**31, size=world.num_envs).tolist())
    expert = PegExpert(world, rng, sloppiness)
    states, actions = [], []
    ends = np.full(world.num_envs, world.chance.shape[1])
    running, rested, succeeded = (np.full(world.num_envs, value) for value in (True, 0, False))
    for t in range(world.chance.shape[1]):
        states.append(observation)
        actions.append(expert.act())
        observation, _, terminated, _, _ = world.step(actions[-1])
        still = (observation[:, 1] <= 0) & (np.abs(observation[:, 2:4]) < 0.01).all(1)
        rested += still | (rested > 0)
        over = running & (terminated | (rested >= rest))
        succeeded |= over & terminated
        ends[over], running = t + 1, running & ~over
    seen, done = np.stack(states, 1), np.stack(actions, 1)
    return [
        {
            "observations": {"state": seen[i, :end]},
            "actions": done[i, :end],
            "extras": {"is_success": np.full(end, succeeded[i])},
        }
        for i, end in enumerate(ends.tolist())
    ]


def _paint(
    picture: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    horizontal: tuple[float, float],
    vertical: tuple[float, float],
    colour: tuple[float, float, float],
) -> None:
    """Lay a rectangle over a picture, its edges as soft as a pixel."""
    soft = x[0, 1] - x[0, 0]
    across = np.clip(0.5 + np.minimum(x - horizontal[0], horizontal[1] - x) / soft, 0, 1)
    along = np.clip(0.5 + np.minimum(y - vertical[0], vertical[1] - y) / soft, 0, 1)
    share = (across * along)[..., None]
    picture += share * (np.array(colour) - picture)
