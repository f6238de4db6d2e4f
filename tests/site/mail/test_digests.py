"""What digests tell, against a real mail server."""

from __future__ import annotations

import re
from typing import Any

from reprise.site.database import Database
from reprise.site.feed import store
from reprise.site.feed.records import make
from reprise.site.mail.transport import Smtp

DAY = 86400.0


def test_a_changed_verdict_is_told_to_its_paper_and_its_room(
    database: Database, clock: Any, post: Any, smtp: Smtp, arrive: Any, subscribed: Any, go: Any, body: Any
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


def test_a_search_is_told_what_matches_all_its_words(
    database: Database, clock: Any, post: Any, smtp: Smtp, subscribed: Any, go: Any, body: Any
) -> None:
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


def test_a_long_list_goes_on_in_the_next_digest(
    database: Database, clock: Any, post: Any, smtp: Smtp, arrive: Any, subscribed: Any, go: Any, body: Any
) -> None:
    subscribed(database, clock)
    arrive(database, *[f"2611.{i:05}" for i in range(1, 131)])
    go(database, smtp, clock)
    clock.now += DAY
    go(database, smtp, clock)
    told = [re.findall(r"Steering (\S+)", body(message)) for message in post.got]
    assert [len(ids) for ids in told] == [100, 30] and len({*told[0], *told[1]}) == 130


def test_weekly_is_once_a_week(
    database: Database, clock: Any, post: Any, smtp: Smtp, arrive: Any, subscribed: Any, go: Any, body: Any
) -> None:
    subscribed(database, clock, every="week")
    for day in range(10):
        arrive(database, f"2611.{day + 1:05}")
        clock.now += DAY
        go(database, smtp, clock)
    assert len(post.got) == 1 and body(post.got[0]).count("Steering") == 5  # those until Monday noon, and one more
