"""An analytic ray caster for MuJoCo scenes: pictures without OpenGL, tens of thousands a second on one core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np

from reprise.envs.raycast import kernels
from reprise.envs.raycast.look import Look

__all__ = ["CHANNELS", "Camera", "Poses", "RayCaster"]

CHANNELS = {"rgb": (np.uint8, (3,)), "depth": (np.float32, ()), "geom": (np.int32, ()), "body": (np.int32, ())}
DRAWN = ("plane", "sphere", "capsule", "ellipsoid", "cylinder", "box", "mesh")


@dataclass(frozen=True)
class Camera:
    """A camera that stands still in the world.

    Attributes:
        position: metres.
        target: the point it looks at.
        fovy: vertical field of view in degrees.
        up: what is up in the picture.
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)
    fovy: float = 45.0
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) columns right, up, back, as MuJoCo's ``cam_xmat``.

        Raises:
            ValueError: it looks along ``up``, or at itself.
        """
        back = np.subtract(self.position, self.target)
        right = np.cross(self.up, back)
        if not np.linalg.norm(right) > 1e-9 * np.linalg.norm(back):
            raise ValueError(
                f"a camera at {self.position} that looks at {self.target} needs another `up` than {self.up}"
            )
        back, right = back / np.linalg.norm(back), right / np.linalg.norm(right)
        return np.stack([right, np.cross(back, right), back], 1)


class Poses(NamedTuple):
    """Where geoms and the model's cameras are, for N environments; the arrays that MjData has, stacked."""

    geom_xpos: np.ndarray  # (N, G, 3)
    geom_xmat: np.ndarray  # (N, G, 9)
    cam_xpos: np.ndarray  # (N, C, 3), all cameras of the model
    cam_xmat: np.ndarray  # (N, C, 9)

    @classmethod
    def of(cls, data: Sequence[mujoco.MjData]) -> Poses:
        """Copy them from environments on which mj_forward, or mj_kinematics and mj_camlight, was called."""
        return cls(*(np.stack([getattr(d, name) for d in data]) for name in cls._fields))


