"""What a subscription is told next, frozen once, sent once: over crashes too.

A digest is frozen with the numbers of the last paper and change in it; the reader's place moves there only when the
mail server has taken the message. "sending" is kept before the text goes out, "sent" after the server's answer. What a
crash or a dropped line left in between is "unknown": it is not sent again, and the next digest holds the same papers
once more, marked as possibly seen. So nothing comes twice unmarked, and nothing is lost.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from reprise.site.database import Database
from reprise.site.feed.store import load
from reprise.site.mail.messages import compose
from reprise.site.mail.subscriptions import Subscription, tidy
from reprise.site.mail.transport import Later, Lost, Refused, Transport
from reprise.site.search.library import known
from reprise.site.search.nearest import nearest_to
from reprise.site.search.words import matching

__all__ = ["Round", "deliver", "period_of"]

MOST = 100  # papers in a digest; the others are in the next
FROM_HOUR = 12  # UTC: when the day's lists are in
PACE = 2.0  # seconds between two messages
RETRY, RETRY_FOR = 300.0, 86400.0  # seconds: the first wait after a "later", and how long it is tried
SUSPENDED_AFTER = 2  # refusals by the reader's server
LEASE = 600.0  # seconds after which another process may send although this one never said it was done

log = logging.getLogger(__name__)


@dataclass
class Round:
    """What one round did, in numbers."""

    frozen: int = 0
    sent: int = 0
    later: int = 0
    refused: int = 0
    unknown: int = 0
    elsewhere: bool = False

    def __str__(self) -> str:
        if self.elsewhere:
            return "another process is sending"
        told = [f"{count} {name}" for name, count in vars(self).items() if name != "elsewhere" and count]
        return ", ".join(told) or "nothing to send"


def deliver(
    database: Database,
    transport: Transport,
    key: str,
    base: str,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Round:
    """Freeze what is due and send what waits.

    Args:
        database: where subscriptions and messages are.
        transport: how messages leave.
        key: signs the links.
        base: the address that links begin with.
        clock, sleep: the time.
    """
    holder, done = f"{socket.gethostname()}:{os.getpid()} {uuid.uuid4().hex}", Round()
    if not _take(database, holder, clock()):
        done.elsewhere = True
        return done
    try:
        _recover(database, transport, done, clock())
        tidy(database, clock())
        for row in database.rows("SELECT * FROM subscriptions WHERE state = 'active' ORDER BY id"):
            done.frozen += _freeze(database, Subscription.of(row), clock())
        tried: set[int] = set()
        while True:
            waiting = database.value(
                "SELECT id FROM deliveries WHERE state = 'queued' AND next_try <= ? ORDER BY next_try, id", clock()
            )
            if waiting is None or waiting in tried or not _take(database, holder, clock()):
                return done
            if tried:
                sleep(PACE)
            tried.add(waiting)
            _send(database, transport, key, base, waiting, done, clock)
    finally:
        with database.write() as connection:
            connection.execute("DELETE FROM leases WHERE name = 'mail' AND holder = ?", (holder,))


def period_of(every: str, now: float) -> str:
    """The day or week that a digest of that moment is for: before noon UTC the one before.

    Example:
        >>> noon = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
        >>> period_of("day", noon), period_of("day", noon - 1), period_of("week", noon), period_of("week", noon - 1)
        ('2026-11-23', '2026-11-22', '2026-W48', '2026-W47')
    """
    moment = datetime.fromtimestamp(now - FROM_HOUR * 3600, UTC)
    year, week, _ = moment.isocalendar()
    return moment.date().isoformat() if every == "day" else f"{year:04}-W{week:02}"


# Freezing ------------------------------------------------------------------------------------------------------------


def _freeze(database: Database, subscription: Subscription, now: float) -> bool:
    """Make the digest of this period, if it is due and there is something to tell."""
    period = period_of(subscription.every, now)
    if period <= period_of(subscription.every, subscription.confirmed or now):
        return False
    last = database.row(
        "SELECT max(period) AS period, max(state IN ('queued', 'sending')) AS waits FROM deliveries"
        " WHERE subscription = ? AND period NOT LIKE 'confirm-%'",
        subscription.id,
    )
    if last is not None and (last["waits"] or (last["period"] or "") >= period):  # >=: clocks may be put back
        return False
    items, entries_seen, changes_seen = _news(database, subscription)
    with database.write() as connection:
        if not items:  # what does not concern the reader need not be looked at again
            connection.execute(
                "UPDATE subscriptions SET entries_seen = ?, changes_seen = ? WHERE id = ?",
                (entries_seen, changes_seen, subscription.id),
            )
            return False
        cursor = connection.execute(
            "INSERT OR IGNORE INTO deliveries (subscription, period, content, entries_seen, changes_seen, state,"
            " next_try, created) VALUES (?, ?, ?, ?, ?, 'queued', ?, ?)",
            (subscription.id, period, json.dumps({"items": items}), entries_seen, changes_seen, now, now),
        )
        return cursor.rowcount > 0


def _news(database: Database, subscription: Subscription) -> tuple[list[dict[str, str]], int, int]:
    """What came since the reader's place, and the place after it."""
    lost = database.row(
        "SELECT max(entries_seen) AS entries, max(changes_seen) AS changes FROM deliveries"
        " WHERE subscription = ? AND state = 'unknown'",
        subscription.id,
    )
    seen_entries, seen_changes = (lost["entries"] or 0, lost["changes"] or 0) if lost is not None else (0, 0)
    papers = known(database)
    items = []
    changes = database.rows("SELECT * FROM changes WHERE number > ? ORDER BY number", subscription.changes_seen)
    for row in changes:
        paper = papers.get(row["slug"])
        wanted = subscription.topic == "paper" and row["slug"] == subscription.value
        wanted |= subscription.topic == "room" and paper is not None and paper.room == subscription.value
        if wanted and paper is not None:
            told = "possibly told before; " if row["number"] <= seen_changes else ""
            line = f"{told}{row['before']} before, {row['now']} now"
            items.append({"title": paper.title, "path": f"/papers/{row['slug']}", "line": line, "kind": "verdict"})
    numbers, entries_seen = _entries(database, subscription)
    near = nearest_to(database, numbers)
    for entry in load(database, f"WHERE entries.number IN ({','.join(map(str, numbers))}) ORDER BY entries.number"):
        people = ", ".join(entry.authors[:3]) + (" and others" if len(entry.authors) > 3 else "")
        facts = ["possibly seen before"] if entry.number <= seen_entries else []
        facts += [people] if people else []
        facts += [
            f"near {papers[n.slug].name} ({', '.join(n.shared)})" for n in near[entry.number][:1] if n.slug in papers
        ]
        items.append({"title": entry.title, "path": f"/arxiv/{entry.id}", "line": "; ".join(facts), "kind": "paper"})
    return items, entries_seen, changes[-1]["number"] if changes else subscription.changes_seen


