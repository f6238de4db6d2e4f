"""Updates against servers that answer as the real ones do, on good days and on bad ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reprise.site.database import Database, DatabaseError
from reprise.site.feed import client as client_module, store, update as update_module
from reprise.site.feed.client import Client, SourceError
from reprise.site.feed.formats import read, read_json, read_xml
from reprise.site.feed.sources import ArxivApi, ArxivList, DailyPapers, File, Source, configured
from reprise.site.feed.update import Outcome, update

RSS = """<?xml version='1.0' encoding='UTF-8'?>
<rss xmlns:arxiv="http://arxiv.org/schemas/atom" xmlns:dc="http://purl.org/dc/elements/1.1/" version="2.0"><channel>
<title>cs.LG updates on arXiv.org</title><pubDate>{date} 00:00:00 -0500</pubDate>{items}</channel></rss>"""
ITEM = """<item><title>{title}</title><link>https://arxiv.org/abs/{id}</link>
<description>arXiv:{id}v{version} Announce Type: {kind}
Abstract: We show that $x &lt; y$.</description><guid isPermaLink="false">oai:arXiv.org:{id}v{version}</guid>
<category>cs.LG</category><category>stat.ML</category><pubDate>{date} 00:00:00 -0500</pubDate>
<arxiv:announce_type>{kind}</arxiv:announce_type><dc:creator>Ada Lovelace, Emmy Noether</dc:creator></item>"""
TODAY, YESTERDAY = "Wed, 25 Nov 2026", "Tue, 24 Nov 2026"


def rss(*ids: str, date: str = TODAY, kind: str = "new", version: int = 1) -> bytes:
    items = "".join(ITEM.format(id=id, title=f"Paper {id}", date=date, kind=kind, version=version) for id in ids)
    return RSS.format(date=date, items=items).encode()


def atom(*ids: str, total: int | None = None, published: str = "2026-11-23T12:00:00Z") -> bytes:
    entries = "".join(
        f"<entry><id>http://arxiv.org/abs/{id}v2</id><updated>2026-11-24T10:00:00Z</updated>"
        f"<published>{published}</published><title>Paper\n  {id}</title><summary> We. </summary>"
        "<author><name>Ada Lovelace</name></author><author><name>Emmy Noether</name></author>"
        "<arxiv:comment>8 pages</arxiv:comment><arxiv:doi>10.1/AB</arxiv:doi>"
        "<arxiv:primary_category term='cs.RO'/><category term='cs.RO'/><category term='cs.LG'/></entry>"
        for id in ids
    )
    return (
        "<feed xmlns='http://www.w3.org/2005/Atom' xmlns:arxiv='http://arxiv.org/schemas/atom' "
        "xmlns:opensearch='http://a9.com/-/spec/opensearch/1.1/'>"
        f"<opensearch:totalResults>{len(ids) if total is None else total}</opensearch:totalResults>{entries}</feed>"
    ).encode()


def daily(*ids: str, upvotes: int = 7, stars: int | None = None) -> bytes:
    return json.dumps(
        [
            {
                "title": f"Paper {id}",
                "publishedAt": "2026-11-25T01:02:03.000Z",
                "submittedBy": {"name": "someone"},
                "paper": {
                    "id": id,
                    "title": f"Paper {id}",
                    "publishedAt": "2026-11-20T10:00:00.000Z",
                    "summary": "We.",
                    "upvotes": upvotes,
                    "githubStars": stars,
                    "githubRepo": "https://github.com/a/b",
                    "authors": [{"name": "Ada Lovelace"}, {"name": "Hidden", "hidden": True}, "odd"],
                },
            }
            for id in ids
        ]
    ).encode()


@pytest.fixture
def ask(database: Database, clock: Any) -> Callable[..., Outcome]:
    """Update from one source with a client that is told the time."""

    def once(source: Source, **options: Any) -> Outcome:
        client = Client(database, clock=clock, sleep=clock.sleep)
        return update(database, [source], client, clock, **options)[0]

    return once


# What arXiv's list says ----------------------------------------------------------------------------------------------


def test_the_list_of_the_day(database: Database, server: Any, ask: Any, reply: Any) -> None:
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
    database: Database, server: Any, ask: Any, reply: Any
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


def test_the_next_question_is_conditional(server: Any, ask: Any, reply: Any) -> None:
    source = ArxivList(("cs.LG",), f"{server.url}/")
    server.answer = lambda asked: reply(200, rss("2611.00001"), {"ETag": '"a"', "Last-Modified": "Wed, 25 Nov 2026"})
    ask(source)
    server.answer = lambda asked: reply(304)
    assert ask(source).state == "unchanged"
    assert server.asked[1].headers["If-None-Match"] == '"a"'
    assert server.asked[1].headers["If-Modified-Since"] == "Wed, 25 Nov 2026"
    ask(source)
    assert server.asked[2].headers["If-None-Match"] == '"a"'  # kept over an answer without one


def test_an_empty_list_does_not_count_as_read(server: Any, ask: Any, reply: Any) -> None:
    source = ArxivList(("cs.LG",), f"{server.url}/")
    server.answer = lambda asked: reply(200, rss(), {"ETag": '"empty"'})
    assert ask(source).state == "empty"
    server.answer = lambda asked: reply(200, rss("2611.00001"))
    assert ask(source).new == 1
    assert "If-None-Match" not in server.asked[1].headers


def test_an_old_list_under_a_new_date_is_stale_not_quiet(
    database: Database, server: Any, ask: Any, clock: Any, reply: Any
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


def test_the_search_reads_on_to_the_end(database: Database, server: Any, ask: Any, reply: Any) -> None:
    pages = [atom("2611.00001", "2611.00002", total=5), atom(total=5), atom("2611.00003", "2611.00004", total=5)]
    pages.append(atom("2611.00005", total=5))
    server.answer = lambda asked: reply(200, pages[len(server.asked) - 1])
    outcome = ask(ArxivApi(("cs.RO", "cs.LG"), f"{server.url}/api"))
    assert outcome.new == 5  # the empty page was no end
    assert "start=2" in server.asked[1].path and "start=2" in server.asked[2].path and "start=4" in server.asked[3].path
    assert "max_results=200" in server.asked[0].path
    entry = store.find(database, "10.1/ab")  # by its DOI
    assert entry is not None and entry.version == 2 and entry.comment == "8 pages" and entry.day == "2026-11-24"


def test_pages_that_stay_empty_are_told(database: Database, server: Any, ask: Any, reply: Any) -> None:
    server.answer = lambda asked: reply(200, atom("2611.00001", total=3) if len(server.asked) == 1 else atom(total=3))
    outcome = ask(ArxivApi(("cs.RO",), server.url))
    assert outcome.state == "failed" and "1 of 3" in outcome.error


def test_an_error_in_the_form_of_an_entry(server: Any, ask: Any, reply: Any) -> None:
    body = b"<feed xmlns='http://www.w3.org/2005/Atom'><entry><id>http://arxiv.org/api/errors#x</id>"
    body += b"<title>Error</title><summary>incorrect id format for 1</summary></entry></feed>"
    server.answer = lambda asked: reply(200, body)
    assert "incorrect id format" in ask(ArxivApi(("cs.RO",), server.url)).error


# What Hugging Face says ----------------------------------------------------------------------------------------------


def test_daily_papers_of_yesterday_and_today(database: Database, server: Any, ask: Any, reply: Any) -> None:
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


def test_a_full_page_asks_for_the_next(server: Any, ask: Any, reply: Any) -> None:
    def answer(asked: Any) -> Any:
        if "2026-11-24" in asked.path:
            return reply(200, b"[]")
        return reply(200, daily("2611.00001", "2611.00002") if "p=0" in asked.path else daily("2611.00003"))

    server.answer = answer
    assert ask(DailyPapers(server.url, size=2)).new == 3


def test_votes_become_snapshots(database: Database, server: Any, ask: Any, clock: Any, reply: Any) -> None:
    source = DailyPapers(server.url)
    for votes in (7, 7, 12):
        server.answer = lambda asked, votes=votes: reply(200, daily("2611.00001", upvotes=votes, stars=3))
        ask(source)
        clock.now += 600
    assert [tuple(row) for row in database.rows("SELECT upvotes, stars FROM snapshots")] == [(7, 3), (12, 3)]


def test_whatever_source_brings_it_a_paper_is_one(database: Database, server: Any, ask: Any, reply: Any) -> None:
    server.answer = lambda asked: reply(200, rss("2611.00001"))
    assert ask(ArxivList(("cs.LG",), f"{server.url}/")).new == 1
    server.answer = lambda asked: reply(200, daily("2611.00001"))
    assert ask(DailyPapers(server.url)).new == 0
    entry = store.find(database, "2611.00001")
    assert entry is not None and entry.code == "https://github.com/a/b"  # what was empty is filled
    assert entry.source == "arxiv:cs.LG" and entry.abstract == "We show that $x < y$."
    assert database.value("SELECT count(*) FROM sightings") == 2


# Bad days ------------------------------------------------------------------------------------------------------------


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
    database: Database, server: Any, ask: Any, reply: Any, status: int, body: bytes, told: str
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


def test_entries_without_id_or_title_are_left_out_and_counted(server: Any, ask: Any, reply: Any) -> None:
    body = json.dumps([None, 3, "x", {"paper": {}}, {"paper": {"id": "2611.00001"}}, *json.loads(daily("2611.00002"))])
    server.answer = lambda asked: reply(200, body.encode() if "2026-11-25" in asked.path else b"[]")
    outcome = ask(DailyPapers(server.url))
    assert (outcome.new, outcome.left_out) == (1, 5)
    assert "5 without an id or title" in str(outcome)


def test_waiting_grows_and_is_kept(database: Database, server: Any, ask: Any, clock: Any, reply: Any) -> None:
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


def test_one_source_that_fails_stops_no_other(database: Database, server: Any, clock: Any, reply: Any) -> None:
    class Broken:
        name, title, address = "broken", "Broken", "nowhere"

        def fetch(self, *args: object) -> Any:
            raise ZeroDivisionError

    server.answer = lambda asked: reply(200, rss("2611.00001"))
    client = Client(database, clock=clock, sleep=clock.sleep)
    outcomes = update(database, [Broken(), ArxivList(("cs.LG",), f"{server.url}/")], client, clock)
    assert [outcome.state for outcome in outcomes] == ["failed", "new"]


def test_a_full_disk_keeps_neither_papers_nor_tags(
    database: Database, server: Any, ask: Any, reply: Any, clock: Any
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


def test_clocks_that_jump(database: Database, server: Any, ask: Any, clock: Any, reply: Any) -> None:
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


def test_two_updates_at_once_ask_once(database: Database, server: Any, clock: Any, reply: Any) -> None:
    source, inner = ArxivList(("cs.LG",), f"{server.url}/"), []
    client = Client(database, clock=clock, sleep=clock.sleep)

    def answer(asked: Any) -> Any:
        inner.extend(update(Database(database.path), [source], client, clock))
        return reply(200, rss("2611.00001"))

    server.answer = answer
    assert update(database, [source], client, clock)[0].state == "new"
    assert [outcome.state for outcome in inner] == ["waiting"] and len(server.asked) == 1


# Files and forms -----------------------------------------------------------------------------------------------------


def test_a_file_of_any_form(database: Database, ask: Any, tmp_path: Path) -> None:
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


def test_hostile_entries_stay_text() -> None:
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
