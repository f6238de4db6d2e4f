"""What sources answer: arXiv's list and API, Hugging Face's daily papers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from reprise.site.database import Database
from reprise.site.feed.client import Client
from reprise.site.feed.sources import Source
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


@pytest.fixture(name="rss")
def _rss() -> Callable[..., Any]:
    return rss


@pytest.fixture(name="atom")
def _atom() -> Callable[..., Any]:
    return atom


@pytest.fixture(name="daily")
def _daily() -> Callable[..., Any]:
    return daily


@pytest.fixture
def ask(database: Database, clock: Any) -> Callable[..., Outcome]:
    """Update from one source with a client that is told the time."""

    def once(source: Source, **options: Any) -> Outcome:
        client = Client(database, clock=clock, sleep=clock.sleep)
        return update(database, [source], client, clock, **options)[0]

    return once
