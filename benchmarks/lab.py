"""What the lab costs: a run of trials that do nothing, and the start of the commands."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.table import Row, compare
from reprise.lab import engines, paper as papers
from reprise.lab.plan import make_plan

TOYS = Path(__file__).parent.parent / "tests" / "toys"


def rows() -> Iterator[Row]:
    """The start of `reprise list`, and the overhead of trials, both against importing PyTorch."""
    command = [sys.executable, "-m", "reprise", "list"]
    yield from compare(
        "start: reprise list", process(command),
        {"python -c 'import torch'": process([sys.executable, "-c", "import torch"])}, tolerance=None,
    )  # fmt: skip
    importing = process([sys.executable, "-c", "import torch"])
    before = dict(os.environ)
    try:
        with tempfile.TemporaryDirectory() as home:
            os.environ |= {"REPRISE_PAPERS": str(TOYS), "REPRISE_HOME": home}
            engines.warm_up()
            yield from compare(
                "10 trials in 5 processes", partial(trials, itertools.count()),
                {"5 processes that only import torch": lambda: [importing() for _ in range(5)]}, tolerance=None,
            )  # fmt: skip
    finally:
        os.environ.clear()
        os.environ.update(before)


def process(command: list[str]) -> Callable[[], None]:
    """A function that runs a command."""

    def run() -> None:
        subprocess.run(command, check=True, capture_output=True)

    return run


def trials(numbers: Iterator[int]) -> None:
    """Five units of two trials, with a setting that none before had, so that all are measured."""
    plan = make_plan(papers.find("coin"), overrides=[f"throws={100 + 2 * next(numbers)}"])
    for _ in engines.local(plan.units):
        pass
