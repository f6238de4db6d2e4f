"""What every test gets: a home of its own, so that nothing is read from or left in the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

TOYS = Path(__file__).parent / "toys"


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``$REPRISE_HOME``."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("REPRISE_HOME", str(folder))
    return folder


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy papers, beside the library's own."""
    monkeypatch.setenv("REPRISE_PAPERS", str(TOYS))
    return TOYS
