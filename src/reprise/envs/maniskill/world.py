"""A world: one manipulation task over one MuJoCo model, from the scene to observation, reward and success.

A family of tasks (``reprise.envs.maniskill.tasks``) is a subclass that says what is in the scene, where it starts, what
success is and how dense reward is shaped. Everything else is here: drives at 500 Hz, actions at 20 Hz, gravity and
Coriolis forces of the robot fed forward, seeded episodes, observations, state.

Source: Gu et al., ManiSkill2, ICLR 2023, section 3 and appendix.
"""

from __future__ import annotations

from typing import Any, ClassVar

import mujoco
import numpy as np

from reprise.envs.maniskill.controllers import (
    ARM_JOINTS,
    BASE_JOINTS,
    FINGER_JOINTS,
    CombinedController,
    make_controller,
)
from reprise.envs.maniskill.drives import Drives
from reprise.envs.maniskill.observations import (
    OBSERVATION_MODES,
    Camera,
    RayRenderer,
    Renderer,
    flatten,
    look,
    single_precision,
)
from reprise.envs.maniskill.panda import HOME, panda_mjcf
from reprise.envs.maniskill.poses import length, make_pose, to_pose7
from reprise.envs.raycast import Camera as Onlooker, RayCaster

__all__ = ["REWARD_MODES", "World", "goal_marker"]

