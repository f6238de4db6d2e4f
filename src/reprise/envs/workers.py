"""One vector environment in several processes; observations and pictures pass through shared memory."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from reprise.envs.vector import VectorWorld, _find, checked_actions

__all__ = ["WorkerWorld"]

Name = tuple[str, ...]  # of an array: what it is, and where in nested observations
Layout = dict[Name, tuple[tuple[int, ...], str]]


class WorkerWorld(VectorEnv):
    """A world whose environments are split among worker processes; every environment has the bits of a single process.

    Nothing large is pickled: actions, observations, rewards and final observations lie in one block of shared memory.
    Worth its while where a step of the world takes longer than the 0.1 ms that it costs to wake the workers.

    Args:
        world: a subclass of :class:`~reprise.envs.VectorWorld` that the workers can import, or its name "module:class".
        num_envs: how many environments.
        workers: how many processes.
        **options: of the world.

    Raises:
        ValueError: fewer environments than workers.
        RuntimeError: a worker failed; its message is told.
    """

    def __init__(self, world: type[VectorWorld] | str, num_envs: int, workers: int = 2, **options: Any) -> None:
        if not 1 <= workers <= num_envs:
            raise ValueError(f"{num_envs} environments cannot be split among {workers} workers")
        context = multiprocessing.get_context("forkserver")
        self._closed, self._pipes, self._processes = False, [], []
        ends = np.linspace(0, num_envs, workers + 1).round().astype(int).tolist()
        self._parts = [slice(a, b) for a, b in pairwise(ends)]
        for part in self._parts:
            pipe, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, world, part.stop - part.start, options), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(pipe)
            self._processes.append(process)
        self.num_envs, self._memory = num_envs, None
        described = self._gather()
        self.single_observation_space, self.single_action_space, self.metadata, self.render_mode = described[0]
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        layout = _layout(self.single_observation_space, self.single_action_space, num_envs)
        self._memory = SharedMemory(create=True, size=_size(layout))
        self._arrays = _arrays(self._memory, layout)
        self._tell([(self._memory.name, layout, part) for part in self._parts])

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As :meth:`reprise.envs.VectorWorld.reset`; options of two or more axes have a row for each environment."""
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, (int, np.integer)) else seed
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        if mask is not None and (np.shape(mask) != (self.num_envs,) or not np.any(mask)):
            raise ValueError(f"reset_mask is an array of {self.num_envs} booleans, at least one of them True")
        requests = []
        for part in self._parts:
            own = {key: value[part] if np.ndim(value) > 1 else value for key, value in options.items()}
            own |= {} if mask is None else {"reset_mask": mask[part]}
            requests.append(("reset", None if seeds is None else list(seeds[part]), own))
        infos = self._merge(self._tell(requests))
        return self._observations(), infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As :meth:`reprise.envs.VectorWorld.step`."""
        self._check_open()
        self._arrays["action",][:] = checked_actions(actions, self.action_space)
        infos = self._merge(self._tell([("step",)] * len(self._parts)))
        observations = self._observations()
        if "_final_obs" in infos:
            final = np.full(self.num_envs, None)
            for i in np.flatnonzero(infos["_final_obs"]):
                final[i] = _unflatten({key: value[i].copy() for key, value in self._of("final").items()})
            infos["final_obs"] = final
        results = (self._arrays[name,].copy() for name in ("reward", "terminated", "truncated"))
        return observations, *results, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One picture for each environment, if the render mode is "rgb_array"."""
        if self.render_mode is None:
            return None
        return tuple(picture for pictures in self._tell([("render",)] * len(self._parts)) for picture in pictures)

    def close_extras(self, **kwargs: Any) -> None:
        """End the workers and give the memory back."""
        for pipe in self._pipes:
            with suppress(OSError):  # it has died already
                pipe.send(None)
            pipe.close()
        for process in self._processes:
            process.join(2)
            if process.is_alive():
                process.terminate()
                process.join()
        self._pipes, self._processes = [], []
        if self._memory is not None:
            self._arrays = {}
            self._memory.close()
            self._memory.unlink()
            self._memory = None

    def __del__(self) -> None:
        if getattr(self, "_pipes", None):
            self.close()

    def _tell(self, requests: list[Any]) -> list[Any]:
        self._check_open()
        for i, (pipe, request) in enumerate(zip(self._pipes, requests, strict=True)):
            try:
                pipe.send(request)
            except OSError:
                self._died(i)
        return self._gather()

    def _check_open(self) -> None:
        if not self._pipes:
            raise RuntimeError("this environment has been closed")

    def _gather(self) -> list[Any]:
        replies: list[Any] = []
        errors: list[Exception] = []
        for i, pipe in enumerate(self._pipes):
            try:
                reply = pipe.recv()
            except (EOFError, OSError):
                self._died(i)
            if isinstance(reply, Exception):
                errors.append(reply)
            replies.append(reply)
        if errors:
            raise errors[0]
        return replies

    def _died(self, worker: int) -> None:
        self._processes[worker].join(1)
        code = self._processes[worker].exitcode
        self.close()
        raise RuntimeError(f"worker {worker} died (exit code {code}); its environments are lost, make a new one")

    def _of(self, kind: str) -> dict[Name, np.ndarray]:
        return {name[1:]: value for name, value in self._arrays.items() if name[0] == kind}

    def _observations(self) -> Any:
        return _unflatten({key: value.copy() for key, value in self._of("observation").items()})

    def _merge(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        """One info of all environments; what a worker does not tell is masked."""
        merged: dict[str, Any] = {}
        for key in dict.fromkeys(key for info in infos for key in info):
            values = [info.get(key) for info in infos]
            first = next(value for value in values if value is not None)
            if isinstance(first, dict):
                merged[key] = self._merge([value or {} for value in values])
                continue
            array = np.zeros((self.num_envs, *first.shape[1:]), first.dtype)
            for part, value in zip(self._parts, values, strict=True):
                if value is not None:
                    array[part] = value
            merged[key] = array
        return merged


def _layout(observation: spaces.Space, action: spaces.Space, count: int) -> Layout:
    """Name to shape and type of everything that is shared."""
    layout: Layout = {("action",): ((count, *(action.shape or ())), np.dtype(action.dtype).str)}
    for kind in ("observation", "final"):
        for name, space in _flatten(observation).items():
            words = isinstance(space, spaces.Text)
            dtype = f"<U{space.max_length}" if words else np.dtype(space.dtype).str
            layout[kind, *name] = ((count, *(space.shape or ())), dtype)
    one = (count,)
    return layout | {("reward",): (one, "<f8"), ("terminated",): (one, "|b1"), ("truncated",): (one, "|b1")}


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    return -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // 64) * 64  # each on cache lines of its own


def _size(layout: Layout) -> int:
    return sum(_bytes(*entry) for entry in layout.values())


def _arrays(memory: SharedMemory, layout: Layout) -> dict[Name, np.ndarray]:
    arrays: dict[Name, np.ndarray] = {}
    offset = 0
    for name, (shape, dtype) in layout.items():
        arrays[name] = np.ndarray(shape, dtype, memory.buf, offset)
        offset += _bytes(shape, dtype)
    return arrays


def _flatten(tree: Any) -> dict[Name, Any]:
    """Leaves of nested dictionaries, or of a nested Dict space, by their path; a lone leaf has the path ()."""
    if not isinstance(tree, (dict, spaces.Dict)):
        return {(): tree}
    return {(key, *path): leaf for key, inner in tree.items() for path, leaf in _flatten(inner).items()}


def _unflatten(leaves: dict[Name, np.ndarray]) -> Any:
    if () in leaves:
        return leaves[()]
    tree: dict[str, Any] = {}
    for (*path, last), leaf in leaves.items():
        inner = tree
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = leaf
    return tree


def _work(pipe: Connection, world: type[VectorWorld] | str, count: int, options: dict[str, Any]) -> None:
    """A worker: the first message says where the shared memory is, None is the end."""
    memory = None
    try:
        env = _find(world)(count, **options)
        pipe.send((env.single_observation_space, env.single_action_space, env.metadata, env.render_mode))
        name, layout, part = pipe.recv()
        memory = SharedMemory(name)
        shared = {key: array[part] for key, array in _arrays(memory, layout).items()}
        pipe.send(None)
        while (request := pipe.recv()) is not None:
            try:
                pipe.send(_answer(env, shared, request))
            except Exception as error:  # told to the one who asked
                pipe.send(error)
    except (EOFError, KeyboardInterrupt):
        pass  # whoever asked is gone
    except Exception as error:
        pipe.send(RuntimeError(f"a worker failed: {error}\n{traceback.format_exc()}"))
    finally:
        if memory is not None:
            shared = {}
            memory.close()


def _answer(env: VectorWorld, shared: dict[Name, np.ndarray], request: tuple[Any, ...]) -> Any:
    if request[0] == "render":
        return env.render()
    if request[0] == "reset":
        observations, infos = env.reset(seed=request[1], options=request[2])
    else:
        observations, rewards, terminated, truncated, infos = env.step(shared["action",])
        shared["reward",][:], shared["terminated",][:], shared["truncated",][:] = rewards, terminated, truncated
        for i in np.flatnonzero(infos.get("_final_obs", False)):
            for key, value in _flatten(infos["final_obs"][i]).items():
                shared["final", *key][i] = value
        infos.pop("final_obs", None)
    for key, value in _flatten(observations).items():
        shared["observation", *key][:] = value
    return infos
