"""Kill what can be killed, then give the same command again: nothing finished is lost, nothing runs twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

Mounted = Callable[[Path, str], AbstractContextManager[None]]
SEEDS = 24
COMMAND = [sys.executable, "-m", "reprise", "run", "coin", "--seeds", str(SEEDS), "--set", "pause=0.02"]


def trials(home: Path) -> dict[str, tuple[int, int, Any]]:
    """Finished trials: inode, time of change and metrics of each record."""
    found = {}
    for path in home.glob("runs/coin/recipe/*/trial.json"):
        if ".partial-" not in str(path):
            stat = path.stat()
            found[path.parent.name] = (stat.st_ino, stat.st_mtime_ns, json.loads(path.read_text())["metrics"])
    return found


def workers(group: int) -> list[int]:
    """Processes of the run's group but the run itself."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rsplit(")", 1)[1].split()
            if int(fields[2]) == group and int(path.parent.name) != group:
                found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.timeout(280)
def test_thirty_kills_lose_nothing(toys: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = random.Random(0)
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    before: dict[str, tuple[int, int, Any]] = {}
    progressed = 0
    for attempt in range(30):
        run = subprocess.Popen(
            COMMAND, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Half of the time while it starts, half of the time while trials run.
        if attempt % 2:
            deadline = time.monotonic() + 20
            while len(trials(home)) == len(before) and run.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(rng.random() * 0.5)
        else:
            time.sleep(rng.random() * 2.0)
        target = rng.choice(("run", "worker", "group"))
        with contextlib.suppress(ProcessLookupError):
            if target == "group":
                os.killpg(run.pid, signal.SIGKILL)
            elif target == "run" or not workers(run.pid):
                os.kill(run.pid, signal.SIGKILL)
            else:
                os.kill(rng.choice(workers(run.pid)), signal.SIGKILL)
                time.sleep(0.1)
                os.kill(run.pid, signal.SIGKILL)
        run.wait()
        after = trials(home)
        assert before.items() <= after.items(), "a finished trial was lost or run again"
        progressed += len(after) > len(before)
        before = after
    assert progressed >= 5, "the kills came too early to show anything"

    subprocess.run(COMMAND, env=environment, check=True, capture_output=True)
    after = trials(home)
    assert before.items() <= after.items(), "a finished trial was lost or run again"
    assert len(after) == 2 * SEEDS

    undisturbed = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(COMMAND, env={**environment, "REPRISE_HOME": str(undisturbed)}, check=True, capture_output=True)
    assert {name: metrics for name, (*_, metrics) in trials(undisturbed).items()} == {
        name: metrics for name, (*_, metrics) in after.items()
    }


def test_a_killed_worker_is_told_and_its_unit_runs_again(toys: Path, home: Path) -> None:
    command = [*COMMAND[:4], "coin", "--seeds", "4", "--set", "pause=0.05", "--json"]
    run = subprocess.Popen(command, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    locks: list[Path] = []
    while not locks and time.monotonic() < deadline:
        locks = list(home.glob("runs/coin/recipe/.*.lock"))
        time.sleep(0.02)
    time.sleep(0.1)
    holder = next(
        int(path.parent.parent.name)
        for path in Path("/proc").glob("[0-9]*/fd/*")
        if _links_to(path, ".lock") and int(path.parent.parent.name) in workers(run.pid)
    )
    os.kill(holder, signal.SIGKILL)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    result = json.loads(output)
    assert len(result["failures"]) == 1 and "killed (signal 9)" in result["failures"][0]["message"]
    assert 6 <= len(result["trials"]) < 8
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["trials"]) == 8


def _links_to(path: Path, ending: str) -> bool:
    try:
        return os.readlink(path).endswith(ending)
    except OSError:
        return False


def test_ctrl_c_stops_cleanly_and_leaves_no_process(toys: Path, home: Path) -> None:
    command = [*COMMAND[:-1], "pause=0.2"]  # about a minute, so that it cannot end before it is stopped
    run = subprocess.Popen(command, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not trials(home):
        assert time.monotonic() < deadline and run.poll() is None, "it does not begin"
        time.sleep(0.05)
    pressed = -1
    while run.poll() is None and time.monotonic() < deadline:
        # Python drops an interrupt that meets a destructor. Then trials go on to come, and a user presses again; while
        # they do not, it is stopping, which takes its time on a busy machine and must not be interrupted.
        if pressed < 0 or len(trials(home)) > pressed + 4:
            os.killpg(run.pid, signal.SIGINT)
            pressed = len(trials(home))
        time.sleep(0.05)
    _, error = run.communicate(timeout=20)
    assert run.returncode == 130
    assert error.strip().endswith("the same command goes on from there.") and "Traceback" not in error
    deadline = time.monotonic() + 30
    while workers(run.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not workers(run.pid)


def test_two_runs_at_once_share_the_work(toys: Path, home: Path) -> None:
    command = [*COMMAND[:4], "coin", "--seeds", "6", "--set", "pause=0.02", "--json"]
    runs = [subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(2)]
    outputs = [json.loads(run.communicate(timeout=60)[0]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert outputs[0]["trials"] == outputs[1]["trials"]  # the seconds agree too: measured once, read by both


def test_a_full_disk_is_told_and_leaves_nothing_half_written(toys: Path, tmp_path: Path, mounted: Mounted) -> None:
    with mounted(tmp_path, "size=100k"):
        environment = {**os.environ, "REPRISE_HOME": str(tmp_path)}
        done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True)
        assert done.returncode == 1
        assert "No space left on device" in done.stdout + done.stderr and "Traceback" not in done.stderr
        for path in tmp_path.glob("runs/coin/recipe/*/trial.json"):
            json.loads(path.read_text())


def test_a_read_only_folder_is_one_sentence(toys: Path, tmp_path: Path, mounted: Mounted) -> None:
    with mounted(tmp_path, "ro"):
        done = subprocess.run(
            COMMAND, env={**os.environ, "REPRISE_HOME": str(tmp_path)}, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "Read-only file system" in done.stdout + done.stderr and "Traceback" not in done.stderr
