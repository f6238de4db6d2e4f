"""Commands as work: a process from its start to its end, and what it holds at its peak."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from benchmarks.table import Row, compare

__all__ = ["against"]

KINDS = {"best": "best", "limit": "limits"}
BETWEEN = """
import os, resource, sys
with open(os.devnull, "w") as quiet:
    nobody = [(os.POSIX_SPAWN_DUP2, quiet.fileno(), number) for number in (1, 2)]
    os.waitpid(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=nobody), 0)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
KIB = 1024 if sys.platform == "linux" else 1  # what the system counts a process's memory in


def against(
    work: str, ours: Sequence[str], peers: dict[str, Sequence[str]], *, size: str = "", settings: str = "best"
) -> Iterator[Row]:
    """Our command beside others; memory is all that each process holds at its peak."""
    mine = _peak(ours)
    for peer, command in peers.items():
        for row in compare(work, _run(ours), **{KINDS[settings]: {peer: _run(command)}}, size=size, tolerance=None):
            yield replace(row, memory=(mine, _peak(command)))


def _run(command: Sequence[str]) -> Callable[[], None]:
    def run() -> None:
        subprocess.run(command, check=True, capture_output=True)

    return run


def _peak(command: Sequence[str]) -> float:
    """Asked of a small process between: a child's peak begins with the memory of the process that it came from."""
    told = subprocess.run([sys.executable, "-S", "-c", BETWEEN, *command], check=True, capture_output=True, text=True)
    return int(told.stdout) * KIB / 2**20
