"""Pages about the library, and the site as files."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from starlette.testclient import TestClient

from reprise.lab import search
from reprise.site import export, parts


def test_every_room_and_part_has_a_page(client: TestClient) -> None:
    for room in parts.rooms():
        assert parts.ROOMS[room], f"no line about the room {room}"
        found = parts.parts_of(room)
        page = client.get(f"/parts/{room}").text
        assert all(f'href="/parts/{room}/{name}"' in page for name in found)
        for name, part in list(found.items())[:3]:
            assert part.docstring and part.summary, part.dotted
            assert f"from reprise.{room} import {name}" in client.get(f"/parts/{room}/{name}").text


def test_a_part_says_how_it_is_called_and_what_was_measured(client: TestClient) -> None:
    page = client.get("/parts/explain/GradCAM").text
    assert "relu: bool=True" in page and "<dt><code>upsample</code></dt>" in page
    assert "torch.Size([2, 5, 5])" in page  # its example
    assert 'href="/papers/grad-cam"' in page and "at laptop scale" in page
    assert "``" not in page and ":func:" not in page
    assert client.get("/parts/explain/GradCAM.json").json()["papers"] == ["grad-cam"]
    assert any(each["name"] == "reprise.explain.GradCAM" for each in client.get("/parts.json").json())


def test_summaries_are_plain_text() -> None:
    summaries = [part.summary for room in parts.rooms() for part in parts.parts_of(room).values()]
    summaries += [piece.summary for piece in search.pieces()]
    assert len(summaries) > 200
    assert [each for each in summaries if "``" in each or re.search(r":\w+:`|~reprise", each)] == []


def test_parts_that_are_not_there(client: TestClient) -> None:
    for path in (
        "/parts/nothing",
        "/parts/explain/Nothing",
        "/parts/explain/__init__",
        "/parts/..%2fsite",
        "/parts/lab",
    ):
        assert client.get(path).status_code == 404


def test_the_whole_site_as_files(published: Path, shelf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    count, missing = export.export(folder, "https://papers.example/")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert len(files) == count
    assert missing == []
    assert {"index.html", "papers/index.html", "papers/coin/index.html", "papers/coin.json", "papers/coin.atom",
            "papers/coin.md", "papers/coin/claims/1.svg", "static/site.css", "log.atom"} <= files  # fmt: skip
    for name in files:
        if name.endswith(".html"):
            text = (folder / name).read_text()
            assert "<form" not in text and "/runs" not in text, name
            for target in re.findall(r'(?:href|src)="([^"#:]+)[^":]*"', text):
                assert not target.startswith("/"), f"{name} leads to {target}"
                assert ((folder / name).parent / unquote(target)).resolve().is_file(), f"{name} leads to {target}"
    assert "https://papers.example/papers/coin" in (folder / "papers/coin.atom").read_text()


def test_files_of_addresses() -> None:
    for address, file in {
        "/claims?verdict=holds&page=2": "claims/verdict=holds,page=2.html",
        "/feed/2026-11-25": "feed/2026-11-25/index.html",
        "/a/../../b?x=../../c": "a/../../b/x=..,..,c.html",
    }.items():
        assert export.file_of(address) == file
