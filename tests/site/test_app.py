"""What every page has."""

from __future__ import annotations

import re
import subprocess
import sys

from starlette.testclient import TestClient


def test_the_first_page_says_what_this_is_for(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "<h1>What papers claim, measured again.</h1>" in page.text
    assert 'action="/search"' in page.text
    assert "Grad-CAM" in page.text
    assert re.search(r"<b>\d+</b> papers", page.text)


def test_what_the_reader_has_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/static/site.css")
    again = client.get("/static/site.css", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304 and not again.content
    href = re.search(r'href="(/static/site\.css\?v=\w+)"', client.get("/").text)
    assert href is not None and "immutable" in client.get(href[1]).headers["Cache-Control"]
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e%2fapp.py").status_code == 404


def test_what_is_not_there_is_said_kindly(client: TestClient) -> None:
    page = client.get("/no/such/page")
    assert page.status_code == 404 and "There is no such page" in page.text and "<nav" in page.text
    assert client.get("/nothing.json").headers["Content-Type"].startswith("text/plain")


def test_the_first_view_is_light(client: TestClient) -> None:
    page = client.get("/")
    size = int(page.headers["Content-Length"])
    for path in set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)):
        size += int(client.get(path).headers["Content-Length"])
    assert page.headers["Content-Encoding"] == "gzip"
    assert size < 100_000


def test_the_server_never_imports_torch() -> None:
    code = (
        "import sys\nfrom reprise.site.app import create_app\napp = create_app()\napp.state.library.current\n"
        "print([name for name in ('torch', 'scipy', 'sklearn', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
