"""Digests on bad days: refusals, dropped lines, killed processes, jumping clocks; none twice, none lost."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from typing import Any

import pytest

from reprise.site.database import Database
from reprise.site.mail.digests import PACE, Round
from reprise.site.mail.subscriptions import sign_up
from reprise.site.mail.transport import Smtp

KEY = "a key"
READER = "ada@example.org"
DAY = 86400.0


def test_later_is_tried_again_with_growing_waits_and_sent_once(
    database: Database, clock: Any, post: Any, smtp: Smtp, arrive: Any, subscribed: Any, go: Any, states: Any
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
    database: Database, clock: Any, post: Any, smtp: Smtp, arrive: Any, subscribed: Any, go: Any, states: Any, body: Any
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


def test_a_reader_who_is_refused_twice_is_suspended(
    database: Database, clock: Any, post: Any, smtp: Smtp, arrive: Any, subscribed: Any, go: Any, states: Any
) -> None:
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
    database: Database, clock: Any, post: Any, smtp: Smtp, arrive: Any, subscribed: Any, go: Any, body: Any
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


def test_a_server_that_is_away_loses_nothing(
    database: Database, clock: Any, post: Any, arrive: Any, subscribed: Any, go: Any, states: Any
) -> None:
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
    database: Database,
    clock: Any,
    post: Any,
    smtp: Smtp,
    when: str,
    arrived: int,
    arrive: Any,
    subscribed: Any,
    go: Any,
    states: Any,
    body: Any,
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


def test_one_process_sends_at_a_time(
    database: Database, clock: Any, post: Any, smtp: Smtp, arrive: Any, subscribed: Any, go: Any
) -> None:
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


def test_clocks_that_jump_send_no_digest_twice(
    database: Database, clock: Any, post: Any, smtp: Smtp, arrive: Any, subscribed: Any, go: Any, body: Any
) -> None:
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


def test_messages_leave_slowly(database: Database, clock: Any, post: Any, smtp: Smtp, go: Any) -> None:
    for name in ("a", "b", "c"):
        sign_up(database, KEY, f"{name}@example.org", "day", "room", "policies", "127.0.0.1", clock())
    assert go(database, smtp, clock).sent == 3
    assert clock.slept == [PACE, PACE]
