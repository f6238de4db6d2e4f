# mypy: allow-untyped-defs, allow-incomplete-defs
"""Push-T: push a T-shaped block onto its mark with a round finger, seen from above, at 10 Hz.

The board, masses, controller, rewards and starts are those of gym-pusht 0.1.8 (``gym_pusht/PushT-v0``), the physics
is pymunk's; the pictures are drawn, and the overlap with the mark is measured, by loops of our own. Lengths are the
board's pixels, 512 a side.

Source: Chi et al., Diffusion Policy, RSS 2023, section 5.4; Florence et al., Implicit Behavioral Cloning, CoRL 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pymunk
from gymnasium import spaces
from numba import njit

from reprise.envs.vector import Info, VectorWorld

__all__ = ["BOARD", "GOAL", "PushT", "coverage", "draw_boards", "keypoints"]

BOARD = 512.0
GOAL = np.array([256.0, 256.0, np.pi / 4])  # where the block belongs: x, y, angle
SUCCESS = 0.95  # share of the mark that is covered
OBSERVATIONS = ("state", "keypoints", "image")
KP, KV, DT, SUBSTEPS = 100.0, 20.0, 0.01, 10  # the finger's controller, and physics steps of 10 ms in a step
# The T in the frame of the block: its bar, then its stem, as x from, x to, y from, y to.
RECTANGLES = np.array([[-60.0, 60.0, 0.0, 30.0], [-15.0, 15.0, 30.0, 120.0]])
AREA = float(((RECTANGLES[:, 1] - RECTANGLES[:, 0]) * (RECTANGLES[:, 3] - RECTANGLES[:, 2])).sum())
CORNERS = np.array([(x[i], y[j]) for x, y in zip(RECTANGLES[:, :2], RECTANGLES[:, 2:], strict=True)
                    for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))])  # fmt: skip
FINGER = 15.0
DRAWN = np.array([[-60.0, 60.0, 0.0, 30.0], [-15.0, 15.0, 15.0, 120.0]])  # the stem reaches under the bar: no seam


class PushT(VectorWorld):
    """Push-T for a batch of environments.

    An action is where the finger should go, (x, y) in 0..512; what lies outside is clipped. The reward is the share of
    the mark that the block covers over 0.95, at most 1; above 0.95 the episode has terminated. ``info`` holds
    ``coverage`` and ``is_success``.

    Observations, by ``obs_mode``:
        "state": (5,) finger x, y, block x, y, angle in 0..2 pi.
        "keypoints": (18,) the 8 corners of the T as x, y, and the finger.
        "image": a dict of ``image``, bytes (H, W, 3), and ``state``, (2,) the finger.

    Options of ``reset``: ``state``, (5,) or (N, 5), starts from that state instead of a random one. As in gym-pusht the
    block's place is set before it is turned about its centre of gravity, so that its place then differs.

    Args:
        num_envs: how many environments.
        obs_mode: see above.
        image_size: height and width of the pictures.
        max_episode_steps: when an episode is truncated.
        **options: of :class:`~reprise.envs.VectorWorld`.

    Raises:
        ValueError: unknown obs_mode, a state of another shape.

    Example:
        >>> env = PushT(4, obs_mode="image")
        >>> observations, _ = env.reset(seed=0)
        >>> observations["image"].shape, env.step(np.full((4, 2), 256.0))[1].shape
        ((4, 96, 96, 3), (4,))
    """

    def __init__(
        self,
        num_envs: int = 1,
        obs_mode: str = "state",
        image_size: tuple[int, int] = (96, 96),
        max_episode_steps: int | None = 300,
        **options: Any,
    ) -> None:
        if obs_mode not in OBSERVATIONS:
            raise ValueError(f"unknown obs_mode {obs_mode!r}; there are {', '.join(OBSERVATIONS)}")
        self.obs_mode, self.image_size = obs_mode, image_size
        space: spaces.Space
        if obs_mode == "image":
            finger = spaces.Box(-BOARD, 2 * BOARD, (2,), np.float32)
            space = spaces.Dict({"image": spaces.Box(0, 255, (*image_size, 3), np.uint8), "state": finger})
        else:  # wider than the board, since nothing holds the finger back
            space = spaces.Box(-BOARD, 2 * BOARD, (5 if obs_mode == "state" else 18,), np.float32)
        super().__init__(num_envs, space, spaces.Box(0.0, BOARD, (2,), np.float32), max_episode_steps, **options)
        self.boards = [_Board() for _ in range(num_envs)]
        self.poses = np.zeros((num_envs, 5))  # finger x, y, block x, y, angle

    def reset_world(self, indices: np.ndarray, options: Mapping[str, Any]) -> Info:
        """Random places for finger and block, or those of ``options["state"]``."""
        given = options.get("state")
        if given is not None:
            given = np.asarray(given, float)
            if given.shape not in ((5,), (self.num_envs, 5)) or not np.isfinite(given).all():
                raise ValueError(
                    f"options['state'] is finite, of shape (5,) or ({self.num_envs}, 5), not {given.shape}"
                )
            given = np.broadcast_to(given, (self.num_envs, 5))
        for i in indices:
            self.boards[i] = _Board()
            start = _random_start(self.rngs[i]) if given is None else given[i].tolist()
            self.poses[i] = self.boards[i].place(start)
        covered = coverage(self.poses[indices, 2:])
        return {"coverage": covered, "is_success": covered > SUCCESS}

    def step_world(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, Info]:
        """Ten steps of physics under the finger's controller."""
        targets = np.clip(actions, 0.0, BOARD).astype(float).tolist()
        for i, board in enumerate(self.boards):
            self.poses[i] = board.push(*targets[i])
        covered = coverage(self.poses[:, 2:])
        success = covered > SUCCESS
        return np.clip(covered / SUCCESS, 0.0, 1.0), success, {"coverage": covered, "is_success": success.copy()}

    def observe(self, indices: np.ndarray) -> Any:
        """See the class."""
        poses = self.poses[indices]
        if self.obs_mode == "image":
            return {"image": draw_boards(poses, self.image_size), "state": poses[:, :2].astype(np.float32)}
        if self.obs_mode == "keypoints":
            corners = keypoints(poses[:, 2:]).reshape(len(poses), 16)
            return np.concatenate([corners, poses[:, :2]], 1).astype(np.float32)
        poses[:, 4] %= 2 * np.pi
        return poses.astype(np.float32)

    def draw(self, index: int) -> np.ndarray:
        """A picture of 384x384."""
        return draw_boards(self.poses[index : index + 1], (384, 384))[0]


