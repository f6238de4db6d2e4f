"""Implemented papers, their parts and claims, made findable; and what was seen to change of their verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reprise.lab.paper import Paper
from reprise.lab.results import Status
from reprise.site.database import Database
from reprise.site.search.spelling import names_of_title, plain
from reprise.site.search.texts import put_text

__all__ = ["Known", "known", "sync"]


@dataclass(frozen=True)
class Known:
    """An implemented paper, as the feed names it.

    Attributes:
        slug, arxiv, title, room: of the paper.
        verdict: on its headline claim; "proved" where it has only identities.
        mark: "stale", "confirmed" or nothing.
        scale: of the measurement; empty if there is none.
    """

    slug: str
    arxiv: str
    title: str
    room: str
    verdict: str
    mark: str
    scale: str

    @property
    def name(self) -> str:
        """A short name: what stands before the colon of the title, else the slug."""
        head, colon, _ = self.title.partition(":")
        return head if colon and len(head) <= 30 else self.slug

    @property
    def words(self) -> str:
        """ "holds at laptop scale, stale"."""
        if self.verdict == "proved":
            return "proved by tests"
        at = f" at {self.scale} scale" if self.scale and self.verdict != "unmeasured" else ""
        return f"{self.verdict}{at}" + (f", {self.mark}" if self.mark else "")


@dataclass(frozen=True)
class Text:
    """Something of the library that can be found."""

    kind: str
    key: str
    title: str
    body: str
    names: frozenset[str]
    beside: tuple[str, ...] = ()


def known(database: Database) -> dict[str, Known]:
    """All implemented papers by slug, as they were at the last :func:`sync`."""
    rows = database.rows("SELECT slug, arxiv, title, room, verdict, mark, scale FROM library ORDER BY slug")
    return {row["slug"]: Known(*row) for row in rows}


def sync(
    database: Database,
    version: str,
    papers: Sequence[tuple[Paper, Status]],
    parts: Iterable[tuple[str, str]],
    now: float,
    complete: bool = True,
) -> bool:
    """Bring the database in step with the papers; whether anything was different.

    Args:
        database: where.
        version: changes whenever a file of a paper or of the library does.
        papers: all that can be read, with what was published of them.
        parts: dotted name and summary of every public part.
        now: the time.
        complete: whether these are all papers that there are; if not, what is known of others stays.
    """
    if database.value("SELECT value FROM facts WHERE name = 'library'") == version:
        return False
    texts = [text for paper, _ in papers for text in _texts_of(paper)] + [_text_of(*part) for part in parts]
    with database.write() as connection:
        before = known(database)
        for paper, status in papers:
            judgement = status.judgements[0] if status.judgements else None
            today = Known(
                paper.slug, paper.arxiv, paper.title, paper.room, judgement.verdict if judgement else "proved",
                status.mark, status.scale or "",
            )  # fmt: skip
            old = before.get(paper.slug)
            if old is not None and old.words != today.words:
                connection.execute(
                    "INSERT INTO changes (slug, at, before, now) VALUES (?, ?, ?, ?)",
                    (paper.slug, now, old.words, today.words),
                )
            connection.execute("INSERT OR REPLACE INTO library VALUES (?, ?, ?, ?, ?, ?, ?)", (*vars(today).values(),))
        stored = {(*row,) for row in connection.execute("SELECT kind, key FROM texts WHERE kind != 'entry'")}
        for text in texts:
            put_text(connection, text.kind, text.key, text.title, text.body, text.names, text.beside)
        if complete:
            gone = before.keys() - {paper.slug for paper, _ in papers}
            connection.executemany("DELETE FROM library WHERE slug = ?", [(slug,) for slug in gone])
            unfound = stored - {(text.kind, text.key) for text in texts}
            connection.executemany("DELETE FROM texts WHERE kind = ? AND key = ?", sorted(unfound))
        connection.execute("INSERT OR REPLACE INTO facts VALUES ('library', ?)", (version,))
    return True


def _texts_of(paper: Paper) -> Iterator[Text]:
    names = names_of_title(paper.title) | {plain(paper.slug), plain(paper.arxiv)}
    parts = tuple(part.split(".")[-1] for part in paper.parts)
    yield Text("paper", paper.slug, paper.title, paper.summary, frozenset(names), (paper.slug, *parts, paper.authors))
    for number, claim in enumerate(paper.claims, 1):
        yield Text("claim", f"{paper.slug}#{number}", claim.text, paper.title, frozenset())


def _text_of(dotted: str, summary: str) -> Text:
    name = dotted.split(".")[-1]
    return Text("part", dotted, name, summary, frozenset({plain(name)}))
