"""Controllers: what an action means. Each turns it into targets of the PD drives, held for one control period.

A drive pulls its joint with tau = Kp (q_target - q) + Kd (qd_target - qd), at most its force limit; it is integrated
implicitly, and gravity and Coriolis forces of the robot are fed forward. Every action but those of ``pd_joint_pos``,
``pd_joint_pos_vel`` and ``pd_ee_pose`` is normalised: clipped to -1..1, then scaled to the controller's own limits.

Source: Gu et al., ManiSkill2, ICLR 2023, section 3.3 and the table of controllers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from reprise.envs.maniskill.drives import DriveGroup, Drives
from reprise.envs.maniskill.panda import ARM_LIMITS, forward_kinematics, inverse_kinematics
from reprise.envs.maniskill.poses import exp_rotation, length, log_rotation, make_pose

__all__ = [
    "ARM_MODES",
    "BaseVelocity",
    "CombinedController",
    "Controller",
    "EndEffectorPose",
    "JointPosition",
    "JointPositionVelocity",
    "JointVelocity",
    "control_modes",
    "make_controller",
]

Array = np.ndarray
ARM_JOINTS = tuple(f"joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("finger1", "finger2")
BASE_JOINTS = ("base_x", "base_y", "base_yaw", "torso")


class Controller:
    """What all controllers share: bounds, normalisation, and the life of a target.

    Args:
        drives: moved by it.
        low, high: bounds of the action (a,), in its own units.
        normalized: actions come in -1..1, are clipped to that and then scaled to the bounds.
    """

    def __init__(self, drives: DriveGroup, low: Array, high: Array, normalized: bool = True) -> None:
        self.drives, self.normalized = drives, normalized
        self.low, self.high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
        self._middle, self._half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)

    @property
    def action_space(self) -> Box:
        """The bounds of an action as it is passed in."""
        low, high = (-np.ones_like(self.low), np.ones_like(self.high)) if self.normalized else (self.low, self.high)
        return Box(low.astype(np.float32), high.astype(np.float32))

    def scale(self, action: Array) -> Array:
        """From -1..1, beyond which it is clipped, to the controller's units; unchanged if not normalised."""
        if not self.normalized:
            return action
        return self._middle + self._half * np.minimum(np.maximum(action, -1), 1)

    def unscale(self, value: Array) -> Array:
        """The inverse of :meth:`scale`, not clipped."""
        return (2 * value - (self.low + self.high)) / (self.high - self.low) if self.normalized else value

    def reset(self) -> None:
        """Make the present state the target."""
        raise NotImplementedError

    def set_action(self, action: Array) -> None:
        """Set the targets of the coming control period."""
        raise NotImplementedError

    def before_substep(self) -> None:
        """Called before every physics step; only interpolation has anything to do then."""

    def get_state(self) -> dict[str, Array]:
        """What the next target depends on beside the robot: the last target, for controllers that add to it."""
        return {}

    def set_state(self, state: dict[str, Array]) -> None:
        """Restore what :meth:`get_state` gave."""


class JointPosition(Controller):
    """Drive joints to positions: absolute, relative to where they are, or relative to the last target.

    Args:
        drives: of n joints.
        low, high: of the action, (n,), or (1,) for joints that all get the same target, as the fingers do.
        normalized: as in :class:`Controller`.
        delta: the action is added to the present position.
        target: ... or rather to the last target, so that a lag of the joints is not lost.
        interpolate: number of physics steps over which the target moves there from the present position in a
            straight line; 0 sets it at once.
    """

    def __init__(
        self,
        drives: DriveGroup,
        low: Array,
        high: Array,
        normalized: bool = True,
        *,
        delta: bool = False,
        target: bool = False,
        interpolate: int = 0,
    ) -> None:
        super().__init__(drives, low, high, normalized)
        self.delta, self.use_target, self.interpolate = delta, target, interpolate
        self.reset()

    def reset(self) -> None:
        self.target = self.start = self.drives.qpos
        self.velocity: Array | float = 0.0
        self.substep = self.interpolate
        self.drives.set_targets(self.target)

    def set_action(self, action: Array) -> None:
        value = self.scale(action)
        self.start = self.drives.qpos
        if self.delta:
            value = value + (self.target if self.use_target else self.start)
        self._aim(value if value.shape == self.start.shape else np.full_like(self.start, value[0]))

    def _aim(self, target: Array, velocity: Array | float = 0.0) -> None:
        self.target, self.velocity, self.substep = target, velocity, 0
        if not self.interpolate:
            self.drives.set_targets(target, velocity)

    def before_substep(self) -> None:
        if self.substep < self.interpolate:
            self.substep += 1
            share = self.substep / self.interpolate
            self.drives.set_targets(self.start + share * (self.target - self.start), self.velocity)

    def get_state(self) -> dict[str, Array]:
        return {"target_qpos": self.target.copy()} if self.use_target else {}

    def set_state(self, state: dict[str, Array]) -> None:
        if self.use_target:
            self.target = state["target_qpos"].copy()


