"""How fast are steps with pictures, and how much memory do they take, against one renderer in every process?

Two worker processes hold all environments of PickCube; their pictures lie in shared memory. The peer is Gymnasium's
AsyncVectorEnv over the same task, a process for each environment, which draws with a renderer of its own.
"""

from __future__ import annotations

import ctypes.util
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if sys.platform == "linux":  # OpenGL without a screen; MuJoCo asks for it when it is imported
    _known = [name for name in ("EGL", "OSMesa") if ctypes.util.find_library(name)]
    os.environ.setdefault("MUJOCO_GL", _known[0].lower() if _known else "disable")

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, VectorEnv

from reprise.envs.maniskill import ManiSkillWorld, MujocoRenderer, make_task
from reprise.envs.vector import make_vector

FAMILY = "PickCube"


@dataclass(frozen=True)
class Settings:
    obs_mode: str = "rgbd"  # or "state", nothing drawn
    opengl: bool = False  # the peer draws with MuJoCo's OpenGL renderer instead of our ray caster
    environments: int = 8  # of each side
    workers: int = 2  # processes of ours
    image_size: int = 64  # pixels, height and width
    steps: int = 2  # of all environments, in a timed call


def measure(trial: Any) -> dict[str, float]:
    """Step both sides in alternation; then compare what memory their processes have for themselves."""
    s = trial.settings
    # The lab's own processes are daemons, which may have no children; ours end when this process does.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    if s.opengl:
        MujocoRenderer()  # where there is no OpenGL, this says so in one sentence, and the other arms still run
    options: dict[str, Any] = {"obs_mode": s.obs_mode, "control_mode": "pd_ee_delta_pose"}
    if s.obs_mode != "state":
        options["image_size"] = (s.image_size, s.image_size)
    theirs = AsyncVectorEnv([partial(make_single, s.opengl, **options)] * s.environments, context="forkserver")
    ours = make_vector(ManiSkillWorld, s.environments, s.workers, family=FAMILY, **options)
    try:
        candidates = {"ours": stepping(ours, s.steps, trial.seed), "theirs": stepping(theirs, s.steps, trial.seed)}
        result = trial.compare_speed(candidates, tolerance=None)
        metrics = {"speedup": result.ratio, "self_ratio": result.self_ratio}
        for side, seconds in result.medians.items():
            metrics[f"steps_per_second[{side}]"] = s.environments * s.steps / seconds
        memory = [private_bytes(env) for env in (ours, theirs)]
        if all(memory):
            metrics["memory"] = memory[1] / memory[0]
        return metrics
    finally:
        ours.close()
        theirs.close()


def make_single(opengl: bool, **options: Any) -> gymnasium.Env:
    """PickCube, drawn by the ray caster or by OpenGL."""
    if opengl:
        options["renderer"] = MujocoRenderer()
    return make_task(FAMILY, **options)


def stepping(env: VectorEnv, steps: int, seed: int) -> Callable[[], None]:
    """A function that takes some steps of a vector environment with actions drawn once."""
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)  # type: ignore[misc]
    env.reset(seed=seed)

    def step() -> None:
        for action in actions:
            env.step(action)

    return step


def private_bytes(env: Any) -> int:
    """Memory that the processes of a vector environment share with nobody; 0 where the system does not tell."""
    total = 0
    for process in env.unwrapped.processes if hasattr(env.unwrapped, "processes") else env.unwrapped._processes:
        file = Path(f"/proc/{process.pid}/smaps_rollup")
        if not file.exists():
            return 0
        lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
        total += sum(1024 * int(words[1]) for words in lines if words[0] in ("Private_Clean:", "Private_Dirty:"))
    return total
