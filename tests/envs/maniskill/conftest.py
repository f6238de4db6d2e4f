"""A renderer for tests that need no OpenGL: one ray of MuJoCo's per pixel."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from reprise.envs.maniskill import make_world


@pytest.fixture(scope="session", autouse=True)
def compiled():
    """Compile what every test needs before their time is taken; it is kept on disk after that."""
    world = make_world("PickCube", obs_mode="rgbd", image_size=(8, 8))
    world.set_action(np.zeros(7))
    world.step()
    world.observe()


def cast(model, data, camera, height, width):
    """Colour, planar depth and geom ids, as a world's renderer gives them."""
    index = model.camera(camera).id
    R, eye = data.cam_xmat[index].reshape(3, 3), data.cam_xpos[index]
    half = np.tan(np.radians(model.cam_fovy[index]) / 2)
    x = (2 * (np.arange(width) + 0.5) / width - 1) * half * width / height
    y = (1 - 2 * (np.arange(height) + 0.5) / height) * half
    local = np.stack([*np.meshgrid(x, y), np.full((height, width), -1.0)], -1).reshape(-1, 3)
    length = np.linalg.norm(local, axis=1)
    rays = (local / length[:, None]) @ R.T
    ids, distances = np.empty(len(rays), np.int32), np.empty(len(rays))
    groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)  # goals are in group 3
    arguments = [model, data, eye, rays.ravel(), groups, 1, -1, ids, distances, None, len(rays), 20.0]
    mujoco.mj_multiRay(*arguments)
    depth = np.where(ids < 0, 0, distances / length).reshape(height, width)
    colour = np.where(ids[:, None] < 0, 0, 255 * model.geom_rgba[ids, :3]).astype(np.uint8)
    return colour.reshape(height, width, 3), depth, ids.reshape(height, width)


@pytest.fixture
def ray_renderer():
    return cast
