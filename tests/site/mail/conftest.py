"""A mail server that has good and bad days, readers who have subscribed, and papers that arrive."""

from __future__ import annotations

import email
import email.policy
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reprise.site.database import Database
from reprise.site.feed import store
from reprise.site.feed.records import make
from reprise.site.mail.digests import Round, deliver
from reprise.site.mail.subscriptions import Subscription, confirm, sign_up
from reprise.site.mail.transport import Smtp

KEY, BASE, READER = "a key", "http://127.0.0.1:8000", "ada@example.org"
DAY = 86400.0


class Post:
    """What the mail server got, and what it answers."""

    def __init__(self) -> None:
        self.got: list[email.message.Message] = []
        self.rcpt, self.data, self.drop = "250 OK", "250 OK", ""

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if self.rcpt.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt.replace("ADDRESS", address)

    async def handle_DATA(  # noqa: N802
        self, server: Any, session: Any, envelope: Any
    ) -> str:
        self.got.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        if self.drop == "after the text":
            server.transport.abort()
        return self.data


def arrive(database: Database, *ids: str, near: str = "dsrl", now: float = 0.0) -> None:
    """New papers in the feed, near an implemented one."""
    records = [record for id in ids if (record := make(id=id, title=f"Steering {id}", authors=["A", "B", "C", "D"]))]
    for number in store.add(database, "test", records, now):
        with database.write() as connection:
            connection.execute("INSERT INTO nearest VALUES (?, 0, ?, 0.5, 'policy, frozen')", (number, near))
            connection.execute("INSERT OR REPLACE INTO facts VALUES ('nearest', ?)", (f"m v {number}",))


def subscribed(
    database: Database, clock: Any, topic: str = "room", value: str = "policies", every: str = "day"
) -> Subscription:
    """A confirmed reader who never had to press the button."""
    sign_up(database, KEY, READER, every, topic, value, "127.0.0.1", clock())
    row = database.row("SELECT * FROM subscriptions ORDER BY id DESC LIMIT 1")
    assert row is not None
    confirm(database, Subscription.of(row), clock())
    with database.write() as connection:
        connection.execute("DELETE FROM deliveries")
    clock.now += DAY
    return Subscription.of(database.row("SELECT * FROM subscriptions WHERE id = ?", row["id"]))  # type: ignore[arg-type]


def go(database: Database, transport: Any, clock: Any, base: str = BASE) -> Round:
    return deliver(database, transport, KEY, base, clock, clock.sleep)


def states(database: Database) -> list[str]:
    return [row[0] for row in database.rows("SELECT state FROM deliveries ORDER BY id")]


def body(message: Any, kind: str = "plain") -> str:
    return message.get_body((kind,)).get_content()


@pytest.fixture
def post() -> Iterator[Post]:
    controller = pytest.importorskip("aiosmtpd.controller")
    made = Post()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made.port = probe.getsockname()[1]  # type: ignore[attr-defined]
    running = controller.Controller(made, hostname="127.0.0.1", port=made.port)  # type: ignore[attr-defined]
    running.start()
    yield made
    running.stop()


@pytest.fixture
def smtp(post: Any) -> Smtp:
    return Smtp("127.0.0.1", post.port, "reprise@example.org", security="none")


@pytest.fixture(autouse=True)
def papers(database: Database) -> None:
    """Two implemented papers; what the server would keep in step with the library."""
    with database.write() as connection:
        connection.execute(
            "INSERT INTO library VALUES ('dsrl', '2506.15799', 'DSRL: x', 'policies', 'holds', '', 'laptop')"
        )
        connection.execute("INSERT INTO library VALUES ('moat', '2210.01820', 'MOAT: y', 'nn', 'fails', '', 'laptop')")


@pytest.fixture(name="arrive")
def _arrive() -> Callable[..., Any]:
    return arrive


@pytest.fixture(name="subscribed")
def _subscribed() -> Callable[..., Any]:
    return subscribed


@pytest.fixture(name="go")
def _go() -> Callable[..., Any]:
    return go


@pytest.fixture(name="states")
def _states() -> Callable[..., Any]:
    return states


@pytest.fixture(name="body")
def _body() -> Callable[..., Any]:
    return body
