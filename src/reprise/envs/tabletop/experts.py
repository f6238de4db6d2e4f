"""Scripted experts: each strategy of each task as a sequence of motions that look at the table at every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from reprise.envs.tabletop.scene import BUTTON, DRAWER, HEIGHTS, ZONES
from reprise.envs.tabletop.tasks import Scene, Task
from reprise.envs.tabletop.world import STEP

__all__ = ["STAGES", "STRATEGIES", "Expert"]

Motion = Iterator[np.ndarray]

STRATEGIES = {
    "lift": ("along", "across"),  # of the sides of the object the fingers take
    "place": ("along", "across"),
    "push": ("behind", "cage"),  # two tips behind the object, or one before and one behind it
    "stack": ("along", "across"),
    "rotate": ("clockwise", "anticlockwise"),
    "open": ("hook", "grasp"),
    "close": ("push", "grasp"),
    "press": ("closed", "spread"),
}
STAGES = ("reach", "descend", "grasp", "lift", "carry", "lower", "release", "push", "turn", "pull", "press")
OPEN, CLOSED = 1.0, -1.0
ABOVE = 0.12  # height of the tips where nothing is in the way
TIP = 0.012  # and where they take an object that stands on the table


class Expert:
    """Acts in one environment until the task is done: iterate over it, stepping the world with every action.

    Args:
        task: what is to be done.
        scene: the table, seen anew at every step.
        strategy: one of those of the task's verb in ``STRATEGIES``.
        rng: draws speed, the place of a grasp or release, and the way-point of a detour.
        detour: whether the hand first goes round by a way-point.

    Attributes:
        stage: what it is doing, one of ``STAGES``.

    Raises:
        ValueError: the task knows no such strategy.
    """

    def __init__(self, task: Task, scene: Scene, strategy: str, rng: np.random.Generator, detour: bool = False) -> None:
        if strategy not in STRATEGIES[task.verb]:
            raise ValueError(f"{task.name} is done by {', '.join(STRATEGIES[task.verb])}, not by {strategy!r}")
        self.task, self.scene, self.strategy, self.rng, self.detour = task, scene, strategy, rng, detour
        self.stage = STAGES[0]
        self.speed = float(rng.uniform(0.7, 1.0))
        self._motion = self._whole()

    def __iter__(self) -> Expert:
        return self

    def __next__(self) -> np.ndarray:
        """(5,) the next action; the script being over, the hand holds still."""
        return next(self._motion, np.array([0.0, 0.0, 0.0, 0.0, OPEN]))

    def _whole(self) -> Motion:
        if self.detour:
            side = self.rng.choice([-1.0, 1.0])
            x, y, z, _ = self.scene.hand
            point = [x + self.rng.uniform(-0.1, 0.02), y + side * self.rng.uniform(0.08, 0.14), z + 0.03]
            yield from self._go("reach", point, self.scene.hand[3], OPEN, near=0.03)
        yield from SCRIPTS[self.task.verb](self)

    # --- motions ------------------------------------------------------------------------------------------------------

    def _go(
        self, stage: str, point: Any, yaw: float, grip: float, near: float = 0.006, speed: float = 1.0, limit: int = 20
    ) -> Motion:
        """Straight to a point, turning on the way."""
        self.stage = stage
        target = np.array([*point, yaw])
        for _ in range(limit):
            gap = target - self.scene.hand
            if np.linalg.norm(gap[:3]) < near and abs(gap[3]) < 10 * near:
                return
            size = max(np.linalg.norm(gap[:3]) / STEP[0], abs(gap[3]) / STEP[3]) / (self.speed * speed)
            yield np.array([*(gap / STEP / max(size, 1.0)), grip])

    def _wait(self, stage: str, steps: int, grip: float) -> Motion:
        self.stage = stage
        for _ in range(steps):
            yield np.array([0.0, 0.0, 0.0, 0.0, grip])

    def _down(self, x: float, y: float, z: float, yaw: float, grip: float) -> Motion:
        """Above a point, then down to it."""
        yield from self._go("reach", [x, y, max(ABOVE, z + 0.05)], yaw, grip, near=0.012)
        yield from self._go("descend", [x, y, z], yaw, grip)

    def _grasp(self, body: str) -> Motion:
        """Take an object with the fingers along its own y axis, or across."""
        x, y, _ = self.scene.position(body)
        yaw = self.scene.yaw(body) + (math.pi / 2 if self.strategy == "across" else 0.0)
        yaw = self._near(yaw + (self.rng.uniform(-0.4, 0.4) if body == "blue" else 0.0))
        yield from self._down(x, y, TIP + self.rng.uniform(0, 0.008), yaw, OPEN)
        yield from self._wait("grasp", 3, CLOSED)

    def _off(self, x: float = 0.0, z: float = 0.0) -> np.ndarray:
        """A point so far from where the tips are."""
        return self.scene.hand[:3] + np.array([x, 0.0, z])

    def _near(self, yaw: float) -> float:
        """The same line of the fingers with the least turn of the wrist, in -pi/2..pi/2."""
        return math.remainder(yaw, math.pi)

    def _carry(self, body: str, x: float, y: float, bottom: float) -> Motion:
        """What is held over a point, then down until its bottom is at a height, then let go."""
        yaw = float(self.scene.hand[3])
        here = self.scene.hand
        yield from self._go("lift", [here[0], here[1], 0.1 + bottom], yaw, CLOSED, near=0.02)
        for stage, height, near in (("carry", 0.08, 0.012), ("lower", 0.003, 0.005)):
            offset = self.scene.hand[:3] - self.scene.position(body)
            aim = np.array([x, y, bottom + height + HEIGHTS[body]]) + offset
            yield from self._go(stage, aim, yaw, CLOSED, near=near, speed=1.0 if stage == "carry" else 0.5)
        yield from self._wait("release", 3, OPEN)
        yield from self._go("release", self._off(z=0.08), yaw, OPEN)

    def _lift(self) -> Motion:
        yield from self._grasp(self.task.body)
        yield from self._go("lift", self._off(z=0.1), float(self.scene.hand[3]), CLOSED)

    def _place(self) -> Motion:
        yield from self._grasp(self.task.body)
        x, y = np.add(ZONES[self.task.side], self.rng.uniform(-0.025, 0.025, 2))
        yield from self._carry(self.task.body, x, y, 0.0)

    def _stack(self) -> Motion:
        yield from self._grasp(self.task.body)
        x, y, _ = self.scene.position("blue" if self.task.body == "red" else "red")
        yield from self._carry(self.task.body, x, y, 0.04)

    def _push(self) -> Motion:
        body = self.task.body
        aim = np.add(ZONES[self.task.side], self.rng.uniform(-0.02, 0.02, 2))
        start = self.scene.position(body)[:2]
        heading = math.atan2(aim[1] - start[1], aim[0] - start[0])
        behind = self.strategy == "behind"
        grip = -0.5 if behind else 0.7
        yaw = self._near(heading if behind else heading + math.pi / 2)
        back = 0.06 if behind else 0.0
        x, y = start - back * np.array([math.cos(heading), math.sin(heading)])
        yield from self._down(x, y, TIP, yaw, grip)
        self.stage = "push"
        for _ in range(40):
            here = self.scene.position(body)[:2]
            if np.linalg.norm(aim - here) < 0.01:
                return
            along = (aim - here) / np.linalg.norm(aim - here)
            # The tips follow the line from the object to the aim, a little beyond where they touch the object.
            point = here + along * (-0.004 if behind else 0.03)
            turn = math.atan2(along[1], along[0]) + (0.0 if behind else math.pi / 2)
            turn = yaw + math.remainder(turn - yaw, math.pi)
            delta = np.array([*point, TIP, turn]) - self.scene.hand
            size = np.linalg.norm(delta[:2]) / (STEP[0] * 0.8 * self.speed)
            yield np.array([*(delta / STEP / max(size, 1.0)), grip])

    def _rotate(self) -> Motion:
        x, y, _ = self.scene.position("green")
        yaw = self._near(self.scene.yaw("green") + math.pi / 2)
        yield from self._down(x, y, 0.01, yaw, OPEN)
        yield from self._wait("grasp", 3, CLOSED)
        turn = 1.65 if self.strategy == "anticlockwise" else -1.65
        yield from self._go("turn", [x, y, 0.012], yaw + turn, CLOSED, near=0.004)
        yield from self._wait("release", 3, OPEN)

    def _handle(self) -> Motion:
        """Take the handle: fingers before and behind it, or both, closed, behind it."""
        x, y = DRAWER[0] - self.scene.drawer - 0.045, DRAWER[1] + self.rng.uniform(-0.012, 0.012)
        hook = self.strategy == "hook"
        yield from self._down(x + (0.022 if hook else 0.0), y, 0.033, math.pi / 2, CLOSED if hook else -0.4)
        if not hook:
            yield from self._wait("grasp", 2, CLOSED)

    def _open(self) -> Motion:
        yield from self._handle()
        yield from self._go("pull", self._off(x=-0.12), float(self.scene.hand[3]), CLOSED, speed=0.8)

    def _close(self) -> Motion:
        if self.strategy == "push":
            x = DRAWER[0] - self.scene.drawer - 0.045 - 0.035
            yield from self._down(x, DRAWER[1] + self.rng.uniform(-0.025, 0.025), 0.035, math.pi / 2, CLOSED)
        else:
            yield from self._handle()
        yield from self._go("push", self._off(x=0.16), float(self.scene.hand[3]), CLOSED, speed=0.8)

    def _press(self) -> Motion:
        x, y = np.add(BUTTON, self.rng.uniform(-0.006, 0.006, 2))
        grip = CLOSED if self.strategy == "closed" else -0.6
        yield from self._go("reach", [x, y, ABOVE], self.rng.uniform(-0.8, 0.8), grip, near=0.012)
        yield from self._go("press", [x, y, 0.03], self.scene.hand[3], grip)


SCRIPTS: dict[str, Callable[[Expert], Motion]] = {
    "lift": Expert._lift,
    "place": Expert._place,
    "push": Expert._push,
    "stack": Expert._stack,
    "rotate": Expert._rotate,
    "open": Expert._open,
    "close": Expert._close,
    "press": Expert._press,
}
