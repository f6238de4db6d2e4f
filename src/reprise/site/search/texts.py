"""What can be searched: one text for every paper, part, claim and entry of the feed."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable

from reprise.site.search.spelling import variants

__all__ = ["LIBRARY", "put_text"]

LIBRARY = 10**12  # above it are the numbers of papers, parts and claims, below it those of the feed


def put_text(
    connection: sqlite3.Connection,
    kind: str,
    key: str,
    title: str,
    body: str,
    names: Collection[str],
    beside: Iterable[str] = (),
) -> int:
    """Make something findable, or change what is found of it; its number.

    Args:
        connection: inside a transaction.
        kind: paper, part, claim or entry.
        key: slug, dotted name, or arXiv id.
        title, body: the texts that are shown.
        names: plain names that lead to it before anything else.
        beside: words that find it like those of its title, but are not shown with it.
    """
    hidden = " ".join([*dict.fromkeys(variants(title)), *beside])
    known = connection.execute(
        "SELECT number, title, names, body FROM texts WHERE kind = ? AND key = ?", (kind, key)
    ).fetchone()
    if known is None:
        lowest = 0 if kind == "entry" else LIBRARY
        number = connection.execute(
            "SELECT max(number) FROM texts WHERE number < ?", (LIBRARY if kind == "entry" else 2 * LIBRARY,)
        ).fetchone()[0]
        number = max(number or 0, lowest) + 1
        connection.execute("INSERT INTO texts VALUES (?, ?, ?, ?, ?, ?)", (number, kind, key, title, hidden, body))
    else:
        number = int(known["number"])
        if (*known[1:],) != (title, hidden, body):
            connection.execute(
                "UPDATE texts SET title = ?, names = ?, body = ? WHERE number = ?", (title, hidden, body, number)
            )
    connection.execute("DELETE FROM names WHERE text = ?", (number,))
    connection.executemany("INSERT OR IGNORE INTO names VALUES (?, ?)", [(name, number) for name in names if name])
    return number
