"""Search: names first, then words and vectors, fused by reciprocal rank, each hit with its reason."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from dataclasses import dataclass

from reprise.site.database import Database
from reprise.site.search.spelling import tokens
from reprise.site.search.texts import LIBRARY
from reprise.site.search.vectors import Vectors
from reprise.site.search.words import LONGEST, by_name, by_words, content

__all__ = ["KINDS", "Hit", "Results", "search"]

K = 60  # of reciprocal rank fusion
NEAR = 0.5  # the say of vectors beside that of words
DEPTH = 200  # ranks that each half gives
LIBRARY_BONUS = 1.25  # what can be run and imported comes before what can only be read, where both fit alike
CLAIMS, LIFT = 2, 0.4  # claims of a paper that are shown among others, and what they add to their paper
KINDS = {"paper": "implemented papers", "part": "parts", "claim": "claims", "entry": "feed"}


@dataclass(frozen=True)
class Hit:
    """Something that was found, and why.

    Attributes:
        number: of the text.
        kind: paper, part, claim or entry.
        key: slug, dotted name, slug#2, or arXiv id.
        title: of it.
        body: summary or abstract.
        score: of the fusion; names stand above all others.
        reasons: "its name", "words: frozen, policy", "near in meaning: steer, diffusion".
    """

    number: int
    kind: str
    key: str
    title: str
    body: str
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """A page of hits, and how many there are in all; ``by_meaning`` tells whether vectors took part."""

    hits: tuple[Hit, ...]
    total: int
    by_meaning: bool
    counts: dict[str, int]


def search(
    database: Database, vectors: Vectors | None, query: str, kind: str = "", page: int = 1, size: int = 20
) -> Results:
    """Find papers, parts, claims and entries of the feed.

    Args:
        database: where.
        vectors: the half that finds by meaning; None to leave it out.
        query: any text; what is beyond 2,000 characters is not looked at.
        kind: only these.
        page: from 1.
        size: hits on a page.
    """
    query = query[:LONGEST]
    exact, inside = by_name(database, query)
    worded = by_words(database, query, DEPTH)
    near = [number for number, _ in vectors.near(query, DEPTH)] if vectors is not None and content(query) else []
    scores: dict[int, float] = defaultdict(float)
    for ranking, weight in ((inside, 1.0), (worded, 1.0), (near, NEAR)):
        for rank, number in enumerate(ranking):
            scores[number] += weight / (K + rank + 1)
    for number in scores:
        scores[number] *= LIBRARY_BONUS if number > LIBRARY else 1.0
    keys = _keys(database, [*scores, *exact])
    order = list(KINDS)
    named = sorted((n for n in exact if n in keys), key=lambda number: (order.index(keys[number][0]), -number))
    for rank, number in enumerate(named):
        scores[number] = 10.0 - rank / 1000
    ranked = sorted(keys, key=lambda number: (-scores[number], -number))
    _lift_papers(scores, keys, ranked)
    ranked.sort(key=lambda number: (-scores[number], -number))
    counts = {name: sum(keys[number][0] == name for number in ranked) for name in KINDS}
    ranked = [n for n in ranked if keys[n][0] == kind] if kind else _spread(ranked, keys)
    found = {"name": set(exact), "part": set(inside), "words": set(worded), "near": set(near)}
    rows = [row for n in ranked[(page - 1) * size : page * size] if (row := _row(database, n)) is not None]
    texts = [f"{row['title']} {row['body']}" for row in rows]
    why = vectors.explain(query, texts) if vectors is not None and near else [[] for _ in rows]
    hits = tuple(_hit(query, row, scores[row["number"]], found, words) for row, words in zip(rows, why, strict=True))
    return Results(hits, len(ranked), vectors is not None and vectors.ready, counts)


def _row(database: Database, number: int) -> sqlite3.Row | None:
    return database.row("SELECT * FROM texts WHERE number = ?", number)


def _keys(database: Database, numbers: list[int]) -> dict[int, tuple[str, str]]:
    """Kind and key of each text that is still there."""
    inside = ",".join(map(str, numbers))
    rows = database.rows(f"SELECT number, kind, key FROM texts WHERE number IN ({inside})")
    return {row["number"]: (row["kind"], row["key"]) for row in rows}


def _lift_papers(scores: dict[int, float], keys: dict[int, tuple[str, str]], ranked: list[int]) -> None:
    """A paper whose claims were found is meant more than any one of its claims."""
    papers = {key: number for number, (kind, key) in keys.items() if kind == "paper"}
    lifted: dict[str, int] = defaultdict(int)
    for number in ranked:
        kind, key = keys[number]
        slug = key.partition("#")[0]
        if kind == "claim" and slug in papers and lifted[slug] < CLAIMS:
            lifted[slug] += 1
            scores[papers[slug]] += LIFT * scores[number]


def _spread(ranked: list[int], keys: dict[int, tuple[str, str]]) -> list[int]:
    """At most two claims of a paper; the others are found under claims."""
    seen: dict[str, int] = defaultdict(int)
    kept = []
    for number in ranked:
        kind, key = keys[number]
        if kind == "claim":
            seen[key.partition("#")[0]] += 1
        if kind != "claim" or seen[key.partition("#")[0]] <= CLAIMS:
            kept.append(number)
    return kept


def _hit(query: str, row: sqlite3.Row, score: float, found: dict[str, set[int]], leading: list[str]) -> Hit:
    """A hit with its reasons; ``leading`` are the words of the text that the query leads to."""
    number, reasons = row["number"], []
    if number in found["name"]:
        reasons.append("its name")
    elif number in found["part"]:
        reasons.append("its name is in your words")
    if number in found["words"]:
        held = matched(query, f"{row['title']} {row['names']} {row['body']}")
        reasons.append(f"words: {', '.join(held)}" if held else "its words")
    if number in found["near"]:
        why = [word for word in leading if word not in query.lower()][:3]
        reasons.append(f"near in meaning: {', '.join(why)}" if why else "near in meaning")
    return Hit(number, row["kind"], row["key"], row["title"], row["body"], score, tuple(reasons))


def matched(query: str, text: str) -> list[str]:
    """The words of a query that a text has, in this or another form."""
    there = set(tokens(text))
    return [word for word in content(query) if word in there or any(other.startswith(_stem(word)) for other in there)]


def _stem(word: str) -> str:
    return word if len(word) < 5 else word[: max(4, len(word) - 3)]
