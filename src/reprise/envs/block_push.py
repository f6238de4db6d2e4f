"""Two blocks, two targets and a point effector on a board: which block goes where, and first, is up to the goal.

The board is the unit square, seen from above. The effector carries blocks (a block that it comes near jumps to it and
is let go inside a target) or pushes them (discs that give way along the line of contact, without friction). The
scripted expert draws pairing, order and the curves of its way at random, so that its demonstrations have four modes; a
goal tells the pairing, never the order.

Source: the task is that of Florence et al., Implicit Behavioral Cloning, CoRL 2021, with the two targets, metrics and
random demonstrations of Shafiullah et al., Behavior Transformers, NeurIPS 2022; the world is our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from reprise.data.episodes import Episodes
from reprise.envs.vector import Info, VectorWorld

__all__ = [
    "BLOCK_ENTRIES",
    "BlockPush",
    "BlockPushExpert",
    "block_push_demonstrations",
    "block_push_goals",
    "block_push_pairs",
]

SPEED = 0.042  # largest step of the effector in either direction
CATCH = 0.06  # a block jumps to the effector from this distance
TARGET = 0.05  # a block this near to a target is in it
RADIUS = 0.05  # of a block that is pushed
TIP = 0.02  # of the effector that pushes
REST = 3  # steps that a demonstration rests at its end
SUBSTEPS = 4  # of a step, in which contacts are resolved
PLACES = np.array([[0.3, 0.8], [0.7, 0.8]])  # of the targets, give or take JITTER
JITTER = 0.005
TRANSPORTS = ("carry", "push")
BLOCK_ENTRIES = (2, 3, 4, 5)  # where the blocks are in the state: all that a goal tells

Floats = NDArray[np.float64]


class BlockPush(VectorWorld):
    """The board for a batch of environments, all stepped at once.

    The state is (10,): x, y of the effector, block 0, block 1, target 0, target 1. An action is the effector's step
    (dx, dy), clipped to 0.042 in either direction. A pair of block and target counts once, when the block is first
    within 0.05 of the target; each new pair earns 0.49, but 0.51 on the step at which both blocks lie in different
    targets. The episode has then terminated.

    ``info`` holds ``pairs``, (2, 2) booleans by block and target, and ``is_success``.

    Args:
        num_envs: how many environments.
        transport: "carry" or "push". A block that the free effector comes within 0.06 of jumps to it and is carried,
            until it comes into a free target, where it stays. A pushed block can be pushed on.
        max_episode_steps: when an episode is truncated.
        **options: of :class:`~reprise.envs.VectorWorld`.

    Raises:
        ValueError: unknown transport.

    Example:
        >>> env = BlockPush(4)
        >>> state, _ = env.reset(seed=0)
        >>> state.shape, env.step(np.zeros((4, 2)))[1].tolist()
        ((4, 10), [0.0, 0.0, 0.0, 0.0])
    """

    def __init__(
        self, num_envs: int = 1, transport: str = "carry", max_episode_steps: int | None = 150, **options: Any
    ) -> None:
        if transport not in TRANSPORTS:
            raise ValueError(f"unknown transport {transport!r}; there are {', '.join(map(repr, TRANSPORTS))}")
        space = spaces.Box(-0.1, 1.1, (10,), np.float32)
        super().__init__(num_envs, space, spaces.Box(-SPEED, SPEED, (2,), np.float32), max_episode_steps, **options)
        self.transport = transport
        self.effector = np.zeros((num_envs, 2))
        self.blocks = np.zeros((num_envs, 2, 2))
        self.targets = np.zeros((num_envs, 2, 2))
        self.pairs = np.zeros((num_envs, 2, 2), bool)  # by block and target: was in it
        self.carried = np.full(num_envs, -1)  # the block at the effector, -1 for none

    def reset_world(self, indices: np.ndarray, options: Mapping[str, Any]) -> Info:
        """The effector anywhere, blocks in the middle, targets above; which block or target is left is random."""
        for i in indices.tolist():
            rng = self.rngs[i]
            self.effector[i] = rng.uniform(0.05, 0.95, 2)
            places = rng.uniform(((0.15, 0.3), (0.6, 0.3)), ((0.4, 0.5), (0.85, 0.5)))
            self.blocks[i] = places[:: rng.choice((-1, 1))]
            self.targets[i] = PLACES[:: rng.choice((-1, 1))] + rng.uniform(-JITTER, JITTER, (2, 2))
        self.pairs[indices] = False
        self.carried[indices] = -1
        return self._told(indices)

    def step_world(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, Info]:
        """Move, catch or push, let go, count."""
        step = np.clip(actions.astype(float), -SPEED, SPEED)
        if self.transport == "carry":
            self._carry(step)
        else:
            for _ in range(SUBSTEPS):
                self._push(step / SUBSTEPS)
        inside = self._inside()
        new = inside & ~self.pairs
        self.pairs |= inside
        done = _both(inside)
        reward = 0.49 * new.sum((1, 2))
        reward[done] += 0.02
        return reward, done, self._told(np.arange(self.num_envs))

    def observe(self, indices: np.ndarray) -> np.ndarray:
        """See the class."""
        parts = (self.effector[indices], self.blocks[indices].reshape(-1, 4), self.targets[indices].reshape(-1, 4))
        return np.concatenate(parts, 1).astype(np.float32)

    def draw(self, index: int) -> np.ndarray:
        """A picture of 256x256: targets as rings, blocks as discs of the colours of their numbers, a black effector."""
        y, x = (np.mgrid[256:0:-1, 0:256] - 0.5) / 256
        picture = np.full((256, 256, 3), 255, np.uint8)
        for k, colour in enumerate(((217, 95, 2), (31, 119, 180))):
            away = np.hypot(x - self.targets[index, k, 0], y - self.targets[index, k, 1])
            picture[abs(away - TARGET) < 0.006] = colour
            away = np.hypot(x - self.blocks[index, k, 0], y - self.blocks[index, k, 1])
            picture[away < (0.03 if self.transport == "carry" else RADIUS)] = colour
        picture[np.hypot(x - self.effector[index, 0], y - self.effector[index, 1]) < TIP] = 0
        return picture

    def _carry(self, step: Floats) -> None:
        everyone = np.arange(self.num_envs)
        old = self.effector.copy()
        self.effector = np.clip(self.effector + step, 0.0, 1.0)
        rows = np.flatnonzero(self.carried >= 0)
        self.blocks[rows, self.carried[rows]] += (self.effector - old)[rows]
        # A block that lies in a target is no longer caught; a target that holds one does not take the other.
        resting = self.pairs.any(2)
        away = np.linalg.norm(self.blocks - self.effector[:, None], axis=2)
        away[resting] = np.inf
        nearest = away.argmin(1)
        caught = (self.carried < 0) & (away[everyone, nearest] < CATCH)
        self.carried[caught] = nearest[caught]
        self.blocks[caught, nearest[caught]] = self.effector[caught]
        released = (self.carried >= 0) & self._inside()[everyone, self.carried].any(1)
        self.carried[released] = -1

    def _push(self, step: Floats) -> None:
        self.effector = np.clip(self.effector + step, 0.0, 1.0)
        for k in (0, 1):
            self.blocks[:, k] += _overlap(self.blocks[:, k], self.effector, RADIUS + TIP)
        # Who was touched by the effector gives way no more: the other block does.
        gap = _overlap(self.blocks[:, 0], self.blocks[:, 1], 2 * RADIUS)
        near = np.linalg.norm(self.blocks - self.effector[:, None], axis=2)
        first = (near[:, 0] > near[:, 1])[:, None]
        self.blocks[:, 0] += np.where(first, gap, 0)
        self.blocks[:, 1] -= np.where(first, 0, gap)
        self.blocks = np.clip(self.blocks, RADIUS, 1 - RADIUS)

    def _inside(self) -> NDArray[np.bool_]:
        """(N, 2, 2) by block and target; a target that a carried block already lies in takes no other."""
        inside = np.linalg.norm(self.blocks[:, :, None] - self.targets[:, None], axis=3) < TARGET
        if self.transport == "carry":
            inside &= ~self.pairs[:, ::-1]
        return inside

    def _told(self, indices: np.ndarray) -> Info:
        pairs = self.pairs[indices]
        return {"pairs": pairs.copy(), "is_success": _both(pairs)}


class BlockPushExpert:
    """A scripted demonstrator for a batch of boards; pairing, order, curves and pace are drawn for each episode.

    Args:
        env: the boards it acts on; it looks at the states and at which block is carried.
        seed: of all that it draws.

    Example:
        >>> env = BlockPush(8)
        >>> state, _ = env.reset(seed=0)
        >>> expert = BlockPushExpert(env, seed=0)
        >>> for _ in range(100):
        ...     _, _, terminated, _, infos = env.step(expert.act())
        ...     expert.reset(terminated)
    """

    def __init__(self, env: BlockPush, seed: int) -> None:
        self.env, self.rng = env, np.random.default_rng(seed)
        count = env.num_envs
        self.crossed = np.zeros(count, bool)  # block 0 goes to target 1, and block 1 to target 0
        self.first = np.zeros(count, int)  # the block that goes first
        self.pace = np.ones(count)
        self.bend = np.zeros((count, 2, 2))  # radians by block, on the way to it and with it
        self.reset(np.ones(count, bool))

    def reset(self, mask: np.ndarray) -> None:
        """Draw again where an episode has begun."""
        count = int(mask.sum())
        self.crossed[mask] = self.rng.random(count) < 0.5
        self.first[mask] = self.rng.integers(2, size=count)
        self.pace[mask] = self.rng.uniform(0.7, 1.0, count)
        self.bend[mask] = self.rng.uniform(-0.6, 0.6, (count, 2, 2))

    def act(self) -> np.ndarray:
        """(N, 2) steps of the effector."""
        env = self.env
        rows = np.arange(env.num_envs)
        rests: NDArray[np.bool_] = env.pairs.any(2)  # type: ignore[assignment]
        if env.transport == "push":  # a block may have been through the wrong target
            rests = np.where(self.crossed[:, None], env.pairs[:, [0, 1], [1, 0]], env.pairs[:, [0, 1], [0, 1]])
        block = np.where(rests[rows, self.first], 1 - self.first, self.first)
        block = np.where(env.carried >= 0, env.carried, block)  # what was caught by the way goes first
        target = env.targets[rows, np.where(self.crossed, 1 - block, block)]
        place = env.blocks[rows, block]
        if env.transport == "push":
            return self._push(place, target)
        carrying = env.carried >= 0
        aim = np.where(carrying[:, None], target - place, place - env.effector)
        return self._toward(aim, self.bend[rows, block, carrying.astype(int)])

    def _toward(self, aim: Floats, bend: Floats | float) -> np.ndarray:
        """Straight at the aim in the end, beside it before; never further than it is."""
        distance = np.linalg.norm(aim, axis=1)
        angle = bend * np.minimum(distance / 0.25, 1.0)
        cos, sin = np.cos(angle), np.sin(angle)
        x, y = aim.T / np.maximum(distance, 1e-9)
        direction = np.stack([cos * x - sin * y, sin * x + cos * y], 1)
        return direction * np.minimum(self.pace * SPEED, distance)[:, None]

    def _push(self, place: Floats, target: Floats) -> np.ndarray:
        """Around the block to the side away from the target, then against it, back onto the line when it slides off."""
        effector, reach = self.env.effector, RADIUS + TIP
        ahead = target - place
        ahead /= np.maximum(np.linalg.norm(ahead, axis=1), 1e-9)[:, None]
        side = effector - place
        far = np.linalg.norm(side, axis=1)
        # Angle from where the effector is, seen from the block, to where it should be.
        off = np.arctan2(-side[:, 0] * ahead[:, 1] + side[:, 1] * ahead[:, 0], -(side * ahead).sum(1))
        turn = np.clip(off, -0.7, 0.7)
        cos, sin = np.cos(turn), np.sin(turn)
        spoke = side / np.maximum(far, 1e-9)[:, None]
        spoke = np.stack([cos * spoke[:, 0] - sin * spoke[:, 1], sin * spoke[:, 0] + cos * spoke[:, 1]], 1)
        around = place + 1.5 * reach * spoke - effector
        contact = place - reach * ahead - effector
        against = SPEED * ahead + 2.0 * (contact - (contact * ahead).sum(1, keepdims=True) * ahead)
        behind = (abs(off) < 0.4) & (far < 2 * reach)
        aim = np.where(behind[:, None], against, around)
        steps = self._toward(aim, 0.0)
        return np.where(behind[:, None], 0.6, 1.0) * steps


def block_push_demonstrations(
    episodes: int,
    seed: int,
    *,
    transport: str = "carry",
    disturbance: float = 0.33,
    max_episode_steps: int = 300,
) -> Episodes:
    """Demonstrations by :class:`BlockPushExpert`, each to its end; those that do not end are made anew.

    The last three steps of an episode rest on the finished board. The observation is ``state``, the extra ``pairs``
    (T, 4) tells which pairs are done, by block and then target.

    Args:
        episodes: how many.
        seed: of boards and expert.
        transport: as of :class:`BlockPush`.
        disturbance: standard deviation of noise on the executed action, as a share of the largest step. The action that
            is recorded has none, so that the way back from a slip is in the data.
        max_episode_steps: after which a demonstration counts as failed.

    Raises:
        ValueError: no episodes, or a negative disturbance.

    Example:
        >>> demonstrations = block_push_demonstrations(4, seed=0)
        >>> demonstrations.observations["state"].shape[1], len(demonstrations)
        (10, 4)
    """
    if episodes < 1 or not disturbance >= 0:
        raise ValueError(f"episodes is at least 1 and disturbance at least 0, not {episodes} and {disturbance}")
    env = BlockPush(episodes, transport, max_episode_steps)
    state, _ = env.reset(seed=seed * 1_000_003)
    expert = BlockPushExpert(env, seed)
    noise = np.random.default_rng([seed, 1])
    finished: dict[int, Mapping[str, Any]] = {}
    running: list[list[tuple[np.ndarray, ...]]] = [[] for _ in range(episodes)]
    while len(finished) < episodes:
        action = expert.act()
        pairs = env.pairs.reshape(-1, 4).copy()
        for i in range(episodes):
            if i not in finished:
                running[i].append((state[i], action[i], pairs[i]))
        disturbed = action + disturbance * SPEED * noise.standard_normal(action.shape)
        state, _, terminated, truncated, infos = env.step(disturbed)
        for i in np.flatnonzero(terminated | truncated).tolist():
            if terminated[i] and i not in finished:
                last = infos["final_obs"][i], np.zeros(2), infos["final_info"]["pairs"][i].reshape(4)
                states, actions, done = (np.array(column) for column in zip(*running[i], *[last] * REST, strict=True))
                finished[i] = {"observations": {"state": states}, "actions": actions, "extras": {"pairs": done}}
            running[i] = []
        expert.reset(terminated | truncated)
    return Episodes.of([finished[i] for i in range(episodes)])


def block_push_pairs(state: np.ndarray) -> np.ndarray:
    """Which target each block lies in or is nearest to, (N, 2), for states (N, 10).

    Example:
        >>> block_push_pairs(np.array([[0, 0, 0.7, 0.8, 0.3, 0.8, 0.3, 0.8, 0.7, 0.8]]))
        array([[1, 0]])
    """
    blocks, targets = state[:, 2:6].reshape(-1, 2, 2), state[:, 6:].reshape(-1, 2, 2)
    return np.linalg.norm(blocks[:, :, None] - targets[:, None], axis=3).argmin(2)


def block_push_goals(final: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Finished boards of demonstrations as goals for other boards: the blocks change places if the targets have.

    Args:
        final: (N, 10) last states of demonstrations.
        start: (N, 10) states of the boards that the goals are for.

    Returns:
        (N, 10) goals.

    Source: the evaluation of the released code, which swaps if target 0 is further than 0.2 from the demonstration's.

    Example:
        >>> final = np.array([[0, 0, 0.3, 0.8, 0.7, 0.8, 0.3, 0.8, 0.7, 0.8]])
        >>> start = np.array([[0, 0, 0.2, 0.4, 0.7, 0.4, 0.7, 0.8, 0.3, 0.8]])
        >>> block_push_goals(final, start)[0, 2:6].tolist()  # block 0 still goes to target 0
        [0.7, 0.8, 0.3, 0.8]
    """
    goals = final.copy()
    swapped = np.linalg.norm(final[:, 6:8] - start[:, 6:8], axis=1) > 0.2
    goals[swapped, 2:6] = final[swapped][:, [4, 5, 2, 3]]
    return goals


def _both(pairs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) whether both blocks have targets of their own, for (N, 2, 2) pairs."""
    straight: NDArray[np.bool_] = pairs[:, 0, 0] & pairs[:, 1, 1]
    return straight | (pairs[:, 0, 1] & pairs[:, 1, 0])


def _overlap(place: Floats, other: Floats, reach: float) -> Floats:
    """How discs at ``place`` must move so that they no longer reach into those at ``other``."""
    apart = place - other
    distance = np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-9)
    return apart / distance * np.maximum(reach - distance, 0)