class JointPositionVelocity(JointPosition):
    """As :class:`JointPosition`, with velocity targets (n,) appended to the action."""

    def set_action(self, action: Array) -> None:
        position, velocity = np.split(self.scale(action), 2)
        self.start = self.drives.qpos
        self._aim(position + self.start if self.delta else position, velocity)


class JointVelocity(Controller):
    """Drive joints at velocities; the drives need stiffness 0."""

    def reset(self) -> None:
        self.drives.set_targets(0.0)

    def set_action(self, action: Array) -> None:
        self.drives.set_targets(0.0, self.scale(action))


class BaseVelocity(JointVelocity):
    """Drive a mobile base (x, y, yaw, torso): forward and sideways speed are in the frame of the robot."""

    def set_action(self, action: Array) -> None:
        forward, left, *others = self.scale(action)
        yaw = self.drives.qpos[2]
        cosine, sine = np.cos(yaw), np.sin(yaw)
        velocity = [cosine * forward - sine * left, sine * forward + cosine * left, *others]
        self.drives.set_targets(0.0, np.array(velocity))


class EndEffectorPose(JointPosition):
    """Drive the arm so that its TCP reaches a pose, by inverse kinematics; where that fails, hold the arm as it is.

    Args:
        drives: of the seven joints of the arm.
        low, high: of the action: position (3,) in metres, or position and rotation vector (6,) in radians.
        normalized: as in :class:`Controller`; a rotation vector is then clipped by its length, not by entry.
        delta: the action moves the present pose; otherwise it is the pose, in the frame of the base.
        target: ... moves the last target pose instead.
        frame: of a move: "ee", both in the frame of the TCP; "align", origin at the TCP, axes of the base; "base",
            both in the frame of the base, so that a rotation swings the TCP about the base.
        interpolate: as in :class:`JointPosition`.

    Raises:
        ValueError: unknown frame.
    """

    FRAMES = ("ee", "align", "base")

    def __init__(
        self,
        drives: DriveGroup,
        low: Array,
        high: Array,
        normalized: bool = True,
        *,
        delta: bool = True,
        target: bool = False,
        frame: str = "ee",
        interpolate: int = 0,
    ) -> None:
        if frame not in self.FRAMES:
            raise ValueError(f"unknown frame {frame!r}; there are {', '.join(self.FRAMES)}")
        self.frame = frame
        super().__init__(drives, low, high, normalized, delta=delta, target=target, interpolate=interpolate)

    def reset(self) -> None:
        super().reset()
        self.target_pose = forward_kinematics(self.target)

    def scale(self, action: Array) -> Array:
        if not self.normalized or len(action) == 3:
            return super().scale(action)
        rotation = action[3:]
        turn = length(rotation)
        value = super().scale(action)
        value[3:] = (rotation / turn if turn > 1 else rotation) * self.high[3:]
        return value

    def set_action(self, action: Array) -> None:
        value = self.scale(action)
        self.start = self.drives.qpos
        self.target_pose = self._move(value)
        solution = inverse_kinematics(self.target_pose, self.start)
        self._aim(self.start if solution is None else solution)

    def _move(self, value: Array) -> Array:
        R = exp_rotation(value[3:]) if len(value) == 6 else np.eye(3)
        step = make_pose(R, value[:3])
        if not self.delta:
            return step
        origin = self.origin()
        if self.frame == "ee":
            return origin @ step
        if self.frame == "base":
            return step @ origin
        return make_pose(R @ origin[:3, :3], origin[:3, 3] + value[:3])

    def origin(self) -> Array:
        """The pose (4, 4) that the next action moves: of the TCP, or the last target."""
        return self.target_pose if self.use_target else forward_kinematics(self.drives.qpos)

    def action_towards(self, pose: Array) -> Array:
        """The action, not clipped, that makes ``pose`` (4, 4) the target; the inverse of :meth:`set_action`.

        Position-only controllers leave the rotation out.
        """
        origin = self.origin() if self.delta else np.eye(4)
        if self.frame == "align" and self.delta:
            R, p = pose[:3, :3] @ origin[:3, :3].T, pose[:3, 3] - origin[:3, 3]
        else:
            turned = origin[:3, :3].T
            R, p = turned @ pose[:3, :3], turned @ (pose[:3, 3] - origin[:3, 3])
            if self.frame == "base":
                R = pose[:3, :3] @ turned
                p = pose[:3, 3] - R @ origin[:3, 3]
        value = np.concatenate([p, log_rotation(np.ascontiguousarray(R))])[: len(self.low)]
        return self.unscale(value)

    def get_state(self) -> dict[str, Array]:
        return {"target_pose": self.target_pose[:3].copy()} if self.use_target else {}

    def set_state(self, state: dict[str, Array]) -> None:
        if self.use_target:
            self.target_pose = np.vstack([state["target_pose"], [0.0, 0.0, 0.0, 1.0]])


