"""Manipulation with pictures and without, against one renderer in every process and against the bare physics.

OpenGL without a screen comes from Debian's libosmesa6 or libegl1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium
import mujoco
import mujoco.rollout
import numpy as np

from benchmarks.table import Row, absent, compare
from reprise.envs.maniskill import make_world
from reprise.papers.maniskill2.throughput import make_single, private_bytes, stepping

COUNT, WORKERS, STEPS = 8, 2, 4  # environments, our processes, and steps in a call
PICTURES: dict[str, Any] = {"obs_mode": "rgbd", "image_size": (64, 64)}
STATES: dict[str, Any] = {"obs_mode": "state"}


def rows() -> Iterator[Row]:
    """PickCube with colour and depth of two cameras, then with states alone, then against the physics of one core."""
    yield from _processes(PICTURES, "64x64 colour and depth of two cameras", True, "a mujoco.Renderer in each process")
    yield from _processes(PICTURES, "64x64 colour and depth of two cameras", False, "a ray caster in each process")
    yield from _processes(STATES, "states", False, "a process for each environment")
    world = gymnasium.make_vec("reprise/PickCube-v0", COUNT, **STATES)
    work = f"PickCube, states, {COUNT} environments, {STEPS} steps, 1 process"
    yield from compare(work, _to_and_fro(world), {"mujoco.rollout alone": _rollout()}, tolerance=None)


def _processes(options: dict[str, Any], what: str, opengl: bool, how: str) -> Iterator[Row]:
    work, peer = f"PickCube, {what}, {COUNT} environments, {STEPS} steps, {WORKERS} workers", f"AsyncVectorEnv, {how}"
    try:
        makers = [partial(make_single, opengl, **options)] * COUNT
        theirs = gymnasium.vector.AsyncVectorEnv(makers, context="forkserver")  # OpenGL does not survive a fork
    except Exception as error:  # whatever a machine without OpenGL says
        yield from absent(work, peer, str(error))
        return
    ours = gymnasium.make_vec("reprise/PickCube-v0", COUNT, workers=WORKERS, **options)
    yield from compare(work, stepping(ours, STEPS, 0), {peer: stepping(theirs, STEPS, 0)}, tolerance=None)
    sizes = [private_bytes(env) / 2**20 for env in (ours, theirs)]
    note = f"{sizes[0]:.0f} MB in {WORKERS} processes, {sizes[1]:.0f} MB in {COUNT}"
    yield Row(f"{work}: memory that is not shared", peer, note=note)
    ours.close()
    theirs.close()


def _to_and_fro(world: gymnasium.vector.VectorEnv) -> Callable[[], None]:
    """Steps and their opposites: in work that is repeated, an arm that always moves the same way gets stuck."""
    half = np.random.default_rng(0).uniform(-1, 1, (STEPS // 2, *world.action_space.shape)).astype(np.float32)  # type: ignore[misc]
    actions = np.concatenate([half, -half])
    world.reset(seed=0)

    def step() -> None:
        for action in actions:
            world.step(action)

    return step


def _rollout() -> Callable[[], Any]:
    """The same number of physics steps in one call, nobody driving the robot and nothing observed."""
    world = make_world("PickCube")
    kind = mujoco.mjtState.mjSTATE_FULLPHYSICS
    state = np.empty((COUNT, mujoco.mj_stateSize(world.model, kind)))
    for i in range(COUNT):
        world.reset(i)
        mujoco.mj_getState(world.model, world.data, state[i], kind)
    data, pool = mujoco.MjData(world.model), mujoco.rollout.Rollout(nthread=0)
    return lambda: pool.rollout(world.model, data, state, nstep=STEPS * world.substeps)
