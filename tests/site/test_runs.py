"""Runs from the page: the queue, the worker, what is shown while it works, and what survives."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from reprise.site import views
from reprise.site.app import create_app
from reprise.site.database import DatabaseError
from reprise.site.queue import ATTEMPTS, WAITING, Queue, QueueFull, working
from reprise.site.settings import Settings

LOCAL = "http://127.0.0.1:8000"
PATIENCE = 90  # seconds; the machine may be busy


@pytest.fixture
def queue(home: Path) -> Queue:
    """An empty queue."""
    return Queue()


def wait_for(met: Callable[[], Any]) -> Any:
    """What ``met`` returns once it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := met()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


# The queue -----------------------------------------------------------------------------------------------------------


def test_one_run_at_a_time_in_their_order(queue: Queue) -> None:
    first, second = queue.add("coin", "smoke"), queue.add("coin", "laptop", "2")
    assert queue.add("coin", "smoke") == first  # a second press of the button
    waiting = queue.get(second)
    assert waiting is not None and queue.before(waiting) == 1
    taken = queue.take()
    assert taken is not None and (taken.id, taken.state, taken.attempts) == (first, "running", 1)
    queue.end(first, "finished")
    taken = queue.take()
    assert taken is not None and taken.id == second
    queue.end(second, "finished")
    assert queue.take() is None and not queue.unfinished


def test_a_run_whose_process_died_goes_on_but_not_for_ever(queue: Queue) -> None:
    number = queue.add("coin", "smoke")
    for attempt in range(1, ATTEMPTS + 1):
        run = queue.take()  # whoever had it is gone: the lock was free
        assert run is not None and run.attempts == attempt
    assert queue.take() is None
    run = queue.get(number)
    assert run is not None and run.state == "failed" and "died" in run.message


def test_stopping(queue: Queue) -> None:
    waits, runs = queue.add("coin", "laptop"), queue.add("coin", "smoke")
    queue.stop(waits)
    assert queue.get(waits).state == "stopped"  # type: ignore[union-attr]
    queue.take()
    queue.stop(runs)
    assert queue.get(runs).stop and queue.get(runs).state == "running"  # type: ignore[union-attr]
    assert queue.take() is None and queue.get(runs).state == "stopped"  # type: ignore[union-attr]
    queue.stop(12345)


def test_the_queue_has_an_end(queue: Queue) -> None:
    for seeds in range(1, WAITING + 1):
        queue.add("coin", "smoke", str(seeds))
    with pytest.raises(QueueFull, match="wait already"):
        queue.add("coin", "smoke", "99")


def test_events_are_told_in_order_and_only_what_is_needed(queue: Queue) -> None:
    number = queue.add("coin", "smoke")
    for share in (0.1, 0.2):
        queue.tell(number, "progress", {"share": share})
        queue.tell(number, "points", {"share": share}, "recipe/bent/0")
    queue.tell(number, "points", {}, "recipe/fair/0")
    kinds = [event.kind for event in queue.events(number)]
    assert kinds == ["state", "points", "progress", "points", "points"]
    queue.tell(number, "trial", {}, "recipe/bent/0")  # its curves are whole now, in the record
    events = queue.events(number)
    assert [event.kind for event in events] == ["state", "progress", "points", "trial"]
    assert queue.events(number, events[1].id) == events[2:]
    assert [event.id for event in events] == sorted(event.id for event in events)


def test_two_servers_on_one_file(home: Path) -> None:
    one, other = Queue(), Queue()
    number = one.add("coin", "smoke")
    assert other.get(number) == one.get(number)
    with working(one.folder) as first, working(other.folder) as second:
        assert first and not second
    with working(other.folder) as again:
        assert again


# The pages -----------------------------------------------------------------------------------------------------------


