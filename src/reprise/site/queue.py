"""The runs that were started from the page, and what each told while it ran, in one SQLite file.

Servers and workers know of each other through this file and a lock alone, so any of them may end and another goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reprise.files import home
from reprise.site.database import DatabaseError, explain

__all__ = ["ENDED", "Event", "Queue", "QueueFull", "Run", "working"]

ENDED = ("finished", "stopped", "failed")
WAITING = 20  # runs that may wait at one time
ATTEMPTS = 3  # times that a run is taken up again after its process died

MIGRATIONS = (
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, slug TEXT NOT NULL, scale TEXT NOT NULL, seeds TEXT NOT NULL,
        state TEXT NOT NULL, message TEXT NOT NULL DEFAULT '', stop INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0, created TEXT NOT NULL, started TEXT, ended TEXT);
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs, kind TEXT NOT NULL,
        topic TEXT NOT NULL DEFAULT '', data TEXT NOT NULL);
    CREATE INDEX events_of_run ON events (run, id);
    """,
)


class QueueFull(ValueError):
    """Too many runs wait already."""


@dataclass(frozen=True)
class Run:
    """A run as the queue knows it; ``seeds`` is empty where the scale decides."""

    id: int
    slug: str
    scale: str
    seeds: str
    state: str  # queued, running, finished, stopped or failed
    message: str
    stop: bool
    attempts: int
    created: str
    started: str | None
    ended: str | None

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED


@dataclass(frozen=True)
class Event:
    """Something that a run told: "state", "plan", "progress", "trial", "points" or "failed"."""

    id: int
    kind: str
    data: dict[str, Any]


