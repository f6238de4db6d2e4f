"""One record per paper, whatever source it comes from: its arXiv id without the version is its identity."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from reprise.site.feed.text import address, clean

__all__ = ["TITLE", "Record", "arxiv_id", "day_of", "instant", "listing_day", "make", "today"]

TITLE, ABSTRACT, NAME, NOTE = 400, 6000, 120, 600  # characters that are kept
AUTHORS = 2000
EASTERN = ZoneInfo("America/New_York")
DEADLINE = time(14)  # Eastern: what comes in before is in the next list

NEW_FORM = r"\d{4}\.\d{4,5}"
OLD_FORM = r"[a-z][a-z-]*(?:\.[A-Za-z]{2})?/\d{7}"
ID = re.compile(
    r"(?:(?:https?://)?(?:[\w-]+\.)*arxiv\.org/(?:abs|pdf|html|format|e-print)/|arxiv:\s*|oai:arxiv\.org:|10\.48550/arxiv\.)?"
    rf"(?P<id>{NEW_FORM}|{OLD_FORM})(?:v(?P<version>[1-9]\d{{0,3}}))?(?:\.pdf)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Record:
    """A paper as one source tells of it; what the source does not tell is empty."""

    id: str
    title: str
    authors: tuple[str, ...] = ()
    abstract: str = ""
    day: str = ""
    published: str = ""
    updated: str = ""
    version: int = 1
    categories: tuple[str, ...] = ()
    comment: str = ""
    journal: str = ""
    doi: str = ""
    code: str = ""
    project: str = ""
    upvotes: int | None = None
    stars: int | None = None
    aliases: tuple[str, ...] = ()


def make(**told: Any) -> Record | None:
    """A record of what a source tells, cleaned; None where it has no id that is known or no title.

    Every value may be of any kind: what is not what it should be is left out.
    """
    found = arxiv_id(told.get("id"))
    title = clean(told.get("title"), TITLE)
    if found is None or not title:
        return None
    authors = told.get("authors")
    names = [clean(name, NAME) for name in authors[:AUTHORS]] if isinstance(authors, (list, tuple)) else []
    categories = told.get("categories")
    labels = [clean(label, 30) for label in categories[:50]] if isinstance(categories, (list, tuple)) else []
    version = told.get("version")
    return Record(
        id=found[0],
        title=title,
        authors=tuple(name for name in names if name),
        abstract=clean(told.get("abstract"), ABSTRACT),
        day=day_of(told.get("day")),
        published=instant(told.get("published")),
        updated=instant(told.get("updated")),
        version=version if isinstance(version, int) and 0 < version < 10_000 else found[1] or 1,
        categories=tuple(label for label in labels if re.fullmatch(r"[\w.-]+", label)),
        comment=clean(told.get("comment"), NOTE),
        journal=clean(told.get("journal"), NOTE),
        doi=clean(told.get("doi"), 200),
        code=address(told.get("code")) or "",
        project=address(told.get("project")) or "",
        upvotes=_count(told.get("upvotes")),
        stars=_count(told.get("stars")),
    )


def arxiv_id(value: Any) -> tuple[str, int | None] | None:
    """The id without its version, and the version, of any form in use; None if it is none.

    Before April 2007 ids were ``archive/YYMMNNN``, until 2014 ``YYMM.NNNN``, since then ``YYMM.NNNNN``.

    Example:
        >>> arxiv_id("https://arxiv.org/pdf/2506.15799v2.pdf"), arxiv_id("arXiv:cs.LG/0301012")
        (('2506.15799', 2), ('cs/0301012', None))
        >>> arxiv_id("2513.00001"), arxiv_id("1501.1234")
        (None, None)
    """
    match = ID.fullmatch(value.strip().split("?")[0].split("#")[0].rstrip("/")) if _short(value) else None
    if match is None:
        return None
    name = match["id"].lower()
    version = int(match["version"]) if match["version"] else None
    if "/" in name:
        archive, number = name.split("/")
        year, month = int(number[:2]), int(number[2:4])
        valid = 1 <= month <= 12 and (year >= 91 or year < 7 or (year == 7 and month <= 3))
        return (f"{archive.split('.')[0]}/{number}", version) if valid else None  # the subject class is no part of it
    year, month, digits = int(name[:2]), int(name[2:4]), len(name) - 5
    valid = 1 <= month <= 12 and (year, month) >= (7, 4) and digits == (4 if year < 15 else 5)
    return (name, version) if valid else None


def _short(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 200


def instant(value: Any) -> str:
    """An instant in UTC ("2025-06-18T17:59:58Z") or a date, from what sources write; empty if it is neither."""
    if not _short(value):
        return ""
    text = value.strip()
    if day_of(text):
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return ""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return ""


def day_of(value: Any) -> str:
    """A date written YYYY-MM-DD; empty if it is none."""
    try:
        return date.fromisoformat(value).isoformat() if isinstance(value, str) and len(value) == 10 else ""
    except ValueError:
        return ""


def listing_day(moment: datetime) -> date:
    """The day of arXiv's list that a paper submitted at that moment is in.

    In by 14:00 Eastern on a working day, announced at 20:00, listed under the next working day's date. Holidays are
    not known here: a list's own date counts where there is one.

    Example:
        >>> listing_day(datetime(2025, 6, 18, 17, 59, tzinfo=UTC)).isoformat()  # a Wednesday, 13:59 Eastern
        '2025-06-19'
        >>> listing_day(datetime(2025, 6, 20, 18, 1, tzinfo=UTC)).isoformat()  # Friday, 14:01: Monday's, so Tuesday
        '2025-06-24'
    """
    local = moment.astimezone(EASTERN)
    day = local.date() + timedelta(days=local.time() >= DEADLINE)
    while day.weekday() > 4:  # nothing is announced for what comes at the weekend before Monday's deadline
        day += timedelta(days=1)
    day += timedelta(days=1)
    return day + timedelta(days=2) if day.weekday() == 5 else day


def today(now: float) -> str:
    """The day in New York, where arXiv's days begin and end."""
    return datetime.fromtimestamp(now, EASTERN).date().isoformat()


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None
