"""The tasks: what each asks of the table, when it is done, and the sentences that ask for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from reprise.envs.tabletop.scene import BUTTON_DEPTH, HEIGHTS, OBJECTS, ZONE_HALF, ZONES

__all__ = ["ALL_TASKS", "PHRASINGS", "TASKS", "Scene", "Task", "phrases"]

BODIES = {name: 7 * i for i, name in enumerate(OBJECTS.values())}  # where the pose of each begins in qpos
PHRASINGS = ("canonical", "train", "test")


class Scene:
    """One row of ``qpos`` of the world under readable names; it sees every change of that row.

    Args:
        qpos: (29,) as of :func:`~reprise.envs.tabletop.scene.build_model`.
    """

    def __init__(self, qpos: np.ndarray) -> None:
        self.qpos = qpos

    def position(self, body: str) -> np.ndarray:
        """(3,) of the centre of "red", "blue" or "green"."""
        return self.qpos[BODIES[body] : BODIES[body] + 3].copy()

    def yaw(self, body: str) -> float:
        """Turn about the vertical."""
        w, x, y, z = self.qpos[BODIES[body] + 3 : BODIES[body] + 7].tolist()
        return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))

    @property
    def drawer(self) -> float:
        """How far it is open."""
        return float(self.qpos[21])

    @property
    def button(self) -> float:
        """How far it is pressed."""
        return float(self.qpos[22])

    @property
    def hand(self) -> np.ndarray:
        """(4,) x, y, z, yaw of the finger tips."""
        return self.qpos[23:27].copy()

    @property
    def opening(self) -> float:
        """Distance between the fingers."""
        return float(self.qpos[27] + self.qpos[28])

    def on_table(self, body: str) -> bool:
        """Whether it stands, or lies, on the table as it did at first."""
        return abs(self.qpos[BODIES[body] + 2] - HEIGHTS[body]) < 0.008

    def in_zone(self, body: str, side: str) -> bool:
        """Whether its centre is within the marked square, and it is on the table."""
        x, y = self.qpos[BODIES[body] : BODIES[body] + 2].tolist()
        a, b = ZONES[side]
        return max(abs(x - a), abs(y - b)) < ZONE_HALF and self.on_table(body)


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: "verb", "verb-object" or "verb-object-side".
        verb: "lift", "place", "push", "stack", "rotate", "open", "close" or "press".
        body: what is moved first and foremost; "" for drawer and button.
        side: "left" or "right", "" where there is none.
    """

    name: str
    verb: str
    body: str = ""
    side: str = ""

    def done(self, now: Scene, start: Scene, raised: float) -> bool:
        """Whether it is done.

        Args:
            now: the table.
            start: the table at the start of the episode.
            raised: how far ``body`` has been above the table, at most, in this episode.
        """
        return DONE[self.verb](self, now, start, raised)


def _lifted(task: Task, now: Scene, start: Scene, raised: float) -> bool:
    return bool(now.position(task.body)[2] > HEIGHTS[task.body] + 0.06)


def _placed(task: Task, now: Scene, start: Scene, raised: float) -> bool:
    return now.in_zone(task.body, task.side) and raised > 0.02 and now.opening > 0.055


def _pushed(task: Task, now: Scene, start: Scene, raised: float) -> bool:
    return now.in_zone(task.body, task.side) and raised < 0.02


def _stacked(task: Task, now: Scene, start: Scene, raised: float) -> bool:
    other = "blue" if task.body == "red" else "red"
    dx, dy, dz = now.position(task.body) - now.position(other)
    return math.hypot(dx, dy) < 0.02 and abs(dz - 0.04) < 0.006 and now.on_table(other) and now.opening > 0.055


def _rotated(task: Task, now: Scene, start: Scene, raised: float) -> bool:
    turn = abs(math.remainder(now.yaw(task.body) - start.yaw(task.body), 2 * math.pi))
    return turn > math.radians(75) and now.on_table(task.body)


def _opened(task: Task, now: Scene, start: Scene, raised: float) -> bool:
    return now.drawer > 0.08


def _closed(task: Task, now: Scene, start: Scene, raised: float) -> bool:
    return now.drawer < 0.01


def _pressed(task: Task, now: Scene, start: Scene, raised: float) -> bool:
    return now.button > 0.75 * BUTTON_DEPTH


DONE: dict[str, Callable[[Task, Scene, Scene, float], bool]] = {
    "lift": _lifted,
    "place": _placed,
    "push": _pushed,
    "stack": _stacked,
    "rotate": _rotated,
    "open": _opened,
    "close": _closed,
    "press": _pressed,
}


