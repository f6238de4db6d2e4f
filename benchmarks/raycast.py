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
QUALITY = {  # of OpenGL: what the model says and what the scene leaves out
    "defaults": ("", ()),
    "shadows": ('<quality offsamples="0" shadowsize="512"/>', ("REFLECTION", "SKYBOX", "HAZE")),
    "cheapest": ('<quality offsamples="0" shadowsize="0"/>', ("SHADOW", "REFLECTION", "SKYBOX", "HAZE")),
}
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


def scenes(quality: str = "cheapest") -> tuple[mujoco.MjModel, list[mujoco.MjData]]:
    """A table with a post and 12 free bodies on a chequered floor, 15 geoms, in several states."""
    generator = np.random.default_rng(0)
    bodies = ""
    for i in range(12):
        kind = list(SIZES)[i % 4]
        rgb = " ".join(f"{part:.2f}" for part in generator.uniform(0.2, 0.9, 3))
        bodies += f'<body><freejoint/><geom type="{kind}" size="{SIZES[kind]}" rgba="{rgb} 1"/></body>'
    reflectance, shadow = 0.2 if quality == "defaults" else 0, "false" if quality == "cheapest" else "true"
    model = mujoco.MjModel.from_xml_string(
        SCENE.format(bodies=bodies, quality=QUALITY[quality][0], reflectance=reflectance, shadow=shadow)
    )
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
    """Colour alone, then with shadows, against OpenGL; with depth and ids against MuJoCo's rays."""
    work = f"{SCENES} pictures of 15 geoms"
    model, states = scenes()
    for pixels in (32, 64, 128):
        size = f"{pixels}x{pixels}"
        plain = _ours(pixels, states)
        shaded = _ours(pixels, states, shadows=True)
        everything = _ours(pixels, states, channels=("rgb", "depth", "geom"))
        rays = {"mj_multiRay, shaded in NumPy": _multi_ray(model, states, pixels)}
        try:
            cheapest, shadows, defaults = (_opengl(pixels, quality) for quality in ("cheapest", "shadows", "defaults"))
        except Exception as error:  # whatever a machine without OpenGL says
            yield from absent(work, "mujoco.Renderer", f"no OpenGL here: {error}", size)
        else:
            name = f"mujoco.Renderer ({os.environ['MUJOCO_GL']})"
            yield from compare(work, plain, {name: cheapest}, size=size, tolerance=None)
            yield from compare(
                f"{work}, shadows", shaded, {name: shadows}, defaults={name: defaults}, size=size, tolerance=None
            )
        yield from compare(f"{work}, with depth and ids", everything, rays, size=size, tolerance=None)


def _ours(pixels: int, states: list[mujoco.MjData], **options: Any) -> Callable[[], Any]:
    caster = RayCaster(scenes()[0], pixels, pixels, **options)
    poses, out = Poses.of(states), caster.buffers(SCENES)
    return lambda: caster.render(poses, out)


def _opengl(pixels: int, quality: str) -> Callable[[], Any]:
    model, states = scenes(quality)
    renderer = mujoco.Renderer(model, pixels, pixels)
    out = np.empty((SCENES, pixels, pixels, 3), np.uint8)
    for flag in QUALITY[quality][1]:
        renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0

    def draw() -> np.ndarray:
        for data, picture in zip(states, out, strict=True):
            renderer.update_scene(data, "front")
            renderer.render(out=picture)
        return out

    return draw


def _multi_ray(model: mujoco.MjModel, states: list[mujoco.MjData], pixels: int) -> Callable[[], Any]:
    turn, eye = states[0].cam_xmat[0].reshape(3, 3), states[0].cam_xpos[0].copy()
    rays = np.ascontiguousarray((RayCaster(model, pixels, pixels).rays() @ turn.T).reshape(-1))
    ids, distance, normal = np.empty(pixels**2, np.int32), np.empty(pixels**2), np.empty(3 * pixels**2)
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
