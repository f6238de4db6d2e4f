"""The kept rows as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.table import Row

__all__ = ["page", "summary", "verdict"]

INTRODUCTION = """# Side by side

Every part against what a user would take instead, doing the same work in alternation, one thread each unless the row
says otherwise; outputs are compared first where they can be. Times are medians; a ratio above 1 means that ours is
faster; `by chance` is the peer against itself. `best` is a peer with the best settings that its user could choose,
`defaults` as it comes: only a row of `best` says that ours is faster. A `limit` is no peer but a part of the work, or
what it stands on, so its ratio is the share of the time that it would take alone. Memory is what a call needs at its
peak beyond what was held before it, ours and theirs. `reached` is the share of the operations a second, or bytes a
second, that this machine has been seen to do at most. `make bench` measures all anew;
`python -m benchmarks --check` tells which ratios left their spread."""


def rows_of(content: dict[str, Any]) -> Iterable[Row]:
    """All rows of all benchmarks."""
    return (Row(**row) for _, entry in sorted(content.items()) for row in entry["rows"])


def verdict(rows: Iterable[Row]) -> str:
    """How many comparisons with best settings are won, level and lost, in a sentence; what is lost by name."""
    ratios = [row for row in rows if row.settings == "best" and row.ratio is not None]
    behind = [row for row in ratios if row.behind]
    level = sum(0.95 <= row.ratio <= 1.05 for row in ratios if row.ratio is not None)
    told = f"Of {len(ratios)} comparisons with a peer's best settings, ours is faster in "
    told += f"{len(ratios) - level - len(behind)}, level within 5 % in {level}, and behind in {len(behind)}"
    if not behind:
        return told + "."
    names = [f"{row.work}{', ' if row.size else ''}{row.size}, against {row.peer} ({row.ratio:.2f})" for row in behind]
    return told + ": " + "; ".join(names) + "."


def page(content: dict[str, Any]) -> str:
    """Every row, a section for each benchmark."""
    lines = [INTRODUCTION, "", verdict(rows_of(content))]
    for name, entry in sorted(content.items()):
        versions = ", ".join(f"{package} {version}" for package, version in sorted(entry["versions"].items()))
        machine = entry["machine"]
        lines += ["", f"## {name}", ""]
        lines += [f"{entry['measured']}, {machine['processor']}, {machine['cores']} cores; {versions}.", ""]
        lines += ["| work | size | against | ours | theirs | ratio | by chance | memory, MiB | reached |"]
        lines += ["|---|---|---|--:|--:|--:|--:|--:|--:|"]
        before = ""
        for row in map(_row, entry["rows"]):
            work, before = ("" if row.work == before else row.work), row.work
            lines.append("| " + " | ".join(cell.replace("|", "/") for cell in (work, *_cells(row))) + " |")
    return "\n".join(lines) + "\n"


def summary(content: dict[str, Any]) -> str:
    """The first piece of work of every benchmark that has a peer with best settings, one line for each peer."""
    lines = ["| work | against, with its best settings | times as fast | at |", "|---|---|--:|---|"]
    for _, entry in sorted(content.items()):
        rows = [row for row in map(_row, entry["rows"]) if row.settings == "best" and row.ratio is not None]
        for peer in dict.fromkeys(row.peer for row in rows if row.work == rows[0].work):
            mine = [row for row in rows if row.work == rows[0].work and row.peer == peer]
            ratios = ", ".join(f"{row.ratio:.3g}" for row in mine)
            lines.append(f"| {rows[0].work} | {peer} | {ratios} | {'; '.join(row.size for row in mine)} |")
    return "\n".join(lines)


def _row(stored: dict[str, Any]) -> Row:
    return Row(**stored)


def _cells(row: Row) -> tuple[str, ...]:
    against = row.peer if row.settings == "best" else f"{row.peer} ({row.settings})"
    if row.ratio is None:
        return row.size, against, "", "", row.note.replace("\n", " "), "", "", ""
    assert row.ours is not None and row.theirs is not None
    chance = f"{row.self_ratio:.2f}" + (" (not settled)" if row.note else "")
    times = f"{1000 * row.ours:.3g} ms", f"{1000 * row.theirs:.3g} ms"
    memory = " / ".join("?" if part is None else f"{part:.3g}" for part in row.memory) if row.memory else ""
    share = "" if row.share is None else f"{100 * row.share:.0f} %"
    return row.size, against, *times, f"{row.ratio:.2f}", chance, memory, share
