"""Subscriptions and digests, against a real mail server that has good and bad days."""

from __future__ import annotations

import email
import email.policy
import logging
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reprise.site.database import Database
from reprise.site.feed import store
from reprise.site.feed.records import make
from reprise.site.mail.digests import PACE, Round, deliver
from reprise.site.mail.subscriptions import Subscription, TooMany, confirm, find, leave, links, sign_up, tidy
from reprise.site.mail.transport import Outbox, Smtp, configured

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


# Signing up ----------------------------------------------------------------------------------------------------------


def test_from_sign_up_to_the_first_digest(database: Database, clock: Any, post: Post, smtp: Smtp) -> None:
    sign_up(database, KEY, READER, "day", "room", "policies", "127.0.0.1", clock())
    assert go(database, smtp, clock).sent == 1
    path = re.search(rf"{BASE}(/subscribe/confirm/\S+)", body(post.got[0]))
    assert path and READER not in path[1]
    arrive(database, "2611.00001")
    clock.now += DAY
    assert str(go(database, smtp, clock)) == "nothing to send"  # nobody has confirmed
    found = find(database, KEY, "confirm", path[1].rsplit("/", 1)[1], clock())
    assert found is not None and found.state == "pending"
    confirm(database, found, clock())
    confirm(database, found, clock())  # twice is fine
    arrive(database, "2611.00002")
    assert go(database, smtp, clock).sent == 0  # the first digest is tomorrow's
    clock.now += DAY
    assert go(database, smtp, clock).sent == 1
    digest = post.got[1]
    assert "2611.00002" in body(digest) and "2611.00001" not in body(digest)  # what came before is not told
    assert "near DSRL (policy, frozen)" in body(digest) and "A, B, C and others" in body(digest)
    assert digest["Subject"].endswith("1 new paper")
    assert [part.get_content_type() for part in digest.iter_parts()] == ["text/plain", "text/html"]
    assert go(database, smtp, clock).sent == 0
    clock.now += DAY
    assert go(database, smtp, clock).sent == 0  # nothing new


