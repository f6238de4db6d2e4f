"""The implemented methods that a paper of the feed is nearest to, and the words that both speak of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reprise.site.database import Database
from reprise.site.search.vectors import Lsa

__all__ = ["Neighbour", "nearest_to", "refresh"]

COUNT = 2  # methods named per paper
LEAST = 0.16  # of the mean of both cosines: below it nothing is called near
SHARED = 3  # words that are shown
ROUND = 2000
# words that every paper of the field may use: they make no two of them neighbours
_GENERIC = (
    "accuracy alone along apart approach average baseline based behind better bring change common data deep design"
    " different faster find first gain general high image improve input keep large larger layer lead learn learned"
    " learning less level loss low make many mean method model need network neural new number output parameter part"
    " performance picture place plain point problem result second set small space strong task together train trained"
    " training turn two value way weight well whose work"
)
GENERIC = frozenset(_GENERIC.split())


@dataclass(frozen=True)
class Neighbour:
    """An implemented method near a paper of the feed, and why."""

    slug: str
    score: float
    shared: tuple[str, ...]


def refresh(database: Database, model: Lsa | None) -> None:
    """Name the nearest methods for papers that came since the last time, for all if the library or model changed."""
    if model is None:
        return
    library = database.value("SELECT value FROM facts WHERE name = 'library'")
    stamp = f"{model.name} {library}"
    done = database.value("SELECT value FROM facts WHERE name = 'nearest'") or ""
    last = int(done.rsplit(" ", 1)[1]) if done.rsplit(" ", 1)[0] == stamp else 0
    slugs, texts = _methods(database)
    while rows := database.rows(
        "SELECT entries.number, id, texts.title, body FROM entries JOIN texts ON kind = 'entry' AND key = id"
        " WHERE entries.number > ? ORDER BY entries.number LIMIT ?",
        last,
        ROUND,
    ):
        found = near(model, [f"{row['title']} {row['title']} {row['body']}" for row in rows], slugs, texts)
        with database.write() as connection:
            for row, neighbours in zip(rows, found, strict=True):
                connection.execute("DELETE FROM nearest WHERE entry = ?", (row["number"],))
                connection.executemany(
                    "INSERT INTO nearest VALUES (?, ?, ?, ?, ?)",
                    [(row["number"], i, n.slug, n.score, ", ".join(n.shared)) for i, n in enumerate(neighbours)],
                )
            last = rows[-1]["number"]
            connection.execute("INSERT OR REPLACE INTO facts VALUES ('nearest', ?)", (f"{stamp} {last}",))


def near(model: Lsa, texts: list[str], slugs: Sequence[str], methods: list[str]) -> list[list[Neighbour]]:
    """For each text the methods near it.

    Nearness is the mean of two cosines, of TF-IDF itself (the words that both have) and of its projection (words that
    are used alike). A method that shares no two words with a text is not named: there would be nothing to tell.
    """
    if not slugs:
        return [[] for _ in texts]
    weights, against = model.weights(texts), model.weights(methods)
    scores = (weights @ against.T).toarray() + model.embed(texts) @ model.embed(methods).T
    found = []
    for i in range(len(texts)):
        neighbours = []
        for j in np.argsort(-scores[i])[:COUNT]:
            both = weights[i].multiply(against[j]).tocsr()
            words = [model.words[both.indices[k]] for k in np.argsort(-both.data)]
            shared = tuple(word for word in words if word not in GENERIC)[:SHARED]
            if scores[i, j] >= 2 * LEAST and len(shared) > 1:
                neighbours.append(Neighbour(slugs[j], round(float(scores[i, j]) / 2, 3), shared))
        found.append(neighbours)
    return found


def nearest_to(database: Database, numbers: Sequence[int]) -> dict[int, list[Neighbour]]:
    """What is known of these entries."""
    inside = ",".join(str(int(number)) for number in numbers)
    found: dict[int, list[Neighbour]] = {number: [] for number in numbers}
    for row in database.rows(
        f"SELECT * FROM nearest WHERE entry IN ({inside}) AND slug IN (SELECT slug FROM library) ORDER BY entry, place"
    ):
        found[row["entry"]].append(Neighbour(row["slug"], row["score"], tuple(row["shared"].split(", "))))
    return found


def _methods(database: Database) -> tuple[list[str], list[str]]:
    """The implemented papers, each with its title, summary, claims and names of parts as one text."""
    rows = database.rows("SELECT key, title, names, body FROM texts WHERE kind = 'paper' ORDER BY key")
    claims: dict[str, list[str]] = {row["key"]: [] for row in rows}
    for row in database.rows("SELECT key, title FROM texts WHERE kind = 'claim'"):
        claims.setdefault(row["key"].split("#")[0], []).append(row["title"])
    texts = [f"{row['title']} {row['title']} {row['body']} {' '.join(claims[row['key']])}" for row in rows]
    return [row["key"] for row in rows], texts
