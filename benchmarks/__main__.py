"""Run the benchmarks, print one table, and keep it as results.json and, for people, as README.md.

Each runs in a process of its own: what it imports, allocates or breaks is no matter of the next one. Those that time
one thread may share the machine, each on a core of its own; those that time processes or threads have it to themselves.
"""

from __future__ import annotations

import argparse
import ctypes.util
import json
import math
import multiprocessing
import os
import re
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks.table import Row, measure
from reprise.files import written_whole
from reprise.lab.speed_table import Benchmark, behind, markdown, parse, summary, verdict

FOLDER = Path(__file__).parent
SUMMARY = re.compile(r"\| work \| against, with its best settings .*?\n(?=\n)", re.DOTALL)  # in the project's README
HELPERS = ("__init__", "__main__", "commands", "resources", "table")
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in HELPERS)
ALONE = ("lab", "maniskill", "maniskill_experts", "nodes", "site", "tabletop", "vector")  # several processes or threads
BY_NAME = ("rl_returns",)  # a quarter of an hour, and not of speed: measured where it is named


def main(arguments: list[str]) -> int:
    """Run the named benchmarks, by default all of speed; what was not run keeps its rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"by default all of speed: {', '.join(NAMES)}")
    parser.add_argument(
        "--jobs", type=int, choices=range(1, 9), default=1, metavar="N", help="at once, of those with one thread"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="one round of every row, to see that it runs; nothing is kept")
    how.add_argument("--check", action="store_true", help="tell which ratios left the spread of the kept ones")
    how.add_argument("--again", action="store_true", help="tell that, too, and keep what both measurements spread over")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        print(f"Error: there is no benchmark {unknown[0]!r} (known: {', '.join(NAMES)})", file=sys.stderr)
        return 2
    path = FOLDER / "results.json"
    kept = load(path)
    if sys.platform == "linux":  # OpenGL without a screen, for the renderers that are compared with
        there = [name for name in ("OSMesa", "EGL") if ctypes.util.find_library(name)]
        os.environ.setdefault("MUJOCO_GL", there[0].lower() if there else "disable")
    measured, broken = {}, []
    names = options.names or [name for name in NAMES if name not in BY_NAME]
    for name, found in _measured(names, options, kept):
        if isinstance(found, Exception):  # whatever it is, the others are to be measured
            traceback.print_exception(found)
            broken.append(name)
            continue
        measured[name] = found
        if not (options.once or options.check):
            now = load(path)  # others may have been measured meanwhile
            keep(path, now | {name: widened(now.get(name), found) if options.again else found})
    tell(parse(measured))
    strayed = list(changes(parse(kept), parse(measured))) if options.check or options.again else []
    for line in strayed:
        print(line)
    for name in broken:
        print(f"Error: the benchmark {name!r} was not finished", file=sys.stderr)
    return 1 if broken or (strayed and options.check) else 0


def _measured(
    names: list[str], options: argparse.Namespace, kept: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any] | Exception]]:
    """Each benchmark when it is done, with what it measured or what broke it."""
    together = [name for name in names if name not in ALONE]
    cores: SimpleQueue[set[int] | None] = SimpleQueue()  # that are free; None where processes cannot be kept to one
    pin = hasattr(os, "sched_setaffinity")
    for core in sorted(os.sched_getaffinity(0))[: options.jobs] if pin else range(options.jobs):
        cores.put({core} if pin else None)
    for some, jobs, on in ((together, options.jobs, cores), ([name for name in names if name in ALONE], 1, None)):
        with ThreadPoolExecutor(jobs) as threads:
            before = kept if options.check or options.again else {}
            futures = {threads.submit(_settled, name, options.once, before.get(name), on): name for name in some}
            for future in as_completed(futures):
                error = future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                yield futures[future], error or future.result()


def _settled(
    name: str, once: bool, kept: dict[str, Any] | None, cores: SimpleQueue[set[int] | None] | None
) -> dict[str, Any]:
    """What a process measured, or two where a ratio of the first left the spread that is kept, or fell behind."""
    found = _in_a_process(name, once, cores)
    if kept and (changes(parse({name: kept}), parse({name: found})) or behind(parse({name: found}))):
        print(f"{name}: a ratio left its spread or fell behind; a second process measures it all again", flush=True)
        found = pooled(found, _in_a_process(name, once, cores))
    return found


def _in_a_process(name: str, once: bool, cores: SimpleQueue[set[int] | None] | None) -> dict[str, Any]:
    core = None if cores is None else cores.get()
    try:
        options: dict[str, Any] = {"initializer": os.sched_setaffinity, "initargs": (0, core)} if core else {}
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), **options) as pool:
            return pool.submit(measure, name, once).result()
    finally:
        if cores is not None:
            cores.put(core)


def load(path: Path) -> dict[str, Any]:
    """What is kept."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def keep(path: Path, content: dict[str, Any]) -> None:
    """Write the table for machines, the one for people beside it, and how each benchmark begins into the README."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    table, readme = parse(content), path.parent.parent / "README.md"
    path.with_name("README.md").write_text(markdown(table), encoding="utf-8")
    text = SUMMARY.sub(lambda _: summary(table), readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")


def widened(kept: dict[str, Any] | None, measured: dict[str, Any]) -> dict[str, Any]:
    """What was measured, with the spread of both: rounds of one process share its memory and its neighbours."""
    before = {_key(Row(**row)): row["spread"] for row in kept["rows"]} if kept else {}
    rows = []
    for row in measured["rows"]:
        if (old := before.get(_key(Row(**row)))) and (new := row["spread"]):
            row = row | {"spread": [min(old[0], new[0]), max(old[1], new[1]), min(old[2], new[2]), max(old[3], new[3])]}
        rows.append(row)
    return measured | {"rows": rows}


def pooled(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """What two processes measured of the same code: geometric means of their medians, and the spread of both."""
    before, rows = {_key(Row(**row)): row for row in first["rows"]}, []
    for row in widened(first, second)["rows"]:
        old = before.get(_key(Row(**row)), row)
        if None not in (old["ours"], old["theirs"], row["ours"], row["theirs"]):
            ours, theirs = (math.sqrt(old[side] * row[side]) for side in ("ours", "theirs"))
            share = row["share"] and row["share"] * row["ours"] / ours
            row = row | {"ours": ours, "theirs": theirs, "ratio": theirs / ours, "share": share}
        rows.append(row)
    return second | {"rows": rows}


def _key(row: Row) -> tuple[str, ...]:
    return row.work, row.size, row.peer, row.settings


def changes(kept: list[Benchmark], measured: list[Benchmark]) -> list[str]:
    """A line for every ratio whose range, of the quickest and slowest rounds, does not meet the range that is kept."""
    before = {_key(row): row for each in kept for row in each.rows}
    lines = []
    for row in (row for each in measured for row in each.rows):
        old = before.get(_key(row))
        if old is None or old.spread is None or row.spread is None:
            continue
        (low, high), (old_low, old_high) = _range(row.spread), _range(old.spread)
        if low > old_high or high < old_low:
            lines.append(f"changed: {row.work}, {row.size} against {row.peer}: {old.ratio:.2f}, now {row.ratio:.2f}")
    return lines


def _range(spread: tuple[float, float, float, float]) -> tuple[float, float]:
    return spread[2] / spread[1], spread[3] / spread[0]


def tell(benchmarks: list[Benchmark]) -> None:
    """One line for each size and peer below what is done."""
    console, work = Console(highlight=False, soft_wrap=True), None
    for row in (row for each in benchmarks for row in each.rows):
        if row.work != work:
            work = row.work
            console.print(f"\n[bold]{escape(work)}[/bold]\n{'':65}      ours    peer's  ratio  peer/peer")
        title = ", ".join(filter(None, (row.size, row.peer, "" if row.settings == "best" else row.settings)))
        if row.ratio is None:
            console.print(f"  {escape(title)}: {escape(row.note)}")
            continue
        times = "".join(f"{1000 * seconds:9.2f}m" for seconds in (row.ours, row.theirs) if seconds is not None)
        chance = "" if row.self_ratio is None else f"{row.self_ratio:.2f}"
        color = "red" if row.behind else "yellow" if row.note or row.settings != "best" else "green"
        console.print(f"  {escape(title):63}{times}  [{color}]{row.ratio:5.2f}[/{color}]      {chance}")
    console.print(f"\n{escape(verdict(benchmarks))}")
    for line in behind(benchmarks):
        console.print(f"  behind: {escape(line)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
