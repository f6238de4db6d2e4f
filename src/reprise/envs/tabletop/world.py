"""The world: many tables side by side, each with a task that a sentence asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces

from reprise.envs.mujoco_world import MujocoWorld
from reprise.envs.raycast import Poses, RayCaster
from reprise.envs.tabletop.scene import FINGER_TRAVEL, HEIGHTS, REACH, START, build_model
from reprise.envs.tabletop.styles import Style, style_of
from reprise.envs.tabletop.tasks import ALL_TASKS, TASKS, Scene, phrases
from reprise.envs.vector import Info

__all__ = ["OBJECT_STATE", "PROPRIOCEPTION", "STEP", "Tabletop", "draw_tables", "states"]

OBSERVATIONS = ("state", "image")
STEP = np.array([0.04, 0.04, 0.04, 0.4])  # what an action of 1 moves the hand by, metres and radians
PROPRIOCEPTION = slice(0, 6)  # of the state: x, y, z, cos and sin of yaw, distance between the fingers
OBJECT_STATE = slice(6, 26)  # for red, blue, green: x, y, z, cos and sin of yaw, upright; then drawer and button
METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}
LONGEST = 96  # characters of an instruction
LETTERS = "abcdefghijklmnopqrstuvwxyz "
HAND, FINGERS = slice(23, 27), slice(27, 29)
NUMBERS = {name: number for number, name in enumerate(ALL_TASKS)}


class Tabletop(MujocoWorld):
    """Short tasks on a table, asked for in words, for a batch of environments.

    An action is (dx, dy, dz, dyaw, grip), each in [-1, 1] (clipped): the hand is servoed to where it is plus
    ``STEP`` times the first four, the fingers to an opening from 0 (-1) to 8 cm (1). Twenty actions a second. The
    reward is 1 on success, which ends the episode. ``info`` holds ``is_success`` and ``task``, its number in
    ``ALL_TASKS``.

    Observations are dictionaries of ``instruction``, an array of strings, and by ``obs_mode``

        "state": ``state`` (26,), see ``PROPRIOCEPTION`` and ``OBJECT_STATE``.
        "image": ``image``, bytes (H, W, 3), and ``state`` (6,), proprioception alone.

    Options of ``reset``: ``task``, a name or one for each environment; by default drawn from ``tasks``.

    Args:
        num_envs: how many environments.
        obs_mode: see above.
        tasks: names out of ``ALL_TASKS``.
        phrasing: which sentences ask for them, see :func:`phrases`.
        style: of the pictures, a name out of ``STYLES`` or a :class:`Style`.
        image_size: height and width of the pictures.
        max_episode_steps: when an episode is truncated; demonstrations take 15 to 45.
        threads: of mujoco.rollout; the bits do not depend on them.
        **options: of :class:`~reprise.envs.VectorWorld`.

    Raises:
        ValueError: unknown obs_mode, task, phrasing or style.

    Example:
        >>> env = Tabletop(4, tasks=("press", "stack-red"))
        >>> observations, _ = env.reset(seed=0, options={"task": "press"})
        >>> observations["state"].shape, "button" in observations["instruction"][0]
        ((4, 26), True)
    """

    metadata = METADATA

    def __init__(
        self,
        num_envs: int = 1,
        obs_mode: str = "state",
        tasks: Sequence[str] = TASKS,
        phrasing: str = "train",
        style: str | Style = "studio",
        image_size: tuple[int, int] = (64, 64),
        max_episode_steps: int | None = 60,
        threads: int = 1,
        **options: Any,
    ) -> None:
        if obs_mode not in OBSERVATIONS:
            raise ValueError(f"unknown obs_mode {obs_mode!r}; there are {', '.join(OBSERVATIONS)}")
        if isinstance(tasks, str) or not tasks:
            raise ValueError(f"tasks are names, at least one of them, not {tasks!r}")
        self.phrases = {name: phrases(name, phrasing) for name in tasks}
        self.obs_mode, self.tasks, self.phrasing, self.style = obs_mode, tuple(tasks), phrasing, style_of(style)
        model = build_model()
        size = 6 if obs_mode == "image" else 26
        space = {
            "state": spaces.Box(-np.inf, np.inf, (size,), np.float32),
            "instruction": spaces.Text(LONGEST, charset=LETTERS),
        }
        if obs_mode == "image":
            space["image"] = spaces.Box(0, 255, (*image_size, 3), np.uint8)
        super().__init__(
            model, num_envs, spaces.Dict(space), spaces.Box(-1.0, 1.0, (5,), np.float32), max_episode_steps,
            frame_skip=10, threads=threads, cameras=[self.style.camera], **options,
        )  # fmt: skip
        self.look = self.style.look(model)
        self._eye = RayCaster(model, image_size[1], image_size[0], [self.style.camera], look=self.look)
        self.current = [ALL_TASKS[self.tasks[0]]] * num_envs  # the task of each environment
        self.instructions = np.full(num_envs, "", f"U{LONGEST}")
        self.scenes = [Scene(row) for row in self.qpos]
        self.starts = self.qpos.copy()
        self.raised = np.zeros(num_envs)

    def reset_world(self, indices: np.ndarray, options: Mapping[str, Any]) -> Info:
        """New tables, with new tasks and sentences."""
        if unknown := set(options) - {"task"}:
            raise ValueError(f"unknown reset option {sorted(unknown)[0]!r}; there is 'task'")
        task = options.get("task")
        if task is not None and not isinstance(task, str) and len(task) != self.num_envs:
            raise ValueError(f"there is one task for all or {self.num_envs} of them, not {len(task)}")
        super().reset_world(indices, options)
        self.starts[indices] = self.qpos[indices]
        self.raised[indices] = 0
        return {"is_success": np.zeros(len(indices), bool), "task": self._numbers()[indices]}

    def begin(self, index: int, data: mujoco.MjData, rng: np.random.Generator, options: Mapping[str, Any]) -> None:
        """Task, sentence, drawer, places."""
        given = options.get("task")
        if given is None:
            name = self.tasks[int(rng.integers(len(self.tasks)))]
        else:
            name = given if isinstance(given, str) else given[index]
        if name not in self.phrases:
            self.phrases[name] = phrases(name, self.phrasing)
        self.current[index] = task = ALL_TASKS[name]
        sentences = self.phrases[task.name]
        self.instructions[index] = sentences[int(rng.integers(len(sentences)))]
        places = _places(rng)
        yaws = {"red": rng.uniform(-np.pi / 4, np.pi / 4), "blue": 0.0, "green": rng.uniform(-0.4, 0.4)}
        for i, body in enumerate(HEIGHTS):
            half = yaws[body] / 2
            data.qpos[7 * i : 7 * i + 7] = *places[body], HEIGHTS[body], np.cos(half), 0, 0, np.sin(half)
        is_open = rng.random() < 0.5 if task.verb not in ("open", "close") else task.verb == "close"
        data.qpos[21] = rng.uniform(0.085, 0.1) if is_open else 0.0
        data.qpos[HAND] = START + rng.uniform(-1, 1, 4) * [0.03, 0.05, 0.02, 0.15]
        data.qpos[FINGERS] = FINGER_TRAVEL

    def controls(self, actions: np.ndarray) -> np.ndarray:
        """Targets of the servos: where the hand is, plus what the action says, within reach."""
        actions = np.clip(actions, -1, 1).astype(float)
        hand = np.clip(self.qpos[:, HAND] + STEP * actions[:, :4], *REACH.T)
        fingers = FINGER_TRAVEL * (actions[:, 4:] + 1) / 2
        return np.concatenate([hand, fingers, fingers], 1)

    def outcome(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, Info]:
        """Success, environment by environment."""
        success = np.zeros(self.num_envs, bool)
        for i, (task, now) in enumerate(zip(self.current, self.scenes, strict=True)):
            if task.body:
                self.raised[i] = max(self.raised[i], now.position(task.body)[2] - HEIGHTS[task.body])
            success[i] = task.done(now, Scene(self.starts[i]), self.raised[i])
        return success.astype(float), success.copy(), {"is_success": success, "task": self._numbers()}

    def observe(self, indices: np.ndarray) -> Any:
        """See the class."""
        state = states(self.qpos[indices])
        instruction = self.instructions[indices].copy()
        if self.obs_mode == "state":
            return {"state": state, "instruction": instruction}
        pictures = self._eye.render(self.poses(indices))["rgb"][:, 0]
        return {"state": state[:, PROPRIOCEPTION], "instruction": instruction, "image": pictures}

    def draw(self, index: int) -> np.ndarray:
        """A larger picture, with shadows."""
        if self._caster is None:
            height, width = self.picture_size
            self._caster = RayCaster(self.model, width, height, self.cameras, shadows=True, look=self.look)
        return super().draw(index)

    def _numbers(self) -> np.ndarray:
        return np.array([NUMBERS[task.name] for task in self.current])


def states(qpos: np.ndarray) -> np.ndarray:
    """(N, 26) float32 states, as observed, of rows of qpos (N, 29)."""
    w, x, y, z = (qpos[:, 3:21].reshape(-1, 18)[:, [i, i + 7, i + 14]] for i in range(4))
    cos, sin = 1 - 2 * (y * y + z * z), 2 * (w * z + x * y)
    length = np.maximum(np.hypot(cos, sin), 1e-9)
    place = np.stack([qpos[:, [i, i + 7, i + 14]] for i in range(3)], -1)
    turn = np.stack([cos / length, sin / length, 1 - 2 * (x * x + y * y)], -1)
    objects = np.concatenate([place, turn], -1).reshape(len(qpos), 18)
    hand = qpos[:, HAND]
    own = np.stack([*hand[:, :3].T, np.cos(hand[:, 3]), np.sin(hand[:, 3]), qpos[:, FINGERS].sum(1)], 1)
    return np.concatenate([own, objects, qpos[:, 21:23]], 1).astype(np.float32)


def draw_tables(
    qpos: np.ndarray, style: str | Style = "studio", image_size: tuple[int, int] = (64, 64), shadows: bool = False
) -> np.ndarray:
    """Pictures of recorded tables, in any style.

    Args:
        qpos: (N, 29).
        style: a name out of ``STYLES``, or a :class:`Style`.
        image_size: height and width.
        shadows: whether there are any.

    Returns:
        (N, H, W, 3) bytes.

    Example:
        >>> env = Tabletop(2, obs_mode="image")
        >>> observations, _ = env.reset(seed=0)
        >>> bool((draw_tables(env.qpos) == observations["image"]).all())
        True
    """
    chosen = style_of(style)
    model = build_model()
    data = mujoco.MjData(model)
    position, rotation = np.empty((len(qpos), model.ngeom, 3)), np.empty((len(qpos), model.ngeom, 9))
    for row, q in enumerate(qpos):
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        position[row], rotation[row] = data.geom_xpos, data.geom_xmat
    caster = RayCaster(model, image_size[1], image_size[0], [chosen.camera], shadows=shadows, look=chosen.look(model))
    nobody = np.zeros((len(qpos), 0, 3)), np.zeros((len(qpos), 0, 9))
    return caster.render(Poses(position, rotation, *nobody))["rgb"][:, 0]


def _places(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Places of the objects, with room for the gripper around each."""
    while True:
        red, blue, green = rng.uniform([-0.16, -0.13], [0.06, 0.13], (3, 2))
        if np.linalg.norm(red - blue) > 0.09 and min(np.linalg.norm(red - green), np.linalg.norm(blue - green)) > 0.115:
            return {"red": red, "blue": blue, "green": green}