def _every_task() -> dict[str, Task]:
    tasks = [Task(f"lift-{body}", "lift", body) for body in ("red", "blue")]
    for verb in ("place", "push"):
        tasks += [
            Task(f"{verb}-{body}-{side}", verb, body, side) for body in ("red", "blue") for side in ("left", "right")
        ]
    tasks += [Task("stack-red", "stack", "red"), Task("stack-blue", "stack", "blue"), Task("rotate", "rotate", "green")]
    tasks += [Task(verb, verb) for verb in ("open", "close", "press")]
    return {task.name: task for task in tasks}


ALL_TASKS = _every_task()  # name to task
TASKS = ("lift-red", "lift-blue", "place-red-left", "place-red-right", "push-blue-left", "push-blue-right", "stack-red",
         "rotate", "open", "press")  # fmt: skip

# Templates of each verb, the canonical one first; {thing}, {other} and {to} are filled from below.
TEMPLATES = {
    "lift": ("lift {thing}", "pick up {thing}", "raise {thing}", "grab {thing} and hold it up",
             "take {thing} off the table", "hold {thing} in the air"),
    "place": ("place {thing} {to}", "put {thing} {to}", "pick up {thing} and set it down {to}", "carry {thing} {to}",
              "lay {thing} {to}", "bring {thing} through the air {to}"),
    "push": ("push {thing} {to}", "slide {thing} {to}", "shove {thing} {to}", "move {thing} along the table {to}",
             "sweep {thing} {to}", "nudge {thing} {to}"),
    "stack": ("stack {thing} on {other}", "put {thing} on top of {other}", "set {thing} on {other}",
              "build a tower with {thing} above {other}", "place {thing} upon {other}", "pile {thing} on {other}"),
    "rotate": ("rotate {thing}", "turn {thing}", "turn {thing} by a quarter", "spin {thing} around", "twist {thing}",
               "lay {thing} crosswise"),
    "open": ("open {drawer}", "pull {drawer} open", "pull out {drawer}", "slide {drawer} out", "draw {drawer} open",
             "get {drawer} open"),
    "close": ("close {drawer}", "push {drawer} shut", "shut {drawer}", "slide {drawer} in", "push in {drawer}",
              "get {drawer} closed"),
    "press": ("press {button}", "push down {button}", "hit {button}", "press down on {button}", "tap {button}",
              "strike {button} from above"),
}  # fmt: skip
NOUNS = {
    "red": ("the red cube", "the red block", "the red box"),
    "blue": ("the blue cylinder", "the blue can", "the blue disc"),
    "green": ("the green bar", "the green stick", "the long green block"),
    "drawer": ("the drawer", "the wooden drawer", "the cabinet drawer"),
    "button": ("the button", "the yellow button", "the round button"),
    "left": ("to the left", "into the left zone", "over to the left side"),
    "right": ("to the right", "into the right zone", "over to the right side"),
}  # fmt: skip


@cache
def phrases(task: str, phrasing: str = "train") -> tuple[str, ...]:
    """The sentences that ask for a task.

    Every word of the test sentences occurs in some training sentence of the same task; the combinations do not.

    Args:
        task: a name of ``ALL_TASKS``.
        phrasing: "canonical" (one sentence), "train" (13 or more, the canonical one first), or "test" (5 or more).

    Raises:
        ValueError: unknown task or phrasing.

    Example:
        >>> phrases("push-blue-left", "canonical")
        ('push the blue cylinder to the left',)
    """
    if task not in ALL_TASKS:
        raise ValueError(f"unknown task {task!r}; there are {', '.join(ALL_TASKS)}")
    if phrasing not in PHRASINGS:
        raise ValueError(f"unknown phrasing {phrasing!r}; there are {', '.join(PHRASINGS)}")
    what = ALL_TASKS[task]
    slots = {"thing": what.body, "other": "blue" if what.body == "red" else "red", "to": what.side}
    slots |= {"drawer": "drawer", "button": "button"}
    choices = []
    for template in TEMPLATES[what.verb]:
        used = [slot for slot in slots if f"{{{slot}}}" in template]
        for picks in product(range(3), repeat=len(used)):
            # A Latin square of template and nouns is held out: each word is left in other sentences.
            number = TEMPLATES[what.verb].index(template) + sum(picks)
            words = {slot: NOUNS[slots[slot]][pick] for slot, pick in zip(used, picks, strict=True)}
            choices.append((number % 4 == 2, template.format(**words)))
    sentences = tuple(sentence for held_out, sentence in choices if held_out == (phrasing == "test"))
    return sentences[:1] if phrasing == "canonical" else sentences
