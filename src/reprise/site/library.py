"""The papers as the page shows them: read once, and again in the background when a file changes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from reprise.lab import modules, overview, paper as papers, results
from reprise.lab.paper import Claim, Paper
from reprise.lab.results import Status
from reprise.lab.verdict import Judgement

__all__ = ["VERDICTS", "Entry", "Library", "Snapshot"]

VERDICTS = ("holds", "fails", "undecided", "unmeasured")
EVERY = 2.0  # seconds between looks at the files


@dataclass(frozen=True)
class Entry:
    """A paper, what was published of it, and what that says today."""

    paper: Paper
    status: Status

    @property
    def slug(self) -> str:
        """The paper's name in addresses and commands."""
        return self.paper.slug

    @property
    def verdict(self) -> str:
        """The verdict on the headline claim; "proved" where there are only identities."""
        return self.status.judgements[0].verdict if self.status.judgements else "proved"

    @property
    def headline(self) -> str:
        """The first claim, or the first identity."""
        return self.paper.claims[0].text if self.paper.claims else self.paper.identities[0].text

    @property
    def judged(self) -> list[tuple[Claim, Judgement]]:
        """Every claim with its judgement."""
        return list(zip(self.paper.claims, self.status.judgements, strict=True))

    @property
    def device(self) -> str:
        """What it was measured on: "cpu", "cuda"; empty if it was not."""
        return ", ".join(sorted({record["device"].partition(":")[0] for record in self.status.records.values()}))

    @property
    def minutes(self) -> float:
        """Core-minutes that the published measurement took."""
        return self.status.seconds / 60


@dataclass(frozen=True)
class Snapshot:
    """All papers as they were at one moment.

    Attributes:
        version: changes whenever a file does.
        entries: by slug, in alphabetical order.
        damaged: what is wrong with the papers that cannot be read.
    """

    version: str
    entries: dict[str, Entry]
    damaged: Sequence[str] = ()
    made: dict[Any, Any] = field(default_factory=dict)  # what pages made of it, dropped with it

    def remember(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` returned for this key since the last change."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    @cached_property
    def verdicts(self) -> dict[str, int]:
        """How many claims have each verdict."""
        found = Counter(judgement.verdict for entry in self.entries.values() for judgement in entry.status.judgements)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @cached_property
    def rooms(self) -> dict[str, list[Entry]]:
        """The papers of each room."""
        rooms: dict[str, list[Entry]] = {}
        for entry in sorted(self.entries.values(), key=lambda entry: entry.paper.room):
            rooms.setdefault(entry.paper.room, []).append(entry)
        return rooms

    @property
    def latest(self) -> list[Entry]:
        """The papers, those measured last first."""
        return sorted(self.entries.values(), key=lambda entry: entry.status.date, reverse=True)


class Library:
    """The current snapshot. The first request waits for it; later ones get the old until the new one is read.

    Args:
        warm: what pages want to have made of a snapshot before anybody asks.
    """

    def __init__(self, warm: Sequence[Callable[[Snapshot], object]] = ()) -> None:
        self._warm = tuple(warm)
        self._snapshot: Snapshot | None = None
        self._looked = 0.0
        self._reading, self._ended = threading.Lock(), False

    @property
    def current(self) -> Snapshot:
        """The papers, at most a few seconds old."""
        snapshot = self._snapshot
        if snapshot is None:
            with self._reading:
                self._snapshot = self._snapshot or self._read(overview.stamp())
            return self._snapshot
        if not self._ended and time.monotonic() - self._looked > EVERY and self._reading.acquire(blocking=False):
            threading.Thread(target=self._refresh, daemon=True).start()
        return snapshot

    def settle(self) -> None:
        """Wait for the reading that goes on in the background, and begin no other."""
        self._ended = True
        with self._reading:
            pass

    def _refresh(self) -> None:
        try:
            stamp = overview.stamp()
            if self._snapshot is None or stamp != self._snapshot.version:
                fresh = self._read(stamp)
                self.warm_up(fresh)
                self._snapshot = fresh
            self._looked = time.monotonic()
        finally:
            self._reading.release()

    def _read(self, version: str) -> Snapshot:
        everything, broken = papers.all_papers()
        entries, damaged = {}, [str(error) for error in broken]
        for paper in everything:
            try:
                entries[paper.slug] = Entry(paper, results.status(paper))
            except (results.ResultsError, KeyError, TypeError, ValueError) as error:
                damaged.append(str(error))
        self._looked = time.monotonic()
        modules.save_memory()
        return Snapshot(version, entries, tuple(damaged))

    def warm_up(self, snapshot: Snapshot | None = None) -> None:
        """Make what pages want to have made, of the current snapshot or of one that is about to become it."""
        snapshot = snapshot or self.current
        for make in self._warm:
            make(snapshot)


def figure_of(entry: Entry) -> Path | None:
    """The figure that was published with the measurement."""
    path = entry.paper.folder / "figure.png"
    return path if path.is_file() else None
