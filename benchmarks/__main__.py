"""Run the benchmarks, print one table, and keep it as results.json and, for people, as README.md.

Each runs in a process of its own: what it imports, allocates or breaks is no matter of the next one.
"""

from __future__ import annotations

import ctypes.util
import dataclasses
import json
import multiprocessing
import os
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks.table import Row, measure
from reprise.files import written_whole
from reprise.lab import provenance

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "__main__", "table"))
PEERS = (
    "python",
    "torch",
    "numpy",
    "captum",
    "grad-cam",
    "kymatio",
    "gymnasium",
    "mujoco",
    "gym-pusht",
    "diffusers",
    "stable_baselines3",
    "ray",
)


def main(names: list[str]) -> int:
    """Run the named benchmarks, by default all; what was not run keeps its rows."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"Error: there is no benchmark {unknown[0]!r} (known: {', '.join(NAMES)})", file=sys.stderr)
        return 2
    path = FOLDER / "results.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else {}
    if sys.platform == "linux":  # OpenGL without a screen, for the renderers that are compared with
        there = [name for name in ("OSMesa", "EGL") if ctypes.util.find_library(name)]
        os.environ.setdefault("MUJOCO_GL", there[0].lower() if there else "disable")
    broken = []
    for name in names or NAMES:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            try:
                rows = pool.submit(measure, name).result()
            except Exception:  # whatever it is, the others are to be measured
                traceback.print_exc()
                broken.append(name)
                continue
        kept[name] = [dataclasses.asdict(row) for row in rows]
        content = {"machine": provenance.machine(), "versions": provenance.packages(*PEERS), "rows": kept}
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (FOLDER / "README.md").write_text(page(content), encoding="utf-8")
    tell([Row(**row) for name in names or NAMES for row in kept.get(name, [])])
    for name in broken:
        print(f"Error: the benchmark {name!r} was not finished", file=sys.stderr)
    return 1 if broken else 0


def tell(rows: list[Row]) -> None:
    """One line for each peer below what is done."""
    console, work = Console(highlight=False, soft_wrap=True), None
    for row in rows:
        if row.work != work:
            work = row.work
            console.print(f"\n[bold]{escape(work)}[/bold]\n{'':50}      ours    peer's  ratio  peer/peer")
        if row.ratio is None:
            console.print(f"  {escape(row.peer)}: {escape(row.note)}")
            continue
        times = "".join(f"{1000 * seconds:9.2f}m" for seconds in (row.ours, row.theirs) if seconds is not None)
        color = "yellow" if row.note else "green" if row.ratio >= 1 else "red"
        console.print(f"  {escape(row.peer):48}{times}  [{color}]{row.ratio:5.2f}[/{color}]      {row.self_ratio:.2f}")


def page(content: dict[str, Any]) -> str:
    """All rows as Markdown."""
    machine, versions = content["machine"], content["versions"]
    lines = [
        "# Side by side",
        "",
        "Every part against what a user would take instead, doing the same work in alternation, one thread each unless",
        "the row says otherwise; outputs are compared first where they can be. Times are medians; a ratio above 1",
        "means that ours is faster; `by chance` is the peer against itself. `make bench` measures them anew.",
        "",
        f"Measured on {machine['processor']}, {machine['cores']} cores, with "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
    ]
    for name, rows in sorted(content["rows"].items()):
        lines += [
            "",
            f"## {name}",
            "",
            "| work | peer | ours | peer's | ratio | by chance |",
            "|---|---|--:|--:|--:|--:|",
        ]
        for row in rows:
            cells = [row["work"], row["peer"]]
            if row["ratio"] is None:
                cells += ["", "", row["note"].replace("\n", " "), ""]
            else:
                cells += [f"{1000 * row[key]:.3g} ms" for key in ("ours", "theirs")]
                cells += [f"{row['ratio']:.2f}", f"{row['self_ratio']:.2f}" + (" (not settled)" if row["note"] else "")]
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
