"""PickCube for small networks, and those who demonstrate it."""

from __future__ import annotations

import numpy as np
from gymnasium.vector import AutoresetMode

from reprise.envs.maniskill.sloppy import FINE, CubeInHand, sloppy_demonstrations


def test_what_is_seen_is_where_things_are():
    env = CubeInHand(3)
    seen, _ = env.reset(seed=0)
    assert seen in env.observation_space and env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    for row, world in zip(seen, env.worlds, strict=True):
        way = world.position("cube") - world.tcp()
        np.testing.assert_allclose(row[[0, 1]], [world.opening(), world.tcp()[2]], atol=1e-6)
        np.testing.assert_allclose(row[2:5], way, atol=1e-6)
        np.testing.assert_allclose(row[5:8], world.goal - world.position("cube"), atol=1e-6)
        np.testing.assert_allclose(row[8:11], np.clip(way / FINE, -1, 1), atol=1e-4)


def test_a_cube_turned_by_a_right_angle_looks_the_same():
    env = CubeInHand(1)
    env.reset(seed=0)
    looks = []
    for angle in (0.3, 0.3 + np.pi / 2):
        env.worlds[0].set_pose("cube", [0, 0, 0.02], [np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
        env.worlds[0]._forward()
        looks.append(env.observe(np.arange(1))[0, 14:])
    np.testing.assert_allclose(looks[0], [np.cos(1.2), np.sin(1.2)], atol=1e-6)
    np.testing.assert_allclose(looks[1], looks[0], atol=1e-6)


def test_good_aim_succeeds_and_bad_aim_does_not_always():
    good, bad = (
        sloppy_demonstrations(20, 0, sloppiness=sloppiness, failures=True, num_envs=20) for sloppiness in (0.0, 0.03)
    )
    assert (good.lengths < 60).all()
    assert 0 < (bad.lengths == 60).mean() < 1
