"""The table that ``make bench`` keeps: every part beside what a user would take instead, as data, text and Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Benchmark", "Comparison", "Row", "behind", "comparisons", "markdown", "parse", "read", "summary", "verdict"]

LEVEL = 1.05  # ratios nearer to 1 than this say nothing
HOW = """Every part against what a user would take instead, doing the same work in alternation, one thread each unless
the row says otherwise; outputs are compared first where they can be. Times are medians; a ratio above 1 means that ours
is faster; "by chance" is the peer against itself. "best" is a peer with the best settings that its user could choose,
"defaults" as it comes: only a row of "best" says that ours is faster. A "limit" is no peer but a part of the work, or
what it stands on, so its ratio is the share of the time that it would take alone. Memory is what a call needs at its
peak beyond what was held before it, ours and theirs. "Reached" is the share of the operations or bytes a second that
this machine has been seen to do at most."""


@dataclass(frozen=True)
class Row:
    """Ours beside one peer, at one size.

    Attributes:
        work: what is done.
        peer: by whom else, with its settings.
        size: what grows from row to row, such as "batch 64".
        settings: "best": the best that a user of the peer could choose, or the only ones there are; "defaults": as it
            comes; "limit": not a peer but a part of the work, or what it stands on: nobody can be quicker.
        ours, theirs: median seconds per call; None where nothing was timed.
        spread: lowest and highest round of ours, then of theirs, in seconds per call.
        ratio: theirs over ours: above 1 where ours is faster.
        self_ratio: the peer against itself, which is how far chance goes.
        memory: MiB that a call of ours and of theirs needs at its peak beyond what was held before it.
        share: of the most operations a second, or bytes, that the machine has been seen to do: how much ours does.
        note: why there is no number, or that the self-ratio never settled.
    """

    work: str
    peer: str
    size: str = ""
    settings: str = "best"
    ours: float | None = None
    theirs: float | None = None
    spread: tuple[float, float, float, float] | None = None
    ratio: float | None = None
    self_ratio: float | None = None
    memory: tuple[float | None, float | None] | None = None
    share: float | None = None
    note: str = ""

    @property
    def behind(self) -> bool:
        """Whether a peer is faster with its best settings, by more than chance."""
        return self.settings == "best" and self.ratio is not None and self.ratio < 1 / LEVEL


@dataclass(frozen=True)
class Benchmark:
    """The rows of one file of ``benchmarks/``.

    Attributes:
        name: of the file.
        measured: the day, in ISO form.
        machine: what it was measured on.
        versions: of what took part, by package.
        rows: by work, peer and size, as they were first measured.
    """

    name: str
    measured: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    rows: Sequence[Row]

    @property
    def where(self) -> str:
        """When, on what and with what."""
        versions = ", ".join(f"{package} {version}" for package, version in sorted(self.versions.items()))
        cores = "one core" if self.machine["cores"] == 1 else f"{self.machine['cores']} cores"
        return f"{self.measured}, {self.machine['processor']}, {cores}; {versions}"


@dataclass(frozen=True)
class Comparison:
    """The same work beside the same peer, at one size or at several that grow."""

    work: str
    peer: str
    settings: str
    rows: Sequence[Row]

    @property
    def overtaken(self) -> bool:
        """Whether the peer is behind at the smallest size and ahead at the largest."""
        return not self.rows[0].behind and self.rows[-1].behind


def read(path: Path) -> list[Benchmark]:
    """The table in a file."""
    return parse(json.loads(path.read_text(encoding="utf-8")))


def parse(content: Mapping[str, Mapping[str, Any]]) -> list[Benchmark]:
    """The table from its JSON, by name; rows of the same work stand together, as do those of the same peer."""
    return [
        Benchmark(name, **{**entry, "rows": _together([Row(**row) for row in entry["rows"]])})
        for name, entry in sorted(content.items())
    ]


def _together(rows: Sequence[Row]) -> list[Row]:
    works = list(dict.fromkeys(row.work for row in rows))
    peers = list(dict.fromkeys((row.work, row.peer, row.settings) for row in rows))
    return sorted(rows, key=lambda row: (works.index(row.work), peers.index((row.work, row.peer, row.settings))))


def comparisons(rows: Iterable[Row]) -> list[Comparison]:
    """Rows that differ in nothing but size, together; those that have no ratio each alone."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault((row.work, row.peer, row.settings, row.ratio is None and row.size), []).append(row)
    return [Comparison(work, peer, settings, same) for (work, peer, settings, _), same in found.items()]


