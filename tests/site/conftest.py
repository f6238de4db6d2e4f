"""The page, asked as a browser on this machine would ask."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient

from reprise.site.app import create_app
from reprise.site.settings import Settings

LOCAL = "http://127.0.0.1:8000"
SAME = {"Sec-Fetch-Site": "same-origin", "Origin": LOCAL}


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
