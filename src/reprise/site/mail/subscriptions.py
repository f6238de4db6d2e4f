"""Who gets mail about what: signing up, confirming, leaving, each by a link that only a POST acts on."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadData, URLSafeSerializer

from reprise.lab.paper import nearest
from reprise.site.database import Database
from reprise.site.search.library import known
from reprise.site.search.words import content

__all__ = ["CONSENT", "Subscription", "TooMany", "confirm", "find", "leave", "links", "sign_up", "tidy", "topic_words"]

CONFIRM_WITHIN = 48 * 3600.0  # seconds
PENDING_FOR = 7 * 86400.0
BY_ADDRESS, BY_NETWORK = (3, 86400.0), (10, 3600.0)  # sign-ups in so many seconds
CONSENT = (
    "I want these messages by e-mail. reprise keeps my address for that alone until I leave by the link in every "
    "message; then only a keyed hash of it stays."
)
ADDRESS = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}"
)
EVERY = ("day", "week")
TOPICS = ("room", "search", "paper")


class TooMany(RuntimeError):
    """More sign-ups from one network than are taken."""


@dataclass(frozen=True)
class Subscription:
    """A row of the table; ``address`` is a keyed hash once its reader has left."""

    id: int
    address: str
    state: str
    every: str
    topic: str
    value: str
    nonce: str
    created: float
    confirmed: float | None
    refusals: int
    entries_seen: int
    changes_seen: int

    @classmethod
    def of(cls, row: sqlite3.Row) -> Subscription:
        """From a row."""
        return cls(*(row[name] for name in cls.__dataclass_fields__))


def sign_up(
    database: Database, key: str, address: str, every: str, topic: str, value: str, network: str, now: float
) -> None:
    """Make a subscription that waits for its confirmation, and queue the message that asks for it.

    Nothing tells whether the address was known: known or not, confirmed or not, the caller learns the same.

    Args:
        database: where.
        key: signs what is kept of the address and the network.
        address: where mail goes.
        every: day or week.
        topic, value: room, search or paper, and which.
        network: where the request came from.
        now: the time.

    Raises:
        ValueError: the address or topic is none; the message says what to write instead.
        TooMany: from this network.
    """
    address = address.strip()
    if len(address) > 254 or not ADDRESS.fullmatch(address) or ".." in address:
        raise ValueError("That is no e-mail address of the usual form, name@example.org.")
    if every not in EVERY:
        raise ValueError("Choose day or week.")
    value = _checked(database, topic, value)
    with database.write() as connection:
        if not _allowed(connection, _hash(key, "network", network), BY_NETWORK, now):
            raise TooMany("Too many sign-ups from your network; try again in an hour.")
        if not _allowed(connection, _hash(key, "address", address.lower()), BY_ADDRESS, now):
            return
        same = connection.execute(
            "SELECT * FROM subscriptions WHERE lower(address) = ? AND every = ? AND topic = ? AND value = ?"
            " AND state != 'left'",
            (address.lower(), every, topic, value),
        ).fetchone()
        if same is not None and same["state"] == "active":
            return
        if same is None:
            cursor = connection.execute(
                "INSERT INTO subscriptions (address, state, every, topic, value, nonce, consent, created, entries_seen,"
                " changes_seen) VALUES (?, 'pending', ?, ?, ?, ?, ?, ?, 0, 0)",
                (address, every, topic, value, secrets.token_urlsafe(24), CONSENT, now),
            )
            number = cursor.lastrowid
        else:  # still pending, or suspended: whoever answers the new message wants it
            number = same["id"]
        before = connection.execute(
            "SELECT count(*) FROM deliveries WHERE subscription = ? AND period LIKE 'confirm-%'", (number,)
        ).fetchone()[0]
        connection.execute(
            "INSERT INTO deliveries (subscription, period, content, state, next_try, created)"
            " VALUES (?, ?, '{}', 'queued', ?, ?)",
            (number, f"confirm-{before + 1}", now, now),
        )


def _checked(database: Database, topic: str, value: str) -> str:
    value = " ".join(value.split())
    if topic == "search":
        if not content(value) or len(value) > 200:
            raise ValueError("A search needs a word, and at most 200 letters.")
        return value
    papers = known(database)
    names = sorted({paper.room for paper in papers.values()} if topic == "room" else papers)
    if topic not in TOPICS or value not in names:
        raise ValueError(
            f"There is no {topic} {value!r}{nearest(value, names)}." if topic in TOPICS else "Choose a topic."
        )
    return value


def _allowed(connection: sqlite3.Connection, who: str, limit: tuple[int, float], now: float) -> bool:
    count, seconds = limit
    made = connection.execute(
        "SELECT count(*) FROM attempts WHERE who = ? AND at > ? AND at <= ?", (who, now - seconds, now)
    ).fetchone()[0]
    connection.execute("INSERT INTO attempts VALUES (?, ?)", (who, now))
    return bool(made < count)


def _hash(key: str, purpose: str, text: str) -> str:
    return hmac.new(key.encode(), f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


# Links ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Links:
    """The paths of a subscription's links."""

    confirm: str
    leave: str


