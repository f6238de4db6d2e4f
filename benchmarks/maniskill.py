"""Manipulation with pictures and without, against one renderer in every process and against the bare physics.

OpenGL without a screen comes from Debian's libosmesa6 or libegl1; its own threads are off, the processes have none to
spare. Processes are forked where that is allowed, which shares the memory that was there before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

os.environ.setdefault("LP_NUM_THREADS", "0")

import gymnasium
import mujoco
import mujoco.rollout
import numpy as np

from benchmarks.table import Row, absent, compare
from reprise.envs.maniskill import make_world
from reprise.papers.maniskill2.throughput import make_single, private_bytes, stepping

WORKERS, STEPS = 2, 4  # our processes, and steps in a call
PICTURES: dict[str, Any] = {"obs_mode": "rgbd", "image_size": (64, 64)}
STATES: dict[str, Any] = {"obs_mode": "state"}


def rows() -> Iterator[Row]:
    """PickCube with colour and depth of two cameras, then with states alone, then against the physics of one core."""
    pictures = "PickCube, 64x64 colour and depth of two cameras"
    for count in (4, 8, 16):
        yield from _processes(count, pictures, "a mujoco.Renderer in each process", PICTURES, opengl=True)
        yield from _processes(count, pictures, "a ray caster in each process", PICTURES)
        yield from _processes(count, "PickCube, states", "a process for each environment", STATES)
        world = gymnasium.make_vec("reprise/PickCube-v0", count, **STATES)
        work, limits = f"PickCube, states, {STEPS} steps, 1 process", {"mujoco.rollout alone": _rollout(count)}
        yield from compare(work, _to_and_fro(world), limits=limits, size=f"{count} environments", tolerance=None)


def _processes(count: int, what: str, how: str, options: dict[str, Any], opengl: bool = False) -> Iterator[Row]:
    work, peer, size = f"{what}, {STEPS} steps, {WORKERS} workers", f"AsyncVectorEnv, {how}", f"{count} environments"
    try:
        makers = [partial(make_single, opengl, **options)] * count
        start = {"copy": False, "context": "forkserver"}  # forks of a process that draws may hang
        theirs = gymnasium.vector.AsyncVectorEnv(makers, **start)
    except Exception as error:  # whatever a machine without OpenGL says
        yield from absent(work, peer, str(error), size)
        return
    ours = gymnasium.make_vec("reprise/PickCube-v0", count, workers=WORKERS, **options)
    yield from compare(work, stepping(ours, STEPS, 0), {peer: stepping(theirs, STEPS, 0)}, size=size, tolerance=None)
    sizes = [private_bytes(env) / 2**20 for env in (ours, theirs)]
    note = f"{sizes[0]:.0f} MB in {WORKERS} processes, {sizes[1]:.0f} MB in {count}"
    yield Row(f"{what}: memory that is not shared", peer, size, note=note)
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


def _rollout(count: int) -> Callable[[], Any]:
    """The same number of physics steps in one call, nobody driving the robot and nothing observed."""
    world = make_world("PickCube")
    kind = mujoco.mjtState.mjSTATE_FULLPHYSICS
    state = np.empty((count, mujoco.mj_stateSize(world.model, kind)))
    for i in range(count):
        world.reset(i)
        mujoco.mj_getState(world.model, world.data, state[i], kind)
    data, pool = mujoco.MjData(world.model), mujoco.rollout.Rollout(nthread=0)
    return lambda: pool.rollout(world.model, data, state, nstep=STEPS * world.substeps)
