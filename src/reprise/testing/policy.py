"""Check a policy of your own: that it keeps what every policy of the library promises."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reprise.policies.observations import count_of, take

__all__ = ["check_policy"]


def check_policy(policy: Any, observation: Any, *, tolerance: float = 1e-5) -> None:
    """Check that a policy keeps what every policy promises.

    ``act`` returns finite actions (B, A); an environment's action depends on no other environment, and ``reset(mask)``
    disturbs only those of the mask; the same noise (or none) gives the same actions after a ``reset``; the observation
    is left as it was; another shape and NaN are refused with a ValueError. Where the policy has them: ``plan`` returns
    finite chunks (B, H, A), of which ``act`` plays the one for now; ``save`` and ``load`` bring back the same policy.

    Args:
        policy: has ``act(observation)``, and what else it has is checked. Its memory is lost.
        observation: one that it can act on, of at least 2 environments.
        tolerance: largest difference between actions that should agree, as a share of the largest.

    Raises:
        AssertionError: the first promise that is broken, in words.

    Example:
        >>> class Follow:
        ...     def act(self, observation):
        ...         if not np.isfinite(observation).all() or observation.shape[1:] != (4,):
        ...             raise ValueError("a finite (B, 4) is needed")
        ...         return observation[:, :2]
        >>> check_policy(Follow(), np.random.default_rng(0).normal(size=(3, 4)))
    """
    B = count_of(observation)
    assert B >= 2, "give an observation of at least two environments, so that they can be told apart"
    before = copy.deepcopy(observation)
    _reset(policy)
    actions = _act(policy, observation)
    assert actions.ndim == 2 and len(actions) == B, f"act must return ({B}, A), not {actions.shape}"
    assert np.isfinite(actions).all(), "act returns actions that are not finite"
    assert _same_tree(before, observation), "the policy changes the observation that it is given"
    close = _Close(tolerance * max(float(np.abs(actions).max()), 1e-12))

    _reset(policy)
    again = _act(policy, observation)
    close(actions, again, "after reset(), the same observation and noise must give the same actions")
    _check_plan(policy, observation, close)
    _check_independence(policy, observation, close)
    _check_files(policy, observation, close)
    for what, wrong in _spoiled(observation):
        _reset(policy)
        try:
            _act(policy, wrong)
        except ValueError:
            continue
        raise AssertionError(f"an observation with {what} must be refused with a ValueError")
    _reset(policy)


class _Close:
    def __init__(self, allowed: float) -> None:
        self.allowed = allowed

    def __call__(self, a: np.ndarray, b: np.ndarray, promise: str) -> None:
        assert a.shape == b.shape, f"{promise}, but the shapes are {a.shape} and {b.shape}"
        gap = float(np.abs(a - b).max()) if a.size else 0.0
        assert gap <= self.allowed, f"{promise}; they differ by {gap:g}"


def _act(policy: Any, observation: Any, seed: int = 0) -> np.ndarray:
    """What PyTorch's and NumPy's global generators give is the same for a seed."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    return np.asarray(policy.act(observation))


def _plan(policy: Any, observation: Any, noise: torch.Tensor | None) -> np.ndarray:
    torch.manual_seed(0)
    np.random.seed(0)
    return np.asarray(policy.plan(observation) if noise is None else policy.plan(observation, noise))


def _reset(policy: Any, mask: np.ndarray | None = None) -> None:
    if hasattr(policy, "reset"):
        policy.reset(mask)


def _check_plan(policy: Any, observation: Any, close: _Close) -> None:
    if not hasattr(policy, "plan"):
        return
    _reset(policy)
    chunk = _plan(policy, observation, None)
    assert chunk.ndim == 3 and len(chunk) == count_of(observation), f"plan must return (B, H, A), not {chunk.shape}"
    assert np.isfinite(chunk).all(), "plan returns actions that are not finite"
    _reset(policy)
    now = -getattr(policy, "first_action", 0)
    close(chunk[:, now], _act(policy, observation), "act must play the action of the plan that is for now")


def _check_independence(policy: Any, observation: Any, close: _Close) -> None:
    B = count_of(observation)
    rows = [take(observation, np.arange(B) == i) for i in range(B)]
    _reset(policy)
    drawn = [_act(policy, observation)]
    _reset(policy)
    drawn.append(_act(policy, observation, seed=1))
    if getattr(policy, "noisy", False) and hasattr(policy, "plan"):  # each environment with noise of its own
        _reset(policy)
        noise = torch.randn(_plan(policy, observation, None).shape, generator=torch.Generator().manual_seed(1))
        _reset(policy)
        whole = _plan(policy, observation, noise)
        _reset(policy)
        close(whole, _plan(policy, observation, noise), "a plan must be a function of the observation and its noise")
        alone = []
        for i in range(B):
            _reset(policy)
            alone.append(_plan(policy, rows[i], noise[i : i + 1])[0])
        close(whole, np.stack(alone), "an environment's plan must not depend on the others")
    elif np.array_equal(drawn[0], drawn[1]):  # what is random draws something else for one alone
        _reset(policy)
        whole = _act(policy, observation)
        alone = []
        for i in range(B):
            _reset(policy)
            alone.append(_act(policy, rows[i])[0])
        close(whole, np.stack(alone), "an environment's action must not depend on the others")
    first = np.arange(B) == 0
    actions = {}
    for forget in (False, True):
        _reset(policy)
        for k in range(3):
            if forget and k == 2:
                _reset(policy, first)
            actions[forget] = _act(policy, take(observation, np.roll(np.arange(B), k)))
    close(actions[False][1:], actions[True][1:], "reset(mask) must not disturb the other environments")


def _check_files(policy: Any, observation: Any, close: _Close) -> None:
    if not (hasattr(policy, "save") and hasattr(type(policy), "load")):
        return
    with tempfile.TemporaryDirectory() as folder:
        policy.save(Path(folder) / "policy")
        again = type(policy).load(Path(folder) / "policy")
    _reset(policy)
    close(_act(policy, observation), _act(again, observation), "a policy that was saved and loaded must act the same")


def _spoiled(observation: Any) -> list[tuple[str, Any]]:
    """Observations that no policy should act on."""
    if not isinstance(observation, Mapping):
        return _spoiled_array(observation)
    found = []
    for name, value in observation.items():
        if isinstance(value, Mapping):
            found += [(f"{name}: {what}", {**observation, name: wrong}) for what, wrong in _spoiled(value)]
        elif np.asarray(value).dtype.kind in "fiu" and np.ndim(value) > 1:
            found += [(f"{name}: {what}", {**observation, name: wrong}) for what, wrong in _spoiled_array(value)]
    return found


def _spoiled_array(value: Any) -> list[tuple[str, Any]]:
    array = np.asarray(value).copy()
    found = [("one number more in the last axis", np.concatenate([array, array[..., :1]], -1))]
    if array.dtype.kind == "f":
        array[-1].fill(np.nan)
        found.append(("NaN", array))
    return found


def _same_tree(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same_tree(a[key], b[key]) for key in a)
    return bool(np.array_equal(np.asarray(a), np.asarray(b)))
