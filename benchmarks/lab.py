"""What the lab costs before and beside the measuring: the start of the commands, and trials that do next to nothing."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

from benchmarks.commands import against
from benchmarks.table import Row, absent, compare
from reprise.lab import engines, paper as papers
from reprise.lab.plan import make_plan

COIN = Path(__file__).parent.parent / "tests" / "toys" / "coin"
PYTHON, BIN = sys.executable, Path(sys.executable).parent
TOOLS = {"ray": "ray --help", "hf": "hf --help", "diffusers-cli": "diffusers-cli --help"}


def rows() -> Iterator[Row]:
    """The start of the commands beside those of other tools, a list of many papers, and trials kept one by one."""
    peers = {name: [str(BIN / name), "--help"] for name in TOOLS if (BIN / name).is_file()}
    for name in TOOLS.keys() - peers.keys():
        yield from absent("--help, from start to end", TOOLS[name], "not installed")
    peers = {TOOLS[name]: command for name, command in peers.items()}
    yield from against("--help, from start to end", [PYTHON, "-m", "reprise", "--help"], peers)
    with tempfile.TemporaryDirectory() as folder:
        for count in (0, 100, 1000):
            _coins(Path(folder), count)
            with patch.dict(os.environ, {"REPRISE_PAPERS": folder}):
                mine = [PYTHON, "-m", "reprise", "list"]
                peer = {"import torch, which it must not do": [PYTHON, "-c", "import torch"]}
                size = f"{count:,} papers of one's own" if count else "the papers that are there"
                yield from against("reprise list, from start to end", mine, peer, size=size)
    yield from _trials()


def _coins(folder: Path, count: int) -> None:
    """So many copies of a small paper."""
    for number in range(len(list(folder.iterdir())), count):
        shutil.copytree(COIN, folder / f"coin_{number}", ignore=shutil.ignore_patterns("__pycache__"))


def _trials() -> Iterator[Row]:
    """Trials of a few microseconds: each crashes alone, can be resumed, and is logged and kept on disk."""
    seeds, environment = itertools.count(), {"REPRISE_PAPERS": str(COIN.parent)}
    with tempfile.TemporaryDirectory() as home, patch.dict(os.environ, {**environment, "REPRISE_HOME": home}):
        for count in (2, 8, 24):
            yield from compare(
                "trials of nearly nothing, a process for each",
                _measured(count, seeds),
                limits={"Pool of such processes that have PyTorch, nothing kept": lambda count=count: _pooled(count)},
                size=f"{count} trials",
            )


def _measured(count: int, seeds: Iterator[int]) -> Callable[[], None]:
    paper = papers.find("coin")

    def run() -> None:
        first = count * next(seeds)  # never those that are kept already
        for _ in engines.local(make_plan(paper, arms=["fair"], seeds=range(first, first + count)).units):
            pass

    return run


def _pooled(count: int) -> list[float]:
    with engines.warm_up().Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        return pool.map(_toss, range(count), chunksize=1)


def _toss(seed: int) -> float:
    return sum(random.Random(seed).random() < 0.5 for _ in range(50)) / 50