def _entries(database: Database, subscription: Subscription) -> tuple[list[int], int]:
    """The numbers of the next papers, and the last number that was looked at."""
    indexed = (
        database.value("SELECT value FROM facts WHERE name = 'nearest'") or "0"
    )  # later ones have no neighbours yet
    last = int(indexed.rsplit(" ", 1)[-1])
    if subscription.topic == "paper" or last <= subscription.entries_seen:
        return [], max(subscription.entries_seen, last)
    if subscription.topic == "search":
        numbers = matching(database, subscription.value, subscription.entries_seen, last, MOST)
    else:
        rows = database.rows(
            "SELECT DISTINCT entry FROM nearest JOIN library USING (slug) WHERE room = ? AND entry > ? AND entry <= ?"
            " ORDER BY entry LIMIT ?",
            subscription.value, subscription.entries_seen, last, MOST,
        )  # fmt: skip
        numbers = [row[0] for row in rows]
    return numbers, numbers[-1] if len(numbers) == MOST else last


# Sending -------------------------------------------------------------------------------------------------------------


def _take(database: Database, holder: str, now: float) -> bool:
    """Be the one process that sends; again every time it goes on."""
    with database.write() as connection:
        row = connection.execute("SELECT * FROM leases WHERE name = 'mail'").fetchone()
        if row is not None and row["holder"] != holder and now < row["until"] <= now + LEASE and _alive(row["holder"]):
            return False
        connection.execute("INSERT OR REPLACE INTO leases VALUES ('mail', ?, ?)", (holder, now + LEASE))
        return True


