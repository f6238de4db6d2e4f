"""The page, asked as a browser on this machine would ask; a database, a clock, and a web server that does as told."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from reprise.lab import modules, paper as papers, provenance, results
from reprise.site.app import create_app
from reprise.site.database import Database
from reprise.site.settings import Settings

LOCAL = "http://127.0.0.1:8000"
SAME = {"Sec-Fetch-Site": "same-origin", "Origin": LOCAL}
COIN = Path(__file__).parent.parent / "toys" / "coin"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server in a test asks nobody else's, and does nothing beside answering."""
    monkeypatch.setenv("REPRISE_FEED", "off")
    monkeypatch.setattr("reprise.site.feed.pages.running", lambda app: nullcontext())


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three of the library's papers: reading all of them takes longer than most tests."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for name in ("grad_cam", "cnn_explainer", "scattering"):
        (folder / name).symlink_to(modules.PACKAGE / "papers" / name)
    every = papers.folders
    monkeypatch.setattr(papers, "folders", lambda: [folder, *every()[1:]])
    return folder


@pytest.fixture
def client(toys: object, shelf: Path) -> Iterator[TestClient]:
    """A browser that has the page open."""
    with TestClient(create_app(Settings()), base_url=LOCAL, follow_redirects=False) as client:
        client.headers["Accept"] = "text/html"
        yield client


@pytest.fixture
def send(client: TestClient) -> Callable[..., Any]:
    """Post a form as a browser would, with the token that the page at ``seen`` holds."""

    def post(path: str, seen: str, **fields: str) -> Any:
        token = re.search(r'name="csrf" value="([0-9a-f]+)"', client.get(seen).text)
        assert token is not None, f"{seen} has no form"
        return client.post(path, data={"csrf": token[1], **fields}, headers=SAME)

    return post


def publish_coin(folder: Path, ahead: float, finished: str = "2026-11-24T10:00:00+00:00") -> papers.Paper:
    """Publish a measurement of the toy paper in which the bent coin is that much ahead, give or take 0.01."""
    if not folder.exists():
        shutil.copytree(COIN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    paper = papers.read(folder / "paper.toml")
    trials = [
        {"arm": arm, "seed": seed, "metrics": {"heads": heads, "part[a]": heads, "part[b]": heads},
         "counts": {"throws": 500.0}, "seconds": 0.1, "curves": {"heads": [[1.0, heads], [2.0, heads], [3.0, heads]]},
         "prepare": {}}
        for seed in range(5)
        for arm, heads in (("fair", 0.5 + 0.002 * seed), ("bent", 0.5 + ahead - 0.002 * seed))
    ]  # fmt: skip
    record = {
        "scale": "laptop", "seeds": list(range(5)), "threads": 1, "trials": trials, "finished": finished,
        "settings": {"fair": {"bias": 0.5}, "bent": {"bias": 0.7}}, "data": {}, "versions": {"python": "3.11"},
        "modules": modules.of(paper.experiments["recipe"]), "claims": provenance.claims(paper, "recipe", "laptop"),
        "device": "cpu", "commit": "0" * 40, "committed": True,
        "machine": {"system": "Linux", "processor": "a processor", "cores": 2, "yardstick": 0.003},
    }  # fmt: skip
    results.save(paper, {"recipe": {"laptop": record}})
    return paper


def git(folder: Path, *arguments: str, at: str = "") -> None:
    """Run git as nobody in particular, at a certain time."""
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(
        ["git", "-C", str(folder), *who, *arguments],
        check=True,
        capture_output=True,
        env={**os.environ, **({"GIT_COMMITTER_DATE": at} if at else {})},
    )


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the toy paper, measured twice: undecided at first, then holding."""
    papers_folder = tmp_path / "papers"
    publish_coin(papers_folder / "coin", 0.01, "2026-11-20T10:00:00+00:00")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "Publish", at="2026-11-20T11:00:00+00:00")
    publish_coin(papers_folder / "coin", 0.2)
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "Publish again", at="2026-11-24T11:00:00+00:00")
    monkeypatch.setenv("REPRISE_PAPERS", str(papers_folder))
    return papers_folder / "coin"


@pytest.fixture
def reader(published: Path, shelf: Path) -> Iterator[TestClient]:
    """A browser that has the page open where the toy paper has been published."""
    with TestClient(create_app(Settings()), base_url=LOCAL, follow_redirects=False) as client:
        client.headers["Accept"] = "text/html"
        yield client


# For the feed, search and mail ---------------------------------------------------------------------------------------


@dataclass
class Clock:
    """A clock that stands still until it is moved; sleeping moves it."""

    now: float = 1_795_600_000.0  # Wednesday, 25 November 2026, 04:26 in New York
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class Reply:
    """What the server says."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """What the server was asked."""

    path: str
    headers: dict[str, str]


class Server:
    """Answers every GET with ``answer(asked)``; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Reply] = lambda asked: Reply(404)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = Asked(self.path, dict(self.headers))
                outer.asked.append(asked)
                reply = outer.answer(asked)
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "site.db")
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def reply() -> type[Reply]:
    return Reply
