"""Updates on bad days: errors, endless and hostile answers, full disks, jumping clocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reprise.site.database import Database, DatabaseError
from reprise.site.feed import client as client_module, store, update as update_module
from reprise.site.feed.client import Client, SourceError
from reprise.site.feed.sources import ArxivList, DailyPapers, File
from reprise.site.feed.update import update


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (429, b"Rate exceeded.", "429"),
        (500, b"", "500"),
        (503, b"<html>", "503"),
        (200, b"<!DOCTYPE html><html><body>Maintenance</body></html>", "web page"),
        (200, b"<feed><entry>", "damaged"),
        (200, b"", "damaged"),
        (200, b"\xff\xfe\x00garbage", "damaged"),
        (200, b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><feed>&b;</feed>', "damaged"),
        (200, b"<opml/>", "<opml>"),
    ],
)
def test_a_bad_answer_is_told_and_loses_nothing(
    database: Database, server: Any, ask: Any, reply: Any, status: int, body: bytes, told: str, rss: Any
) -> None:
    source = ArxivList(("cs.LG",), f"{server.url}/")
    server.answer = lambda asked: reply(200, rss("2611.00001"), {"ETag": '"a"'})
    ask(source)
    server.answer = lambda asked: reply(status, body)
    outcome = ask(source)
    assert outcome.state == "failed" and told in outcome.error
    assert store.find(database, "2611.00001") is not None
    row = database.row("SELECT * FROM sources")
    assert row is not None and row["etag"] == '"a"' and row["failures"] == 1 and told in row["error"]


@pytest.mark.parametrize(
    "body", [b"<html>", b"nothing", b'{"error": "too many"}', b'{"papers": 3}', b"[", b"[" * 100_000]
)
def test_json_that_is_none(server: Any, ask: Any, reply: Any, body: bytes) -> None:
    server.answer = lambda asked: reply(200, body)
    assert ask(DailyPapers(server.url)).state == "failed"


def test_entries_without_id_or_title_are_left_out_and_counted(server: Any, ask: Any, reply: Any, daily: Any) -> None:
    body = json.dumps([None, 3, "x", {"paper": {}}, {"paper": {"id": "2611.00001"}}, *json.loads(daily("2611.00002"))])
    server.answer = lambda asked: reply(200, body.encode() if "2026-11-25" in asked.path else b"[]")
    outcome = ask(DailyPapers(server.url))
    assert (outcome.new, outcome.left_out) == (1, 5)
    assert "5 without an id or title" in str(outcome)


def test_waiting_grows_and_is_kept(database: Database, server: Any, ask: Any, clock: Any, reply: Any, rss: Any) -> None:
    source, waits = ArxivList(("cs.LG",), f"{server.url}/"), []
    server.answer = lambda asked: reply(500)
    for _ in range(4):
        assert ask(source).state == "failed"
        waits.append(database.value("SELECT wait_until FROM sources") - clock.now)
        assert ask(source).state == "waiting"  # not asked
        clock.now += waits[-1] + 1
    assert len(server.asked) == 4
    assert all(0.8 * 60 * 2**i <= wait <= 1.2 * 60 * 2**i for i, wait in enumerate(waits))
    server.answer = lambda asked: reply(200, rss("2611.00001"))
    assert ask(source).new == 1
    assert database.value("SELECT failures FROM sources") == 0


def test_a_wish_to_be_left_alone_is_kept(database: Database, server: Any, ask: Any, clock: Any, reply: Any) -> None:
    server.answer = lambda asked: reply(429, b"", {"Retry-After": "4000"})
    source = ArxivList(("cs.LG",), f"{server.url}/")
    ask(source)
    clock.now += 3900
    assert ask(source).state == "waiting"
    clock.now += 101
    assert ask(source).state == "failed"
    server.answer = lambda asked: reply(429, b"", {"Retry-After": "Thu, 26 Nov 2026 12:00:00 GMT"})
    assert ask(source, insist=True).state == "failed"
    assert database.value("SELECT wait_until FROM sources") == pytest.approx(1_795_694_400)


def test_one_request_in_three_seconds_over_all_clients(database: Database, server: Any, clock: Any, reply: Any) -> None:
    server.answer = lambda asked: reply(200, b"x")
    for _ in range(3):  # as two processes would
        Client(database, clock=clock, sleep=clock.sleep).get(server.url)
    assert clock.slept == [3.0, 3.0]
    assert client_module.organisation("https://rss.arxiv.org/rss") == client_module.organisation(
        "https://export.arxiv.org"
    )


def test_the_user_agent_says_who_asks(
    server: Any, database: Database, reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRISE_CONTACT", "ada@example.org\r\nEvil: yes")
    server.answer = lambda asked: reply(200)
    Client(database, pace=0).get(server.url)
    assert (
        "reprise/" in server.asked[0].headers["User-Agent"]
        and "ada@example.org" in server.asked[0].headers["User-Agent"]
    )
    assert "Evil" not in server.asked[0].headers


def test_no_connection_is_told(database: Database, clock: Any, server: Any) -> None:
    server.close()
    with pytest.raises(SourceError, match="no connection"):
        Client(database, clock=clock, sleep=clock.sleep).get(server.url)


def test_an_endless_answer_is_cut(database: Database, server: Any, reply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LARGEST", 100_000)
    server.answer = lambda asked: reply(200, b"x" * 300_000)
    with pytest.raises(SourceError, match="larger"):
        Client(database, pace=0).get(server.url)


def test_one_source_that_fails_stops_no_other(
    database: Database, server: Any, clock: Any, reply: Any, rss: Any
) -> None:
    class Broken:
        name, title, address = "broken", "Broken", "nowhere"

        def fetch(self, *args: object) -> Any:
            raise ZeroDivisionError

    server.answer = lambda asked: reply(200, rss("2611.00001"))
    client = Client(database, clock=clock, sleep=clock.sleep)
    outcomes = update(database, [Broken(), ArxivList(("cs.LG",), f"{server.url}/")], client, clock)
    assert [outcome.state for outcome in outcomes] == ["failed", "new"]


def test_a_full_disk_keeps_neither_papers_nor_tags(
    database: Database, server: Any, ask: Any, reply: Any, clock: Any, rss: Any
) -> None:
    source = ArxivList(("cs.LG",), f"{server.url}/")
    ask(File(Path("/nowhere/a.json")))  # so that the tables have their first pages
    many = [f"2611.{i:05}" for i in range(400)]
    server.answer = lambda asked: reply(200, rss(*many), {"ETag": '"a"'})
    database.rows(f"PRAGMA max_page_count = {database.value('PRAGMA page_count') + 6}")
    with pytest.raises(DatabaseError, match="no room"):
        ask(source)
    assert database.value("SELECT count(*) FROM entries") == 0
    assert database.value("SELECT etag FROM sources WHERE name = 'arxiv:cs.LG'") is None
    database.rows("PRAGMA max_page_count = 1000000")
    clock.now += update_module.LEASE
    assert ask(source).new == 400
    assert "If-None-Match" not in server.asked[-1].headers


def test_clocks_that_jump(database: Database, server: Any, ask: Any, clock: Any, reply: Any, daily: Any) -> None:
    source = DailyPapers(server.url)
    server.answer = lambda asked: reply(200, daily("2611.00001"))
    clock.now += 400 * 86400  # a clock a year ahead
    ask(source)
    clock.now -= 400 * 86400  # put right
    assert ask(source).state == "new"
    assert clock.slept and max(clock.slept) <= 3.0
    clock.now += 10**9  # thirty years on
    server.asked.clear()
    ask(source)
    assert len(server.asked) <= 16  # two weeks are read up, not thirty years


def test_two_updates_at_once_ask_once(database: Database, server: Any, clock: Any, reply: Any, rss: Any) -> None:
    source, inner = ArxivList(("cs.LG",), f"{server.url}/"), []
    client = Client(database, clock=clock, sleep=clock.sleep)

    def answer(asked: Any) -> Any:
        inner.extend(update(Database(database.path), [source], client, clock))
        return reply(200, rss("2611.00001"))

    server.answer = answer
    assert update(database, [source], client, clock)[0].state == "new"
    assert [outcome.state for outcome in inner] == ["waiting"] and len(server.asked) == 1
