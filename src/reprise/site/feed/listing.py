"""Entries as lists show them: filtered, page by page, each with its verdict or the methods nearest to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reprise.site.database import Database
from reprise.site.feed.days import Period
from reprise.site.feed.store import EXAMPLE, Entry, load
from reprise.site.search.library import Known, known
from reprise.site.search.nearest import Neighbour, nearest_to

__all__ = ["FILTERS", "Shown", "chosen", "count", "data", "near_to", "show", "with_library", "years"]

YEAR = "substr(CASE WHEN published != '' THEN published ELSE day END, 1, 4)"
FILTERS = ("year", "code", "implemented", "verdict", "room")


@dataclass(frozen=True)
class Shown:
    """An entry with what the library knows about it.

    Attributes:
        entry: the paper.
        implemented: the same paper in the library.
        near: implemented methods near it, with the words that both speak of.
        votes: that it had last.
    """

    entry: Entry
    implemented: Known | None
    near: Sequence[tuple[Known, Neighbour]]
    votes: int | None

    @property
    def ours(self) -> bool:
        """Whether the text is our summary, not the paper's abstract."""
        return self.entry.source == EXAMPLE


def chosen(period: Period | None, asked: Mapping[str, str]) -> tuple[str, list[Any]]:
    """The clause of SQL, and its values, for the entries of a period that filters leave."""
    parts, values = ["1"], list[Any]()
    if period is not None:
        parts.append("day BETWEEN ? AND ?")
        values += [period.first.isoformat(), period.last.isoformat()]
    if asked.get("year"):
        parts.append(f"{YEAR} = ?")
        values.append(asked["year"])
    if asked.get("code"):
        parts.append("code != ''")
    if asked.get("implemented"):
        parts.append("entries.id IN (SELECT arxiv FROM library)")
    if asked.get("verdict"):
        parts.append("entries.id IN (SELECT arxiv FROM library WHERE verdict = ?)")
        values.append(asked["verdict"])
    if asked.get("room"):
        parts.append(
            "(entries.number IN (SELECT entry FROM nearest JOIN library USING (slug) WHERE room = ?)"
            " OR entries.id IN (SELECT arxiv FROM library WHERE room = ?))"
        )
        values += [asked["room"]] * 2
    return f"WHERE {' AND '.join(parts)}", values


def near_to(slug: str) -> tuple[str, list[Any]]:
    """The clause for the entries near an implemented paper."""
    return "WHERE entries.number IN (SELECT entry FROM nearest WHERE slug = ?)", [slug]


def years(database: Database) -> list[str]:
    """The years that papers are of, the latest first."""
    return [row[0] for row in database.rows(f"SELECT DISTINCT {YEAR} FROM entries ORDER BY 1 DESC")]


def count(database: Database, where: tuple[str, list[Any]]) -> int:
    """How many there are."""
    return int(database.value(f"SELECT count(*) FROM entries {where[0]}", *where[1]))


def show(database: Database, where: tuple[str, list[Any]], start: int = 0, size: int = 30) -> list[Shown]:
    """Some of them, the latest first."""
    clause = f"{where[0]} ORDER BY day DESC, entries.number DESC LIMIT ? OFFSET ?"
    return with_library(database, load(database, clause, *where[1], size, start))


def with_library(database: Database, entries: Sequence[Entry]) -> list[Shown]:
    """Entries with what the library knows about them."""
    papers = known(database)
    by_id = {paper.arxiv: paper for paper in papers.values()}
    numbers = [entry.number for entry in entries]
    near = nearest_to(database, numbers)
    inside = ",".join(map(str, numbers))
    votes = {
        row["entry"]: row["upvotes"]
        for row in database.rows(
            f"SELECT entry, upvotes FROM snapshots WHERE entry IN ({inside}) AND upvotes IS NOT NULL ORDER BY at"
        )
    }
    return [
        Shown(
            entry,
            by_id.get(entry.id),
            [(papers[n.slug], n) for n in near[entry.number] if papers[n.slug].arxiv != entry.id],
            votes.get(entry.number),
        )
        for entry in entries
    ]


def data(shown: Shown) -> dict[str, Any]:
    """An entry for JSON."""
    entry, paper = shown.entry, shown.implemented
    return {
        "id": entry.id,
        "title": entry.title,
        "authors": list(entry.authors),
        "day": entry.day,
        "published": entry.published,
        "version": entry.version,
        "categories": list(entry.categories),
        "summary" if shown.ours else "abstract": entry.abstract,
        "url": entry.link,
        "code": entry.code,
        "votes": shown.votes,
        "source": entry.source,
        "implemented": {"slug": paper.slug, "verdict": paper.verdict, "words": paper.words} if paper else None,
        "nearest": [
            {"slug": known.slug, "verdict": known.words, "score": near.score, "shared": list(near.shared)}
            for known, near in shown.near
        ],
    }