@pytest.mark.parametrize(
    "address",
    [
        "", "ada", "ada@", "ada@host", "a b@example.org", "ada@example.org\nBcc: eve@example.org", "<ada@example.org>",
        "ada@example.org, eve@example.org", f"{'a' * 65}@example.org", "ada@-x.org", "a..b@example.org",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(database: Database, address: str) -> None:
    with pytest.raises(ValueError, match="no e-mail address"):
        sign_up(database, KEY, address, "day", "room", "policies", "127.0.0.1", 0.0)


@pytest.mark.parametrize(
    ("every", "topic", "value", "told"),
    [
        ("hour", "room", "nn", "day or week"),
        ("day", "room", "polices", "did you mean 'policies'"),
        ("day", "author", "x", "topic"),
        ("day", "search", "???", "needs a word"),
        ("day", "paper", "dslr", "did you mean 'dsrl'"),
    ],
)
def test_what_is_no_topic_is_told(database: Database, every: str, topic: str, value: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        sign_up(database, KEY, READER, every, topic, value, "127.0.0.1", 0.0)


def test_known_or_not_the_answer_is_the_same_and_no_second_mail_comes(database: Database, clock: Any) -> None:
    subscribed(database, clock)
    sign_up(database, KEY, READER.upper(), "day", "room", "policies", "127.0.0.1", clock())
    assert states(database) == []
    assert database.value("SELECT count(*) FROM subscriptions") == 1


def test_sign_ups_are_limited_by_address_silently_and_by_network_aloud(database: Database, clock: Any) -> None:
    for _ in range(5):
        sign_up(database, KEY, READER, "day", "room", "policies", "127.0.0.1", clock())
    assert len(states(database)) == 3
    for i in range(5):
        sign_up(database, KEY, f"a{i}@example.org", "day", "room", "policies", "127.0.0.1", clock())
    with pytest.raises(TooMany):
        sign_up(database, KEY, "b@example.org", "day", "room", "policies", "127.0.0.1", clock())
    sign_up(database, KEY, "b@example.org", "day", "room", "policies", "10.0.0.1", clock())
    clock.now += 3601
    sign_up(database, KEY, "c@example.org", "day", "room", "policies", "127.0.0.1", clock())
    kept = [row[0] for row in database.rows("SELECT who FROM attempts")]
    assert not any("example" in who or "127" in who for who in kept)


def test_who_never_confirms_is_forgotten(database: Database, clock: Any) -> None:
    sign_up(database, KEY, READER, "day", "room", "policies", "127.0.0.1", clock())
    tidy(database, clock() + 7 * DAY + 1)
    assert (
        database.value("SELECT count(*) FROM subscriptions") == database.value("SELECT count(*) FROM deliveries") == 0
    )


def test_links_are_signed_and_the_one_for_confirming_grows_old(database: Database, clock: Any) -> None:
    reader = subscribed(database, clock)
    made = links(KEY, reader, clock())
    token, leaving = made.confirm.rsplit("/", 1)[1], made.leave.rsplit("/", 1)[1]
    assert find(database, KEY, "confirm", token, clock() + 47 * 3600)
    assert find(database, KEY, "confirm", token, clock() + 49 * 3600) is None
    assert find(database, KEY, "leave", leaving, clock() + 10 * 365 * DAY)
    assert find(database, KEY, "leave", token, clock()) is None  # a link for one thing does no other
    assert find(database, "another key", "leave", leaving, clock()) is None
    assert find(database, KEY, "leave", leaving[:-2] + "xx", clock()) is None
    assert find(database, KEY, "leave", "x" * 100_000, clock()) is None


def test_leaving_leaves_a_hash_and_drops_what_waits(database: Database, clock: Any, post: Post, smtp: Smtp) -> None:
    reader = subscribed(database, clock)
    arrive(database, "2611.00001")
    post.rcpt = "451 later"
    go(database, smtp, clock)
    assert states(database) == ["queued"]
    leave(database, KEY, reader, clock())
    leave(database, KEY, reader, clock())
    assert states(database) == []
    kept = database.value("SELECT address FROM subscriptions")
    assert "@" not in kept and len(kept) == 64
    confirm(database, reader, clock())
    assert database.value("SELECT state FROM subscriptions") == "left"


# What is told --------------------------------------------------------------------------------------------------------


def test_a_changed_verdict_is_told_to_its_paper_and_its_room(
    database: Database, clock: Any, post: Post, smtp: Smtp
) -> None:
    subscribed(database, clock, "paper", "dsrl")
    with database.write() as connection:
        connection.execute(
            "INSERT INTO changes (slug, at, before, now) VALUES ('dsrl', 0, 'holds at laptop scale', 'fails')"
        )
        connection.execute("INSERT INTO changes (slug, at, before, now) VALUES ('moat', 0, 'holds', 'fails')")
    arrive(database, "2611.00001")
    assert go(database, smtp, clock).sent == 1
    assert "holds at laptop scale before, fails now" in body(post.got[0]) and "moat" not in body(post.got[0])
    assert "2611.00001" not in body(post.got[0])
    assert post.got[0]["Subject"].endswith("1 changed verdict")


def test_a_search_is_told_what_matches_all_its_words(database: Database, clock: Any, post: Post, smtp: Smtp) -> None:
    subscribed(database, clock, "search", "hopfield NETWORKS")
    records = [
        make(id="2611.00001", title="A Hopfield network"),
        make(id="2611.00002", title="A convolutional network"),
    ]
    for number in store.add(database, "test", [r for r in records if r], 0.0):
        with database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES ('nearest', ?)", (f"m v {number}",))
    assert go(database, smtp, clock).sent == 1
    assert "A Hopfield network" in body(post.got[0]) and "convolutional" not in body(post.got[0])


def test_a_long_list_goes_on_in_the_next_digest(database: Database, clock: Any, post: Post, smtp: Smtp) -> None:
    subscribed(database, clock)
    arrive(database, *[f"2611.{i:05}" for i in range(1, 131)])
    go(database, smtp, clock)
    clock.now += DAY
    go(database, smtp, clock)
    told = [re.findall(r"Steering (\S+)", body(message)) for message in post.got]
    assert [len(ids) for ids in told] == [100, 30] and len({*told[0], *told[1]}) == 130


def test_weekly_is_once_a_week(database: Database, clock: Any, post: Post, smtp: Smtp) -> None:
    subscribed(database, clock, every="week")
    for day in range(10):
        arrive(database, f"2611.{day + 1:05}")
        clock.now += DAY
        go(database, smtp, clock)
    assert len(post.got) == 1 and body(post.got[0]).count("Steering") == 5  # those until Monday noon, and one more


# Bad days ------------------------------------------------------------------------------------------------------------


def test_later_is_tried_again_with_growing_waits_and_sent_once(
    database: Database, clock: Any, post: Post, smtp: Smtp
) -> None:
    subscribed(database, clock)
    arrive(database, "2611.00001")
    post.data = "421 too busy"
    waits = []
    for _ in range(3):
        assert go(database, smtp, clock).later == 1
        waits.append(database.value("SELECT next_try FROM deliveries") - clock())
        assert go(database, smtp, clock) == Round()  # not yet
        clock.now += waits[-1]
    assert waits == [300.0, 600.0, 1200.0]
    post.data, post.got = "250 OK", []
    assert go(database, smtp, clock).sent == 1 and len(post.got) == 1
    assert states(database) == ["sent"]


def test_after_a_day_of_later_the_next_digest_holds_it_all(
    database: Database, clock: Any, post: Post, smtp: Smtp
) -> None:
    subscribed(database, clock)
    arrive(database, "2611.00001")
    post.rcpt = "450 greylisted"
    go(database, smtp, clock)
    clock.now += DAY + 1
    go(database, smtp, clock)
    assert states(database) == ["failed"]
    post.rcpt = "250 OK"
    arrive(database, "2611.00002")
    assert go(database, smtp, clock).sent == 1
    assert body(post.got[0]).count("Steering") == 2 and "possibly" not in body(post.got[0])


def test_a_reader_who_is_refused_twice_is_suspended(database: Database, clock: Any, post: Post, smtp: Smtp) -> None:
    subscribed(database, clock)
    post.rcpt = "550 no such user ADDRESS"
    for day in range(3):
        arrive(database, f"2611.{day + 1:05}")
        go(database, smtp, clock)
        clock.now += DAY
    assert states(database) == ["failed", "failed"]
    assert database.value("SELECT state FROM subscriptions") == "suspended"
    assert READER not in "".join(str(row[0]) for row in database.rows("SELECT reply FROM deliveries"))


def test_a_line_that_drops_after_the_text_is_unknown_and_told_as_possibly_seen(
    database: Database, clock: Any, post: Post, smtp: Smtp
) -> None:
    subscribed(database, clock)
    arrive(database, "2611.00001")
    post.drop = "after the text"
    assert go(database, smtp, clock).unknown == 1
    assert go(database, smtp, clock) == Round() and len(post.got) == 1  # not sent again
    post.drop = ""
    arrive(database, "2611.00002")
    clock.now += DAY
    assert go(database, smtp, clock).sent == 1
    text = body(post.got[1])
    assert re.search(r"Steering 2611.00001\s+possibly seen before", text)
    assert not re.search(r"Steering 2611.00002\s+possibly", text)
    clock.now += DAY
    arrive(database, "2611.00003")
    go(database, smtp, clock)
    assert body(post.got[2]).count("Steering") == 1


def test_a_server_that_is_away_loses_nothing(database: Database, clock: Any, post: Post) -> None:
    subscribed(database, clock)
    arrive(database, "2611.00001")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    away = Smtp("127.0.0.1", port, "reprise@example.org", security="none")
    assert go(database, away, clock).later == 1
    assert states(database) == ["queued"]


KILLED = """
import os, sys
from pathlib import Path
from reprise.site.database import Database
from reprise.site.mail import digests, transport
when = sys.argv[3]
if when == "before the text":
    transport.Smtp._data = lambda *args: os.kill(os.getpid(), 9)
else:
    finish = digests._finish
    digests._finish = lambda *args: os.kill(os.getpid(), 9)
smtp = transport.Smtp("127.0.0.1", int(sys.argv[2]), "reprise@example.org", security="none")
digests.deliver(Database(Path(sys.argv[1])), smtp, "a key", "http://127.0.0.1:8000", lambda: float(sys.argv[4]))
"""


@pytest.mark.parametrize(("when", "arrived"), [("before the text", 0), ("after the answer", 1)])
def test_a_killed_process_sends_nothing_twice_and_loses_nothing(
    database: Database, clock: Any, post: Post, smtp: Smtp, when: str, arrived: int
) -> None:
    subscribed(database, clock)
    arrive(database, "2611.00001")
    command = [sys.executable, "-c", KILLED, str(database.path), str(post.port), when, str(clock())]  # type: ignore[attr-defined]
    assert subprocess.run(command, timeout=60).returncode == -9
    assert len(post.got) == arrived and states(database) == ["sending"]
    assert go(database, smtp, clock).unknown == 1  # at once: who held the lease is dead
    assert states(database) == ["unknown"] and len(post.got) == arrived
    clock.now += DAY
    assert go(database, smtp, clock).sent == 1
    assert "possibly seen before" in body(post.got[-1])


def test_one_process_sends_at_a_time(database: Database, clock: Any, post: Post, smtp: Smtp) -> None:
    subscribed(database, clock)
    arrive(database, "2611.00001")
    inner = []

    class Slow:
        repeatable = False

        def send(self, message: Any, address: str, before: Any) -> None:
            before()
            inner.append(go(Database(database.path), smtp, clock))

    assert go(database, Slow(), clock).sent == 1
    assert inner[0].elsewhere and not post.got


def test_clocks_that_jump_send_no_digest_twice(database: Database, clock: Any, post: Post, smtp: Smtp) -> None:
    subscribed(database, clock)
    arrive(database, "2611.00001")
    go(database, smtp, clock)
    clock.now += 400 * DAY  # a clock a year ahead
    arrive(database, "2611.00002")
    go(database, smtp, clock)
    clock.now -= 400 * DAY
    for _ in range(3):
        clock.now += DAY
        go(database, smtp, clock)
    told = re.findall(r"Steering (\S+)", "".join(map(body, post.got)))
    assert told == ["2611.00001", "2611.00002"]


def test_messages_leave_slowly(database: Database, clock: Any, post: Post, smtp: Smtp) -> None:
    for name in ("a", "b", "c"):
        sign_up(database, KEY, f"{name}@example.org", "day", "room", "policies", "127.0.0.1", clock())
    assert go(database, smtp, clock).sent == 3
    assert clock.slept == [PACE, PACE]


# The form of messages ------------------------------------------------------------------------------------------------


def test_one_click_is_promised_only_over_https(database: Database, clock: Any, post: Post, smtp: Smtp) -> None:
    reader = subscribed(database, clock)
    arrive(database, "2611.00001")
    go(database, smtp, clock)
    assert post.got[0]["List-Unsubscribe"] is None and post.got[0]["List-Unsubscribe-Post"] is None
    assert f"{BASE}/subscribe/leave/" in body(post.got[0])
    arrive(database, "2611.00002")
    clock.now += DAY
    go(database, smtp, clock, "https://papers.example.org")
    message = post.got[1]
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = re.fullmatch(r"<https://papers\.example\.org/subscribe/leave/(\S+)>", message["List-Unsubscribe"])
    assert link and find(database, KEY, "leave", link[1], clock()) == Subscription(
        **{**vars(reader), "entries_seen": 2}
    )
    assert message["List-Id"] and message["Auto-Submitted"] == "auto-generated" and message["Date"]
    assert message["Message-ID"].endswith("@papers.example.org>")


def test_hostile_titles_stay_text(database: Database, clock: Any, post: Post, smtp: Smtp) -> None:
    subscribed(database, clock, "search", "steering")
    record = make(
        id="2611.00001", title='Steering <img src=x onerror=alert(1)>\r\nBcc: eve@example.org "quoted"\n.\nQUIT'
    )
    store.add(database, "test", [record] if record else [], 0.0)
    with database.write() as connection:
        connection.execute("INSERT OR REPLACE INTO facts VALUES ('nearest', 'm v 1')")
    assert go(database, smtp, clock).sent == 1
    message = post.got[0]
    assert message["Bcc"] is None and "<img" not in body(message, "html") and "&lt;img" in body(message, "html")
    assert "http://" not in re.sub(re.escape(BASE), "", body(message, "html"))  # nothing from elsewhere


def test_without_a_mail_server_messages_are_files(database: Database, clock: Any, home: Path) -> None:
    outbox = configured()
    assert isinstance(outbox, Outbox)
    subscribed(database, clock)
    arrive(database, "2611.00001")
    assert go(database, outbox, clock).sent == 1
    (file,) = (home / "outbox").glob("*.eml")
    assert "Steering 2611.00001" in file.read_text() and file.stat().st_mode & 0o077 == 0
    with database.write() as connection:
        connection.execute("UPDATE deliveries SET state = 'sending'")  # as a crash would leave it
    assert go(database, outbox, clock).sent == 1
    assert len([*(home / "outbox").glob("*.eml")]) == 1  # the same file once more


def test_settings_of_a_mail_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_SMTP_HOST", "mail.example.org")
    with pytest.raises(ValueError, match="REPRISE_MAIL_FROM"):
        configured()
    monkeypatch.setenv("REPRISE_MAIL_FROM", "reprise@example.org")
    assert configured() == Smtp("mail.example.org", 587, "reprise@example.org")
    monkeypatch.setenv("REPRISE_SMTP_SECURITY", "ssl")
    with pytest.raises(ValueError, match="starttls, tls or none"):
        configured()


def test_no_address_reaches_the_logs(
    database: Database, clock: Any, post: Post, smtp: Smtp, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        subscribed(database, clock)
        for day, reply in enumerate(("250 OK", "450 no ADDRESS", "550 no ADDRESS")):
            post.rcpt = reply
            arrive(database, f"2611.{day + 1:05}")
            go(database, smtp, clock)
            clock.now += 2 * DAY
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("reprise")]
    assert ours and not any("ada" in line or "example.org" in line for line in ours)
