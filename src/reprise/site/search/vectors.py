"""Nearness in meaning: TF-IDF and its leading singular vectors, fitted to the texts that are there; no weights needed.

A text's vector is its TF-IDF row projected onto the singular vectors, so that texts which share no word but are used
alike come near each other. Models and vectors are in the database; what is new since is added, and when the texts have
grown by a third the model is fitted anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reprise.site.database import Database
from reprise.site.search.spelling import STOP_WORDS, tokens
from reprise.site.search.texts import LIBRARY

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Embedder", "Lsa", "Vectors", "terms"]

log = logging.getLogger(__name__)
SIZE = 96  # dimensions
TERMS = 20_000  # words that are known at most
SAMPLE = 20_000  # texts of the feed that a model is fitted to, the latest
GROWTH = 1.33
NEAR = 0.2, 0.45  # cosine below which nothing is near: in itself, and as a share of the best
ROUND = 4000  # texts that are embedded in one transaction
READ = 50_000  # vectors that are read at one time
Vector = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors of length one; ``name`` tells vectors of different kinds apart."""

    name: str

    def embed(self, texts: list[str]) -> Vector:
        """One row per text."""


def terms(text: str) -> list[str]:
    """The words that count, plurals as singulars.

    Example:
        >>> terms("The policies of frozen networks")
        ['policy', 'frozen', 'network']
    """
    return [_singular(word) for word in tokens(text) if len(word) > 1 and word not in STOP_WORDS and not word.isdigit()]


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


@dataclass
class Lsa:
    """TF-IDF with a projection onto its leading singular vectors.

    Attributes:
        name: a digest of what it was fitted to.
        words: the vocabulary.
        idf: the weight of each word, (V,).
        components: the singular vectors, (K, V).
    """

    name: str
    words: list[str]
    idf: NDArray[np.float32]
    components: Vector

    def __post_init__(self) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._tfidf = TfidfVectorizer(analyzer=terms, sublinear_tf=True, dtype=np.float32, vocabulary=self.words)
        self._tfidf.idf_ = self.idf

    @classmethod
    def fit(cls, texts: list[str]) -> Lsa:
        """A model of these texts; the same texts give the same model."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.utils.extmath import randomized_svd

        tfidf = TfidfVectorizer(
            analyzer=terms, sublinear_tf=True, dtype=np.float32, max_features=TERMS, min_df=2 if len(texts) > 500 else 1
        )
        matrix = tfidf.fit_transform(texts)
        size = max(1, min(SIZE, min(matrix.shape) - 1))
        _, _, components = randomized_svd(matrix, size, n_iter=4, random_state=0)
        digest = hashlib.sha256(components.astype(np.float16).tobytes()).hexdigest()[:16]
        words = tfidf.get_feature_names_out().tolist()
        return cls(
            f"lsa-{digest}", words, tfidf.idf_.astype(np.float32), components.astype(np.float16).astype(np.float32)
        )

    def weights(self, texts: list[str]) -> csr_matrix:
        """TF-IDF rows of length one, (N, V)."""
        return self._tfidf.transform(texts)

    def embed(self, texts: list[str]) -> Vector:
        """Projected rows of length one, (N, K); zeros for a text without a known word."""
        return _unit(np.asarray(self.weights(texts) @ self.components.T, dtype=np.float32))

    def save(self) -> bytes:
        """The model as bytes."""
        file = io.BytesIO()
        words = np.frombuffer(json.dumps(self.words).encode(), dtype=np.uint8)
        np.savez_compressed(file, words=words, idf=self.idf, components=self.components.astype(np.float16))
        return file.getvalue()

    @classmethod
    def load(cls, name: str, data: bytes) -> Lsa:
        """The model out of what :meth:`save` gave."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            words = json.loads(arrays["words"].tobytes())
            return cls(name, words, arrays["idf"], arrays["components"].astype(np.float32))


def _unit(rows: Vector) -> Vector:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


