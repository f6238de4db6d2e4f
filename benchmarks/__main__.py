"""Run the benchmarks, print one table and keep it as results.json."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.table import Row
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
    console = Console(highlight=False)
    for name in names or NAMES:
        rows: list[Row] = []
        for row in importlib.import_module(f"benchmarks.{name}").rows():
            rows.append(row)
            told = f"{row.ratio:.2f}" if row.ratio is not None else row.note
            console.print(f"{row.work} | {row.peer}: {told}", markup=False, soft_wrap=True)
        kept[name] = [dataclasses.asdict(row) for row in rows]
        content = {"machine": provenance.machine(), "versions": provenance.packages(*PEERS), "rows": kept}
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    console.print(table([Row(**row) for name in names or NAMES for row in kept[name]]))
    return 0


def table(rows: list[Row]) -> Table:
    """The rows as a terminal table."""
    result = Table(box=None, header_style="bold", pad_edge=False)
    result.add_column("work")
    result.add_column("peer")
    for column in ("ours", "peer's", "ratio", "peer/peer"):
        result.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        if row.ratio is None:
            result.add_row(row.work, row.peer, "", "", row.note, "")
            continue
        color = "yellow" if row.note else "green" if row.ratio >= 1 else "red"
        times = (f"{1000 * row.ours:.2f} ms", f"{1000 * row.theirs:.2f} ms")  # type: ignore[operator]
        result.add_row(row.work, row.peer, *times, f"[{color}]{row.ratio:.2f}[/{color}]", f"{row.self_ratio:.2f}")
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