def _recover(database: Database, transport: Transport, done: Round, now: float) -> None:
    """What another process was sending when it ended: nobody knows, unless sending twice is as good as once."""
    state = "queued" if transport.repeatable else "unknown"
    with database.write() as connection:
        cursor = connection.execute(
            "UPDATE deliveries SET state = ?, finished = ?, reply = 'stopped while sending' WHERE state = 'sending'",
            (state, None if transport.repeatable else now),
        )
        done.unknown += cursor.rowcount if not transport.repeatable else 0


def _send(
    database: Database, transport: Transport, key: str, base: str, number: int, done: Round, clock: Callable[[], float]
) -> None:
    row = database.row(
        "SELECT period, content, tries, deliveries.created AS frozen, deliveries.entries_seen AS entries,"
        " deliveries.changes_seen AS changes, subscriptions.* FROM deliveries"
        " JOIN subscriptions ON subscriptions.id = subscription WHERE deliveries.id = ?",
        number,
    )
    confirming = row is not None and row["period"].startswith("confirm-")
    if row is None or row["state"] == "left" or (row["state"] != "active" and not confirming):
        _finish(database, number, "failed", "no longer wanted", clock())
        return
    subscription = Subscription.of(row)
    message = compose(key, base, subscription, row["period"], json.loads(row["content"]), clock())

    def before() -> None:
        with database.write() as connection:
            connection.execute("UPDATE deliveries SET state = 'sending', tries = tries + 1 WHERE id = ?", (number,))

    try:
        transport.send(message, subscription.address, before)
    except Later as error:
        done.later += 1
        if clock() - row["frozen"] > RETRY_FOR:  # the reader's place has not moved: the next digest holds it all
            _finish(database, number, "failed", str(error), clock())
            return
        with database.write() as connection:
            connection.execute(
                "UPDATE deliveries SET state = 'queued', tries = ?, next_try = ?, reply = ? WHERE id = ?",
                (row["tries"] + 1, clock() + RETRY * 2.0 ** min(row["tries"], 6), str(error)[:300], number),
            )
    except Refused as error:
        done.refused += 1
        with database.write() as connection:
            _finish(database, number, "failed", str(error), clock())
            if error.reader:
                connection.execute("UPDATE subscriptions SET refusals = refusals + 1 WHERE id = ?", (subscription.id,))
                connection.execute(
                    "UPDATE subscriptions SET state = 'suspended' WHERE id = ? AND refusals >= ? AND state = 'active'",
                    (subscription.id, SUSPENDED_AFTER),
                )
    except Lost as error:
        done.unknown += 1
        _finish(database, number, "unknown", str(error), clock())
    else:
        done.sent += 1
        with database.write() as connection:
            _finish(database, number, "sent", "", clock())
            if not confirming:
                connection.execute(
                    "UPDATE subscriptions SET refusals = 0, entries_seen = max(entries_seen, ?),"
                    " changes_seen = max(changes_seen, ?) WHERE id = ?",
                    (row["entries"], row["changes"], subscription.id),
                )
    log.info("message %d of subscription %d: %s", number, subscription.id, done)


def _finish(database: Database, number: int, state: str, reply: str, now: float) -> None:
    with database.write() as connection:
        connection.execute(
            "UPDATE deliveries SET state = ?, reply = ?, finished = ? WHERE id = ?", (state, reply[:300], now, number)
        )


def _alive(holder: str) -> bool:
    """Whether the process that holds the lease may still live; one of this machine that has ended does not."""
    host, _, process = holder.partition(" ")[0].rpartition(":")
    if host != socket.gethostname() or not process.isdigit():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
