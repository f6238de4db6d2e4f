"""The sources of the feed: arXiv's list of the day and its API, Hugging Face's daily papers, a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlencode

from reprise.site.feed.client import Answer, Client, SourceError
from reprise.site.feed.formats import Batch, read, read_json, read_xml
from reprise.site.feed.records import EASTERN

__all__ = ["ArxivApi", "ArxivList", "DailyPapers", "File", "Found", "Since", "Source", "configured"]

DEFAULT = "huggingface arxiv:cs.RO+cs.LG arxiv-api:cs.RO+cs.LG"
PAGE = 200  # entries per question to the API
MOST = 2000  # entries that one update takes from the API
DAYS_BACK = 14  # how far a source that was away is read up


@dataclass(frozen=True)
class Since:
    """What is known of a source: the tags of its last answer, and when that was."""

    etag: str | None = None
    modified: str | None = None
    succeeded: float | None = None


@dataclass(frozen=True)
class Found:
    """What a source gave; ``unchanged`` if it said that nothing is new since the last time."""

    batch: Batch
    etag: str | None = None
    modified: str | None = None
    unchanged: bool = False


class Source(Protocol):
    """Where records come from: ``name`` is its key, ``title`` what pages call it."""

    name: str
    title: str
    address: str

    def fetch(self, client: Client, since: Since, now: datetime) -> Found:
        """Everything that is new since the last time, or more than that.

        Raises:
            SourceError: it cannot be had; the message says why.
        """


def configured() -> list[Source]:
    """The sources that ``$REPRISE_FEED`` names, apart by spaces.

    "huggingface", "arxiv:cs.RO+cs.LG" (the list of the day in these categories), "arxiv-api:cs.RO+cs.LG" (the same by
    search, which reads up what was missed) or the path of a file; "off" for none.

    Raises:
        ValueError: a name is none of these.
    """
    made: list[Source] = []
    for word in os.environ.get("REPRISE_FEED", DEFAULT).split():
        kind, _, rest = word.partition(":")
        if word == "off":
            continue
        if word == "huggingface":
            made.append(DailyPapers())
        elif kind == "arxiv" and rest:
            made.append(ArxivList(tuple(rest.split("+"))))
        elif kind == "arxiv-api" and rest:
            made.append(ArxivApi(tuple(rest.split("+"))))
        elif Path(word).suffix:
            made.append(File(Path(word)))
        else:
            raise ValueError(
                f"REPRISE_FEED has {word!r}; known are huggingface, arxiv:cs.RO+cs.LG, arxiv-api:cs.RO+cs.LG, "
                "the path of a file, and off"
            )
    return made


class ArxivList:
    """arXiv's list of the day as RSS: one question, empty at weekends and on holidays."""

    def __init__(self, categories: tuple[str, ...], address: str = "https://rss.arxiv.org/rss/") -> None:
        self.name, self.title = f"arxiv:{'+'.join(categories)}", f"arXiv's list ({', '.join(categories)})"
        self.address = address + quote("+".join(categories), safe="+.-")

    def fetch(self, client: Client, since: Since, now: datetime) -> Found:
        """The list of the day."""
        return _conditional(client, self.address, since, read_xml)


class ArxivApi:
    """arXiv's search by time of submission, back to the last good answer: for what the lists of the day missed."""

    def __init__(self, categories: tuple[str, ...], address: str = "https://export.arxiv.org/api/query") -> None:
        self.name, self.title = f"arxiv-api:{'+'.join(categories)}", f"arXiv's search ({', '.join(categories)})"
        self.address, self.categories = address, categories

    def fetch(self, client: Client, since: Since, now: datetime) -> Found:
        """All papers submitted since two days before the last good answer, page by page.

        An empty page before the end is an error of theirs, not the end: it is asked for again, then given up.
        """
        start = _first_day(since, now) - timedelta(days=2)
        where = " OR ".join(f"cat:{name}" for name in self.categories)
        span = f"submittedDate:[{start:%Y%m%d}0000 TO {now.date() + timedelta(days=1):%Y%m%d}0000]"
        batch, empty = Batch(), 0
        while True:
            query = {
                "search_query": f"({where}) AND {span}",
                "sortBy": "submittedDate",
                "sortOrder": "descending",
                "start": len(batch.records) + batch.left_out,
                "max_results": PAGE,
            }
            page = read_xml(client.get(f"{self.address}?{urlencode(query)}").body)
            batch += page
            have = len(batch.records) + batch.left_out
            if have >= min(batch.total or 0, MOST):
                return Found(batch)
            empty = 0 if page.records or page.left_out else empty + 1
            if empty == 3:
                raise SourceError(f"it gave {have} of {batch.total} entries, then empty pages")


class DailyPapers:
    """Hugging Face's daily papers: what people submitted and voted for, day by day."""

    def __init__(self, address: str = "https://huggingface.co/api/daily_papers", size: int = 100) -> None:
        self.name, self.title, self.address, self.size = "huggingface", "Hugging Face's daily papers", address, size

    def fetch(self, client: Client, since: Since, now: datetime) -> Found:
        """The lists of all days since the last good answer, today's and yesterday's always (their votes grow)."""
        today = now.date()
        day, batch = min(_first_day(since, now), today - timedelta(days=1)), Batch()
        while day <= today:
            page, number = None, 0
            while page is None or len(page.records) + page.left_out >= self.size:
                query = urlencode({"date": day.isoformat(), "limit": self.size, "p": number})
                page = read_json(client.get(f"{self.address}?{query}").body, day.isoformat())
                batch, number = batch + page, number + 1
                if number == 20:
                    raise SourceError(f"its list of {day} has no end")
            day += timedelta(days=1)
        return Found(batch)


class File:
    """A file of records: a feed in Atom or RSS, Hugging Face's JSON, or a list of objects with id and title."""

    def __init__(self, path: Path) -> None:
        self.path, self.name, self.title, self.address = path, f"file:{path.name}", path.name, str(path)

    def fetch(self, client: Client, since: Since, now: datetime) -> Found:
        """Everything in the file."""
        try:
            return Found(read(self.path.read_bytes()))
        except OSError as error:
            raise SourceError(f"it cannot be read: {error.strerror}") from error


def _conditional(client: Client, url: str, since: Since, parse: Callable[[bytes], Batch]) -> Found:
    answer: Answer = client.get(url, since.etag, since.modified)
    if answer.unchanged:
        return Found(Batch(), since.etag, since.modified, unchanged=True)
    batch = parse(answer.body)
    if not batch.records:  # a list may be published empty and filled later under the same tag: ask whole again
        return Found(batch)
    return Found(batch, answer.etag, answer.modified)


def _first_day(since: Since, now: datetime) -> date:
    """The day of the last good answer, at most two weeks back; on a first update yesterday."""
    earliest, today = now.date() - timedelta(days=DAYS_BACK), now.date()
    if since.succeeded is None:
        return today - timedelta(days=1)
    try:
        last = datetime.fromtimestamp(since.succeeded, EASTERN).date()
    except (OverflowError, OSError, ValueError):
        return earliest
    return min(max(last, earliest), today)