def test_only_known_papers_scales_and_sensible_seeds_run(client: TestClient, send: Callable[..., Any]) -> None:
    seen = "/runs/new?paper=coin"
    for fields, message in [
        ({"paper": "../etc", "scale": "smoke"}, "Choose one of the papers"),
        ({"paper": "coin; rm -rf /", "scale": "smoke"}, "Choose one of the papers"),
        ({"paper": "coin", "scale": "huge"}, "coin has the scales smoke, laptop"),
        ({"paper": "coin", "scale": "smoke", "seeds": "many"}, "seeds are a count"),
        ({"paper": "coin", "scale": "smoke", "seeds": "-1"}, "seeds are"),
        ({"paper": "coin", "scale": "smoke", "seeds": "0-999999"}, "at most 50 seeds"),
        ({"paper": "coin", "scale": "smoke", "seeds": "9" * 5000}, "seeds are at most"),
        ({"paper": "coin", "scale": "smoke", "seeds": "٣"}, "seeds are"),
        ({}, "Choose one of the papers"),
    ]:
        answer = send("/runs", seen, **fields)
        assert answer.status_code == 400 and message in answer.text, fields
    assert client.app.state.queue.all() == []  # type: ignore[attr-defined]
    assert "Fair and bent coins" in client.get("/runs/new").text


def test_get_changes_nothing(client: TestClient) -> None:
    number = client.app.state.queue.add("coin", "smoke")  # type: ignore[attr-defined]
    assert client.get(f"/runs/{number}/stop").status_code in (404, 405)
    assert not client.app.state.queue.get(number).stop  # type: ignore[attr-defined]
    assert client.post(f"/runs/{number}/stop").status_code == 403  # no token
    client.app.state.queue.stop(number)  # type: ignore[attr-defined]


def test_runs_that_are_not_there(client: TestClient) -> None:
    for path in ("/runs/7", "/runs/7/events", "/runs/x", "/runs/7/live", "/runs/7/log", "/runs/7.json",
                 "/runs/99999999999999999999999"):  # fmt: skip
        assert client.get(path).status_code == 404, path
    assert "None yet" in client.get("/runs").text


@pytest.fixture
def done(client: TestClient, send: Callable[..., Any]) -> Iterator[int]:
    """A run of the toy paper at laptop scale that was started from its page, and has finished."""
    answer = send("/runs", "/runs/new?paper=coin", paper="coin", scale="laptop", seeds="")
    assert answer.status_code == 303
    number = int(answer.headers["Location"].rsplit("/", 1)[1])
    wait_for(lambda: client.app.state.queue.get(number).over)  # type: ignore[attr-defined]
    yield number


def test_a_run_from_the_page_from_end_to_end(client: TestClient, done: int) -> None:
    page = client.get(f"/runs/{done}").text
    assert "Finished" in page and "live.js" not in page
    assert "this run, laptop scale" in page and "the paper" in page and "0.7 against 0.5" in page
    assert page.count('<circle class="seed"') >= 5
    assert "heads so far as a table" in page
    data = client.get(f"/runs/{done}.json").json()
    assert data["state"] == "finished" and data["claims"][0]["verdict"] == "holds"
    picture = re.search(r'src="(/runs/\d+/pictures/[^"]+)"', page)
    assert picture is not None and client.get(picture[1]).content[:4] == b"\x89PNG"
    for wrong in ("recipe/0/9", "recipe/99/0", "nothing/0/0", "recipe/-1/0"):
        assert client.get(f"/runs/{done}/pictures/{wrong}.png").status_code == 404
    assert client.get(f"/runs/{done}/log").status_code == 200

    told = client.get(f"/runs/{done}/events").text  # everything from the beginning
    kinds = re.findall(r"^event: (\w+)$", told, re.MULTILINE)
    assert kinds[0] == "state" and kinds[-1] == "end" and kinds.count("trial") == 10
    ids = [int(each) for each in re.findall(r"^id: (\d+)$", told, re.MULTILINE)]
    again = client.get(f"/runs/{done}/events", headers={"Last-Event-ID": str(ids[5])}).text
    assert [int(each) for each in re.findall(r"^id: (\d+)$", again, re.MULTILINE)] == ids[6:]
    assert "event: end" in client.get(f"/runs/{done}/events", headers={"Last-Event-ID": "nonsense"}).text


def test_a_watched_run_gives_the_same_numbers(client: TestClient, done: int, home: Path, tmp_path: Path) -> None:
    watched = json.loads(client.app.state.queue.record_path(done).read_text())  # type: ignore[attr-defined]
    command = [sys.executable, "-m", "reprise", "run", "coin", "--json"]
    plain = subprocess.run(command, capture_output=True, env={**os.environ, "REPRISE_HOME": str(tmp_path)}, check=True)
    own = {(t["arm"], t["seed"]): t["metrics"] for t in watched["recipe"]["trials"]}
    assert own == {(t["arm"], t["seed"]): t["metrics"] for t in json.loads(plain.stdout)["trials"]}