def keypoints(poses: np.ndarray) -> np.ndarray:
    """The corners of the T's bar and stem on the board, in the order of gym-pusht.

    Args:
        poses: (..., 3) x, y, angle of the block.

    Returns:
        (..., 8, 2).

    Example:
        >>> keypoints(np.array([100.0, 200.0, 0.0]))[0].tolist()
        [40.0, 200.0]
    """
    poses = np.asarray(poses, float)
    cos, sin = np.cos(poses[..., 2, None]), np.sin(poses[..., 2, None])
    x, y = CORNERS.T
    return np.stack([poses[..., 0, None] + cos * x - sin * y, poses[..., 1, None] + sin * x + cos * y], -1)


def coverage(poses: np.ndarray, goal: np.ndarray = GOAL) -> np.ndarray:
    """Share of the mark that the block covers.

    Args:
        poses: (N, 3) x, y, angle of the block.
        goal: (3,) of the mark.

    Returns:
        (N,) in 0..1.

    Example:
        >>> coverage(np.stack([GOAL, GOAL + 300])).round(6).tolist()
        [1.0, 0.0]
    """
    poses = np.ascontiguousarray(poses, float)
    if poses.ndim != 2 or poses.shape[1] != 3:
        raise ValueError(f"poses are (N, 3), x, y and angle of the block, not {poses.shape}")
    return _coverage(poses, keypoints(goal).reshape(2, 4, 2))


def draw_boards(poses: np.ndarray, size: tuple[int, int] = (96, 96)) -> np.ndarray:
    """Pictures of boards, with smooth edges.

    Args:
        poses: (N, 5) finger x, y, block x, y, angle.
        size: height and width.

    Returns:
        (N, height, width, 3) bytes.
    """
    pictures = np.empty((len(poses), *size, 3), np.uint8)
    _draw(np.ascontiguousarray(poses, float), _background(*size), pictures)
    return pictures


def _random_start(rng: np.random.Generator) -> list[float]:
    places = [float(rng.integers(low, high)) for low, high in ((50, 450), (50, 450), (100, 400), (100, 400))]
    return [*places, float(rng.uniform(-np.pi, np.pi))]


