"""What the lab costs before anything is measured: the start of the commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

from benchmarks.table import Row, compare


def rows() -> Iterator[Row]:
    """The start of `reprise list` against importing PyTorch, which it must not do."""
    listing = process([sys.executable, "-m", "reprise", "list"])
    importing = process([sys.executable, "-c", "import torch"])
    yield from compare("reprise list, from start to end", listing, {"import torch": importing}, tolerance=None)


def process(command: list[str]) -> Callable[[], None]:
    """A function that runs a command."""

    def run() -> None:
        subprocess.run(command, check=True, capture_output=True)

    return run
