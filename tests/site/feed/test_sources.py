"""Updates from sources that answer as the real ones do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reprise.site.database import Database
from reprise.site.feed import store
from reprise.site.feed.formats import read, read_json, read_xml
from reprise.site.feed.sources import ArxivApi, ArxivList, DailyPapers, File, configured

TODAY, YESTERDAY = "Wed, 25 Nov 2026", "Tue, 24 Nov 2026"

# What arXiv's list says ----------------------------------------------------------------------------------------------


def test_the_list_of_the_day(database: Database, server: Any, ask: Any, reply: Any, rss: Any) -> None:
    server.answer = lambda asked: reply(200, rss("2611.00001", "2611.00002"))
    outcome = ask(ArxivList(("cs.LG", "cs.RO"), f"{server.url}/rss/"))
    assert (outcome.state, outcome.new) == ("new", 2)
    assert server.asked[0].path == "/rss/cs.LG+cs.RO"
    entry = store.find(database, "arXiv:2611.00001v1")
    assert entry is not None
    assert (entry.title, entry.authors, entry.day) == (
        "Paper 2611.00001",
        ("Ada Lovelace", "Emmy Noether"),
        "2026-11-25",
    )
    assert (entry.abstract, entry.categories) == ("We show that $x < y$.", ("cs.LG", "stat.ML"))


def test_a_new_version_is_a_row_of_its_entry_and_no_new_paper(
    database: Database, server: Any, ask: Any, reply: Any, rss: Any
) -> None:
    source = ArxivList(("cs.LG",), f"{server.url}/")
    server.answer = lambda asked: reply(200, rss("2611.00001"))
    ask(source)
    server.answer = lambda asked: reply(200, rss("2611.00001", "2601.00009", kind="replace", version=2))
    assert ask(source).new == 0
    assert store.find(database, "2601.00009") is None
    entry = store.find(database, "2611.00001")
    assert entry is not None and entry.version == 2
    assert [row["version"] for row in database.rows("SELECT version FROM versions")] == [1, 2]


def test_the_next_question_is_conditional(server: Any, ask: Any, reply: Any, rss: Any) -> None:
    source = ArxivList(("cs.LG",), f"{server.url}/")
    server.answer = lambda asked: reply(200, rss("2611.00001"), {"ETag": '"a"', "Last-Modified": "Wed, 25 Nov 2026"})
    ask(source)
    server.answer = lambda asked: reply(304)
    assert ask(source).state == "unchanged"
    assert server.asked[1].headers["If-None-Match"] == '"a"'
    assert server.asked[1].headers["If-Modified-Since"] == "Wed, 25 Nov 2026"
    ask(source)
    assert server.asked[2].headers["If-None-Match"] == '"a"'  # kept over an answer without one


def test_an_empty_list_does_not_count_as_read(server: Any, ask: Any, reply: Any, rss: Any) -> None:
    source = ArxivList(("cs.LG",), f"{server.url}/")
    server.answer = lambda asked: reply(200, rss(), {"ETag": '"empty"'})
    assert ask(source).state == "empty"
    server.answer = lambda asked: reply(200, rss("2611.00001"))
    assert ask(source).new == 1
    assert "If-None-Match" not in server.asked[1].headers


def test_an_old_list_under_a_new_date_is_stale_not_quiet(
    database: Database, server: Any, ask: Any, clock: Any, reply: Any, rss: Any
) -> None:
    source = ArxivList(("cs.LG",), f"{server.url}/")
    clock.now -= 86400
    server.answer = lambda asked: reply(200, rss("2611.00001", date=YESTERDAY))
    ask(source)
    clock.now += 86400
    server.answer = lambda asked: reply(200, rss("2611.00001", date=TODAY))
    outcome = ask(source)
    assert outcome.state == "stale" and "what it had listed before" in outcome.error
    server.answer = lambda asked: reply(200, rss("2611.00001", "2611.00002", date=TODAY))
    assert ask(source).new == 1
    assert ask(source).state == "new"  # today's list once more is no fault


# What arXiv's API says -----------------------------------------------------------------------------------------------


def test_the_search_reads_on_to_the_end(database: Database, server: Any, ask: Any, reply: Any, atom: Any) -> None:
    pages = [atom("2611.00001", "2611.00002", total=5), atom(total=5), atom("2611.00003", "2611.00004", total=5)]
    pages.append(atom("2611.00005", total=5))
    server.answer = lambda asked: reply(200, pages[len(server.asked) - 1])
    outcome = ask(ArxivApi(("cs.RO", "cs.LG"), f"{server.url}/api"))
    assert outcome.new == 5  # the empty page was no end
    assert "start=2" in server.asked[1].path and "start=2" in server.asked[2].path and "start=4" in server.asked[3].path
    assert "max_results=200" in server.asked[0].path
    entry = store.find(database, "10.1/ab")  # by its DOI
    assert entry is not None and entry.version == 2 and entry.comment == "8 pages" and entry.day == "2026-11-24"


def test_pages_that_stay_empty_are_told(database: Database, server: Any, ask: Any, reply: Any, atom: Any) -> None:
    server.answer = lambda asked: reply(200, atom("2611.00001", total=3) if len(server.asked) == 1 else atom(total=3))
    outcome = ask(ArxivApi(("cs.RO",), server.url))
    assert outcome.state == "failed" and "1 of 3" in outcome.error


def test_an_error_in_the_form_of_an_entry(server: Any, ask: Any, reply: Any) -> None:
    body = b"<feed xmlns='http://www.w3.org/2005/Atom'><entry><id>http://arxiv.org/api/errors#x</id>"
    body += b"<title>Error</title><summary>incorrect id format for 1</summary></entry></feed>"
    server.answer = lambda asked: reply(200, body)
    assert "incorrect id format" in ask(ArxivApi(("cs.RO",), server.url)).error


# What Hugging Face says ----------------------------------------------------------------------------------------------


def test_daily_papers_of_yesterday_and_today(database: Database, server: Any, ask: Any, reply: Any, daily: Any) -> None:
    def answer(asked: Any) -> Any:
        return reply(200, daily("2611.00001") if "2026-11-24" in asked.path else daily("2611.00001", "2611.00002"))

    server.answer = answer
    assert ask(DailyPapers(server.url)).new == 2
    entry = store.find(database, "2611.00001")
    assert entry is not None
    assert (entry.day, entry.published) == ("2026-11-24", "2026-11-20T10:00:00Z")  # the list's day, arXiv's instant
    assert entry.authors == ("Ada Lovelace",) and entry.code == "https://github.com/a/b"


def test_days_that_were_missed_are_read_up(server: Any, ask: Any, clock: Any, reply: Any) -> None:
    server.answer = lambda asked: reply(200, b"[]")
    source = DailyPapers(server.url)
    ask(source)
    clock.now += 4 * 86400
    server.asked.clear()
    ask(source)
    days = [asked.path.split("date=")[1][:10] for asked in server.asked]
    assert days == ["2026-11-25", "2026-11-26", "2026-11-27", "2026-11-28", "2026-11-29"]


def test_a_full_page_asks_for_the_next(server: Any, ask: Any, reply: Any, daily: Any) -> None:
    def answer(asked: Any) -> Any:
        if "2026-11-24" in asked.path:
            return reply(200, b"[]")
        return reply(200, daily("2611.00001", "2611.00002") if "p=0" in asked.path else daily("2611.00003"))

    server.answer = answer
    assert ask(DailyPapers(server.url, size=2)).new == 3


def test_votes_become_snapshots(database: Database, server: Any, ask: Any, clock: Any, reply: Any, daily: Any) -> None:
    source = DailyPapers(server.url)
    for votes in (7, 7, 12):
        server.answer = lambda asked, votes=votes: reply(200, daily("2611.00001", upvotes=votes, stars=3))
        ask(source)
        clock.now += 600
    assert [tuple(row) for row in database.rows("SELECT upvotes, stars FROM snapshots")] == [(7, 3), (12, 3)]


def test_whatever_source_brings_it_a_paper_is_one(
    database: Database, server: Any, ask: Any, reply: Any, rss: Any, daily: Any
) -> None:
    server.answer = lambda asked: reply(200, rss("2611.00001"))
    assert ask(ArxivList(("cs.LG",), f"{server.url}/")).new == 1
    server.answer = lambda asked: reply(200, daily("2611.00001"))
    assert ask(DailyPapers(server.url)).new == 0
    entry = store.find(database, "2611.00001")
    assert entry is not None and entry.code == "https://github.com/a/b"  # what was empty is filled
    assert entry.source == "arxiv:cs.LG" and entry.abstract == "We show that $x < y$."
    assert database.value("SELECT count(*) FROM sightings") == 2


# Files and forms -----------------------------------------------------------------------------------------------------


def test_a_file_of_any_form(database: Database, ask: Any, tmp_path: Path, rss: Any, atom: Any, daily: Any) -> None:
    own = [{"id": "cs/9905014", "title": "Hierarchical Reinforcement Learning", "authors": ["T. G. Dietterich"]}]
    bodies = {
        "a.json": json.dumps(own).encode(),
        "b.xml": rss("2611.00001"),
        "c.atom": atom("2611.00002"),
        "d.json": daily("2611.00003"),
    }
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(body)
        assert ask(File(tmp_path / name)).new == 1
    (tmp_path / "e.txt").write_text("a list of papers")
    assert "neither JSON, Atom nor RSS" in ask(File(tmp_path / "e.txt")).error
    assert "cannot be read" in ask(File(tmp_path / "none.json")).error


def test_hostile_entries_stay_text(rss: Any) -> None:
    body = rss("2611.00001").replace(
        b"Paper 2611.00001", b"&lt;script&gt;alert(1)&lt;/script&gt;On &amp;lt;b&amp;gt; \xe2\x80\xae tags"
    )
    record = read_xml(body).records[0]
    assert "script" not in record.title and "\u202e" not in record.title and record.title.startswith("On")
    large = read_json(json.dumps([{"id": "2611.00001", "title": "T" * 10**6, "abstract": "a " * 5 * 10**6}]).encode())
    assert len(large.records[0].title) <= 400 and len(large.records[0].abstract) <= 6000
    assert read(b'\xef\xbb\xbf [{"id": "2611.00001", "title": "\\ud800 half"}]').records[0].title == "? half"


def test_sources_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRISE_FEED", raising=False)
    assert [source.name for source in configured()] == ["huggingface", "arxiv:cs.RO+cs.LG", "arxiv-api:cs.RO+cs.LG"]
    monkeypatch.setenv("REPRISE_FEED", "off")
    assert configured() == []
    monkeypatch.setenv("REPRISE_FEED", "hugginface")
    with pytest.raises(ValueError, match="known are huggingface"):
        configured()
