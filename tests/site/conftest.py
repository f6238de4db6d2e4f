"""The page, asked as a browser on this machine would ask; a database, a clock, and a web server that does as told."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from reprise.site.app import create_app
from reprise.site.database import Database
from reprise.site.settings import Settings

LOCAL = "http://127.0.0.1:8000"
SAME = {"Sec-Fetch-Site": "same-origin", "Origin": LOCAL}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server in a test asks nobody else's."""
    monkeypatch.setenv("REPRISE_FEED", "off")


@pytest.fixture
def client(toys: object) -> Iterator[TestClient]:
    """A browser that has the page open."""
    with TestClient(create_app(Settings()), base_url=LOCAL, follow_redirects=False) as client:
        client.headers["Accept"] = "text/html"
        yield client


@pytest.fixture
def send(client: TestClient) -> Callable[..., object]:
    """Post a form as a browser would, with the token that the page at ``seen`` holds."""

    def post(path: str, seen: str, **fields: str) -> object:
        token = re.search(r'name="csrf" value="([0-9a-f]+)"', client.get(seen).text)
        assert token is not None, f"{seen} has no form"
        return client.post(path, data={"csrf": token[1], **fields}, headers=SAME)

    return post


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
