"""What the tests of worlds share."""

from __future__ import annotations

import mujoco
import pytest

from reprise.envs import RayCaster


@pytest.fixture(scope="session", autouse=True)
def compiled():
    """Compile the ray caster before the time of a test is taken; Numba keeps it on disk after that."""
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><light pos="0 0 3"/><camera name="eye" pos="0 0 2"/><geom type="plane" size="1 1 1"/>'
        "</worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    RayCaster(model, 8, 8, cameras=["eye"]).render(data)
