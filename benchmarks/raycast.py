"""Pictures of MuJoCo scenes against OpenGL in software and MuJoCo's own rays.

OpenGL comes from Debian's libosmesa6 or libegl1; it draws on the calling thread alone, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("LP_NUM_THREADS", "0")  # the software OpenGL's own threads

import mujoco
import numpy as np

from benchmarks.table import Row, absent, compare
from reprise.envs import Poses, RayCaster

SCENES = 8  # drawn in one call
SIZES = {"box": ".035 .03 .025", "sphere": ".035", "cylinder": ".03 .035", "capsule": ".02 .03"}
CHEAP = '<quality offsamples="0" shadowsize="0"/>'
SCENE = """
<mujoco>
  <visual>{quality}<headlight ambient=".4 .4 .4" diffuse=".4 .4 .4"/></visual>
  <asset>
    <texture name="tiles" type="2d" builtin="checker" rgb1=".75 .76 .78" rgb2=".62 .64 .67" width="64" height="64"/>
    <material name="tiles" texture="tiles" texrepeat="2 2" texuniform="true" reflectance="{reflectance}"/>
  </asset>
  <worldbody>
    <light directional="true" dir="-.3 .4 -1" pos="0 0 3" castshadow="{shadow}"/>
    <camera name="front" pos="0 -1.2 1.6" xyaxes="1 0 0 0 .55 .83"/>
    <geom type="plane" size="0 0 .1" material="tiles"/>
    <geom type="box" size=".5 .5 .4" pos="0 0 .4" rgba=".72 .58 .42 1"/>
    <geom type="cylinder" size=".02 .25" pos=".42 .42 1.05" rgba=".3 .3 .35 1"/>
    {bodies}
  </worldbody>
</mujoco>
"""


def scenes(cheap: bool = False) -> tuple[mujoco.MjModel, list[mujoco.MjData]]:
    """A table with a post and 12 free bodies on a chequered floor, 15 geoms, in several states."""
    generator = np.random.default_rng(0)
    bodies = ""
    for i in range(12):
        kind = list(SIZES)[i % 4]
        rgb = " ".join(f"{part:.2f}" for part in generator.uniform(0.2, 0.9, 3))
        bodies += f'<body><freejoint/><geom type="{kind}" size="{SIZES[kind]}" rgba="{rgb} 1"/></body>'
    quality = CHEAP if cheap else ""
    options = {"quality": quality, "shadow": "false" if cheap else "true", "reflectance": 0 if cheap else 0.2}
    model = mujoco.MjModel.from_xml_string(SCENE.format(bodies=bodies, **options))
    states = []
    for _ in range(SCENES):
        data = mujoco.MjData(model)
        poses = data.qpos.reshape(12, 7)
        poses[:, :2], poses[:, 2] = generator.uniform(-0.4, 0.4, (12, 2)), 0.84
        poses[:, 3:] = generator.normal(size=(12, 4))
        mujoco.mj_normalizeQuat(model, data.qpos)
        mujoco.mj_forward(model, data)
        states.append(data)
    return model, states


def rows() -> Iterator[Row]:
    """Colour, by OpenGL as it comes and as cheap as it gets; ids, depth and colour by MuJoCo's rays."""
    model, states = scenes()
    poses = Poses.of(states)
    for size in (64, 128):
        work = f"{SCENES} pictures of 15 geoms, {size}x{size}"
        caster = RayCaster(model, size, size)
        drawn = RayCaster(model, size, size, channels=("rgb", "depth", "geom"))
        shaded = RayCaster(model, size, size, shadows=True)
        out, all_out, shaded_out = caster.buffers(SCENES), drawn.buffers(SCENES), shaded.buffers(SCENES)

        def colour(caster: RayCaster = caster, out: Any = out) -> Any:
            return caster.render(poses, out)

        def everything(caster: RayCaster = drawn, out: Any = all_out) -> Any:
            return caster.render(poses, out)

        def with_shadows(caster: RayCaster = shaded, out: Any = shaded_out) -> Any:
            return caster.render(poses, out)

        try:
            peers = {cheap: _opengl(size, cheap) for cheap in (False, True)}
        except Exception as error:  # whatever a machine without OpenGL says
            yield from absent(work, "mujoco.Renderer", f"no OpenGL here: {error}")
        else:
            name = f"mujoco.Renderer ({os.environ['MUJOCO_GL']})"
            yield from compare(f"{work}, shadows", with_shadows, {f"{name}, defaults": peers[False]}, tolerance=None)
            yield from compare(work, colour, {f"{name}, cheapest settings": peers[True]}, tolerance=None)
        rays = {"mj_multiRay, shaded in NumPy": _multi_ray(model, states, caster, size)}
        yield from compare(f"{work}, with depth and ids", everything, rays, tolerance=None)


def _opengl(size: int, cheap: bool) -> Callable[[], Any]:
    model, states = scenes(cheap)
    renderer = mujoco.Renderer(model, size, size)
    out = np.empty((SCENES, size, size, 3), np.uint8)
    if cheap:
        for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE"):
            renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0

    def draw() -> np.ndarray:
        for data, picture in zip(states, out, strict=True):
            renderer.update_scene(data, "front")
            renderer.render(out=picture)
        return out

    return draw


def _multi_ray(model: mujoco.MjModel, states: list[mujoco.MjData], caster: RayCaster, size: int) -> Callable[[], Any]:
    turn, eye = states[0].cam_xmat[0].reshape(3, 3), states[0].cam_xpos[0].copy()
    rays = np.ascontiguousarray((caster.rays() @ turn.T).reshape(-1))
    ids, distance, normal = np.empty(size * size, np.int32), np.empty(size * size), np.empty(3 * size * size)
    light = np.array([0.3, -0.4, 1.0]) / np.linalg.norm([0.3, -0.4, 1.0])
    colours = np.concatenate([255 * model.geom_rgba[:, :3], [[230, 235, 240]]])

    def draw() -> list[np.ndarray]:
        pictures = []
        for data in states:
            mujoco.mj_multiRay(model, data, eye, rays, None, True, -1, ids, distance, normal, len(ids), 1e10)
            bright = 0.55 + 0.55 * np.maximum(normal.reshape(-1, 3) @ light, 0)
            bright[ids < 0] = 1
            pictures.append(np.minimum(colours[ids] * bright[:, None], 255).astype(np.uint8))
        return pictures

    return draw