class Queue:
    """The runs.

    Args:
        folder: where the file lies; by default ``site`` in ``$REPRISE_HOME``.

    Raises:
        DatabaseError: by any method: the file is damaged, or there is no room to write it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or home() / "site"
        self.path = self.folder / "runs.sqlite"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseError(explain(error, self.path)) from error
        with self._told():
            # The last connection to close removes files that the next must make again, and a full disk has no room for.
            self._held = self._connect()
            if self._held.execute("PRAGMA user_version").fetchone()[0] != len(MIGRATIONS):
                self._migrate()
            self._held.execute("SELECT count(*) FROM runs").fetchone()

    def _migrate(self) -> None:
        with self._written() as database:  # two servers may start at once
            version = database.execute("PRAGMA user_version").fetchone()[0]
            for migration in MIGRATIONS[version:]:
                for statement in migration.split(";"):
                    database.execute(statement)
            database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors as sentences with a remedy."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise DatabaseError(explain(error, self.path)) from error

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=15, isolation_level=None, check_same_thread=False)
        database.row_factory = sqlite3.Row
        return database

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with self._told(), contextlib.closing(self._connect()) as database:
            yield database

    @contextmanager
    def _written(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is kept or, if something is raised, nothing."""
        with self._connected() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")

    # What pages ask ---------------------------------------------------------------------------------------------------

    def add(self, slug: str, scale: str, seeds: str = "") -> int:
        """Let a run wait for its turn; one that already waits or runs is not added twice.

        Raises:
            QueueFull: too many wait already.
        """
        with self._written() as database:
            same = "SELECT id FROM runs WHERE slug = ? AND scale = ? AND seeds = ? AND NOT stop"
            same += " AND state IN ('queued', 'running')"
            if found := database.execute(same, (slug, scale, seeds)).fetchone():
                return int(found[0])
            if database.execute("SELECT count(*) FROM runs WHERE state = 'queued'").fetchone()[0] >= WAITING:
                raise QueueFull(f"{WAITING} runs wait already; stop one of them or come back later")
            insert = "INSERT INTO runs (slug, scale, seeds, state, created) VALUES (?, ?, ?, 'queued', ?)"
            number = database.execute(insert, (slug, scale, seeds, now())).lastrowid
            assert number is not None
            _tell(database, number, "state", {"state": "queued"})
            return number

    def get(self, number: int) -> Run | None:
        """One run."""
        with self._connected() as database:
            row = database.execute("SELECT * FROM runs WHERE id = ?", (number,)).fetchone()
        return _run(row) if row else None

    def all(self) -> list[Run]:
        """Every run, the newest first."""
        with self._connected() as database:
            return [_run(row) for row in database.execute("SELECT * FROM runs ORDER BY id DESC")]

    def before(self, run: Run) -> int:
        """How many runs come before this one."""
        with self._connected() as database:
            query = "SELECT count(*) FROM runs WHERE id < ? AND state IN ('queued', 'running')"
            return int(database.execute(query, (run.id,)).fetchone()[0])

    def stop(self, number: int) -> None:
        """Take a run out of the queue, or tell the one that runs to stop; what it has finished is kept."""
        with self._written() as database:
            database.execute("UPDATE runs SET stop = 1 WHERE id = ? AND state IN ('queued', 'running')", (number,))
            update = "UPDATE runs SET state = 'stopped', ended = ? WHERE id = ? AND state = 'queued'"
            if database.execute(update, (now(), number)).rowcount:
                _tell(database, number, "state", {"state": "stopped"})

    def events(self, number: int, after: int = 0, kinds: Sequence[str] = ()) -> list[Event]:
        """What a run told after an event, oldest first."""
        query = "SELECT id, kind, data FROM events WHERE run = ? AND id > ?"
        query += f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        with self._connected() as database:
            rows = database.execute(f"{query} ORDER BY id", (number, after, *kinds)).fetchall()
        return [Event(row["id"], row["kind"], json.loads(row["data"])) for row in rows]

    @property
    def unfinished(self) -> bool:
        """Whether a run waits, or runs."""
        with self._connected() as database:
            query = "SELECT count(*) FROM runs WHERE state IN ('queued', 'running')"
            return bool(database.execute(query).fetchone()[0])

    # What the worker does ---------------------------------------------------------------------------------------------

    def take(self) -> Run | None:
        """The next run, now running. Only who holds the lock may call it: what still "runs" then has lost its process.

        Such a run goes on where it stopped, as all finished trials are kept, but not for ever.
        """
        with self._written() as database:
            database.execute("UPDATE runs SET state = 'stopped', ended = ? WHERE state = 'running' AND stop", (now(),))
            message = f"its process died {ATTEMPTS} times; the log has what it said"
            lost = "UPDATE runs SET state = 'failed', ended = ?, message = ? WHERE state = 'running' AND attempts >= ?"
            database.execute(lost, (now(), message, ATTEMPTS))
            query = "SELECT * FROM runs WHERE state IN ('running', 'queued') ORDER BY state = 'queued', id LIMIT 1"
            row = database.execute(query).fetchone()
            if row is not None:
                update = "UPDATE runs SET state = 'running', attempts = attempts + 1, started = coalesce(started, ?)"
                update += " WHERE id = ?"
                database.execute(update, (now(), row["id"]))
                _tell(database, row["id"], "state", {"state": "running"})
                row = database.execute("SELECT * FROM runs WHERE id = ?", (row["id"],)).fetchone()
        return _run(row) if row else None

    def end(self, number: int, state: str, message: str = "") -> None:
        """Say how a run ended."""
        with self._written() as database:
            update = "UPDATE runs SET state = ?, message = ?, ended = ? WHERE id = ?"
            database.execute(update, (state, message, now(), number))
            database.execute("DELETE FROM events WHERE run = ? AND kind = 'points'", (number,))
            _tell(database, number, "state", {"state": state, "message": message})

    def tell(self, number: int, kind: str, data: dict[str, Any], topic: str = "") -> None:
        """Keep an event. Of "progress" only the last is kept; a "trial" replaces the points of its topic."""
        with self._written() as database:
            if kind == "progress":
                database.execute("DELETE FROM events WHERE run = ? AND kind = 'progress'", (number,))
            if kind == "trial":
                delete = "DELETE FROM events WHERE run = ? AND kind = 'points' AND topic = ?"
                database.execute(delete, (number, topic))
            _tell(database, number, kind, data, topic)

    def record_path(self, number: int) -> Path:
        """The file that holds what a run has measured so far."""
        return self.folder / "runs" / f"{number}.json"

    def log_path(self, number: int) -> Path:
        """The file that holds what a run printed."""
        return self.folder / "runs" / f"{number}.log"


def _tell(database: sqlite3.Connection, number: int, kind: str, data: dict[str, Any], topic: str = "") -> None:
    insert = "INSERT INTO events (run, kind, topic, data) VALUES (?, ?, ?, ?)"
    database.execute(insert, (number, kind, topic, json.dumps(data)))


def _run(row: sqlite3.Row) -> Run:
    return Run(**{**dict(row), "stop": bool(row["stop"])})


def now() -> str:
    """This instant in UTC, as text."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


@contextmanager
def working(folder: Path) -> Iterator[bool]:
    """Hold the lock of the one worker, if nobody else does; tells whether it is held.

    The kernel lets go of it when the process dies, however it dies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "worker.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
