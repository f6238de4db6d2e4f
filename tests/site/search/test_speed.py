"""How fast search is, in seconds of one core."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np

from reprise.site.database import Database
from reprise.site.feed import store
from reprise.site.feed.records import make
from reprise.site.search.find import search
from reprise.site.search.vectors import Vectors


def test_ten_thousand_entries_answer_in_fifty_milliseconds(tmp_path: Path) -> None:
    database = Database(tmp_path / "site.db")
    draw = np.random.default_rng(0)
    words = np.array([f"{a}{b}" for a in ("pol", "net", "dif", "mem", "rob", "opt", "lay", "gra") for b in range(500)])
    weight = 1 / np.arange(1, len(words) + 1)
    picked = draw.choice(words, (10_000, 60), p=weight / weight.sum())
    records = [
        make(id=f"{2401 + i // 5000}.{i % 5000:05}", title=" ".join(row[:8]), abstract=" ".join(row[8:]))
        for i, row in enumerate(picked)
    ]
    store.add(database, "test", [record for record in records if record], 0.0)
    vectors = Vectors(database)
    vectors.refresh()
    queries = [" ".join(draw.choice(words[:400], 3)) for _ in range(30)] + ["pol0 pol1", "pol0"]
    seconds = []
    for query in queries:
        start = time.thread_time()  # of this thread: other work on the machine does not count
        search(database, vectors, query)
        seconds.append(time.thread_time() - start)
    assert statistics.median(seconds) < 0.05, f"{1000 * statistics.median(seconds):.0f} ms"