class _Board:
    """The physics of one environment."""

    def __init__(self) -> None:
        self.space = pymunk.Space()
        self.space.gravity, self.space.damping = (0, 0), 0.0
        corners = [(5, 506), (5, 5), (506, 5), (506, 506)]
        walls = [(corners[0], corners[1]), (corners[1], corners[2]), (corners[2], corners[3]), (corners[0], corners[3])]
        self.space.add(*(pymunk.Segment(self.space.static_body, a, b, 2) for a, b in walls))
        self.finger = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self.space.add(self.finger, pymunk.Circle(self.finger, FINGER))
        # Both parts have the bar's moment of inertia, and the centre of gravity lies between theirs, as published.
        shapes = [[(x0, y1), (x1, y1), (x1, y0), (x0, y0)] for x0, x1, y0, y1 in RECTANGLES.tolist()]
        self.block = pymunk.Body(1, 2 * pymunk.moment_for_poly(1, shapes[0]))
        parts = [pymunk.Poly(self.block, shape) for shape in shapes]
        self.block.center_of_gravity = (parts[0].center_of_gravity + parts[1].center_of_gravity) / 2
        self.space.add(self.block, *parts)

    def place(self, state: list[float]) -> tuple[float, ...]:
        self.finger.position = state[0], state[1]
        self.block.position = state[2], state[3]
        self.block.angle = state[4]
        self.space.step(DT)
        return self.pose()

    def push(self, x: float, y: float) -> tuple[float, ...]:
        # Nothing moves a kinematic body but its velocity: the controller need not ask pymunk where it is.
        finger, step = self.finger, self.space.step
        (px, py), (vx, vy) = finger.position, finger.velocity
        for _ in range(SUBSTEPS):
            vx += (KP * (x - px) + KV * (0.0 - vx)) * DT
            vy += (KP * (y - py) + KV * (0.0 - vy)) * DT
            finger.velocity = vx, vy
            step(DT)
            px, py = px + vx * DT, py + vy * DT
        return self.pose()

    def pose(self) -> tuple[float, ...]:
        return *self.finger.position, *self.block.position, self.block.angle


_jit = njit(cache=True, nogil=True, error_model="numpy")


@_jit
def _coverage(poses, goal):
    """Clip each rectangle of the block by each of the goal (Sutherland and Hodgman) and add the areas up."""
    result = np.empty(len(poses))
    source, target = np.empty((12, 2)), np.empty((12, 2))
    for n in range(len(poses)):
        x, y, cos, sin = poses[n, 0], poses[n, 1], math.cos(poses[n, 2]), math.sin(poses[n, 2])
        total = 0.0
        for part in range(2):
            x0, x1, y0, y1 = RECTANGLES[part, 0], RECTANGLES[part, 1], RECTANGLES[part, 2], RECTANGLES[part, 3]
            for mark in range(2):
                for k, (u, v) in enumerate(((x0, y0), (x1, y0), (x1, y1), (x0, y1))):
                    source[k, 0], source[k, 1] = x + cos * u - sin * v, y + sin * u + cos * v
                count = 4
                for k in range(4):
                    ax, ay = goal[mark, k, 0], goal[mark, k, 1]
                    ex, ey = goal[mark, (k + 1) % 4, 0] - ax, goal[mark, (k + 1) % 4, 1] - ay
                    kept = 0
                    for i in range(count):
                        px, py, qx, qy = (
                            source[i, 0],
                            source[i, 1],
                            source[(i + 1) % count, 0],
                            source[(i + 1) % count, 1],
                        )
                        p, q = ex * (py - ay) - ey * (px - ax), ex * (qy - ay) - ey * (qx - ax)
                        if p >= 0:
                            target[kept, 0], target[kept, 1] = px, py
                            kept += 1
                        if (p >= 0) != (q >= 0):
                            share = p / (p - q)
                            target[kept, 0], target[kept, 1] = px + share * (qx - px), py + share * (qy - py)
                            kept += 1
                    count = kept
                    source, target = target, source
                for i in range(count):
                    j = (i + 1) % count
                    total += 0.5 * (source[i, 0] * source[j, 1] - source[j, 0] * source[i, 1])
        result[n] = total / AREA
    return result


