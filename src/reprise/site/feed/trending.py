"""What rises: a published formula over stored snapshots of votes and stars, with its inputs beside each paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from reprise.site.database import Database
from reprise.site.feed.store import Entry, load

__all__ = ["FORMULA", "Rising", "score", "trending"]

WINDOW = 7  # days over which the gain is counted
HALF_LIFE = 10.0  # days in which a paper's age halves its score
STAR = 0.2  # a star of the code, in votes: stars are cheaper and come from everywhere
FORMULA = (
    f"score = log2(1 + gain) × 2^(−age ÷ {HALF_LIFE:g} days), where gain = new votes + {STAR:g} × new stars in the "
    f"last {WINDOW} days, and age counts from the day the paper was first listed. What was there before the first "
    "snapshot counts only for papers listed inside the window (votes), and never for stars."
)


@dataclass(frozen=True)
class Rising:
    """A paper with its score and what went into it."""

    entry: Entry
    score: float
    votes: int
    stars: int
    age: float


def score(votes: float, stars: float, age: float) -> float:
    """The formula; see ``FORMULA``.

    Args:
        votes: gained in the window; a loss counts as nothing.
        stars: the same for stars.
        age: in days.

    Example:
        >>> score(votes=15, stars=0, age=0.0), score(15, 0, 10.0), score(0, 500, 0.0) < score(101, 0, 0.0)
        (4.0, 2.0, True)
    """
    gain = max(0.0, votes) + STAR * max(0.0, stars)
    return math.log2(1 + gain) * 2.0 ** (-max(0.0, age) / HALF_LIFE)


GAINS = """
WITH inside AS (SELECT * FROM snapshots WHERE at > :start AND at <= :now),
ends AS (SELECT entry, max(at) AS last, min(at) AS first FROM inside GROUP BY entry)
SELECT ends.entry, entries.day, last.upvotes AS votes, last.stars AS stars,
    (SELECT upvotes FROM snapshots WHERE entry = ends.entry AND at <= :start ORDER BY at DESC LIMIT 1) AS votes_before,
    (SELECT stars FROM snapshots WHERE entry = ends.entry AND at <= :start ORDER BY at DESC LIMIT 1) AS stars_before,
    first.upvotes AS votes_first, first.stars AS stars_first
FROM ends JOIN entries ON entries.number = ends.entry
JOIN snapshots AS last ON last.entry = ends.entry AND last.at = ends.last
JOIN snapshots AS first ON first.entry = ends.entry AND first.at = ends.first
"""


def trending(database: Database, now: float, count: int = 50) -> list[Rising]:
    """The papers with the highest scores, best first; empty as long as no source told of votes."""
    start = now - WINDOW * 86400
    found = []
    for row in database.rows(GAINS.replace(":start", "?1").replace(":now", "?2"), start, now):
        listed = datetime.fromisoformat(row["day"]).replace(tzinfo=UTC).timestamp()
        fresh = 0 if listed > start else row["votes_first"]
        votes = (row["votes"] or 0) - (_first(row["votes_before"], fresh) or 0)
        stars = (row["stars"] or 0) - (_first(row["stars_before"], row["stars_first"], row["stars"]) or 0)
        age = max(0.0, (now - listed) / 86400)
        value = score(votes, stars, age)
        if value > 0:
            found.append((value, votes, stars, age, row["entry"]))
    found.sort(key=lambda item: (-item[0], -item[4]))
    numbers = [item[4] for item in found[:count]]
    chosen = load(database, f"WHERE entries.number IN ({','.join(map(str, numbers))})")
    entries = {entry.number: entry for entry in chosen}
    return [Rising(entries[number], value, votes, stars, age) for value, votes, stars, age, number in found[:count]]


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