def _arm(kind: Any, low: Array, high: Array, *, stiffness: float = 1000.0, **options: Any) -> Callable:
    def make(drives: Drives, interpolate: int, speed: float) -> Controller:
        extra = {"interpolate": interpolate} if issubclass(kind, JointPosition) else {}
        limits = speed if kind is JointVelocity else 1.0
        arm = drives.group(ARM_JOINTS, stiffness)
        return kind(arm, limits * np.asarray(low), limits * np.asarray(high), **options, **extra)

    return make


_TENTH, _ONE = np.full(7, 0.1), np.ones(7)
_REACH, _TURN = np.full(3, 0.1), np.full(6, 0.1)
_WORLD = np.array([1.0, 1.0, 1.0, np.pi, np.pi, np.pi])

# the arm's part of every control mode, as tabled
ARM_MODES: dict[str, Callable[[Drives, int, float], Controller]] = {
    "pd_joint_pos": _arm(JointPosition, *ARM_LIMITS.T, normalized=False),
    "pd_joint_delta_pos": _arm(JointPosition, -_TENTH, _TENTH, delta=True),
    "pd_joint_target_delta_pos": _arm(JointPosition, -_TENTH, _TENTH, delta=True, target=True),
    "pd_ee_delta_pos": _arm(EndEffectorPose, -_REACH, _REACH),
    "pd_ee_delta_pose": _arm(EndEffectorPose, -_TURN, _TURN),
    "pd_ee_delta_pose_align": _arm(EndEffectorPose, -_TURN, _TURN, frame="align"),
    "pd_ee_target_delta_pos": _arm(EndEffectorPose, -_REACH, _REACH, target=True),
    "pd_ee_target_delta_pose": _arm(EndEffectorPose, -_TURN, _TURN, target=True),
    "pd_joint_vel": _arm(JointVelocity, -_ONE, _ONE, stiffness=0.0),
    "pd_joint_pos_vel": _arm(
        JointPositionVelocity,
        np.r_[ARM_LIMITS[:, 0], -_ONE],
        np.r_[ARM_LIMITS[:, 1], _ONE],
        normalized=False,
    ),
    "pd_joint_delta_pos_vel": _arm(JointPositionVelocity, np.r_[-_TENTH, -_ONE], np.r_[_TENTH, _ONE], delta=True),
    "pd_ee_pose": _arm(EndEffectorPose, -_WORLD, _WORLD, normalized=False, delta=False),
}
MOBILE = "base_pd_joint_vel_arm_"


