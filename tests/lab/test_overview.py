"""The rows of `reprise list`: remembered, and made again when anything changes or is damaged."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from reprise.lab import overview

COIN = Path(__file__).parents[1] / "toys" / "coin"


@pytest.fixture
def coin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the toy paper, beside the library's own."""
    folder = Path(shutil.copytree(COIN, tmp_path / "papers" / "coin", ignore=shutil.ignore_patterns("__pycache__")))
    monkeypatch.setenv("REPRISE_PAPERS", str(folder.parent))
    return folder


def claim() -> str:
    rows, damaged = overview.rows()
    assert not damaged
    return next(row["claim"] for row in rows if row["slug"] == "coin")


def test_rows_are_remembered_until_a_file_changes(coin: Path, home: Path) -> None:
    before = claim()
    kept = home / "cache" / "rows.json"
    content = json.loads(kept.read_text())
    for row in content["rows"]:
        row["claim"] = "remembered"
    kept.write_text(json.dumps(content))
    assert claim() == "remembered"
    path = coin / "paper.toml"
    path.write_text(path.read_text() + "\n")
    os.utime(path, ns=(1, 10**18))
    assert claim() == before


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"stamp": 1}'])
def test_a_damaged_memory_is_made_again(coin: Path, home: Path, content: str) -> None:
    before = claim()
    (home / "cache" / "rows.json").write_text(content)
    assert claim() == before


def test_a_damaged_paper_is_told_every_time(coin: Path) -> None:
    (coin / "paper.toml").write_text("title =")
    for _ in range(2):
        rows, damaged = overview.rows()
        assert len(damaged) == 1 and "paper.toml is not valid TOML" in str(damaged[0])
        assert "coin" not in [row["slug"] for row in rows] and rows
