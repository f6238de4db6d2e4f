"""The page about speed: what is kept of the benchmarks, drawn, with its numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from reprise.lab import speed_table
from reprise.lab.speed_table import Benchmark, Row
from reprise.site import speed

MACHINE = {"processor": "a processor", "cores": 2}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of two sizes of one comparison, a limit, and a peer that is not installed."""
    rows = [
        Row("sums", "numpy", f"{n} numbers", "best", 0.001, 0.001 * n, (0.001, 0.001, 0.001 * n, 0.002 * n), n, 1.0)
        for n in (2, 4)
    ]
    rows.append(Row("sums", "reading the numbers", "4 numbers", "limit", 0.001, 0.0005, None, 0.5, 1.0, (3.0, None)))
    rows.append(Row("sums", "abacus <3>", note="not installed"))
    content = {"adding": Benchmark("adding", "2026-11-25", MACHINE, {"numpy": "2.4"}, rows)}
    stored = {
        name: {k: v for k, v in dataclasses.asdict(each).items() if k != "name"} for name, each in content.items()
    }
    (tmp_path / "results.json").write_text(json.dumps(stored), encoding="utf-8")
    monkeypatch.setattr(speed, "FILE", tmp_path / "results.json")
    return tmp_path / "results.json"


def test_sizes_of_one_comparison_stand_on_one_line(kept: Path, client: TestClient) -> None:
    page = client.get("/speed").text
    assert "×2 → ×4" in page and page.count("<h3>sums</h3>") == 1
    assert "Of 2 comparisons" in page and "faster in 2" in page, "a limit is not won and not lost"
    assert "abacus &lt;3&gt;" in page and "not installed" in page
    assert "3 / ?" in page, "memory of one side is not known"
    assert "2026-11-25, a processor, 2 cores; numpy 2.4" in page


def test_a_peer_that_is_ahead_is_named(kept: Path) -> None:
    (each,) = speed_table.read(kept)
    slow = dataclasses.replace(each.rows[1], ratio=0.8)
    told = speed_table.markdown([dataclasses.replace(each, rows=[each.rows[0], slow])])
    assert "behind in 1. Ahead at the largest size though not at the smallest: 1." in told
    assert "- sums, 4 numbers, against numpy: 0.80" in told


def test_without_the_sources_the_page_says_where_the_table_is(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "FILE", Path("/nowhere/results.json"))
    assert "clone the repository" in client.get("/speed").text
    assert client.get("/speed.json").status_code == client.get("/speed.md").status_code == 404