class Vectors:
    """The vectors of all texts, for exact search: one matrix product over all of them.

    Until :meth:`refresh` has run once there are none, and :meth:`near` finds nothing.

    Args:
        database: where texts, models and vectors are.
        embedder: what makes the vectors; by default the model of this module.
    """

    def __init__(self, database: Database, embedder: Embedder | None = None) -> None:
        self.database, self.embedder = database, embedder
        self.model: Lsa | None = None
        self._numbers, self._rows = np.zeros(0, np.int64), np.zeros((0, 1), np.float32)
        self._at: dict[int, int] = {}
        self._used, self._last, self._name, self._lock = 0, 0, "", threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether there are any."""
        return self._used > 0

    def refresh(self) -> None:
        """Fit the model if there is none or the texts have grown, and add the vectors that are missing."""
        with self._lock:
            self.model = self._fitted()
            active: Embedder | None = self.embedder or self.model
            if active is None:
                return
            last: int | None = -1
            while last is not None:
                last = self._add_missing(active, last)
            while self._read(active.name):
                pass

    def near(self, query: str, count: int) -> list[tuple[int, float]]:
        """The numbers of the nearest texts and their cosines, best first."""
        active: Embedder | None = self.embedder or self.model
        if active is None or not self._used or active.name != self._name:
            return []
        try:
            vector = active.embed([query])[0]
        except RuntimeError as error:  # an encoder of the user's that has stopped
            log.warning("%s", error)
            return []
        if not vector.any():
            return []
        cosines = self._rows[: self._used] @ vector
        count = min(count, self._used)
        best = np.argpartition(-cosines, count - 1)[:count]
        best = best[np.argsort(-cosines[best], kind="stable")]
        least = max(NEAR[0], NEAR[1] * cosines[best[0]])
        return [(int(self._numbers[i]), float(cosines[i])) for i in best if cosines[i] >= least]

    def explain(self, query: str, texts: list[str], count: int = 6) -> list[list[str]]:
        """For each text its words that the query leads to, the heaviest first: why it is near."""
        if self.model is None or not texts:
            return [[] for _ in texts]
        wanted = self.model.embed([query])[0] @ self.model.components
        rows = self.model.weights(texts)
        found = []
        for start, end in zip(rows.indptr, rows.indptr[1:], strict=False):
            places = rows.indices[start:end]
            parts = rows.data[start:end] * wanted[places]
            found.append([self.model.words[places[i]] for i in np.argsort(-parts)[:count] if parts[i] > 0])
        return found

    def _fitted(self) -> Lsa | None:
        count = self.database.value("SELECT count(*) FROM texts")
        row = self.database.row("SELECT name, texts FROM models WHERE name LIKE 'lsa-%' ORDER BY made DESC LIMIT 1")
        if row is not None and count <= max(GROWTH * row["texts"], row["texts"] + 20):
            if self.model is not None and self.model.name == row["name"]:
                return self.model
            return Lsa.load(row["name"], self.database.value("SELECT data FROM models WHERE name = ?", row["name"]))
        query = "SELECT title, body FROM texts WHERE number {} ? ORDER BY number DESC LIMIT ?"
        sample = self.database.rows(query.format(">="), LIBRARY, SAMPLE)
        sample += self.database.rows(query.format("<"), LIBRARY, SAMPLE - len(sample))
        if len(sample) < 3:
            return None
        model = Lsa.fit([f"{title} {title} {body}" for title, body in sample])
        with self.database.write() as connection:
            connection.execute("DELETE FROM models")
            connection.execute("INSERT INTO models VALUES (?, ?, ?, ?)", (model.name, time.time(), count, model.save()))
        return model

    def _add_missing(self, active: Embedder, after: int) -> int | None:
        """Embed the next texts after a number that lack a vector of this kind; the last one if there may be more."""
        missing = self.database.rows(
            "SELECT texts.number, title, body FROM texts LEFT JOIN vectors ON vectors.text = texts.number"
            " AND vectors.model = ? WHERE vectors.text IS NULL AND texts.number > ? ORDER BY texts.number LIMIT ?",
            active.name,
            after,
            ROUND,
        )
        if not missing:
            return None
        rows = active.embed([f"{row['title']} {row['title']} {row['body']}" for row in missing]).astype(np.float32)
        values = [(row["number"], active.name, vector.tobytes()) for row, vector in zip(missing, rows, strict=True)]
        with self.database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO vectors (text, model, vector) VALUES (?, ?, ?)", values)
        return int(missing[-1]["number"]) if len(missing) == ROUND else None

    def _read(self, name: str) -> bool:
        """Take some of what other rounds or processes have added into the matrix; whether there may be more."""
        if name != self._name:
            self._at, self._used, self._last = {}, 0, 0
        fresh: list[Any] = self.database.rows(
            "SELECT place, text, vector FROM vectors WHERE model = ? AND place > ? ORDER BY place LIMIT ?",
            name,
            self._last,
            READ,
        )
        if fresh:
            size = len(fresh[0]["vector"]) // 4
            self._grow(self._used + len(fresh), size)
            for row in fresh:
                place = self._at.setdefault(row["text"], self._used)
                self._numbers[place], self._rows[place] = row["text"], np.frombuffer(row["vector"], np.float32)
                self._used = max(self._used, place + 1)
            self._last = fresh[-1]["place"]
        self._name = name
        return len(fresh) == READ

    def _grow(self, need: int, size: int) -> None:
        if self._used == 0 or self._rows.shape[1] != size:
            self._numbers, self._rows = np.zeros(need, np.int64), np.zeros((need, size), np.float32)
        elif need > len(self._rows):
            room = max(need, len(self._rows) * 3 // 2)
            numbers, rows = np.zeros(room, np.int64), np.zeros((room, size), np.float32)
            numbers[: self._used], rows[: self._used] = self._numbers[: self._used], self._rows[: self._used]
            self._numbers, self._rows = numbers, rows
