"""Keeping records: one entry per arXiv id, whatever source brings it first or again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprise.site.database import Database
from reprise.site.feed.formats import read
from reprise.site.feed.records import Record, arxiv_id, today
from reprise.site.search.spelling import names_of_title, plain
from reprise.site.search.texts import put_text

__all__ = ["EXAMPLE", "Entry", "add", "add_example", "find", "load"]

EXAMPLE = "example"  # the source that comes with the library
HOUR = 3600.0  # at least between two snapshots of the same numbers
AUTHORS_SEARCHED = 40


@dataclass(frozen=True)
class Entry:
    """A paper of the feed, as pages show it."""

    number: int
    id: str
    title: str
    authors: tuple[str, ...]
    abstract: str
    day: str
    published: str
    updated: str
    version: int
    categories: tuple[str, ...]
    comment: str
    journal: str
    doi: str
    code: str
    project: str
    source: str
    added: float

    @property
    def link(self) -> str:
        """The page of the paper at arXiv."""
        return f"https://arxiv.org/abs/{self.id}"


def add(
    database: Database, source: str, records: Iterable[Record], now: float, replaced: Collection[str] = ()
) -> list[int]:
    """Keep what a source brought, in one transaction; the numbers of the entries that were not there before.

    Args:
        database: where.
        source: its name.
        records: the papers.
        now: the time.
        replaced: ids of new versions: they are kept only where the paper is known, for they are no new papers.
    """
    added = []
    with database.write() as connection:
        for record in records:
            known = connection.execute("SELECT * FROM entries WHERE id = ?", (record.id,)).fetchone()
            if known is not None:
                number = int(known["number"])
                _merge(connection, known, record)
            elif record.id in replaced:
                continue
            else:
                number = _insert(connection, source, record, now)
                added.append(number)
            _keep_around(connection, number, source, record, now)
    return added


def add_example(database: Database, now: float) -> None:
    """Fill an empty feed with some well-known papers, under the days of their first versions."""
    if database.value("SELECT 1 FROM entries LIMIT 1") is None:
        add(database, EXAMPLE, read((Path(__file__).parent / "example.json").read_bytes()).records, now)


def _insert(connection: sqlite3.Connection, source: str, record: Record, now: float) -> int:
    values = {
        "id": record.id,
        "title": record.title,
        "authors": json.dumps(record.authors),
        "day": record.day or record.published[:10] or today(now),
        "published": record.published,
        "updated": record.updated,
        "version": record.version,
        "categories": json.dumps(record.categories),
        **{name: getattr(record, name) for name in ("comment", "journal", "doi", "code", "project")},
        "source": source,
        "added": now,
    }
    cursor = connection.execute(
        f"INSERT INTO entries ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", (*values.values(),)
    )
    number = int(cursor.lastrowid or 0)
    put_text(
        connection, "entry", record.id, record.title, record.abstract,
        names={*names_of_title(record.title), plain(record.id)}, beside=record.authors[:AUTHORS_SEARCHED],
    )  # fmt: skip
    return number


def _merge(connection: sqlite3.Connection, known: sqlite3.Row, record: Record) -> None:
    """Fill what was empty; a later version has the say on title and abstract."""
    newer = record.version > known["version"]
    fields = {}
    for name in ("published", "updated", "comment", "journal", "doi", "code", "project"):
        value = getattr(record, name)
        if value and value != known[name] and (newer or not known[name]):
            fields[name] = value
    if record.authors and (newer or known["authors"] == "[]"):
        fields["authors"] = json.dumps(record.authors)
    if record.categories and (newer or known["categories"] == "[]"):
        fields["categories"] = json.dumps(record.categories)
    if newer:
        fields |= {"version": record.version, "title": record.title}
    if fields:
        names = ", ".join(f"{name} = ?" for name in fields)
        connection.execute(f"UPDATE entries SET {names} WHERE number = ?", (*fields.values(), known["number"]))
    text = connection.execute("SELECT body FROM texts WHERE kind = 'entry' AND key = ?", (record.id,)).fetchone()
    if (newer and record.title != known["title"]) or (
        record.abstract and (newer or not text["body"] or known["source"] == EXAMPLE)  # which has our words, not theirs
    ):
        put_text(
            connection, "entry", record.id, record.title if newer else known["title"], record.abstract or text["body"],
            names={*names_of_title(record.title), plain(record.id)}, beside=record.authors[:AUTHORS_SEARCHED],
        )  # fmt: skip


def _keep_around(connection: sqlite3.Connection, number: int, source: str, record: Record, now: float) -> None:
    """Version, sighting, alias and snapshot."""
    connection.execute(
        "INSERT OR IGNORE INTO versions VALUES (?, ?, ?, ?)",
        (number, record.version, record.updated or record.published, record.title),
    )
    connection.execute("INSERT OR IGNORE INTO sightings VALUES (?, ?, ?)", (number, source, record.day or today(now)))
    if record.doi:  # of two papers that claim one DOI the first keeps it: what may be equal is not merged
        connection.execute("INSERT OR IGNORE INTO aliases VALUES (?, ?)", (record.doi.lower(), number))
    if record.upvotes is None and record.stars is None:
        return
    last = connection.execute(
        "SELECT at, upvotes, stars FROM snapshots WHERE entry = ? ORDER BY at DESC LIMIT 1", (number,)
    ).fetchone()
    same = last is not None and (last["upvotes"], last["stars"]) == (record.upvotes, record.stars)
    if last is None or now - last["at"] >= HOUR or (not same and now > last["at"]):
        connection.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?)", (number, now, record.upvotes, record.stars))


# Reading -------------------------------------------------------------------------------------------------------------

LOAD = (
    "SELECT entries.*, texts.body AS abstract FROM entries"
    " JOIN texts ON texts.kind = 'entry' AND texts.key = entries.id"
)


def load(database: Database, where: str, *values: Any) -> list[Entry]:
    """The entries that a clause of SQL over ``entries`` selects ("WHERE day = ? ORDER BY number")."""
    return [_entry(row) for row in database.rows(f"{LOAD} {where}", *values)]


def find(database: Database, name: str) -> Entry | None:
    """The entry of an arXiv id in any form, or of a DOI."""
    found = arxiv_id(name)
    if found:
        entries = load(database, "WHERE entries.id = ?", found[0])
    else:
        entries = load(
            database, "JOIN aliases ON aliases.entry = entries.number WHERE alias = ?", name.strip().lower()[:200]
        )
    return entries[0] if entries else None


def _entry(row: sqlite3.Row) -> Entry:
    values = {name: row[name] for name in Entry.__dataclass_fields__}
    lists = {name: tuple(json.loads(row[name])) for name in ("authors", "categories")}
    empty = {name: row[name] or "" for name in ("published", "updated", "comment", "journal", "doi", "code", "project")}
    return Entry(**{**values, **lists, **empty})