Array = np.ndarray
MARKERS = 3  # the geom group of goals: shown to people, hidden from cameras
REWARD_MODES = ("sparse", "dense", "normalized_dense")
UNSTABLE = [
    int(kind)
    for kind in (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
]

# Who meets whom: objects (contype 1) meet each other, the robot (2) and the floor (8); fixtures, which something else
# holds in place, meet objects and the robot; nothing of the robot meets the robot.
SCENE = """<mujoco>
<compiler angle="radian" autolimits="true"/>
<option timestep="{timestep}" integrator="implicitfast" cone="elliptic" impratio="10" jacobian="dense">
<flag autoreset="disable"/></option>
<default>
<geom contype="1" conaffinity="11" friction="1 .005 .0001" density="1000" solref=".005 1"/>
<default class="fixture"><geom contype="1" conaffinity="2"/></default>
</default>
<visual><global offwidth="640" offheight="640"/><headlight ambient=".5 .5 .5"/><map znear=".001" zfar="20"/></visual>
<asset><texture name="tiles" type="2d" builtin="checker" rgb1=".83 .80 .75" rgb2=".76 .72 .66" width="16" height="16"/>
<material name="tiles" texture="tiles" texrepeat="5 5" texuniform="true"/>{assets}</asset>
<worldbody><light pos="0 0 3" dir=".2 .2 -1" castshadow="false"/>
<geom name="floor" type="plane" size="5 5 .1" contype="8" conaffinity="2" material="tiles"/>
{cameras}{robot}{scene}</worldbody>
</mujoco>"""


def goal_marker(size: float = 0.015) -> str:
    """A green ball for the mocap body ``goal``, which nothing touches and no camera sees."""
    ball = f'<geom type="sphere" size="{size}" group="{MARKERS}" contype="0" conaffinity="0" rgba=".2 .8 .35 1"/>'
    return f'<body name="goal" mocap="true">{ball}</body>'


class World:
    """One task: what :class:`~reprise.envs.maniskill.env.ManiSkillWorld` holds n of.

    Args:
        obs_mode: "none", "state", "state_dict", or, drawn by a renderer, "image", "rgbd", "pointcloud", the last two
            also with "+robot_seg".
        control_mode: one of :func:`~reprise.envs.maniskill.controllers.control_modes`.
        reward_mode: "sparse" (1 on success), "dense", or "normalized_dense" (dense divided by the task's maximum).
        sim_freq: physics steps a second.
        control_freq: actions a second.
        object_set: "train" or "test", for families with many objects.
        renderer: draws the pictures, see :class:`~reprise.envs.maniskill.observations.Renderer`; by default
            the ray caster.
        image_size: height and width in pixels; by default that of each camera.
        interpolate: position targets move there over the control period instead of jumping.

    Raises:
        ValueError: unknown mode or object set, or a control frequency that does not divide the simulation frequency.
    """

    # what a family says of itself
    max_episode_steps: ClassVar[int] = 200
    max_reward: ClassVar[float] = 1.0
    mobile: ClassVar[bool] = False
    base: ClassVar[tuple[float, float, float]] = (-0.615, 0.0, 0.0)
    home: ClassVar[Array] = HOME
    objects: ClassVar[dict[str, range]] = {}  # ids of the models of each object set; empty: one scene for all
    evaluations: ClassVar[dict[str, int]] = {}  # episodes for each model when policies are compared
    camera: ClassVar[tuple[tuple[float, float, float], tuple[float, float, float]]] = ((0.3, 0, 0.6), (-0.1, 0, 0.1))
    onlooker: ClassVar[Onlooker] = Onlooker((0.55, 0.7, 0.5), (-0.25, 0.0, 0.24), fovy=42)  # who sees the pictures

    def __init__(
        self,
        obs_mode: str = "state",
        control_mode: str | None = None,
        reward_mode: str = "normalized_dense",
        *,
        sim_freq: int = 500,
        control_freq: int = 20,
        object_set: str = "train",
        renderer: Renderer | None = None,
        image_size: tuple[int, int] | None = None,
        interpolate: bool = False,
    ) -> None:
        control_mode = control_mode or ("base_pd_joint_vel_arm_" if self.mobile else "") + "pd_ee_delta_pose"
        if obs_mode not in OBSERVATION_MODES:
            raise ValueError(f"unknown observation mode {obs_mode!r}; there are {', '.join(OBSERVATION_MODES)}")
        if reward_mode not in REWARD_MODES:
            raise ValueError(f"unknown reward mode {reward_mode!r}; there are {', '.join(REWARD_MODES)}")
        if object_set not in ("train", "test"):
            raise ValueError(f'object_set is "train" or "test", not {object_set!r}')
        if control_freq < 1 or sim_freq % control_freq:
            raise ValueError(
                f"a control frequency must divide the simulation frequency, but {sim_freq} Hz is no multiple of "
                f"{control_freq} Hz"
            )
        self.obs_mode, self.control_mode, self.reward_mode = obs_mode, control_mode, reward_mode
        self.sim_freq, self.control_freq, self.substeps = sim_freq, control_freq, sim_freq // control_freq
        self.object_set, self.image_size = object_set, image_size
        self._interpolate = self.substeps if interpolate else 0
        self._renderer = RayRenderer() if renderer is None else renderer
        self._onlooker: RayCaster | None = None
        self._built: Any = None
        self.asset: Any = None
        self.goal = np.zeros(0)
        self.model_id: int | None = None
        self.controller: CombinedController
        self.reset(0)

    # --- for families to say ------------------------------------------------------------------------------------------

    def pick(self, rng: np.random.RandomState) -> Any:
        """What the scene is built of, drawn anew every episode; an equal value keeps the scene that is there."""
        return self.model_id

    def scene(self) -> tuple[str, str]:
        """MJCF for ``<asset>`` and ``<worldbody>``, from ``self.asset``; a body in it that is placed has a freejoint
        or is a mocap body."""
        raise NotImplementedError

    def place(self, rng: np.random.RandomState) -> None:
        """Put bodies, then the robot by :meth:`place_robot`, then the goal to where an episode starts."""
        raise NotImplementedError

    def evaluate(self) -> dict[str, Any]:
        """What is to be known of the present state, at least ``success``."""
        raise NotImplementedError

    def dense_reward(self, info: dict[str, Any]) -> float:
        """Shaped reward of the present state, given what :meth:`evaluate` found; at most ``max_reward``."""
        raise NotImplementedError

    def goal_observation(self) -> dict[str, Array]:
        """What a policy must be told in every mode: where the goal is."""
        return {}

    def privileged_observation(self) -> dict[str, Array]:
        """Poses of objects and the like, for the state modes alone."""
        return {}

    def remember(self) -> None:
        """Called before every step, for rewards and tests that compare with the state before."""

    # --- episodes -----------------------------------------------------------------------------------------------------

    def reset(self, seed: int, model_id: int | None = None) -> None:
        """Begin the episode that seed and model id fix, to the last bit.

        Args:
            seed: of the episode, 0 .. 2**32 - 1.
            model_id: which object, in families with several; drawn from the object set if None.

        Raises:
            ValueError: unknown model id.
        """
        rng = np.random.RandomState(seed)
        known = [i for ids in self.objects.values() for i in ids]
        if model_id is not None and model_id not in known:
            ids = f"has {known[0]} to {known[-1]}" if known else "has no objects to choose from"
            raise ValueError(f"unknown model id {model_id!r}; {type(self).__name__} {ids}")
        if known:
            drawn = int(rng.choice(self.objects[self.object_set]))
            self.model_id = drawn if model_id is None else int(model_id)
        asset = self.pick(rng)
        if self._built is None or asset != self._built[0]:
            self.asset = asset
            self._build()
            self._built = (asset,)
        rng = np.random.RandomState(seed)  # again, so that it does not matter whether the model id was given or drawn
        mujoco.mj_resetData(self.model, self.data)
        self.place(rng)
        self._forward()
        self.remember()
        self.controller.reset()
        self.unstable = False

    def _build(self) -> None:
        assets, scene = self.scene()
        joints = (BASE_JOINTS if self.mobile else ()) + ARM_JOINTS + FINGER_JOINTS
        self.cameras = self.place_cameras()
        xml = SCENE.format(
            timestep=1 / self.sim_freq,
            assets=assets,
            cameras="".join(look(name, view) for name, view in self.cameras.items() if not view.mounted),
            robot=self.robot(),
            scene=scene,
        )
        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = mujoco.MjData(self.model)
        self.drives = Drives(self.model, self.data, joints)
        arm = len(joints) - 9
        self._arm = slice(arm, arm + 7)
        self._finger_bodies = [self.model.body(name).id for name in ("finger1", "finger2")]
        self._tcp = self.model.site("tcp").id
        self._bodies = {self.model.body(i).name: i for i in range(self.model.nbody)}
        root = self.model.body_rootid[self._finger_bodies[0]]
        self.robot_geoms = np.flatnonzero(self.model.body_rootid[self.model.geom_bodyid] == root)
        self.controller = make_controller(
            self.control_mode, self.drives, mobile=self.mobile, interpolate=self._interpolate
        )

    def robot(self) -> str:
        """MJCF of the robot."""
        return panda_mjcf(self.base)

    def place_cameras(self) -> dict[str, Camera]:
        """The cameras by name."""
        return {"base_camera": Camera(*self.camera), "hand_camera": Camera((0, 0, 0), (0, 0, 1), mounted=True)}

    def place_robot(self, rng: np.random.RandomState) -> None:
        """The arm at its start, each joint off by N(0, 0.02) rad, fingers open."""
        qpos = self.home.copy()
        qpos[:7] += rng.normal(0, 0.02, 7)
        self.drives.qpos[-9:] = qpos

    def settle(self, seconds: float) -> None:
        """Let the objects fall and come to rest, before the robot is placed."""
        start = self.drives.qpos.copy()
        for _ in range(round(seconds * self.sim_freq)):
            mujoco.mj_step(self.model, self.data)
            self.drives.qpos[:], self.drives.qvel[:] = start, 0
        self.data.qvel[:] = 0
        mujoco.mj_kinematics(self.model, self.data)

    # --- time ---------------------------------------------------------------------------------------------------------

    @property
    def action_space(self) -> Any:
        """Bounds of an action."""
        return self.controller.action_space

    def set_action(self, action: Array) -> None:
        """Set the targets of the coming control period.

        Raises:
            ValueError: wrong shape, or not finite.
        """
        self.controller.set_action(action)

    def step(self) -> None:
        """One control period of physics; ``unstable`` says afterwards whether it diverged."""
        self.remember()
        if self._interpolate:
            for _ in range(self.substeps):
                self.controller.before_substep()
                self.drives.advance(1)
        else:
            self.drives.advance(self.substeps)
        self._update()
        self.unstable = bool(self.data.warning.number[UNSTABLE].any())

    def _update(self) -> None:
        """Positions and velocities of all bodies from the joints; contacts stay those of the last physics step."""
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_comVel(self.model, self.data)

    def _forward(self) -> None:
        """As :meth:`_update`, with contacts, which leaves where the solver starts as if it had not been called."""
        warm = self.data.qacc_warmstart.copy()
        mujoco.mj_forward(self.model, self.data)
        self.data.qacc_warmstart[:] = warm

    # --- state --------------------------------------------------------------------------------------------------------

    def get_state(self) -> Array:
        """All positions and velocities, where the solver starts, kinematic bodies, and the goal, as one vector.

        It fixes the future, given the object and the state of the controller (``world.controller.get_state()``).
        """
        return np.concatenate([part.ravel() for part in self._state_parts()])

    def set_state(self, state: Array) -> None:
        """Restore what :meth:`get_state` gave; the controller's targets become the present state.

        Raises:
            ValueError: wrong length, or not finite.
        """
        parts = self._state_parts()
        sizes = [part.size for part in parts]
        state = np.asarray(state, dtype=float)
        if state.shape != (sum(sizes),) or not np.isfinite(state).all():
            raise ValueError(f"a state is a finite vector of {sum(sizes)} numbers here, not an array {state.shape}")
        for part, values in zip(parts, np.split(state, np.cumsum(sizes)[:-1]), strict=True):
            part[...] = values.reshape(part.shape)
        self._forward()
        self.remember()
        self.controller.reset()

    def _state_parts(self) -> list[Array]:
        data = self.data
        return [data.qpos, data.qvel, data.qacc_warmstart, data.mocap_pos, data.mocap_quat, self.goal]

    # --- what is seen -------------------------------------------------------------------------------------------------

    def observe(self) -> Any:
        """The observation in the world's mode: None, a vector (float32), or a dictionary of arrays."""
        if self.obs_mode == "none":
            return None
        extra = {"tcp_pose": to_pose7(self.tcp_pose())} | self.goal_observation()
        if self.obs_mode in ("state", "state_dict"):
            extra |= self.privileged_observation()
        observation = {"agent": self._proprioception(), "extra": extra}
        if self.obs_mode == "state":
            return flatten(observation)
        if self.obs_mode != "state_dict":
            observation |= OBSERVATION_MODES[self.obs_mode](self)
        return single_precision(observation)

    def _proprioception(self) -> dict[str, Any]:
        agent: dict[str, Any] = {
            "qpos": self.drives.qpos.copy(),
            "qvel": self.drives.qvel.copy(),
            "base_pose": to_pose7(self.pose("base")),
        }
        state = self.controller.get_state()
        return agent | {"controller": state} if state else agent

    def draw(self, camera: str) -> tuple[Array, Array, Array]:
        """Colour, depth and geom ids that a camera sees, by the world's renderer."""
        view = self.cameras[camera]
        mujoco.mj_camlight(self.model, self.data)
        return self._renderer(self.model, self.data, camera, *(self.image_size or (view.height, view.width)))

    def picture(self, height: int = 240, width: int = 320) -> Array:
        """A picture (H, W, 3) for people: from further off, with shadows, and with the goal, which no camera sees."""
        caster = self._onlooker
        if caster is None or caster.model is not self.model or (caster.height, caster.width) != (height, width):
            groups = (0, 1, 2, MARKERS)
            caster = RayCaster(self.model, width, height, [self.onlooker], shadows=True, groups=groups)
            self._onlooker = caster
        mujoco.mj_camlight(self.model, self.data)
        return caster.render(self.data)["rgb"][0]

    # --- reward -------------------------------------------------------------------------------------------------------

    def success(self) -> bool:
        """Whether the task is done in the present state."""
        return bool(self.evaluate()["success"])

    def reward(self, info: dict[str, Any] | None = None) -> float:
        """Reward of the present state in the world's mode.

        Args:
            info: what :meth:`evaluate` found, if it has been called.
        """
        info = self.evaluate() if info is None else info
        if self.reward_mode == "sparse":
            return float(info["success"])
        dense = float(self.dense_reward(info))
        return dense / self.max_reward if self.reward_mode == "normalized_dense" else dense

    # --- what families ask --------------------------------------------------------------------------------------------

    def tcp_pose(self) -> Array:
        """Pose (4, 4) of the tool centre point in the world."""
        return make_pose(self.data.site_xmat[self._tcp].reshape(3, 3), self.data.site_xpos[self._tcp])

    def tcp(self) -> Array:
        """Position (3,) of the tool centre point in the world."""
        return self.data.site_xpos[self._tcp].copy()

    def pose(self, body: str) -> Array:
        """Pose (4, 4) of a body in the world."""
        index = self._bodies[body]
        return make_pose(self.data.xmat[index].reshape(3, 3), self.data.xpos[index])

    def position(self, body: str) -> Array:
        """Position (3,) of a body in the world."""
        return self.data.xpos[self._bodies[body]].copy()

    def geoms_of(self, body: str) -> list[int]:
        """Ids of the geoms of a body."""
        return np.flatnonzero(self.model.geom_bodyid == self._bodies[body]).tolist()

    def set_pose(self, body: str, position: Any, quaternion: Any = (1.0, 0.0, 0.0, 0.0)) -> None:
        """Put a body with a freejoint, or a mocap body, somewhere."""
        index = self._bodies[body]
        mocap = self.model.body_mocapid[index]
        if mocap >= 0:
            self.data.mocap_pos[mocap], self.data.mocap_quat[mocap] = position, quaternion
        else:
            start = self.model.jnt_qposadr[self.model.body_jntadr[index]]
            self.data.qpos[start : start + 7] = [*position, *quaternion]

    def velocity(self, body: str) -> tuple[float, float]:
        """Speed (m/s) of a body's centre of mass and rate of its rotation (rad/s)."""
        result = np.empty(6)
        mujoco.mj_objectVelocity(self.model, self.data, mujoco.mjtObj.mjOBJ_BODY, self._bodies[body], result, 0)
        return length(result[3:]), length(result[:3])

    def arm_qpos(self) -> Array:
        """The seven joint angles."""
        return self.drives.qpos[self._arm].copy()

    def opening(self) -> float:
        """The distance between the fingers, in metres."""
        return float(self.drives.qpos[-2:].sum())

    def robot_is_static(self, threshold: float = 0.2) -> bool:
        """Whether no joint of the arm is faster than a threshold in rad/s."""
        return bool(np.abs(self.drives.qvel[self._arm]).max() <= threshold)

    def contact_force(self, body: int, other: int) -> Array:
        """Force (3,) in newtons in the world frame that body ``other`` exerted on ``body`` in the last physics step."""
        total, wrench = np.zeros(3), np.empty(6)
        pairs = self.model.geom_bodyid[self.data.contact.geom].tolist()
        for i, pair in enumerate(pairs):
            if pair in ([body, other], [other, body]):
                mujoco.mj_contactForce(self.model, self.data, i, wrench)
                force = self.data.contact.frame[i].reshape(3, 3).T @ wrench[:3]  # on the second geom
                total += force if pair[1] == body else -force
        return total

    def is_grasping(self, body: str, max_angle: float = 85.0, min_impulse: float = 1e-6) -> bool:
        """Whether both fingers press on a body, each within an angle (degrees) of the direction in which it closes."""
        index = self._bodies[body]
        if self.data.ncon < 2:
            return False
        for finger, side in zip(self._finger_bodies, (1, -1), strict=True):
            force = self.contact_force(finger, index)
            size = length(force)
            outwards = side * self.data.xmat[finger].reshape(3, 3)[:, 1]
            if size / self.sim_freq < min_impulse or force @ outwards < size * np.cos(np.radians(max_angle)):
                return False
        return True
