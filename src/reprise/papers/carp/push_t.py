"""Push-T as the policies see it, the corners of the T and the finger, and demonstrations of it."""

from __future__ import annotations

import numpy as np

from reprise.data import Episodes, episodes
from reprise.envs import PushT, keypoints

__all__ = ["demonstrations", "observed"]


def observed(poses: np.ndarray) -> np.ndarray:
    """(N, 5) finger x, y, block x, y, angle to what ``PushT(obs_mode="keypoints")`` shows, (N, 18)."""
    return np.concatenate([keypoints(poses[:, 2:]).reshape(len(poses), 16), poses[:, :2]], 1).astype(np.float32)


def demonstrations(people: bool, seed: int) -> Episodes:
    """What people did, or for the smoke run what a finger does that swings over the board."""
    if people:
        human = episodes.load("pusht", cameras=())
        return Episodes({"state": observed(human.observations["state"])}, human.actions, human.ends)
    env, rng = PushT(6, obs_mode="keypoints"), np.random.default_rng(seed)
    state, _ = env.reset(seed=seed)
    phase, speed, seen, done = rng.uniform(0, 6, (6, 2)), rng.uniform(0.05, 0.2, (6, 2)), [], []
    for step in range(40):
        seen.append(state)
        done.append((256 + 180 * np.sin(phase + speed * step)).astype(np.float32))
        state = env.step(done[-1])[0]
    swings = zip(np.stack(seen, 1), np.stack(done, 1), strict=True)
    return Episodes.of([{"observations": {"state": states}, "actions": actions} for states, actions in swings])
