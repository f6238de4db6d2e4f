"""The page: search among up to a million texts, the first view, and the start of `reprise serve`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
from fastapi import FastAPI
from starlette.responses import HTMLResponse
from starlette.testclient import TestClient

from benchmarks.commands import against
from benchmarks.table import Row, compare
from reprise.files import home
from reprise.site.app import create_app
from reprise.site.database import Database
from reprise.site.search.find import search
from reprise.site.search.spelling import names_of_title, variants
from reprise.site.search.vectors import Vectors
from reprise.site.search.words import content

TEXTS = (10_000, 100_000, 1_000_000)
LOCAL = "http://127.0.0.1:8000"
START = """
from starlette.testclient import TestClient
from reprise.site.app import create_app
assert TestClient(create_app(), "http://127.0.0.1:8000").get("/").status_code == 200
"""


def rows() -> Iterator[Row]:
    """Search against one query of SQLite's index, the first page against a constant, the start against its imports."""
    for texts in TEXTS:
        yield from _searches(texts)
    with patch("reprise.site.feed.pages.running", lambda app: nullcontext()), TestClient(create_app(), LOCAL) as client:
        page = client.get("/").text
        constant = FastAPI()
        constant.get("/", response_class=HTMLResponse)(lambda: page)
        plain = TestClient(constant, LOCAL)
        yield from compare(
            "the first page, as the server answers it",
            lambda: client.get("/"),
            limits={"FastAPI, a constant of the same size": lambda: plain.get("/")},
        )
    imports = {"import fastapi, jinja2, uvicorn": [sys.executable, "-c", "import fastapi, jinja2, uvicorn"]}
    start = [sys.executable, "-c", START]
    yield from against("reprise serve, from the start to the first page", start, imports, settings="limit")


def _searches(texts: int) -> Iterator[Row]:
    """By words, names and meaning; SQLite's index knows words alone."""
    database, words = corpus(home() / "cache" / "benchmarks" / f"texts-{texts}.db", texts)
    vectors = Vectors(database)
    vectors.refresh()
    draw = np.random.default_rng(1)
    for kind, queries in {
        "two of the ten commonest words": [
            f"{words[a]} {words[b]}" for a, b in ((0, 1), (1, 2), (3, 0), (2, 5), (0, 7))
        ],
        "three common words": [" ".join(draw.choice(words[:300], 3)) for _ in range(5)],
        "three rare words": [" ".join(draw.choice(words[2000:], 3)) for _ in range(5)],
        "twelve words": [" ".join(draw.choice(words[:3000], 12)) for _ in range(5)],
    }.items():
        yield from compare(
            f"search for {kind}, 5 queries",
            each(queries, lambda query: search(database, vectors, query)),
            limits={"SQLite FTS5, words alone, by bm25": each(queries, lambda query: ranked(database, query))},
            size=f"{texts:,} texts",
        )
    database.close()


def each(queries: list[str], ask: Callable[[str], object]) -> Callable[[], None]:
    """A function that asks all of them."""

    def run() -> None:
        for query in queries:
            ask(query)

    return run


def ranked(database: Database, query: str) -> object:
    """The two hundred best of SQLite's index alone."""
    expression = " OR ".join(f'"{word}"' for word in content(query))
    return database.rows("SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words) LIMIT 200", expression)


def corpus(path: Path, count: int) -> tuple[Database, np.ndarray]:
    """A database of made-up titles and abstracts, and its words, the commonest first; kept, since making it takes long.

    Words follow Zipf's law: the commonest is in nearly every text, most are in a few hundred.
    """
    draw = np.random.default_rng(0)
    syllables = np.array(
        ["".join(draw.choice(list(kind), 1)[0] for kind in ("bcdfgklmnprstvz", "aeiou")) for _ in range(75)]
    )
    words = np.unique(np.array(["".join(draw.choice(syllables, 3)) for _ in range(40_000)]))
    weights = np.cumsum(1 / np.arange(1, len(words) + 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    database = Database(path)
    start = database.value("SELECT count(*) FROM texts")
    while start < count:
        size = min(20_000, count - start)
        picked = words[np.searchsorted(weights, weights[-1] * np.random.default_rng(start).random((size, 100)))]
        texts, names = [], []
        for number, row in enumerate(picked, start + 1):
            title = " ".join(row[:9])
            others = " ".join(dict.fromkeys(variants(title)))
            texts.append((number, "entry", str(number), title, others, " ".join(row[9:])))
            names += [(name, number) for name in names_of_title(title)]
        with database.write() as connection:
            connection.executemany("INSERT INTO texts VALUES (?, ?, ?, ?, ?, ?)", texts)
            connection.executemany("INSERT OR IGNORE INTO names VALUES (?, ?)", names)
        start += size
    return database, words
