"""A full disk: the page stays up, says what is wrong, loses nothing, and goes on when there is room."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from reprise.site import worker
from reprise.site.app import create_app
from reprise.site.database import DatabaseError
from reprise.site.feed import background
from reprise.site.queue import Queue
from reprise.site.search import index
from reprise.site.settings import Settings

LOCAL = "http://127.0.0.1:8000"
COIN = Path(__file__).parent.parent / "toys" / "coin"
PATIENCE = 90  # seconds; the machine may be busy


def wait_for(met: Callable[[], Any]) -> Any:
    """What ``met`` returns once it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := met()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    path = folder / "filler"
    with open(path, "ab", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return path


def trials(home: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in home.glob("runs/coin/recipe/[!.]*/trial.json")}


def test_a_run_on_a_disk_that_fills_up(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounted: Callable[..., AbstractContextManager[None]]
) -> None:
    shutil.copytree(COIN, tmp_path / "papers" / "coin")
    toml = tmp_path / "papers" / "coin" / "paper.toml"
    toml.write_text(toml.read_text().replace("laptop = { seeds = 5", "laptop = { pause = 0.2, seeds = 5"))
    monkeypatch.setenv("REPRISE_PAPERS", str(toml.parent.parent))
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "size=16m"):
        monkeypatch.setenv("REPRISE_HOME", str(disk))
        with TestClient(create_app(Settings()), LOCAL, headers={"Accept": "text/html"}) as page:
            queue: Queue = page.app.state.queue  # type: ignore[attr-defined]
            assert page.get("/").status_code == page.get("/feed").status_code == 200
            number = queue.add("coin", "laptop")
            wait_for(lambda: len(trials(disk)) >= 2)
            filler = fill(disk)
            before = trials(disk)
            shown = wait_for(lambda: "The disk is full" in (text := page.get(f"/runs/{number}").text) and text)
            assert "Running" in shown  # whoever works says so as soon as there is room
            for path in ("/", "/feed", "/papers/coin", "/runs", f"/runs/{number}.json"):
                assert page.get(path).status_code == 200, path
            with pytest.raises(DatabaseError, match=r"no room to write .*free some space"):
                queue.add("coin", "smoke")
            time.sleep(2.0)  # long enough for the trials at work to end
            filler.unlink()
            run = wait_for(lambda: (found := queue.get(number)) and found.over and found)
            assert before.items() <= trials(disk).items(), "a finished trial was lost"
            assert all(json.loads(text)["metrics"] for text in trials(disk).values())
            assert (run.state == "failed" and "free some space" in run.message) or "parts failed" in run.message, run
            assert "Go on" in (text := page.get(f"/runs/{number}").text) or "Run it again" in text
            again = queue.add("coin", "laptop")
            assert wait_for(lambda: (found := queue.get(again)) and found.over and found).state == "finished"
            assert before.items() <= trials(disk).items() and len(trials(disk)) == 10


def test_a_worker_waits_for_room_to_say_how_its_run_ended(
    toys: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue()
    number = queue.add("coin", "smoke")
    run, end = queue.take(), queue.end
    refused: list[Any] = []

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(home))

    def ended(*arguments: Any) -> None:
        if len(refused) < 2:
            refused.append(arguments)
            raise DatabaseError("no room")
        end(*arguments)

    monkeypatch.setattr(worker, "_keep", full)
    monkeypatch.setattr(queue, "end", ended)
    assert run is not None
    worker._end(queue, run)
    found = queue.get(number)
    assert found is not None and found.state == "failed" and "No space left on device" in found.message


def test_an_update_without_room_is_told_on_the_feeds_pages(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = index.of(client.app)  # type: ignore[arg-type]
    made.refresh()
    papers = [
        {"id": f"2611.{i:05}", "title": f"A paper {i}", "abstract": f"word{i} " * 400, "day": "2026-11-24"}
        for i in range(200)
    ]
    (tmp_path / "papers.json").write_text(json.dumps(papers))
    monkeypatch.setenv("REPRISE_FEED", str(tmp_path / "papers.json"))
    made.database.rows(f"PRAGMA max_page_count = {made.database.value('PRAGMA page_count') + 6}")
    before = made.database.value("SELECT count(*) FROM entries")
    background.refresh(client.app)  # type: ignore[arg-type]
    assert made.database.value("SELECT count(*) FROM entries") == before
    for path in ("/feed", "/feed/sources"):
        text = client.get(path).text
        assert "The last update could not be kept: no room to write" in text and "free some space" in text
    made.database.rows("PRAGMA max_page_count = 1000000")
    made.database.rows("UPDATE sources SET asked = NULL")
    background.refresh(client.app)  # type: ignore[arg-type]
    assert made.database.value("SELECT count(*) FROM entries") == before + len(papers)
    assert "could not be kept" not in client.get("/feed").text