def links(key: str, subscription: Subscription, now: float) -> Links:
    """The links for a message: they hold a number and a nonce, never the address."""
    confirming = _signer(key, "confirm").dumps([subscription.id, subscription.nonce, int(now)])
    leaving = _signer(key, "leave").dumps([subscription.id, subscription.nonce])
    return Links(f"/subscribe/confirm/{_text(confirming)}", f"/subscribe/leave/{_text(leaving)}")


def find(database: Database, key: str, purpose: str, token: str, now: float) -> Subscription | None:
    """The subscription that a link is of; None if the link is forged, or one for confirming is older than 48 hours."""
    try:
        number, nonce, *made = _signer(key, purpose).loads(token[:500])
    except (BadData, ValueError, TypeError):
        return None
    if (
        purpose == "confirm" and not -86400 <= now - made[0] <= CONFIRM_WITHIN
    ):  # a clock may have been put back a little
        return None
    row = database.row("SELECT * FROM subscriptions WHERE id = ? AND nonce = ?", number, nonce)
    return Subscription.of(row) if row else None


def confirm(database: Database, subscription: Subscription, now: float) -> None:
    """Begin: what comes from now on is sent. Twice is fine; who has left stays away."""
    with database.write() as connection:
        connection.execute(
            "UPDATE subscriptions SET state = 'active', confirmed = ?, refusals = 0,"
            " entries_seen = (SELECT coalesce(max(number), 0) FROM entries),"
            " changes_seen = (SELECT coalesce(max(number), 0) FROM changes)"
            " WHERE id = ? AND state IN ('pending', 'suspended')",
            (now, subscription.id),
        )


def leave(database: Database, key: str, subscription: Subscription, now: float) -> None:
    """End: the address becomes a keyed hash, what was waiting is dropped. Twice is fine."""
    with database.write() as connection:
        connection.execute(
            "UPDATE subscriptions SET state = 'left', left_at = ?, address = ? WHERE id = ? AND state != 'left'",
            (now, _hash(key, "left", subscription.address.lower()), subscription.id),
        )
        connection.execute("DELETE FROM deliveries WHERE subscription = ? AND state = 'queued'", (subscription.id,))


def tidy(database: Database, now: float) -> None:
    """Forget who never confirmed, and sign-ups that no limit counts any more."""
    with database.write() as connection:
        connection.execute("DELETE FROM subscriptions WHERE state = 'pending' AND created < ?", (now - PENDING_FOR,))
        connection.execute("DELETE FROM attempts WHERE at < ?", (now - BY_ADDRESS[1],))


def topic_words(subscription: Subscription) -> str:
    """What it is about, in words."""
    return {
        "room": f"new papers near the methods of {subscription.value}, and changed verdicts there",
        "search": f"new papers that match “{subscription.value}”",
        "paper": f"changed verdicts of {subscription.value}",
    }[subscription.topic]


def _signer(key: str, purpose: str) -> URLSafeSerializer:
    return URLSafeSerializer(key, salt=f"reprise.{purpose}", signer_kwargs={"digest_method": hashlib.sha256})


def _text(token: Any) -> str:
    return token if isinstance(token, str) else token.decode("ascii")
