"""How often the scripted experts of the families succeed, and what an episode takes: nobody else's to compare with."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.table import Row
from reprise.envs.maniskill import EXPERTS, make_world, run_expert

EPISODES, FIRST_SEED = 100, 1000
ASKED = 0.9  # of episodes, of every family


def rows() -> Iterator[Row]:
    """Each family over a hundred seeds."""
    for family in EXPERTS:
        world = make_world(family, control_mode="pd_joint_pos", obs_mode="none")
        start, successes = time.perf_counter(), 0
        for seed in range(FIRST_SEED, FIRST_SEED + EPISODES):
            world.reset(seed)
            successes += run_expert(world)
        seconds = (time.perf_counter() - start) / EPISODES
        verdict = "" if successes >= ASKED * EPISODES else f", fewer than {ASKED:.0%}"
        note = f"{successes} of {EPISODES} succeed{verdict}; {seconds:.2f} s an episode"
        yield Row(f"{family}: the expert", "none", f"{EPISODES} episodes", note=note)
