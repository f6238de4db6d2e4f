"""The drives: tau as defined, its limit, stability on light links, and the compiled loop against the plain one."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from reprise.envs.maniskill import drives as module
from reprise.envs.maniskill.drives import Drives

XML = """<mujoco><option integrator="implicitfast" timestep=".002"/><worldbody>
<body><joint name="a" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".02" mass="{mass}"/>
<body pos=".3 0 0"><joint name="b" axis="0 0 1"/><geom type="capsule" fromto="0 0 0 .2 0 0" size=".02" mass="{mass}"/>
</body></body></worldbody></mujoco>"""


def two_links(mass=1.0, **gains):
    model = mujoco.MjModel.from_xml_string(XML.format(mass=mass))
    drives = Drives(model, mujoco.MjData(model), ["a", "b"])
    return drives, drives.group(["a", "b"], **gains)


def test_gravity_moves_nothing():
    drives, group = two_links(stiffness=0.0, damping=0.0)
    drives.advance(500)
    np.testing.assert_allclose(group.qpos, 0, atol=1e-12)


def test_the_force_reaches_the_joint():
    """M dv/dt = tau, with the damping at the new velocity."""
    drives, group = two_links()
    drives.qvel[:] = 0.2, -0.1
    group.set_targets(np.array([0.02, -0.03]), np.array([0.1, 0.3]))
    mujoco.mj_forward(drives.model, drives.data)
    M = np.empty((2, 2))
    mujoco.mj_fullM(drives.model, drives.data, M)
    before = drives.qvel.copy()
    drives.advance(1)
    change = drives.qvel - before
    implicit = 1000 * np.array([0.02, -0.03]) + 100 * (np.array([0.1, 0.3]) - drives.qvel)
    np.testing.assert_allclose(M @ change / 0.002, implicit, rtol=1e-6)


def test_the_force_limit():
    drives, group = two_links(damping=0.0, force_limit=5.0)
    group.set_targets(np.array([1.0, -1.0]))
    np.testing.assert_allclose(group.torque, [5, -5])
    mujoco.mj_forward(drives.model, drives.data)
    M = np.empty((2, 2))
    mujoco.mj_fullM(drives.model, drives.data, M)
    drives.advance(1)
    np.testing.assert_allclose(M @ drives.qvel / 0.002, [5, -5], rtol=1e-6)


@pytest.mark.parametrize("mass", [1e-3, 1e-2, 10.0])
def test_light_links_stay_stable_at_the_limit(mass):
    """Where an explicit drive with its force clipped would swing between the limits."""
    drives, group = two_links(mass, stiffness=0.0)
    group.set_targets(0.0, np.array([1.0, -1.0]))
    drives.advance(300)
    np.testing.assert_allclose(drives.qvel, [1, -1], atol=2e-3)


def test_compiled_and_plain_loop_agree_to_the_last_bit(monkeypatch):
    assert module._advance is not None
    states = []
    for advance in (module._advance, None):
        monkeypatch.setattr(module, "_advance", advance)
        drives, group = two_links()
        group.set_targets(np.array([0.5, -0.3]))
        drives.advance(100)
        states.append(np.concatenate([drives.qpos, drives.qvel]))
    assert np.array_equal(*states)


def test_groups_without_gaps():
    drives, _ = two_links()
    with pytest.raises(ValueError, match="b, a do not follow one another in a, b"):
        drives.group(["b", "a"])
