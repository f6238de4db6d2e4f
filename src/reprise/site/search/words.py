"""Full text: SQLite's index, asked so that no query is an error and none is slow."""

from __future__ import annotations

import itertools

from reprise.site.database import Database
from reprise.site.search.spelling import STOP_WORDS, plain, tokens

__all__ = ["by_name", "by_words", "content", "matching", "newest"]

LONGEST = 2000  # characters of a query that are looked at
MOST = 16  # words of a query
CANDIDATES = 20_000  # texts that are ranked, the latest of those that match
COMMON = 50_000  # a word that more texts have says little where there are others
SPAN = 4  # words that a name inside a query may have
WEIGHTS = "8.0, 4.0, 1.0"  # of title, spellings, body


def content(query: str) -> list[str]:
    """The words of a query that count: without stop words, unless there are no others.

    Example:
        >>> content("how to improve a frozen policy?"), content("the who")
        (['improve', 'frozen', 'policy'], ['the', 'who'])
    """
    words = list(dict.fromkeys(tokens(query[:LONGEST])))
    return [word for word in words if word not in STOP_WORDS][:MOST] or words[:MOST]


def by_name(database: Database, query: str) -> tuple[list[int], list[int]]:
    """The texts whose whole name is the query, and those whose name is a part of it."""
    words = tokens(query[:LONGEST])[: 2 * MOST]
    spans = [
        "".join(words[start : start + length])
        for length in range(1, SPAN + 1)
        for start in range(len(words) - length + 1)
        if length > 1 or (words[start] not in STOP_WORDS and len(words[start]) > 2)
    ]
    whole = plain(query[:LONGEST])
    marks = ",".join("?" * (len(spans) + 1))
    found = database.rows(
        f"SELECT name, text FROM names WHERE name IN ({marks}) ORDER BY length(name) DESC, text DESC LIMIT 200",
        whole,
        *spans,
    )
    exact = [row["text"] for row in found if row["name"] == whole]
    return exact, [row["text"] for row in found if row["name"] != whole and row["text"] not in exact]


def by_words(database: Database, query: str, count: int) -> list[int]:
    """The texts that hold the words of a query, best first: all of them, then some of them."""
    words = content(query)
    if not words:
        return []
    joined = [left + right for left, right in itertools.pairwise(tokens(query[:LONGEST])[: 2 * MOST])]
    spellings = [f"{{title names}} : {_quoted(word)}" for word in joined]
    found = _ranked(database, " OR ".join([f"({' AND '.join(map(_quoted, words))})", *spellings]), count)
    if len(found) < count and len(words) > 1:
        rare = [word for word in words if not _is_common(database, word)]
        if rare:
            more = _ranked(database, " OR ".join(map(_quoted, rare)), count)
            found += [number for number in more if number not in set(found)]
    return found[:count]


def matching(database: Database, query: str, after: int, upto: int, count: int) -> list[int]:
    """The numbers of the feed's entries in (after, upto] that hold every word of a query, in the order they came."""
    expression = _every(query)
    if not expression:
        return []
    clause = "AND entries.number > ? AND entries.number <= ? ORDER BY entries.number LIMIT ?"
    return [row[0] for row in database.rows(f"{OF_ENTRIES} {clause}", expression, after, upto, count)]


def newest(database: Database, query: str, count: int) -> list[int]:
    """The numbers of the newest entries of the feed that hold every word of a query."""
    expression = _every(query)
    if not expression:
        return []
    return [row[0] for row in database.rows(f"{OF_ENTRIES} ORDER BY words.rowid DESC LIMIT ?", expression, count)]


OF_ENTRIES = (
    "SELECT entries.number FROM words JOIN texts ON texts.number = words.rowid"
    " JOIN entries ON entries.id = texts.key WHERE words MATCH ? AND kind = 'entry'"
)


def _every(query: str) -> str:
    """An expression for texts that hold every word of a query, or its words joined to one; empty without a word."""
    words = content(query)
    if not words:
        return ""
    return f"({' AND '.join(map(_quoted, words))}) OR {{title names}} : {_quoted(plain(query[:LONGEST])[:60])}"


def _ranked(database: Database, expression: str, count: int) -> list[int]:
    oldest = database.value(
        "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid DESC LIMIT 1 OFFSET ?", expression, CANDIDATES
    )
    rows = database.rows(
        "SELECT rowid FROM words WHERE words MATCH ? AND rowid > ?"
        f" ORDER BY bm25(words, {WEIGHTS}), rowid DESC LIMIT ?",
        expression,
        oldest or 0,
        count,
    )
    return [row[0] for row in rows]


def _is_common(database: Database, word: str) -> bool:
    query = "SELECT rowid FROM words WHERE words MATCH ? LIMIT 1 OFFSET ?"
    return database.value(query, _quoted(word), COMMON) is not None


def _quoted(word: str) -> str:
    return f'"{word}"'  # a token has no quotation marks
