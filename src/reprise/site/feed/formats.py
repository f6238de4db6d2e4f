"""Reading what sources send: Atom and RSS as arXiv writes them, and Hugging Face's JSON of daily papers."""

from __future__ import annotations

import email.utils
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import defusedxml
import defusedxml.ElementTree

from reprise.site.feed.client import SourceError
from reprise.site.feed.records import EASTERN, Record, instant, listing_day, make
from reprise.site.feed.text import without_tags

__all__ = ["Batch", "read", "read_json", "read_xml"]

PREFACE = re.compile(r"^\s*arXiv:\S+\s+Announce Type:\s*\S+\s*(Abstract:)?\s*", re.IGNORECASE)
REPLACED = ("replace", "replace-cross")


@dataclass(frozen=True)
class Batch:
    """What one answer held.

    Attributes:
        records: the papers.
        replaced: ids of those that are new versions of papers announced before.
        left_out: entries without an id or title.
        day: the date of the list itself, where it has one.
        total: how many there are in all, where the answer is one page of several.
    """

    records: tuple[Record, ...] = ()
    replaced: frozenset[str] = frozenset()
    left_out: int = 0
    day: str = ""
    total: int | None = None

    def __add__(self, other: Batch) -> Batch:
        return Batch(
            self.records + other.records,
            self.replaced | other.replaced,
            self.left_out + other.left_out,
            self.day or other.day,
            self.total if other.total is None else other.total,
        )


def read(body: bytes, day: str = "") -> Batch:
    """A file or answer of any of the known forms; see :func:`read_xml` and :func:`read_json`.

    Raises:
        SourceError: it is none of them.
    """
    start = body[:2000].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:1] in (b"[", b"{"):
        return read_json(body, day)
    if start[:1] == b"<":
        return read_xml(body)
    raise SourceError(f"it is neither JSON, Atom nor RSS: it begins with {start[:30]!r}")


def read_xml(body: bytes) -> Batch:
    """The entries of an Atom or RSS feed, arXiv's own marks included.

    Raises:
        SourceError: it is no feed (a page in HTML, say), or one that tells of an error.
    """
    if re.match(rb"\s*(<!doctype html|<html)", body[:300], re.IGNORECASE):
        raise SourceError("it answered with a web page instead of a feed")
    try:
        root = defusedxml.ElementTree.fromstring(body)
    except (ParseError, defusedxml.DefusedXmlException, ValueError, LookupError) as error:
        raise SourceError(f"its feed is damaged ({error})") from error
    if _local(root.tag) not in ("feed", "rss", "RDF"):
        raise SourceError(f"it answered with <{_local(root.tag)}> instead of a feed")
    day = _list_day(root)
    items = [element for element in root.iter() if _local(element.tag) in ("entry", "item")]
    found = [_from_xml(item, day) for item in items]
    for item, record in zip(items, found, strict=True):
        if record is None and _text(item, "title").strip().lower() == "error":
            raise SourceError(f"it tells of an error: {_text(item, 'summary').strip()[:200]}")
    replaced = {
        record.id
        for item, record in zip(items, found, strict=True)
        if record and _text(item, "announce_type").strip() in REPLACED
    }
    total = _text(root, "totalResults").strip()
    return _batch(found, frozenset(replaced), day, int(total) if total.isdigit() else None)


def _from_xml(item: Element, day: str) -> Record | None:
    names = [name for author in _all(item, "author") if (name := _text(author, "name"))]
    names = names or [name for text in _texts(item, "creator") for name in text.split(", ")]
    labels = [element.get("term") or element.text or "" for element in _all(item, "category")]
    primary = [element.get("term") or "" for element in _all(item, "primary_category")]
    published = instant(_text(item, "published"))
    abstract = PREFACE.sub("", _text(item, "summary") or _text(item, "description"))
    announced = bool(_text(item, "announce_type"))
    links = [element.get("href") or element.text for element in _all(item, "link")]
    candidates = [_text(item, "id"), _text(item, "guid"), *links]
    record = None
    for candidate in candidates:  # RSS has the address without the version, its guid has the version
        record = record or make(
            id=candidate,
            title=without_tags(_text(item, "title")),
            authors=names,
            abstract=without_tags(abstract),
            day=day if announced else "",
            published="" if announced else published,
            updated="" if announced else _text(item, "updated").strip(),
            categories=list(dict.fromkeys([*primary, *labels])),
            comment=_text(item, "comment"),
            journal=_text(item, "journal_ref"),
            doi=_text(item, "doi") or _text(item, "DOI"),
        )
    if record and not record.day and "T" in record.published:
        record = replace(record, day=listing_day(datetime.fromisoformat(record.published)).isoformat())
    return record


def _list_day(root: Element) -> str:
    """The date of a list of announcements: midnight Eastern of the day that it is for."""
    channel = next((element for element in root if _local(element.tag) == "channel"), root)
    for text in (_text(channel, "pubDate"), _text(channel, "updated")):
        moment = _moment(text.strip())
        if moment:
            return moment.astimezone(EASTERN).date().isoformat()
    return ""


def _moment(text: str) -> datetime | None:
    for parse in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = parse(text)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (TypeError, ValueError):
            continue
    return None


def read_json(body: bytes, day: str = "") -> Batch:
    """Hugging Face's daily papers, or a list of objects with the names of :class:`Record`.

    Args:
        body: the JSON.
        day: the day that was asked for; by default each entry's own.

    Raises:
        SourceError: it is not JSON, or no list.
    """
    try:
        content = json.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"its JSON is damaged ({error})") from error
    if isinstance(content, dict):
        if "error" in content:
            raise SourceError(f"it tells of an error: {str(content['error'])[:200]}")
        content = content.get("papers", content.get("entries"))
    if not isinstance(content, list):
        raise SourceError("its JSON holds no list of papers")
    return _batch([_from_json(entry, day) for entry in content], frozenset(), day, None)


def _from_json(entry: Any, day: str) -> Record | None:
    if not isinstance(entry, dict):
        return None
    paper = entry.get("paper")
    if not isinstance(paper, dict):
        return make(**{**entry, **({"day": day} if day else {})})
    people = [person for person in _list(paper.get("authors")) if isinstance(person, dict)]
    shown = entry.get("publishedAt") or paper.get("submittedOnDailyAt")
    return make(
        id=paper.get("id"),
        title=paper.get("title") or entry.get("title"),
        authors=[person.get("name") for person in people if not person.get("hidden")],
        abstract=paper.get("summary") or entry.get("summary"),
        day=day or instant(shown)[:10],  # the day on the list; the paper's own publishedAt is arXiv's
        published=paper.get("publishedAt"),
        code=paper.get("githubRepo"),
        project=paper.get("projectPage"),
        upvotes=paper.get("upvotes"),
        stars=paper.get("githubStars"),
    )


def _batch(found: Iterable[Record | None], replaced: frozenset[str], day: str, total: int | None) -> Batch:
    found = list(found)
    records = tuple(record for record in found if record is not None)
    return Batch(records, replaced, len(found) - len(records), day, total)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# XML by local names: Atom, arXiv, Dublin Core and OpenSearch have no name twice with two meanings -----------------


def _local(tag: Any) -> str:
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def _all(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element if _local(child.tag) == name)


def _texts(element: Element, name: str) -> Iterator[str]:
    return ("".join(child.itertext()) for child in _all(element, name))


def _text(element: Element, name: str) -> str:
    return next(_texts(element, name), "")
