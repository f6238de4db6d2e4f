"""`reprise serve` as a process: quick to start, bound to this machine, and one sentence where it cannot be."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest

SECONDS = 2.0  # of one core until the first page is there


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.fixture
def served(home: object) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    port = free_port()
    command = [sys.executable, "-m", "reprise", "serve", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    yield port, process
    process.kill()
    process.wait()


def first_page(port: int, process: subprocess.Popen[str]) -> str:
    while process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                return str(answer.read().decode())
        except OSError:
            time.sleep(0.02)
    raise AssertionError(process.communicate()[0])


def test_it_serves_and_ends_on_ctrl_c(served: tuple[int, subprocess.Popen[str]]) -> None:
    port, process = served
    assert "What papers claim, measured again." in first_page(port, process)
    with pytest.raises(OSError, match="421"):
        urlopen(Request(f"http://127.0.0.1:{port}/", headers={"Host": "evil.example"}))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode in (0, 130, -signal.SIGINT)
    assert f"reprise is at http://127.0.0.1:{port}" in output and "Traceback" not in output


def test_it_starts_in_two_seconds(home: object) -> None:
    """Of one core, with fingerprints known from an earlier start."""
    code = (
        "import resource\nfrom reprise.site import server\nfrom reprise.site.app import create_app\n"
        "app = create_app()\nfrom starlette.testclient import TestClient\n"
        "page = TestClient(app, 'http://127.0.0.1:8000').get('/')\nassert page.status_code == 200\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\nprint(used.ru_utime + used.ru_stime)"
    )
    command = [sys.executable, "-c", code]
    seconds = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert min(map(float, seconds)) < SECONDS


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        port = bound.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "reprise", "serve", "--port", str(port)], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1 and f"port {port} is taken" in done.stderr and "Traceback" not in done.stderr


def test_other_machines_demand_a_secret() -> None:
    without = {name: value for name, value in os.environ.items() if name != "REPRISE_SECRET"}
    command = [sys.executable, "-m", "reprise", "serve", "--host", "0.0.0.0", "--port", str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=without)
    assert done.returncode == 1 and re.search(r"set REPRISE_SECRET", done.stderr) and "Traceback" not in done.stderr


def test_ctrl_c_does_not_wait_for_those_who_watch(served: tuple[int, subprocess.Popen[str]]) -> None:
    from reprise.site.queue import Queue

    port, process = served
    first_page(port, process)
    queue = Queue()
    number = queue.add("no-such-paper", "smoke")
    queue.stop(number)  # nothing to run; the stream is what is watched
    with socket.create_connection(("127.0.0.1", port)) as watching:
        watching.sendall(f"GET /runs/{number}/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert b"200 OK" in watching.recv(1000)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