@_jit
def _blend(pixel, share, red, green, blue):
    pixel[0] = np.uint8(pixel[0] + share * (red - pixel[0]) + 0.5)
    pixel[1] = np.uint8(pixel[1] + share * (green - pixel[1]) + 0.5)
    pixel[2] = np.uint8(pixel[2] + share * (blue - pixel[2]) + 0.5)


@_jit
def _paint_rectangle(picture, x, y, angle, rectangle, fill, edge, width):
    """A turned rectangle and the line around it, blended by how far the middle of a pixel is from the edges."""
    rows, columns = picture.shape[0], picture.shape[1]
    sx, sy = BOARD / columns, BOARD / rows
    soft = 0.5 * (sx + sy)
    cos, sin = math.cos(angle), math.sin(angle)
    u, v = 0.5 * (rectangle[0] + rectangle[1]), 0.5 * (rectangle[2] + rectangle[3])
    hu, hv = 0.5 * (rectangle[1] - rectangle[0]), 0.5 * (rectangle[3] - rectangle[2])
    cx, cy = x + cos * u - sin * v, y + sin * u + cos * v
    rx, ry = abs(cos) * hu + abs(sin) * hv + width + soft, abs(sin) * hu + abs(cos) * hv + width + soft
    for i in range(max(0, int((cy - ry) / sy)), min(rows, int((cy + ry) / sy) + 1)):
        dy = (i + 0.5) * sy - cy
        for j in range(max(0, int((cx - rx) / sx)), min(columns, int((cx + rx) / sx) + 1)):
            dx = (j + 0.5) * sx - cx
            outside = max(abs(cos * dx + sin * dy) - hu, abs(cos * dy - sin * dx) - hv)
            whole = min(max(0.5 - (outside - width) / soft, 0.0), 1.0)
            if whole > 0:
                inner = min(max(0.5 - (outside + width) / soft, 0.0), 1.0) / whole
                _blend(
                    picture[i, j], whole,
                    edge[0] + inner * (fill[0] - edge[0]),
                    edge[1] + inner * (fill[1] - edge[1]),
                    edge[2] + inner * (fill[2] - edge[2]),
                )  # fmt: skip


@_jit
def _background(rows, columns):
    """White, grey walls, the green mark."""
    picture = np.full((rows, columns, 3), 255, np.uint8)
    soft = 0.5 * BOARD * (1 / rows + 1 / columns)
    for i in range(rows):
        for j in range(columns):
            dx = abs((j + 0.5) * BOARD / columns - 255.5) - 250.5
            dy = abs((i + 0.5) * BOARD / rows - 255.5) - 250.5
            share = min(max(0.5 - (abs(max(dx, dy)) - 2) / soft, 0.0), 1.0)
            _blend(picture[i, j], share, 211.0, 211.0, 211.0)
    green = (144.0, 238.0, 144.0)
    for part in range(2):
        _paint_rectangle(picture, GOAL[0], GOAL[1], GOAL[2], DRAWN[part], green, green, 0.0)
    return picture


@_jit
def _draw(poses, background, pictures):
    rows, columns = background.shape[0], background.shape[1]
    sx, sy = BOARD / columns, BOARD / rows
    soft = 0.5 * (sx + sy)
    for n in range(len(poses)):
        picture = pictures[n]
        for i in range(rows):
            for j in range(columns):
                for c in range(3):
                    picture[i, j, c] = background[i, j, c]
        for part in range(1, -1, -1):
            _paint_rectangle(
                picture, poses[n, 2], poses[n, 3], poses[n, 4], DRAWN[part],
                (143.0, 163.0, 184.0), (119.0, 136.0, 153.0), 2.0,
            )  # fmt: skip
        x, y, reach = poses[n, 0], poses[n, 1], FINGER + soft
        for i in range(max(0, int((y - reach) / sy)), min(rows, int((y + reach) / sy) + 1)):
            for j in range(max(0, int((x - reach) / sx)), min(columns, int((x + reach) / sx) + 1)):
                away = math.hypot((i + 0.5) * sy - y, (j + 0.5) * sx - x)
                share = min(max(0.5 - (away - FINGER) / soft, 0.0), 1.0)
                if share > 0:
                    inner = min(max(0.5 - (away - FINGER + 4) / soft, 0.0), 1.0) / share
                    _blend(picture[i, j], share, 65 + 13 * inner, 105 + 21 * inner, 225 + 30 * inner)
