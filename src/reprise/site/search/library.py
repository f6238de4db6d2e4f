"""Implemented papers, their parts and claims, made findable; and what was seen to change of their verdicts."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from reprise.lab import overview, paper as papers, results, words
from reprise.lab.paper import Paper
from reprise.lab.search import pieces
from reprise.site.database import Database
from reprise.site.search.spelling import names_of_title, plain
from reprise.site.search.texts import put_text

__all__ = ["Known", "Library"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """An implemented paper, as other pages name it."""

    slug: str
    arxiv: str
    title: str
    room: str
    verdict: str
    mark: str
    words: str

    @property
    def name(self) -> str:
        """A short name: what stands before the colon of the title, else the slug."""
        head, colon, _ = self.title.partition(":")
        return head if colon and len(head) <= 30 else self.slug


@dataclass(frozen=True)
class Text:
    """Something of the library that can be found."""

    kind: str
    key: str
    title: str
    body: str
    names: frozenset[str]
    beside: tuple[str, ...] = ()


class Library:
    """Keeps the database in step with the papers on disk.

    Args:
        database: where.
        clock: the time.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self.database, self.clock = database, clock
        self._stamp, self._lock = "", threading.Lock()

    def refresh(self) -> bool:
        """Read what changed on disk since the last time; whether anything did.

        Papers that cannot be read keep what is known of them.
        """
        with self._lock:
            stamp = overview_stamp()
            if stamp == self._stamp:
                return False
            stored = self.database.value("SELECT value FROM facts WHERE name = 'library'")
            if stored != stamp:
                self._read(stamp)
            self._stamp = stamp
            return stored != stamp

    def known(self) -> dict[str, Known]:
        """All implemented papers by slug."""
        rows = self.database.rows("SELECT slug, arxiv, title, room, verdict, mark, words FROM library ORDER BY slug")
        return {row["slug"]: Known(*row) for row in rows}

    def _read(self, stamp: str) -> None:
        everything, broken = papers.all_papers()
        listed = []
        for paper in everything:
            try:
                listed.append((paper, results.status(paper)))
            except results.ResultsError as error:  # what was known of it stays
                log.warning("%s", error)
        texts = [text for paper in everything for text in _texts_of(paper)]
        texts += [
            Text("part", piece.name, name := piece.name.split(".")[-1], piece.summary, frozenset({plain(name)}))
            for piece in pieces()
        ]
        with self.database.write() as connection:
            before = {row["slug"]: row for row in connection.execute("SELECT * FROM library")}
            for paper, status in listed:
                judgement = status.judgements[0] if status.judgements else None
                verdict = judgement.verdict if judgement else "proved"
                told = words.verdict_words(judgement, status.scale).split(":")[0] if judgement else "proved by a test"
                full = told + (f", {status.mark}" if status.mark else "")
                old = before.get(paper.slug)
                if old is not None and old["words"] != full:
                    connection.execute(
                        "INSERT INTO changes (slug, at, before, now) VALUES (?, ?, ?, ?)",
                        (paper.slug, self.clock(), old["words"], full),
                    )
                connection.execute(
                    "INSERT OR REPLACE INTO library VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        paper.slug, paper.arxiv, paper.title, paper.room, verdict, status.mark or "",
                        status.scale or "", full,
                    ),
                )  # fmt: skip
            if not broken:
                slugs = {paper.slug for paper in everything}
                connection.executemany("DELETE FROM library WHERE slug = ?", [(s,) for s in before if s not in slugs])
            known = {
                (row[0], row[1]) for row in connection.execute("SELECT kind, key FROM texts WHERE kind != 'entry'")
            }
            for text in texts:
                put_text(connection, text.kind, text.key, text.title, text.body, text.names, text.beside)
            gone = known - {(text.kind, text.key) for text in texts}
            connection.executemany("DELETE FROM texts WHERE kind = ? AND key = ?", sorted(gone))
            connection.execute("INSERT OR REPLACE INTO facts VALUES ('library', ?)", (stamp,))


def _texts_of(paper: Paper) -> Iterator[Text]:
    names = names_of_title(paper.title) | {plain(paper.slug), plain(paper.arxiv)}
    parts = tuple(part.split(".")[-1] for part in paper.parts)
    yield Text("paper", paper.slug, paper.title, paper.summary, frozenset(names), (paper.slug, *parts, paper.authors))
    for i, claim in enumerate(paper.claims):
        yield Text("claim", f"{paper.slug}#{i + 1}", claim.text, f"{paper.title}. {claim.paper}", frozenset())


def overview_stamp() -> str:
    """A fingerprint of the files that papers, parts and verdicts come from."""
    return hashlib.sha256(overview._stamp().encode()).hexdigest()[:16]