# Survival ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy paper with trials that take their time."""
    import shutil

    folder = tmp_path / "papers" / "coin"
    shutil.copytree(Path(__file__).parent.parent / "toys" / "coin", folder)
    toml = folder / "paper.toml"
    toml.write_text(toml.read_text().replace("laptop = { seeds = 5", "laptop = { pause = 0.3, seeds = 5"))
    monkeypatch.setenv("REPRISE_PAPERS", str(folder.parent))
    return folder


def test_a_run_survives_the_end_of_its_server_and_of_its_worker(slow: Path, home: Path) -> None:
    with TestClient(create_app(Settings()), LOCAL) as server:
        queue: Queue = server.app.state.queue  # type: ignore[attr-defined]
        number = queue.add("coin", "laptop")
        wait_for(lambda: any(event.kind == "points" for event in queue.events(number)))  # curves while it runs
        page = server.get(f"/runs/{number}").text
        assert "Running" in page and "<progress" in page and "Load the latest numbers" in page
        worker = server.app.state.worker.pid  # type: ignore[attr-defined]
    os.kill(worker, 0)  # it outlived the server
    wait_for(lambda: [event for event in queue.events(number) if event.kind == "trial"])
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    assert queue.get(number).state == "running"  # type: ignore[union-attr]
    with TestClient(create_app(Settings()), LOCAL) as server:  # finds it, and lets it go on
        run = wait_for(lambda: (found := queue.get(number)) and found.over and found)
        assert run.state == "finished" and run.attempts == 2
        assert len(json.loads(queue.record_path(number).read_text())["recipe"]["trials"]) == 10
        plan = [event.data for event in queue.events(number) if event.kind == "plan"][-1]
        assert plan["kept"] >= 1  # what was finished was not done again


def test_a_run_is_stopped_and_its_trials_kept(slow: Path, home: Path) -> None:
    with TestClient(create_app(Settings()), LOCAL) as server:
        queue: Queue = server.app.state.queue  # type: ignore[attr-defined]
        number = queue.add("coin", "laptop")
        wait_for(lambda: [event for event in queue.events(number) if event.kind == "trial"])
        queue.stop(number)
        run = wait_for(lambda: (found := queue.get(number)) and found.over and found)
        assert run.state == "stopped"
        assert "Stopped" in server.get(f"/runs/{number}").text and "Go on" in server.get(f"/runs/{number}").text
    assert list(home.glob("runs/coin/recipe/*/trial.json"))


def test_a_run_that_cannot_be_says_why(toys: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_DATA", str(home / "nowhere"))
    with TestClient(create_app(Settings()), LOCAL) as server:
        queue: Queue = server.app.state.queue  # type: ignore[attr-defined]
        number = queue.add("ibn-net", "laptop", "1")
        run = wait_for(lambda: (found := queue.get(number)) and found.over and found)
        assert run.state == "failed" and "reprise data get cifar10" in run.message
        assert "reprise data get cifar10" in server.get(f"/runs/{number}").text


def test_a_damaged_queue_does_not_take_the_page_down(client: TestClient, home: Path) -> None:
    for path in (home / "site").glob("runs.sqlite*"):
        path.write_bytes(b"not a database" * 1000)
    with pytest.raises(DatabaseError, match="damaged"):
        Queue()
    with TestClient(create_app(Settings()), LOCAL) as page:
        assert page.get("/papers").status_code == 200
        answer = page.get("/runs")
        assert answer.status_code == 503 and "is damaged" in answer.text


def test_points_of_trials_at_work_join_the_curves() -> None:
    from reprise.site.runs import _with_points

    record = {"trials": [{"arm": "bent", "seed": 0, "curves": {}, "metrics": {}, "prepare": {}}]}
    points = [
        {"experiment": "recipe", "arm": arm, "seed": seed, "curves": {"loss": [[step, 1.0]]}}
        for arm, seed in (("bent", 0), ("bent", 1), (None, 1))
        for step in (1.0, 2.0)
    ]
    trials = _with_points("recipe", record, points)["trials"]
    assert [views.trial_identity(trial) for trial in trials] == [("bent", 1), ("", 1), ("bent", 0)]
    assert trials[0]["curves"] == {"loss": [[1.0, 1.0], [2.0, 1.0]]}
    assert trials[1]["prepare"]["curves"] == {"loss": [[1.0, 1.0], [2.0, 1.0]]}
