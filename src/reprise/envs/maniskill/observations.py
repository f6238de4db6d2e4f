"""Observations: cameras and the modes that need them (images, colour and depth, point clouds), and their layout.

Source: Gu et al., ManiSkill2, ICLR 2023, section 3.2 and the table of cameras.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import mujoco
import numpy as np

from reprise.envs.maniskill.poses import inverse
from reprise.envs.raycast import RayCaster

if TYPE_CHECKING:
    from reprise.envs.maniskill.world import World

__all__ = [
    "OBSERVATION_MODES",
    "Camera",
    "MujocoRenderer",
    "RayRenderer",
    "Renderer",
    "back_project",
    "flatten",
    "look",
    "single_precision",
]

Array = np.ndarray
GL_TO_CV = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL looks along -z with y up, OpenCV along +z with y down


@dataclass(frozen=True)
class Camera:
    """Where a camera stands and looks.

    Args:
        position: in the world.
        target: a point that it looks at.
        height, width: in pixels.
        fov: vertical, in degrees.
        near, far: nothing is seen before and beyond, in metres along the optical axis.
        mounted: the robot carries it; it is in the robot's MJCF already.
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    height: int = 128
    width: int = 128
    fov: float = 90.0
    near: float = 0.01
    far: float = 10.0
    mounted: bool = False


def look(name: str, camera: Camera) -> str:
    """A camera as MJCF, upright."""
    p = np.array(camera.position)
    z = p - np.array(camera.target)
    z /= np.linalg.norm(z)
    x = np.cross([0.0, 0.0, 1.0], z)
    x /= np.linalg.norm(x)
    axes = " ".join(f"{v:.17g}" for v in (*x, *np.cross(z, x)))
    place = " ".join(f"{v:.17g}" for v in p)
    return f'<camera name="{name}" pos="{place}" xyaxes="{axes}" fovy="{camera.fov}"/>'


class Renderer(Protocol):
    """Draws what a camera of a model sees: any callable with this signature."""

    def __call__(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: str, height: int, width: int
    ) -> tuple[Array, Array, Array]:
        """Colour (H, W, 3) uint8, depth (H, W) in metres along the optical axis, ids of geoms (H, W).

        Where nothing is hit, depth is 0 and the id -1.
        """
        ...


class RayRenderer:
    """The ray caster of :mod:`reprise.envs.raycast`, which needs no OpenGL; it keeps the layout of one model."""

    def __init__(self) -> None:
        self._model: mujoco.MjModel | None = None
        self._casters: dict[tuple[str, int, int], RayCaster] = {}

    def __call__(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: str, height: int, width: int
    ) -> tuple[Array, Array, Array]:
        if model is not self._model:  # the scene was rebuilt
            self._model, self._casters = model, {}
        caster = self._casters.get((camera, height, width))
        if caster is None:
            caster = RayCaster(model, width, height, [camera], channels=("rgb", "depth", "geom"))
            self._casters[camera, height, width] = caster
        pictures = caster.render(data)
        return pictures["rgb"][0], pictures["depth"][0], pictures["geom"][0]


