"""What a call needs besides time: memory at its peak, arithmetic, traffic, and what the machine could do at most."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["arithmetic_peak", "bandwidth", "count_flops", "peak_memory"]

MIB = 2**20


def peak_memory(function: Callable[[], Any]) -> float | None:
    """MiB that a call needs at its peak beyond what this process and its children held before it.

    None where the system does not tell (anything but Linux). Memory that a library keeps for its next call is not
    counted: the call before has asked for it already.
    """
    if sys.platform != "linux":
        return None
    function()
    ctypes.CDLL(None).malloc_trim(0)  # otherwise the call would fill what the call before has freed
    processes = list(_family(os.getpid()))
    try:
        for pid in processes:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is the present again
        before = sum(_status(pid, "VmRSS") for pid in processes)
        function()
        return max(0.0, (sum(_status(pid, "VmHWM") for pid in processes) - before) / MIB)
    except OSError:
        return None


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _family(int(child))


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/{pid}/status says nothing of {key}")


def count_flops(function: Callable[[], Any]) -> int:
    """Floating-point operations of PyTorch's products, convolutions and attention in a call, gradients too."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


@functools.cache
def arithmetic_peak() -> float:
    """Floating-point operations a second that one core reaches here, in the best of two large pieces of work."""
    x = torch.randn(16, 64, 32, 32).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3).contiguous(memory_format=torch.channels_last)
    a = torch.randn(1024, 1024)
    work = (lambda: torch.conv2d(x, weight, padding=1), 2 * 16 * 32 * 32 * 64 * 64 * 9), (lambda: a @ a, 2 * 1024**3)
    return max(flops / _fastest(function) for function, flops in work)


@functools.cache
def bandwidth() -> float:
    """Bytes a second that one core copies here between arrays far larger than its caches, read and written."""
    x, y = torch.ones(2, 2**26)
    return 2 * x.nbytes / _fastest(lambda: y.copy_(x))


@torch.inference_mode()
def _fastest(function: Callable[[], Any], rounds: int = 10) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return min(times[1:])
    finally:
        torch.set_num_threads(before)
