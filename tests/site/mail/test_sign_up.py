"""Subscriptions: signing up, confirming, leaving, and what nobody may do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from reprise.site.database import Database
from reprise.site.mail.subscriptions import TooMany, confirm, find, leave, links, sign_up, tidy
from reprise.site.mail.transport import Smtp

KEY = "a key"
BASE = "http://127.0.0.1:8000"
READER = "ada@example.org"
DAY = 86400.0


def test_from_sign_up_to_the_first_digest(
    database: Database, clock: Any, post: Any, smtp: Smtp, arrive: Any, go: Any, body: Any
) -> None:
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


def test_known_or_not_the_answer_is_the_same_and_no_second_mail_comes(
    database: Database, clock: Any, subscribed: Any, states: Any
) -> None:
    subscribed(database, clock)
    sign_up(database, KEY, READER.upper(), "day", "room", "policies", "127.0.0.1", clock())
    assert states(database) == []
    assert database.value("SELECT count(*) FROM subscriptions") == 1


def test_sign_ups_are_limited_by_address_silently_and_by_network_aloud(
    database: Database, clock: Any, states: Any
) -> None:
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


def test_links_are_signed_and_the_one_for_confirming_grows_old(database: Database, clock: Any, subscribed: Any) -> None:
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


def test_leaving_leaves_a_hash_and_drops_what_waits(
    database: Database, clock: Any, post: Any, smtp: Smtp, arrive: Any, subscribed: Any, go: Any, states: Any
) -> None:
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