def behind(benchmarks: Iterable[Benchmark]) -> list[str]:
    """The rows whose peer is faster with its best settings, each in a line."""
    rows = [row for each in benchmarks for row in each.rows if row.behind]
    named = [", ".join(filter(None, (row.work, row.size, f"against {row.peer}"))) for row in rows]
    return [f"{name}: {row.ratio:.2f}" for name, row in zip(named, rows, strict=True)]


def verdict(benchmarks: Iterable[Benchmark]) -> str:
    """How many comparisons with best settings are won, level and lost, and how that changes with size."""
    ratios = [row for each in benchmarks for row in each.rows if row.settings == "best" and row.ratio is not None]
    lost = sum(row.behind for row in ratios)
    level = sum(1 / LEVEL <= (row.ratio or 0) <= LEVEL for row in ratios)
    overtaken = sum(each.overtaken for each in comparisons(ratios))
    return (
        f"Of {len(ratios)} comparisons with a peer's best settings, ours is faster in {len(ratios) - level - lost}, "
        f"level within {round(100 * (LEVEL - 1))} % in {level}, and behind in {lost}. "
        f"Ahead at the largest size though not at the smallest: {overtaken or 'no peer'}."
    )


def markdown(benchmarks: Iterable[Benchmark]) -> str:
    """Every row, a section for each benchmark."""
    benchmarks = list(benchmarks)
    lines = ["# Side by side", "", HOW, "", verdict(benchmarks)]
    if lost := behind(benchmarks):
        lines += ["", "Behind:", "", *(f"- {line}" for line in lost)]
    for each in benchmarks:
        lines += ["", f"## {each.name}", "", f"{each.where}.", ""]
        lines += ["| work | size | against | ours | theirs | ratio | by chance | memory, MiB | reached |"]
        lines += ["|---|---|---|--:|--:|--:|--:|--:|--:|"]
        before = ""
        for row in each.rows:
            work, before = ("" if row.work == before else row.work), row.work
            lines.append(_line(work, row.size, *_cells(row)))
    return "\n".join(lines) + "\n"


def summary(benchmarks: Iterable[Benchmark]) -> str:
    """What each benchmark begins with, beside the best settings of each peer, as a table in Markdown."""
    lines = ["| work | against, with its best settings | times as fast | at |", "|---|---|--:|---|"]
    for each in benchmarks:
        rows = [row for row in each.rows if row.settings == "best" and row.ratio is not None]
        for one in comparisons(row for row in rows if row.work == rows[0].work):
            ratios = ", ".join(f"{row.ratio:.3g}" for row in one.rows)
            lines.append(_line(one.work, one.peer, ratios, "; ".join(row.size for row in one.rows)))
    return "\n".join(lines) + "\n"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _cells(row: Row) -> tuple[str, ...]:
    against = row.peer if row.settings == "best" else f"{row.peer} ({row.settings})"
    if row.ratio is None or row.ours is None or row.theirs is None:
        return against, "", "", " ".join(row.note.split()), "", "", ""
    chance = "" if row.self_ratio is None else f"{row.self_ratio:.2f}" + (" (not settled)" if row.note else "")
    memory = " / ".join("?" if part is None else f"{part:.3g}" for part in row.memory or ())
    share = "" if row.share is None else f"{100 * row.share:.0f} %"
    times = f"{1000 * row.ours:.3g} ms", f"{1000 * row.theirs:.3g} ms"
    return against, *times, f"{row.ratio:.2f}", chance, memory, share
