"""Rigid poses as 4x4 matrices, and rotations as quaternions (w, x, y, z) and rotation vectors, compiled."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = [
    "exp_rotation",
    "from_pose7",
    "inverse",
    "log_rotation",
    "make_pose",
    "quaternion_to_rotation",
    "rotation_angle",
    "rotation_to_quaternion",
    "to_pose7",
    "yaw_quaternion",
]

Array = np.ndarray


@njit(cache=True)
def exp_rotation(vector: Array) -> Array:
    """Rotation matrix (3, 3) of a rotation vector (3,): its direction is the axis, its length the angle in radians.

    Example:
        >>> np.round(exp_rotation(np.array([0.0, 0.0, np.pi / 2])) @ [1, 0, 0], 12)
        array([0., 1., 0.])
    """
    angle = np.sqrt((vector**2).sum())
    a = 1.0 - angle**2 / 6 if angle < 1e-4 else np.sin(angle) / angle
    b = 0.5 - angle**2 / 24 if angle < 1e-4 else (1 - np.cos(angle)) / angle**2
    R = np.empty((3, 3))
    cosine = 1.0 - b * angle**2
    for i in range(3):
        for j in range(3):
            R[i, j] = b * vector[i] * vector[j]
        R[i, i] += cosine
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        R[k, j] += a * vector[i]
        R[j, k] -= a * vector[i]
    return R


@njit(cache=True)
def rotation_to_quaternion(R: Array) -> Array:
    """Unit quaternion (w, x, y, z) with w >= 0 of a rotation matrix, by its largest component."""
    q = np.empty(4)
    squares = np.array(
        [
            1 + R[0, 0] + R[1, 1] + R[2, 2],
            1 + R[0, 0] - R[1, 1] - R[2, 2],
            1 - R[0, 0] + R[1, 1] - R[2, 2],
            1 - R[0, 0] - R[1, 1] + R[2, 2],
        ]
    )
    largest = np.argmax(squares)
    if largest == 0:
        q[0], q[1], q[2], q[3] = squares[0], R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]
    else:
        i = largest - 1
        j, k = (i + 1) % 3, (i + 2) % 3
        q[0] = R[k, j] - R[j, k]
        q[1 + i] = squares[largest]
        q[1 + j] = R[i, j] + R[j, i]
        q[1 + k] = R[i, k] + R[k, i]
    q /= np.sqrt((q**2).sum())
    return -q if q[0] < 0 else q


@njit(cache=True)
def log_rotation(R: Array) -> Array:
    """Rotation vector (3,) of a rotation matrix, of length at most pi.

    Example:
        >>> np.round(log_rotation(exp_rotation(np.array([0.1, -2.0, 0.3]))), 12)
        array([ 0.1, -2. ,  0.3])
    """
    q = rotation_to_quaternion(R)
    sine = np.sqrt((q[1:] ** 2).sum())
    return q[1:] * (2.0 if sine < 1e-12 else 2 * np.arctan2(sine, q[0]) / sine)


@njit(cache=True)
def quaternion_to_rotation(q: Array) -> Array:
    """Rotation matrix of a quaternion (w, x, y, z), which need not be of length one."""
    w, x, y, z = q / np.sqrt((q**2).sum())
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@njit(cache=True)
def make_pose(R: Array, p: Array) -> Array:
    """The pose (4, 4) with rotation R (3, 3) and position p (3,)."""
    T = np.zeros((4, 4))
    T[:3, :3] = R
    T[:3, 3] = p
    T[3, 3] = 1.0
    return T


def length(vector: Array) -> float:
    """The length of a short vector: NumPy's norm gives the same bits, but takes several times as long over three."""
    return math.sqrt(vector.dot(vector))


def inverse(T: Array) -> Array:
    """The inverse of a pose (4, 4)."""
    R = T[:3, :3].T
    return make_pose(R, -R @ T[:3, 3])


def to_pose7(T: Array) -> Array:
    """Position and quaternion (x, y, z, w, x, y, z) of a pose (4, 4)."""
    return np.concatenate([T[:3, 3], rotation_to_quaternion(np.ascontiguousarray(T[:3, :3]))])


def from_pose7(pose: Array) -> Array:
    """The pose (4, 4) of a position and a quaternion (w, x, y, z), together (7,)."""
    pose = np.asarray(pose, dtype=float)
    return make_pose(quaternion_to_rotation(pose[3:]), pose[:3])


def yaw_quaternion(angle: float) -> Array:
    """Quaternion (w, x, y, z) of a turn about the vertical, in radians."""
    return np.array([np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)])


def rotation_angle(A: Array, B: Array) -> float:
    """The angle in radians, 0 to pi, between two rotation matrices."""
    return float(np.linalg.norm(log_rotation(np.ascontiguousarray(A.T @ B))))