class MujocoRenderer:
    """MuJoCo's own rasteriser, without shadows; needs OpenGL (``MUJOCO_GL=egl`` or ``osmesa`` without a screen).

    Raises:
        RuntimeError: OpenGL is not there.
    """

    def __init__(self) -> None:
        try:
            mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
        except Exception as error:
            how = os.environ.get("MUJOCO_GL", "not set")
            raise RuntimeError(
                f"no OpenGL to draw with (MUJOCO_GL is {how}): set MUJOCO_GL=egl or osmesa before Python starts, or "
                f"use RayRenderer, which needs none; {error}"
            ) from error
        self._renderer: mujoco.Renderer | None = None
        self._drawn: tuple[mujoco.MjModel, int, int] | None = None

    def __call__(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: str, height: int, width: int
    ) -> tuple[Array, Array, Array]:
        if self._drawn is None or self._drawn[0] is not model or self._drawn[1:] != (height, width):
            self.close()
            model.vis.quality.shadowsize = 0
            model.vis.quality.offsamples = 0  # blended edges have the depth of neither side
            self._renderer = mujoco.Renderer(model, height, width)
            self._drawn = (model, height, width)
        renderer = self._renderer
        assert renderer is not None
        renderer.update_scene(data, camera)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = False
        colour = renderer.render().copy()
        renderer.enable_depth_rendering()
        depth = renderer.render().copy()
        renderer.disable_depth_rendering()
        renderer.enable_segmentation_rendering()
        segmentation = renderer.render().copy()
        renderer.disable_segmentation_rendering()
        geoms = np.where(segmentation[..., 1] == mujoco.mjtObj.mjOBJ_GEOM, segmentation[..., 0], -1)
        return colour, np.where(geoms < 0, 0, depth), geoms

    def close(self) -> None:
        """Free what the graphics library holds."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _matrices(world: World, name: str, height: int, width: int) -> dict[str, Array]:
    model, data = world.model, world.data
    index = model.camera(name).id
    cam2world = np.eye(4)
    cam2world[:3, :3] = data.cam_xmat[index].reshape(3, 3)
    cam2world[:3, 3] = data.cam_xpos[index]
    focal = height / 2 / np.tan(np.radians(model.cam_fovy[index]) / 2)
    intrinsic = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return {
        "cam2world_gl": cam2world,
        "extrinsic_cv": inverse(cam2world @ GL_TO_CV),
        "intrinsic_cv": intrinsic,
    }


def back_project(depth: Array, intrinsic: Array) -> Array:
    """Positions (H, W, 3) in the OpenGL frame of a camera from planar depth (H, W) and intrinsics (3, 3)."""
    height, width = depth.shape
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x = (u - intrinsic[0, 2]) / intrinsic[0, 0] * depth
    y = (v - intrinsic[1, 2]) / intrinsic[1, 1] * depth
    return np.stack([x, -y, -depth], -1)


def _draw(world: World) -> dict[str, tuple[Array, Array, Array, dict[str, Array]]]:
    """Colour, depth (0 outside near and far), geom ids and matrices by camera."""
    views = {}
    for name, camera in world.cameras.items():
        colour, depth, geoms = world.draw(name)
        seen = (depth >= camera.near) & (depth <= camera.far)
        views[name] = (
            colour,
            np.where(seen, depth, 0),
            np.where(seen, geoms, -1),
            _matrices(world, name, *depth.shape),
        )
    return views


def _image(world: World) -> dict[str, Any]:
    pictures, parameters = {}, {}
    for name, (colour, depth, geoms, matrices) in _draw(world).items():
        seen = (depth > 0)[..., None]
        position = back_project(depth, matrices["intrinsic_cv"])
        # Colour with alpha, position with 1 where something is seen, ids of mesh and actor counted from 1.
        bodies = np.where(geoms < 0, -1, world.model.geom_bodyid[geoms])
        pictures[name] = {
            "Color": np.concatenate([colour / np.float32(255), np.ones_like(seen)], -1).astype(np.float32),
            "Position": np.concatenate([position, seen], -1).astype(np.float32),
            "Segmentation": np.stack([geoms + 1, bodies + 1, 0 * geoms, 0 * geoms], -1).astype(np.uint32),
        }
        parameters[name] = matrices
    return {"image": pictures, "camera_param": parameters}


def _rgbd(world: World, robot_seg: bool = False) -> dict[str, Any]:
    pictures, parameters = {}, {}
    for name, (colour, depth, geoms, matrices) in _draw(world).items():
        pictures[name] = {"rgb": colour, "depth": depth[..., None].astype(np.float32)}
        if robot_seg:
            pictures[name]["robot_seg"] = np.isin(geoms, world.robot_geoms)[..., None]
        parameters[name] = matrices
    return {"image": pictures, "camera_param": parameters}


def _pointcloud(world: World, robot_seg: bool = False) -> dict[str, Any]:
    points, colours, masks = [], [], []
    for colour, depth, geoms, matrices in _draw(world).values():
        position = back_project(depth, matrices["intrinsic_cv"]).reshape(-1, 3)
        seen = depth.reshape(-1, 1) > 0
        cam2world = matrices["cam2world_gl"]
        where = np.where(seen, position @ cam2world[:3, :3].T + cam2world[:3, 3], 0)
        points.append(np.concatenate([where, seen], 1))
        colours.append(colour.reshape(-1, 3))
        masks.append(np.isin(geoms, world.robot_geoms).reshape(-1, 1))
    cloud = {"xyzw": np.concatenate(points).astype(np.float32), "rgb": np.concatenate(colours)}
    return {"pointcloud": cloud | ({"robot_seg": np.concatenate(masks)} if robot_seg else {})}


def _nothing(world: World) -> dict[str, Any]:
    return {}


# every mode with what it adds to proprioception
OBSERVATION_MODES: dict[str, Callable[[World], dict[str, Any]]] = {
    "none": _nothing,
    "state": _nothing,
    "state_dict": _nothing,
    "image": _image,
    "rgbd": _rgbd,
    "rgbd+robot_seg": lambda world: _rgbd(world, robot_seg=True),
    "pointcloud": _pointcloud,
    "pointcloud+robot_seg": lambda world: _pointcloud(world, robot_seg=True),
}


def flatten(observation: dict[str, Any]) -> Array:
    """All numbers of nested dictionaries in their order, as one float32 vector."""
    parts = _leaves(observation)
    return np.concatenate(parts, axis=None, dtype=np.float32) if parts else np.zeros(0, np.float32)


def _leaves(observation: dict[str, Any]) -> list[Any]:
    leaves: list[Any] = []
    for value in observation.values():
        leaves += _leaves(value) if isinstance(value, dict) else [value]
    return leaves


def single_precision(observation: dict[str, Any]) -> dict[str, Any]:
    """A copy in which floats are float32."""
    result: dict[str, Any] = {}
    for name, value in observation.items():
        if isinstance(value, dict):
            result[name] = single_precision(value)
        else:
            value = np.asarray(value)
            result[name] = value.astype(np.float32) if value.dtype == np.float64 else value
    return result
