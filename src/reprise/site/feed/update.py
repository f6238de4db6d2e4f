"""Asking all sources once: what is new is kept, what went wrong is remembered and told, nothing is asked too often."""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from reprise.site.database import Database, DatabaseError
from reprise.site.feed import store
from reprise.site.feed.client import Client, SourceError
from reprise.site.feed.days import moment
from reprise.site.feed.records import EASTERN, today
from reprise.site.feed.sources import Found, Since, Source

__all__ = ["Outcome", "Schedule", "update"]

FIRST_WAIT, LONGEST_WAIT = 60.0, 6 * 3600.0  # after a failure; doubled each time
LONGEST_WISH = 8 * 86400.0  # that a source may have to be left alone
AFTER_FAULT = 30.0  # seconds after which a schedule whose work broke down tries again
LEASE = 300.0  # seconds after which a source is free again although nobody gave it back

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What asking one source gave.

    Attributes:
        source: its name.
        title: what pages call it.
        state: new, empty, unchanged, stale (an old list once more), failed, or waiting (it was not asked).
        new: how many papers were not known before.
        left_out: entries that could not be read.
        error: what went wrong.
    """

    source: str
    title: str
    state: str
    new: int = 0
    left_out: int = 0
    error: str = ""

    def __str__(self) -> str:
        told = {
            "new": f"{self.new} new",
            "empty": "an empty list: no announcement",
            "unchanged": "nothing new since the last time",
            "stale": f"stale: {self.error}",
            "failed": f"failed: {self.error}",
            "waiting": f"not asked: {self.error}",
        }[self.state]
        left = f", {self.left_out} without an id or title left out" if self.left_out else ""
        return f"{self.title}: {told}{left}"


def update(
    database: Database,
    sources: Iterable[Source],
    client: Client | None = None,
    clock: Callable[[], float] = time.time,
    insist: bool = False,
) -> list[Outcome]:
    """Ask every source and keep what it gives.

    A source that fails stops no other. Its error, the time to wait before it is asked again (60 s, doubled each time,
    or what it wished) and the tags for the next question are kept in the database.

    Args:
        database: where.
        sources: whom.
        client: who asks.
        clock: the time.
        insist: ask also those that are to be left alone for now.

    Raises:
        DatabaseError: nothing can be kept. What a source gave meanwhile is asked for again the next time.
    """
    client = client or Client(database)
    return [_ask(database, source, client, clock, insist) for source in sources]


def _ask(database: Database, source: Source, client: Client, clock: Callable[[], float], insist: bool) -> Outcome:
    holder = uuid.uuid4().hex
    now = clock()
    with database.write() as connection:
        connection.execute("INSERT OR IGNORE INTO sources (name, address) VALUES (?, ?)", (source.name, source.address))
        connection.execute("UPDATE sources SET address = ? WHERE name = ?", (source.address, source.name))
        row = connection.execute("SELECT * FROM sources WHERE name = ?", (source.name,)).fetchone()
        held, wait, reason = row["held_until"] or 0.0, row["wait_until"] or 0.0, ""
        if now < held <= now + LEASE:  # what lies beyond was written by a clock that has been put back
            reason = f"another process asks it, or was stopped doing so; until {moment(held)}"
        elif now < wait <= now + LONGEST_WISH and not insist:
            reason = f"it is left alone until {moment(wait)}"
        if reason:
            return Outcome(source.name, source.title, "waiting", error=reason)
        connection.execute(
            "UPDATE sources SET asked = ?, holder = ?, held_until = ? WHERE name = ?",
            (now, holder, now + LEASE, source.name),
        )
    succeeded = row["succeeded"] if row["succeeded"] and row["succeeded"] <= now else None  # a clock that was wrong
    since = Since(row["etag"], row["modified"], succeeded)
    try:
        found = source.fetch(client, since, datetime.fromtimestamp(now, EASTERN))
        return _keep(database, source, found, row["highest"] or "", clock())
    except SourceError as error:
        return _failed(database, source, str(error), error.wait, row["failures"], clock())
    except DatabaseError:
        raise
    except Exception as error:  # an answer that nobody foresaw must stop neither the others nor the server
        log.exception("reading %s", source.name)
        return _failed(database, source, f"its answer was not understood ({error!r})", None, row["failures"], clock())
    finally:
        with database.write() as connection:
            connection.execute(
                "UPDATE sources SET holder = NULL, held_until = NULL WHERE name = ? AND holder = ?",
                (source.name, holder),
            )


def _keep(database: Database, source: Source, found: Found, highest: str, now: float) -> Outcome:
    batch = found.batch
    ids = [record.id for record in batch.records if record.id not in batch.replaced and "/" not in record.id]
    with database.write() as connection:  # records and the tags that go with them: both or neither
        new = len(store.add(database, source.name, batch.records, now, batch.replaced))
        if found.unchanged:
            state = "unchanged"
        elif not batch.records:
            state = "empty" if not batch.left_out else "stale"
        else:
            state = "new"
        error = "none of its entries can be read" if state == "stale" else None
        if (
            batch.day == today(now)
            and ids
            and not new
            and max(ids) == highest
            and _had_before(database, source, batch.day)
        ):
            state, error = "stale", f"under the date of {batch.day} it lists what it had listed before"
        connection.execute(
            "UPDATE sources SET etag = ?, modified = ?, highest = ?, error = ?, failures = 0, wait_until = NULL,"
            " succeeded = CASE WHEN ? THEN succeeded ELSE ? END WHERE name = ?",
            (
                found.etag, found.modified, max([*ids, highest]), error, state == "stale", now, source.name,
            ),
        )  # fmt: skip
        _log(database, source.name, now, state, new, batch.left_out)
    return Outcome(source.name, source.title, state, new, batch.left_out, error or "")


def _had_before(database: Database, source: Source, day: str) -> bool:
    """Whether the last list that brought something was one of an earlier day."""
    last = database.value("SELECT max(day) FROM checks WHERE source = ? AND new > 0", source.name)
    return bool(last) and last < day


def _failed(
    database: Database, source: Source, error: str, wish: float | None, failures: int, now: float
) -> Outcome:  # fmt: skip
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures, 20)) * random.uniform(0.8, 1.2)
    wait = max(wait, wish or 0.0)
    with database.write() as connection:
        connection.execute(
            "UPDATE sources SET error = ?, failures = failures + 1, wait_until = ? WHERE name = ?",
            (error[:500], now + wait, source.name),
        )
        _log(database, source.name, now, "failed", 0, 0)
    return Outcome(source.name, source.title, "failed", error=error)


def _log(database: Database, source: str, now: float, outcome: str, new: int, left_out: int) -> None:
    with database.write() as connection:
        connection.execute(
            "INSERT OR REPLACE INTO checks VALUES (?, ?, ?, ?, ?, ?)",
            (source, now, today(now), outcome, new, left_out),
        )


class Schedule:
    """Does its work again and again in a thread, the first time at once; ``stop`` ends it.

    The time between is counted by a clock that cannot be set: corrections and summer time neither skip nor repeat.
    What goes wrong is logged and tried again soon.

    Args:
        work: what is to be done.
        every: seconds from the end of one time to the next.
    """

    def __init__(self, work: Callable[[], object], every: float) -> None:
        self.work, self.every = work, every
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="schedule", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Work once more soon, without waiting for its time."""
        self._wake.set()

    def stop(self) -> None:
        """End before the next time; work that is under way is not waited for."""
        self._stop.set()
        self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            wait = self.every
            try:
                self.work()
            except Exception:
                log.exception("the schedule")
                wait = min(wait, AFTER_FAULT)
            self._wake.wait(wait)
            self._wake.clear()
