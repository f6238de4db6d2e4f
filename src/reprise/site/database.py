"""The page's database: one SQLite file, brought up to date when it is opened, shared by threads and by processes."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reprise.files import home
from reprise.site.schema import STEPS

__all__ = ["Database", "DatabaseError", "explain", "room"]

LITTLE = 2**18  # bytes: a disk with less is called full
PATIENCE = 15.0  # seconds to wait for another process that writes


class DatabaseError(RuntimeError):
    """The database cannot be read or written; the message says why and what to do."""


class Database:
    """The database at ``path``, by default ``$REPRISE_HOME/site.db``; made if it is not there.

    Every thread has a connection of its own. Readers never wait (write-ahead log); writers take turns, in this process
    and in others.

    Raises:
        DatabaseError: the file is damaged, of a newer version, or has no room to be written.

    Example:
        >>> import tempfile
        >>> database = Database(Path(tempfile.mkdtemp()) / "site.db")
        >>> with database.write() as connection:
        ...     _ = connection.execute("INSERT INTO facts VALUES ('colour', 'green')")
        >>> database.value("SELECT value FROM facts WHERE name = ?", "colour")
        'green'
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path) if path is not None else home() / "site.db"
        self._threads = threading.local()
        with self._told():
            self._migrate()

    # Reading ---------------------------------------------------------------------------------------------------------

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """The rows of a query."""
        with self._told():
            return self._connection().execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """The first row of a query; None if there is none."""
        with self._told():
            found: sqlite3.Row | None = self._connection().execute(sql, values).fetchone()
        return found

    def value(self, sql: str, *values: Any) -> Any:
        """The first column of the first row; None if there is none."""
        found = self.row(sql, *values)
        return found[0] if found else None

    @property
    def changes(self) -> int:
        """How many transactions have written: as long as it is the same, so is everything that is read."""
        return int(self.value("SELECT value FROM facts WHERE name = 'changes'"))

    # Writing ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is kept or nothing. Inside another one it is a part of that."""
        with self._told():
            connection = self._connection()
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("UPDATE facts SET value = value + 1 WHERE name = 'changes'")
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:  # something was raised; a full disk may have ended it already
                    connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._threads, "connection", None)
        if connection is not None:
            connection.close()
            self._threads.connection = None

    # Inside ----------------------------------------------------------------------------------------------------------

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            connection = self._threads.connection = self._connect()
        return connection

    def _connect(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseError(explain(error, self.path)) from error
        with self._told():
            connection = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # what mail says it has sent must survive a power cut
            return connection

    def _migrate(self) -> None:
        connection = self._connection()
        if connection.execute("PRAGMA user_version").fetchone()[0] == len(STEPS):
            return
        connection.execute("BEGIN IMMEDIATE")  # a second server that starts meanwhile waits here, then finds it done
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > len(STEPS):
                raise DatabaseError(
                    f"{self.path} was written by a newer reprise (version {version}, this one knows {len(STEPS)}); "
                    "update reprise, or set REPRISE_HOME to another folder"
                )
            for step in STEPS[version:]:
                for statement in step:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(STEPS)}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors as sentences with a remedy."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # the caller's business
        except sqlite3.DatabaseError as error:
            raise DatabaseError(explain(error, self.path)) from error


def room(folder: Path) -> bool:
    """Whether the disk that holds a folder has room for more than a few lines."""
    try:
        return shutil.disk_usage(folder).free >= LITTLE
    except OSError:
        return True  # nobody can tell


def explain(error: Exception, path: Path) -> str:
    """What is wrong with a database, and what to do."""
    text = str(error)
    if "full" in text or "No space" in text or ("disk I/O" in text and not room(path.parent)):
        return f"no room to write {path}: nothing of this change was kept; free some space and try again"
    if "locked" in text or "busy" in text:
        return f"{path} is being written by another process for more than {PATIENCE:.0f} s; try again"
    if "readonly" in text or "Permission" in text or "unable to open" in text or "Read-only" in text:
        return f"{path} cannot be written ({text}); make the folder writable or set REPRISE_HOME to another"
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return f"{path} is damaged ({text}); move it away: the feed is fetched again, subscriptions need a backup"
    return f"{path}: {text}"
