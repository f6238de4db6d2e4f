"""The form of messages, and where they go."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from reprise.site.database import Database
from reprise.site.feed import store
from reprise.site.feed.records import make
from reprise.site.mail.subscriptions import Subscription, find
from reprise.site.mail.transport import Outbox, Smtp, configured

KEY = "a key"
BASE = "http://127.0.0.1:8000"
DAY = 86400.0


def test_one_click_is_promised_only_over_https(
    database: Database, clock: Any, post: Any, smtp: Smtp, arrive: Any, subscribed: Any, go: Any, body: Any
) -> None:
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


def test_hostile_titles_stay_text(
    database: Database, clock: Any, post: Any, smtp: Smtp, subscribed: Any, go: Any, body: Any
) -> None:
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


def test_without_a_mail_server_messages_are_files(
    database: Database, clock: Any, home: Path, arrive: Any, subscribed: Any, go: Any
) -> None:
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
    database: Database,
    clock: Any,
    post: Any,
    smtp: Smtp,
    caplog: pytest.LogCaptureFixture,
    arrive: Any,
    subscribed: Any,
    go: Any,
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
