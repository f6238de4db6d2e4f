"""PD drives of the robot's joints, integrated implicitly, with gravity and Coriolis forces fed forward.

tau = Kp (q_target - q) + Kd (qd_target - qd), within the force limit. The damping is MuJoCo's own joint damping, which
its implicit integrator keeps stable on light links however large Kd is; the limit is put on the whole of tau.

The physics steps of a control period are one compiled loop around MuJoCo's C functions, which lets go of Python's
global lock: worlds in several threads run side by side.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numba import njit

__all__ = ["DriveGroup", "Drives"]

Array = np.ndarray


def _loop(step1: Callable, step2: Callable) -> Callable:
    """The physics steps of a control period, for two halves of a step."""

    def advance(
        model: Any, data: Any, n: int, q: Array, v: Array, bias: Array, applied: Array, gains: Array, push: Array
    ) -> None:
        for _ in range(n):
            step1(model, data)
            for i in range(len(push)):
                stiffness, damping, limit = gains[i]
                force = push[i] - stiffness * q[i] - damping * v[i]
                # The joint damping takes damping * v off again, with the velocity at the end of the step.
                applied[i] = bias[i] + min(max(force, -limit), limit) + damping * v[i]
            step2(model, data)

    return advance


def _compiled() -> Callable | None:
    """The loop around the functions of MuJoCo's shared library, or None if that is not where it is expected."""
    folder = Path(mujoco.__file__).parent
    found = [path for pattern in ("libmujoco*.so*", "libmujoco*.dylib", "mujoco.dll") for path in folder.glob(pattern)]
    if not found:
        return None
    library = ctypes.CDLL(str(found[0]))
    for function in (library.mj_step1, library.mj_step2):
        function.argtypes, function.restype = [ctypes.c_ssize_t] * 2, None
    return njit(nogil=True)(_loop(library.mj_step1, library.mj_step2))


_advance_plain = _loop(mujoco.mj_step1, mujoco.mj_step2)
_advance = _compiled()


class Drives:
    """The drives of joints whose degrees of freedom follow one another, and with them the passage of time.

    Args:
        model: holds the joints.
        data: of the model.
        joints: names, in the order of the model.

    Example:
        >>> xml = '<mujoco><option integrator="implicitfast"/><worldbody><body><joint name="hinge" axis="0 1 0"/>'
        >>> xml += '<geom size=".05" pos=".3 0 0"/></body></worldbody></mujoco>'
        >>> model = mujoco.MjModel.from_xml_string(xml)
        >>> drives = Drives(model, mujoco.MjData(model), ["hinge"])
        >>> group = drives.group(["hinge"])
        >>> group.set_targets(np.array([0.5]))
        >>> drives.advance(1000)
        >>> group.qpos.round(4)
        array([0.5])
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, joints: Sequence[str]) -> None:
        self.model, self.data, self.joints = model, data, tuple(joints)
        first = model.joint(joints[0])
        n = len(joints)
        position, dof = int(first.qposadr[0]), int(first.dofadr[0])
        self.qpos, self.qvel = data.qpos[position : position + n], data.qvel[dof : dof + n]  # views
        self._bias, self._applied = data.qfrc_bias[dof : dof + n], data.qfrc_applied[dof : dof + n]
        self._damping = model.dof_damping[dof : dof + n]
        self._gains, self._push = np.zeros((n, 3)), np.zeros(n)

    def group(
        self, joints: Sequence[str], stiffness: float = 1000.0, damping: float = 100.0, force_limit: float = 100.0
    ) -> DriveGroup:
        """The drives of some of the joints, with gains.

        Args:
            joints: names, in the order of the model, without a gap.
            stiffness: Kp in N m/rad or N/m.
            damping: Kd in N m s/rad or N s/m.
            force_limit: in N m or N.
        """
        start = self.joints.index(joints[0])
        part = slice(start, start + len(joints))
        if self.joints[part] != tuple(joints):
            raise ValueError(f"{', '.join(joints)} do not follow one another in {', '.join(self.joints)}")
        self._gains[part] = stiffness, damping, force_limit
        self._damping[part] = damping
        return DriveGroup(self.qpos[part], self.qvel[part], self._gains[part], self._push[part])

    def advance(self, steps: int) -> None:
        """Physics steps with the targets that are set."""
        arrays = (self.qpos, self.qvel, self._bias, self._applied, self._gains, self._push)
        if _advance is None:
            _advance_plain(self.model, self.data, steps, *arrays)
        else:
            _advance(self.model._address, self.data._address, steps, *arrays)


class DriveGroup:
    """Drives that are set together; made by :meth:`Drives.group`."""

    def __init__(self, qpos: Array, qvel: Array, gains: Array, push: Array) -> None:
        self._qpos, self._qvel, self._gains, self._push = qpos, qvel, gains, push

    @property
    def qpos(self) -> Array:
        """Positions of the joints, a copy."""
        return self._qpos.copy()

    @property
    def torque(self) -> Array:
        """What the drives exert in the present state, beside what is fed forward."""
        stiffness, damping, limit = self._gains.T
        return np.clip(self._push - stiffness * self._qpos - damping * self._qvel, -limit, limit)

    def set_targets(self, position: Array | float, velocity: Array | float = 0.0) -> None:
        """Pull towards positions (n,) and velocities (n,) from now on."""
        self._push[:] = self._gains[:, 0] * position + self._gains[:, 1] * velocity