def control_modes(mobile: bool = False) -> tuple[str, ...]:
    """The names of all control modes of the fixed or of the mobile robot."""
    return tuple(MOBILE + name if mobile else name for name in ARM_MODES)


class CombinedController:
    """Controllers side by side: their actions follow one another in one array.

    Args:
        parts: by name, in the order of their actions.

    Example:
        >>> import mujoco
        >>> from reprise.envs.maniskill.panda import panda_mjcf
        >>> model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{panda_mjcf()}</worldbody></mujoco>")
        >>> drives = Drives(model, mujoco.MjData(model), ARM_JOINTS + FINGER_JOINTS)
        >>> make_controller("pd_ee_delta_pose", drives).action_space
        Box(-1.0, 1.0, (7,), float32)
    """

    def __init__(self, parts: dict[str, Controller]) -> None:
        self.parts = parts
        ends = np.cumsum([len(part.low) for part in parts.values()])
        self.slices = {name: slice(end - len(part.low), end) for end, (name, part) in zip(ends, parts.items())}  # noqa: B905
        self.size = int(ends[-1])
        self._interpolating = [part for part in parts.values() if getattr(part, "interpolate", 0)]

    @property
    def action_space(self) -> Box:
        """The bounds of an action (a,)."""
        spaces = [part.action_space for part in self.parts.values()]
        return Box(np.concatenate([s.low for s in spaces]), np.concatenate([s.high for s in spaces]))

    def check(self, action: Array) -> Array:
        """The action in double precision.

        Raises:
            ValueError: wrong shape, or not finite.
        """
        action = np.asarray(action, dtype=float)
        if action.shape != (self.size,):
            names = ", ".join(f"{name} {part.low.size}" for name, part in self.parts.items())
            raise ValueError(f"an action has shape ({self.size},) here ({names}), not {action.shape}")
        if not np.isfinite(action).all():
            raise ValueError(
                f"an action must be finite, but entry {int(np.argmin(np.isfinite(action)))} is not: {action}"
            )
        return action

    def reset(self) -> None:
        """Make the present state the target of every part."""
        for part in self.parts.values():
            part.reset()

    def set_action(self, action: Array) -> None:
        """Set all targets of the coming control period from an action (a,), checked.

        Raises:
            ValueError: wrong shape, or not finite; no target has changed then.
        """
        action = self.check(action)
        for name, part in self.parts.items():
            part.set_action(action[self.slices[name]])

    def before_substep(self) -> None:
        """Called before every physics step."""
        for part in self._interpolating:
            part.before_substep()

    def get_state(self) -> dict[str, dict[str, Array]]:
        """The states of the parts that have one."""
        return {name: state for name, part in self.parts.items() if (state := part.get_state())}

    def set_state(self, state: dict[str, dict[str, Array]]) -> None:
        """Restore what :meth:`get_state` gave."""
        for name, part in self.parts.items():
            part.set_state(state.get(name, {}))


def make_controller(mode: str, drives: Drives, *, mobile: bool = False, interpolate: int = 0) -> CombinedController:
    """The controller of a control mode: [base and torso,] arm, gripper.

    Args:
        mode: one of :func:`control_modes`.
        drives: of all joints of the robot; their gains are set.
        mobile: the robot has a base that drives; the limit of ``pd_joint_vel`` is then 3.14 rad/s instead of 1.
        interpolate: number of physics steps over which position targets move; 0 sets them at once.

    Raises:
        ValueError: unknown mode.
    """
    known = control_modes(mobile)
    if mode not in known:
        raise ValueError(f"unknown control mode {mode!r}; there are {', '.join(known)}")
    parts: dict[str, Controller] = {}
    if mobile:
        limits = np.array([0.5, 0.5, 3.14, 0.5])
        parts["base"] = BaseVelocity(drives.group(BASE_JOINTS, 0.0, 1000.0, 500.0), -limits, limits)
    parts["arm"] = ARM_MODES[mode.removeprefix(MOBILE)](drives, interpolate, 3.14 if mobile else 1.0)
    fingers = drives.group(FINGER_JOINTS)
    parts["gripper"] = JointPosition(fingers, np.array([-0.01]), np.array([0.04]), interpolate=interpolate)
    return CombinedController(parts)