class RayCaster:
    """Draws planes, spheres, capsules, ellipsoids, cylinders, boxes and meshes of a MuJoCo model.

    Every pixel's ray is intersected exactly with the geoms whose screen rectangle holds it, so depth and ids agree with
    ``mj_ray``; colours come from one distant light, an ambient term that is a little brighter from above, and
    procedural patterns. Pictures do not depend on each other: however a batch is split, it has the same bits.
    Transparent geoms are drawn opaque, wholly transparent ones not at all; sites, tendons and skins are not drawn. A
    plane is seen from its front only. Drawing releases the GIL; threads may share a caster.

    Args:
        model: the scene.
        width, height: of the pictures.
        cameras: names of the model's cameras, or :class:`Camera`; None takes all of the model, or a view of the whole
            scene if it has none.
        channels: what :meth:`render` draws, out of "rgb" (H, W, 3) bytes, "depth" (H, W) planar depth in metres (0
            where nothing is), "geom" and "body" (H, W) ids (-1 where nothing is).
        shadows: whether geoms cast them, meshes as ellipsoids; this takes about as long again.
        groups: geom groups that are drawn; MuJoCo's viewer shows 0, 1 and 2.
        hide: names of geoms that are left out.
        look: colours, patterns, light; by default what the model's materials say.

    Raises:
        ValueError: an unknown camera, channel or geom name, a geom type that is not drawn (height field, SDF), an
            orthographic camera, a size below 1.

    Example:
        >>> import mujoco
        >>> xml = '<mujoco><worldbody><geom type="box" size=".1 .2 .3"/></worldbody></mujoco>'
        >>> model = mujoco.MjModel.from_xml_string(xml)
        >>> data = mujoco.MjData(model)
        >>> mujoco.mj_forward(model, data)
        >>> caster = RayCaster(model, 64, 48, [Camera((1, 0, 0))], channels=("rgb", "depth"))
        >>> pictures = caster.render(data)
        >>> pictures["rgb"].shape, round(float(pictures["depth"][0, 24, 32]), 6)
        ((1, 48, 64, 3), 0.9)
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        width: int = 64,
        height: int = 64,
        cameras: Sequence[str | Camera] | None = None,
        *,
        channels: Sequence[str] = ("rgb",),
        shadows: bool = False,
        groups: Sequence[int] = (0, 1, 2),
        hide: Sequence[str] = (),
        look: Look | None = None,
    ) -> None:
        unknown = [name for name in channels if name not in CHANNELS]
        if unknown or not channels:
            raise ValueError(f"unknown channel {unknown or 'list ()'}; there are {', '.join(CHANNELS)}")
        if width < 1 or height < 1:
            raise ValueError(f"a picture has at least one pixel, not {width}x{height}")
        self.model, self.width, self.height = model, int(width), int(height)
        self.channels, self.shadows = tuple(channels), bool(shadows)
        self.look = Look.of(model) if look is None else look
        self._geoms = _geoms(model, groups, hide)
        self.cameras = self._default_cameras() if cameras is None else tuple(cameras)
        self._views = np.array([self._view(camera) for camera in self.cameras]).reshape(-1, 4)
        self._ids = [camera if isinstance(camera, Camera) else _camera_id(model, camera) for camera in self.cameras]
        spans = self._geoms.vertex_range
        self._longest = int((spans[:, 1] - spans[:, 0]).max(initial=0))
        self._own_look = self.look._arrays(model.ngeom, len(self.look.pattern))

    def buffers(self, environments: int) -> dict[str, np.ndarray]:
        """Arrays that :meth:`render` can fill again and again: (N, C, H, W, ...) for each channel."""
        shape = (environments, len(self.cameras), self.height, self.width)
        return {name: np.empty(shape + CHANNELS[name][1], CHANNELS[name][0]) for name in self.channels}

    def render(
        self,
        scene: mujoco.MjData | Sequence[mujoco.MjData] | Poses,
        out: Mapping[str, np.ndarray] | None = None,
        look: Look | None = None,
    ) -> dict[str, np.ndarray]:
        """Draw one environment, or a batch of them, with every camera.

        Args:
            scene: one environment, several, or their stacked poses.
            out: arrays of :meth:`buffers` to fill (or slices of larger ones).
            look: of this batch; one for all, or one for each environment.

        Returns:
            Channel to array, (N, C, H, W, ...), or (C, H, W, ...) for a single MjData.

        Raises:
            ValueError: poses, look or ``out`` do not fit the model or each other, or a pose is not finite.
        """
        single = isinstance(scene, mujoco.MjData)
        poses = scene if isinstance(scene, Poses) else Poses.of([scene] if single else scene)
        count, geoms = len(poses.geom_xpos), self.model.ngeom
        if poses.geom_xpos.shape != (count, geoms, 3) or poses.geom_xmat.size != 9 * geoms * count:
            raise ValueError(
                f"geom_xpos and geom_xmat must be (N, {geoms}, 3) and (N, {geoms}, 9) for this model, not "
                f"{poses.geom_xpos.shape} and {poses.geom_xmat.shape}"
            )
        eyes, turns = self._place(poses, count)
        position = np.ascontiguousarray(poses.geom_xpos, np.float64)
        rotation = np.ascontiguousarray(poses.geom_xmat, np.float64).reshape(count, geoms, 3, 3)
        if look is None and len(self.look.pattern) not in (1, count):
            raise ValueError(f"the caster's look is of {len(self.look.pattern)} environments, not {count}")
        if not (np.isfinite(position).all() and np.isfinite(rotation).all() and np.isfinite(eyes).all()):
            raise ValueError("a pose is not finite; the simulation has diverged, or mj_forward was not called")
        paint, light = self._own_look if look is None else look._arrays(geoms, count)
        arrays = self._checked(out, count, single)
        everything = []
        for name, (dtype, last) in CHANNELS.items():
            batch = arrays.get(name)
            everything.append(np.empty((0, 0, 0, 0, *last), dtype) if batch is None else batch)
        wants = tuple(name in arrays for name in CHANNELS)
        kernels.draw(
            self._geoms, paint, light, position, rotation, eyes, turns, self._views, self.shadows or None,
            self._longest,
            wants, *everything,
        )  # fmt: skip
        return {name: array[0] if single else array for name, array in arrays.items()}

    def rays(self, camera: int = 0) -> np.ndarray:
        """(H, W, 3) the rays of a camera in its own frame; times the depth they are the points that are seen."""
        x0, dx, y0, dy = self._views[camera]
        x, y = np.meshgrid(x0 + dx * np.arange(self.width), y0 + dy * np.arange(self.height))
        return np.stack([x, y, -np.ones_like(x)], -1)

    def _place(self, poses: Poses, count: int) -> tuple[np.ndarray, np.ndarray]:
        eyes = np.empty((count, len(self._ids), 3))
        turns = np.empty((count, len(self._ids), 3, 3))
        for c, camera in enumerate(self._ids):
            if isinstance(camera, Camera):
                eyes[:, c], turns[:, c] = camera.position, camera.rotation
            else:
                eyes[:, c] = poses.cam_xpos[:, camera]
                turns[:, c] = poses.cam_xmat[:, camera].reshape(count, 3, 3)
        return eyes, turns

    def _checked(self, out: Mapping[str, np.ndarray] | None, count: int, single: bool) -> dict[str, np.ndarray]:
        if out is None:
            return self.buffers(count)
        if set(out) != set(self.channels):
            raise ValueError(f"out must hold {', '.join(self.channels)}, not {', '.join(out)}")
        arrays = {}
        for name, array in out.items():
            dtype, last = CHANNELS[name]
            shape = (count, len(self.cameras), self.height, self.width, *last)
            batch = array[None] if single and array.ndim == len(shape) - 1 else array
            if batch.shape != shape or batch.dtype != dtype or not batch.flags.c_contiguous:
                raise ValueError(
                    f"out[{name!r}] must be contiguous {np.dtype(dtype)} of shape {shape}, not {array.dtype} of "
                    f"{array.shape}"
                )
            arrays[name] = batch
        return arrays

    def _default_cameras(self) -> tuple[str | Camera, ...]:
        names = [self.model.camera(i).name for i in range(self.model.ncam)]
        if names:
            return tuple(names)
        centre, extent = self.model.stat.center, self.model.stat.extent
        return (Camera(tuple(centre + extent * np.array([0.9, -1.2, 1.0])), tuple(centre)),)

    def _view(self, camera: str | Camera) -> tuple[float, float, float, float]:
        width, height = self.width, self.height
        if isinstance(camera, str):
            i = _camera_id(self.model, camera)
            if self.model.cam_projection[i] != mujoco.mjtProjection.mjPROJ_PERSPECTIVE:
                raise ValueError(f"camera {camera!r} is orthographic; only perspective ones are drawn")
            if self.model.cam_sensorsize[i].any():  # focal lengths and principal point in metres on the sensor
                (fx, fy, cx, cy), (sw, sh) = self.model.cam_intrinsic[i], self.model.cam_sensorsize[i]
                dx, dy = sw / width / fx, sh / height / fy
                # The principal point has the sign of MuJoCo's own pictures; its camprojection sensor leaves it out.
                return dx * (0.5 - width / 2) + cx / fx, dx, dy * (height / 2 - 0.5) - cy / fy, -dy
        fovy = camera.fovy if isinstance(camera, Camera) else self.model.cam_fovy[_camera_id(self.model, camera)]
        step = 2 * np.tan(np.radians(fovy) / 2) / height
        return step * (0.5 - width / 2), step, step * (height / 2 - 0.5), -step


def _camera_id(model: mujoco.MjModel, name: str) -> int:
    i = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
    if i < 0:
        known = ", ".join(repr(model.camera(i).name) for i in range(model.ncam)) or "none"
        raise ValueError(f"the model has no camera {name!r}; it has {known}")
    return i


def _geoms(model: mujoco.MjModel, groups: Sequence[int], hide: Sequence[str]) -> kernels.Geoms:
    hidden = np.zeros(model.ngeom, bool)
    for name in hide:
        i = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, name)
        if i < 0:
            raise ValueError(f"the model has no geom {name!r} to hide")
        hidden[i] = True
    kind = model.geom_type.astype(np.int64)
    alpha = np.where(model.geom_matid < 0, model.geom_rgba[:, 3], 1.0)
    if model.nmat:
        with_material = model.geom_matid >= 0
        alpha[with_material] = model.mat_rgba[model.geom_matid[with_material], 3]
    visible = np.isin(model.geom_group, list(groups)) & (alpha > 0) & ~hidden
    for g in np.flatnonzero(visible):
        word = mujoco.mjtGeom(int(kind[g])).name.removeprefix("mjGEOM_").lower()
        if word not in DRAWN:
            raise ValueError(
                f"geom {model.geom(g).name or g} is a {word}, which is not drawn (only {', '.join(DRAWN)}); put it in "
                "another group or name it in `hide`"
            )
    size = model.geom_size.astype(np.float64).copy()
    centre, half = model.geom_aabb[:, :3].copy(), model.geom_aabb[:, 3:].copy()
    plane = kind == kernels.PLANE
    size[plane] = np.where(size[plane] > 0, size[plane], np.inf)
    endless = plane & np.isinf(size[:, :2]).any(1)
    centre[plane] = 0
    half[plane, :2], half[plane, 2] = size[plane, :2], 0.0
    half[endless] = np.inf
    vertices, faces = np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    vertex_range, face_range = np.zeros((2, model.ngeom, 2), np.int64)
    for g in np.flatnonzero(visible & (kind == kernels.MESH)):
        m = model.geom_dataid[g]
        first, count = model.mesh_vertadr[m], model.mesh_vertnum[m]
        vertex_range[g] = len(vertices), len(vertices) + count
        vertices = np.concatenate([vertices, model.mesh_vert[first : first + count]])
        first, count = model.mesh_faceadr[m], model.mesh_facenum[m]
        face_range[g] = len(faces), len(faces) + count
        faces = np.concatenate([faces, model.mesh_face[first : first + count]])
    return kernels.Geoms(
        kind, size, centre, half, visible, vertices, vertex_range, faces, face_range,
        model.geom_bodyid.astype(np.int32),
    )  # fmt: skip
