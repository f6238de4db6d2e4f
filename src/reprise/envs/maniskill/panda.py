"""The Franka Panda: its published kinematics as MJCF of primitives, forward kinematics, and inverse kinematics.

The joints stand where the modified Denavit-Hartenberg table of the manufacturer puts them; links are capsules with
the mass of the real ones. The tool centre point (TCP) lies between the finger tips.

Source: Gu et al., ManiSkill2, ICLR 2023, section 3 and appendix (robot, start, friction); table of the arm: Franka
Control Interface documentation.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from reprise.envs.maniskill.poses import exp_rotation, log_rotation, make_pose

__all__ = [
    "ARM_LIMITS",
    "DH",
    "FINGER_LIMITS",
    "HOME",
    "forward_kinematics",
    "inverse_kinematics",
    "jacobian",
    "panda_mjcf",
]

Array = np.ndarray

# a, alpha, d of the frame of each joint with respect to the one before it (modified convention)
DH = np.array(
    [
        (0.0, 0.0, 0.333),
        (0.0, -np.pi / 2, 0.0),
        (0.0, np.pi / 2, 0.316),
        (0.0825, np.pi / 2, 0.0),
        (-0.0825, -np.pi / 2, 0.384),
        (0.0, np.pi / 2, 0.0),
        (0.088, np.pi / 2, 0.0),
    ]
)
FLANGE, TCP, HAND_YAW = 0.107, 0.1034, -np.pi / 4  # hand beyond joint 7, TCP beyond hand, turn of the hand
TOOL = make_pose(exp_rotation(np.array([0.0, 0.0, HAND_YAW])), np.array([0.0, 0.0, FLANGE + TCP]))
ARM_LIMITS = np.array(
    [
        (-2.8973, 2.8973),
        (-1.7628, 1.7628),
        (-2.8973, 2.8973),
        (-3.0718, -0.0698),
        (-2.8973, 2.8973),
        (-0.0175, 3.7525),
        (-2.8973, 2.8973),
    ]
)
FINGER_LIMITS = (0.0, 0.04)
HOME = np.array([0.0, np.pi / 8, 0.0, -5 * np.pi / 8, 0.0, 3 * np.pi / 4, np.pi / 4, 0.04, 0.04])

# Capsules of links 1 to 7 in the frame of their joint: from, to, radius, and the mass of the link. No two that meet
# have the same radius: their surfaces would flicker.
LINKS = (
    ("0 0 -.19 0 0 0", 0.06, 4.97),
    ("0 0 0 0 -.18 0", 0.059, 0.65),
    ("0 0 -.12 .0825 0 0", 0.055, 3.23),
    ("0 0 0 -.0825 .1 0", 0.054, 3.59),
    ("0 .02 -.26 0 .05 -.02", 0.05, 1.23),
    ("0 0 0 .088 0 0", 0.045, 1.67),
    ("0 0 0 0 0 .07", 0.044, 0.74),
)
COLOURS = (".38 .45 .54", ".95 .95 .93")  # of links 0, 2, .. and 1, 3, ..


def panda_mjcf(base: tuple[float, float, float] = (-0.615, 0.0, 0.0), prefix: str = "") -> str:
    """The body of a Panda as MJCF, to be put into a ``<worldbody>`` or another body of a model with angles in radians.

    Joints, in order: ``joint1`` .. ``joint7``, ``finger1``, ``finger2``. Sites: ``tcp``; camera: ``hand_camera``.
    Geoms of the robot have contype 2 and conaffinity 0: they meet what has 2 in its conaffinity, and never each other.

    Args:
        base: position of the base.
        prefix: of every name, for a second arm.

    Example:
        >>> import mujoco
        >>> xml = f'<mujoco><compiler angle="radian"/><worldbody>{panda_mjcf()}</worldbody></mujoco>'
        >>> model = mujoco.MjModel.from_xml_string(xml)
        >>> model.nq, model.nu
        (9, 0)
    """
    solid = 'contype="2" conaffinity="0" group="2"'
    xml = [
        f'<body name="{prefix}base" pos="{base[0]} {base[1]} {base[2]}">',
        f'<geom name="{prefix}link0" type="capsule" fromto="-.05 0 .06 0 0 .1" size=".06" mass="3" {solid}'
        f' rgba="{COLOURS[0]} 1"/>',
    ]
    for i, ((a, alpha, d), (segment, radius, mass)) in enumerate(zip(DH, LINKS, strict=True), 1):
        low, high = ARM_LIMITS[i - 1]
        xml.append(
            f'<body name="{prefix}link{i}" pos="{a:.17g} {-np.sin(alpha) * d:.17g} {np.cos(alpha) * d:.17g}" '
            f'quat="{np.cos(alpha / 2):.17g} {np.sin(alpha / 2):.17g} 0 0">'
            f'<joint name="{prefix}joint{i}" axis="0 0 1" range="{low} {high}" armature=".01"/>'
            f'<geom name="{prefix}link{i}" type="capsule" fromto="{segment}" size="{radius}" mass="{mass}" {solid}'
            f' rgba="{COLOURS[i % 2]} 1"/>'
        )
    half = HAND_YAW / 2
    xml.append(
        f'<body name="{prefix}hand" pos="0 0 {FLANGE}" quat="{np.cos(half):.17g} 0 0 {np.sin(half):.17g}">'
        f'<geom name="{prefix}hand" type="box" pos="0 0 .033" size=".03 .1 .033" mass=".73" {solid}'
        ' rgba=".95 .95 .93 1"/>'
        f'<site name="{prefix}tcp" pos="0 0 {TCP}" size=".005" group="4"/>'
        f'<camera name="{prefix}hand_camera" pos=".0465 -.02 .036" quat="0 1 0 0" fovy="90"/>'
    )
    for i, side in ((1, 1), (2, -1)):
        xml.append(
            f'<body name="{prefix}finger{i}" pos="0 0 .0584">'
            f'<joint name="{prefix}finger{i}" type="slide" axis="0 {side} 0" range="{FINGER_LIMITS[0]} '
            f'{FINGER_LIMITS[1]}" armature=".01"/>'
            f'<geom name="{prefix}finger{i}" type="box" pos="0 {side * 0.005} .0268" size=".0105 .005 .027" mass=".1" '
            f'friction="2 .05 .0001" condim="4" {solid} rgba=".2 .22 .26 1"/></body>'
        )
    xml.append("</body>" * 9)
    return "".join(xml)


@njit(cache=True)
def _chain(q: Array) -> Array:
    """Poses (8, 4, 4) in the base frame of the seven joints and of the TCP."""
    frames = np.zeros((8, 4, 4))
    T = np.eye(4)
    step = np.zeros((4, 4))
    for i in range(8):
        if i < 7:
            a, alpha, d = DH[i]
            ca, sa, cq, sq = np.cos(alpha), np.sin(alpha), np.cos(q[i]), np.sin(q[i])
            step[0, 0], step[0, 1], step[0, 3] = cq, -sq, a
            step[1, 0], step[1, 1], step[1, 2], step[1, 3] = sq * ca, cq * ca, -sa, -sa * d
            step[2, 0], step[2, 1], step[2, 2], step[2, 3] = sq * sa, cq * sa, ca, ca * d
            step[3, 3] = 1.0
        else:
            step[:] = TOOL
        for r in range(3):
            for c in range(4):
                total = T[r, 3] if c == 3 else 0.0
                for k in range(3):
                    total += T[r, k] * step[k, c]
                frames[i, r, c] = total
        frames[i, 3, 3] = 1.0
        T = frames[i]
    return frames


@njit(cache=True)
def forward_kinematics(q: Array) -> Array:
    """Pose (4, 4) of the TCP in the base frame.

    Args:
        q: at least seven joint angles in radians.

    Example:
        >>> np.allclose(forward_kinematics(HOME)[:3, 3], [0.6150, 0, 0.1698], atol=1e-4)
        True
    """
    return _chain(q)[7].copy()


@njit(cache=True)
def _jacobian(frames: Array) -> Array:
    J = np.empty((6, 7))
    tip = frames[7, :3, 3]
    for i in range(7):
        x, y, z = frames[i, 0, 2], frames[i, 1, 2], frames[i, 2, 2]
        rx, ry, rz = tip[0] - frames[i, 0, 3], tip[1] - frames[i, 1, 3], tip[2] - frames[i, 2, 3]
        J[0, i], J[1, i], J[2, i] = y * rz - z * ry, z * rx - x * rz, x * ry - y * rx
        J[3, i], J[4, i], J[5, i] = x, y, z
    return J


@njit(cache=True)
def jacobian(q: Array) -> Array:
    """Jacobian (6, 7) of the TCP in the base frame: rows of linear velocity, then of angular velocity."""
    return _jacobian(_chain(q))


@njit(cache=True)
def _cholesky_solve(J: Array, damping: float, error: Array) -> None:
    """Solve (J J^T + damping^2 I) x = error in place: for six rows quicker than a call of LAPACK."""
    L = np.zeros((6, 6))
    for i in range(6):
        for j in range(i + 1):
            total = damping * damping if i == j else 0.0
            for k in range(7):
                total += J[i, k] * J[j, k]
            for k in range(j):
                total -= L[i, k] * L[j, k]
            L[i, j] = np.sqrt(total) if i == j else total / L[j, j]
    for i in range(6):
        for k in range(i):
            error[i] -= L[i, k] * error[k]
        error[i] /= L[i, i]
    for i in range(5, -1, -1):
        for k in range(i + 1, 6):
            error[i] -= L[k, i] * error[k]
        error[i] /= L[i, i]


@njit(cache=True)
def _solve(target: Array, q: Array, iterations: int, damping: float, tolerance: float) -> tuple[bool, Array]:
    q = q[:7].copy()
    error = np.empty(6)
    for _ in range(iterations):
        frames = _chain(q)
        error[:3] = target[:3, 3] - frames[7, :3, 3]
        R = np.zeros((3, 3))
        for i in range(3):
            for j in range(3):
                for k in range(3):
                    R[i, j] += target[i, k] * frames[7, j, k]
        error[3:] = log_rotation(R)
        if np.abs(error).max() < tolerance:
            return True, q
        for part in range(2):  # far targets are approached in steps within which the linear model holds
            size = np.sqrt((error[3 * part : 3 * part + 3] ** 2).sum())
            if size > 0.3:
                error[3 * part : 3 * part + 3] *= 0.3 / size
        J = _jacobian(frames)
        _cholesky_solve(J, damping, error)
        for k in range(7):
            for i in range(6):
                q[k] += J[i, k] * error[i]
            q[k] = min(max(q[k], ARM_LIMITS[k, 0]), ARM_LIMITS[k, 1])
    return False, q


def inverse_kinematics(
    target: Array, q: Array, *, iterations: int = 100, damping: float = 1e-3, tolerance: float = 1e-6
) -> Array | None:
    """Joint angles (7,) within the limits that bring the TCP to a pose, by damped least squares, or None.

    Args:
        target: pose (4, 4) of the TCP in the base frame.
        q: joint angles in radians to start from, at least seven.
        iterations: at most.
        damping: lambda of dq = J^T (J J^T + lambda^2 I)^-1 e.
        tolerance: largest error left, in metres and radians.

    Example:
        >>> q = np.array([0.3, 0.2, -0.1, -2.0, 0.1, 2.2, 0.5])
        >>> found = inverse_kinematics(forward_kinematics(q), HOME)
        >>> np.allclose(forward_kinematics(found), forward_kinematics(q), atol=1e-5)
        True
    """
    solved, found = _solve(target, np.asarray(q, dtype=float), iterations, damping, tolerance)
    return found if solved else None
