"""Days, weeks and months of the feed: their permanent addresses, their neighbours, and what is said of an empty one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from reprise.site.database import Database
from reprise.site.feed.records import today

__all__ = [
    "Neighbours",
    "Period",
    "SourceState",
    "moment",
    "neighbours",
    "of_day",
    "period",
    "sentences",
    "source_states",
    "title_of",
]

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
STALE = 26 * 3600.0  # without a good answer for longer than this a source is called stale


@dataclass(frozen=True)
class Period:
    """A day, week or month: ``key`` is its place in addresses ("2026-11-24", "2026-W48", "2026-11")."""

    kind: str
    key: str
    first: date
    last: date

    @property
    def title(self) -> str:
        """What a heading calls it."""
        if self.kind == "day":
            return (
                f"{WEEKDAYS[self.first.weekday()]}, {self.first.day} {MONTHS[self.first.month - 1]} {self.first.year}"
            )
        if self.kind == "week":
            return f"Week {int(self.key[-2:])} of {self.key[:4]}"
        return f"{MONTHS[self.first.month - 1]} {self.first.year}"

    @property
    def days(self) -> list[date]:
        """Its days."""
        return [self.first + timedelta(days=i) for i in range((self.last - self.first).days + 1)]


def period(key: str) -> Period | None:
    """The period of a key; None if it is none.

    Example:
        >>> period("2026-11-24").title, period("2026-W48").first.isoformat(), period("2026-02").last.day
        ('Tuesday, 24 November 2026', '2026-11-23', 28)
        >>> period("2026-W54"), period("2026-13"), period("2026-2-3")
        (None, None, None)
    """
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", key):
            return of_day(date.fromisoformat(key))
        if re.fullmatch(r"\d{4}-W\d\d", key):
            first = date.fromisocalendar(int(key[:4]), int(key[6:]), 1)
            return Period("week", key, first, first + timedelta(days=6))
        if re.fullmatch(r"\d{4}-\d\d", key):
            first = date.fromisoformat(f"{key}-01")
            following = (first + timedelta(days=31)).replace(day=1)
            return Period("month", key, first, following - timedelta(days=1))
    except (ValueError, OverflowError):
        pass
    return None


def of_day(day: date, kind: str = "day") -> Period:
    """The period of that kind which a day is in."""
    if kind == "day":
        return Period("day", day.isoformat(), day, day)
    year, week, _ = day.isocalendar()
    found = period(f"{year:04}-W{week:02}" if kind == "week" else f"{day.year:04}-{day.month:02}")
    assert found is not None
    return found


@dataclass(frozen=True)
class Neighbours:
    """The periods before and after that hold papers; after the last one today's, if that is later still."""

    before: Period | None
    after: Period | None


def neighbours(database: Database, here: Period, now: float) -> Neighbours:
    """Where "previous" and "next" lead."""
    before = database.value("SELECT max(day) FROM entries WHERE day < ?", here.first.isoformat())
    after = database.value("SELECT min(day) FROM entries WHERE day > ?", here.last.isoformat())
    if after is None and here.last.isoformat() < today(now):
        after = today(now)
    return Neighbours(*(of_day(date.fromisoformat(day), here.kind) if day else None for day in (before, after)))


# What is said --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourceState:
    """How a source is doing: when it was asked last, when it answered well last, and what is wrong with it."""

    name: str
    title: str
    asked: float | None
    succeeded: float | None
    highest: str
    error: str
    stale: bool

    @property
    def sentence(self) -> str:
        """ "Hugging Face's daily papers: stale since 2026-11-24 04:00 UTC (it answered 429)", or when it was read."""
        if not self.stale:
            return f"{self.title}: read {moment(self.succeeded)}"
        since = f"stale since {moment(self.succeeded)}" if self.succeeded else "not read so far"
        return f"{self.title}: {since}" + (f" ({self.error})" if self.error else "")


def source_states(database: Database, now: float) -> list[SourceState]:
    """All sources that were ever asked."""
    return [
        SourceState(
            row["name"], title_of(row["name"]), row["asked"], row["succeeded"], row["highest"] or "",
            row["error"] or "",
            bool(row["error"]) or row["succeeded"] is None or now - row["succeeded"] > STALE,
        )
        for row in database.rows("SELECT * FROM sources WHERE name NOT LIKE 'file:%' ORDER BY name")
    ]  # fmt: skip


def title_of(name: str) -> str:
    """What pages call a source."""
    kind, _, rest = name.partition(":")
    categories = rest.replace("+", ", ")
    titles = {"arxiv": f"arXiv's list ({categories})", "arxiv-api": f"arXiv's search ({categories})"}
    return titles.get(kind) or {"huggingface": "Hugging Face's daily papers", "example": "the example feed"}.get(
        kind, rest or name
    )


def sentences(database: Database, here: Period, now: float) -> list[str]:
    """What a page says of a period before its papers: how many are new, or why there are none, and what is stale.

    "12 new", "No announcement today (Thanksgiving)" and "Source stale since ..." are three different things: papers
    came, the sources say that there are none, and nobody knows.
    """
    count = database.value(
        "SELECT count(*) FROM entries WHERE day BETWEEN ? AND ?", here.first.isoformat(), here.last.isoformat()
    )
    this_day = today(now)
    current = here.first.isoformat() <= this_day <= here.last.isoformat()
    states = source_states(database, now)
    stale = [f"Source stale: {state.sentence}." for state in states if state.stale] if current else []
    if here.first.isoformat() > this_day:
        return ["This has not come yet."]
    if count:
        return [f"{count:,} new.", *stale]
    if here.kind != "day":
        return [f"Nothing was announced in this {here.kind}, as far as the sources were read.", *stale]
    read = database.value(
        "SELECT max(at) FROM checks WHERE day = ? AND outcome IN ('new', 'empty', 'unchanged')", here.key
    )
    reason = day_off(here.first)
    if reason:
        return [f"No announcement {'today' if current else 'on this day'} ({reason}).", *stale]
    if read is None:
        return stale or [f"No source was asked {'yet today' if current else 'on this day'}."]
    if current:
        return [f"No announcement today so far: the lists were empty at {moment(read)[11:]}.", *stale]
    return ["No announcement on this day: the lists stayed empty.", *stale]


def day_off(day: date) -> str:
    """Why nothing is announced on a day: the weekend, or a holiday of the United States that arXiv keeps; else empty.

    Example:
        >>> day_off(date(2026, 11, 26)), day_off(date(2026, 11, 28)), day_off(date(2026, 11, 24))
        ('Thanksgiving', 'Saturday', '')
    """
    if day.weekday() > 4:
        return WEEKDAYS[day.weekday()]
    fixed = {(1, 1): "New Year's Day", (7, 4): "Independence Day", (12, 25): "Christmas Day"}
    if (day.month, day.day) in fixed:
        return fixed[day.month, day.day]
    week = (day.day - 1) // 7 + 1
    last = (day + timedelta(days=7)).month != day.month
    movable = {(11, 3, 4): "Thanksgiving", (9, 0, 1): "Labor Day", (1, 0, 3): "Martin Luther King Jr. Day"}
    if day.month == 5 and day.weekday() == 0 and last:
        return "Memorial Day"
    return movable.get((day.month, day.weekday(), week), "")


def moment(at: float | None) -> str:
    """An instant as pages write it.

    Example:
        >>> moment(1_795_600_000.0)
        '2026-11-25 09:46 UTC'
    """
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC") if at else "never"
