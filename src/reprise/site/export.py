"""Write the whole site as files: complete pages with relative links, which any web server can hold, or none at all."""

from __future__ import annotations

import asyncio
import contextlib
import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fastapi import FastAPI

from reprise.site.app import create_app
from reprise.site.settings import Settings

__all__ = ["export", "file_of"]

LINKS = re.compile(r'(\s(?:href|src|srcset))="([^"]*)"')
BEGIN = (
    "/",
    "/papers",
    "/claims",
    "/parts",
    "/log",
    "/verdicts",
    "/papers.json",
    "/claims.json",
    "/log.json",
    "/log.atom",
)
NEVER = ("/runs", "/search", "/enter", "/subscribe")  # they need the server


def export(folder: Path, url: str = "") -> tuple[int, list[str]]:
    """Write every page that the first one leads to.

    Args:
        folder: made if it is missing; files in it are replaced, others are left alone.
        url: the address under which the files will be found, for feeds and badges.

    Returns:
        How many files were written, and the addresses that pages lead to but that are not there.
    """
    app = create_app(Settings(public_url=url.rstrip("/"), static=True))
    return asyncio.run(_export(app, folder))


async def _export(app: FastAPI, folder: Path) -> tuple[int, list[str]]:
    more = [address for part in app.state.parts if part.urls is not None for address in part.urls()]
    queue, seen, missing = [*BEGIN, *more], {*BEGIN, *more}, []
    count = 0
    while queue:
        address = queue.pop()
        status, kind, content = await _get(app, address)
        if status in (301, 302, 303):
            continue  # what it leads to is linked from elsewhere, too
        if status != 200:
            missing.append(address)
            continue
        if kind.startswith("text/html"):
            text = content.decode()
            for target in _targets(text):
                if target not in seen:
                    seen.add(target)
                    queue.append(target)
            content = _relative(text, address).encode()
        path = folder / file_of(address)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        count += 1
    return count, sorted(missing)


async def _get(app: FastAPI, address: str) -> tuple[int, str, bytes]:
    """Ask the application as a server would."""
    parts = urlsplit(address)
    status, headers, body = 500, dict[bytes, bytes](), b""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        nonlocal status, headers, body
        if message["type"] == "http.response.start":
            status, headers = int(str(message["status"])), dict(message["headers"])  # type: ignore[call-overload]
        elif message["type"] == "http.response.body":
            body += bytes(message.get("body", b""))  # type: ignore[call-overload]

    scope = {
        "type": "http", "method": "GET", "path": unquote(parts.path), "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(), "headers": [(b"host", b"localhost"), (b"accept", b"text/html")],
        "scheme": "http", "server": ("localhost", 80), "client": ("localhost", 0), "http_version": "1.1",
        "root_path": "", "asgi": {"version": "3.0", "spec_version": "2.4"},
    }  # fmt: skip
    with contextlib.suppress(Exception):  # already told as status 500
        await app(scope, receive, send)  # type: ignore[arg-type]
    return status, headers.get(b"content-type", b"").decode(), body


def file_of(address: str) -> str:
    """The file, relative to the folder, that holds what an address answers.

    Example:
        >>> file_of("/"), file_of("/papers"), file_of("/papers?page=2"), file_of("/papers.json?v=1")
        ('index.html', 'papers/index.html', 'papers/page=2.html', 'papers.json')
    """
    parts = urlsplit(address)
    path = unquote(parts.path).strip("/")
    last = path.rsplit("/", 1)[-1]
    if re.search(r"\.(json|md|atom|svg|png|webp|css|js|ico|html|txt)$", last):
        return path
    name = re.sub(r"[^\w=.,-]+", ",", unquote(parts.query)) if parts.query else "index"
    return posixpath.join(path, f"{name}.html")


def _targets(text: str) -> Iterator[str]:
    """The addresses of this site that a page leads to."""
    for _, value in LINKS.findall(text):
        for each in html.unescape(value).split(", ") if " " in value else [html.unescape(value)]:
            address = each.strip().split(" ")[0].partition("#")[0]
            if _ours(address):
                yield address


def _ours(address: str) -> bool:
    path = urlsplit(address).path
    return address.startswith("/") and not address.startswith("//") and not any(
        path == each or path.startswith(f"{each}/") for each in NEVER
    )  # fmt: skip


def _relative(text: str, address: str) -> str:
    """The page with links that work from its own file, wherever the folder lies."""
    here = posixpath.dirname(file_of(address))

    def one(target: str) -> str:
        path, hash, anchor = target.partition("#")
        if not _ours(path):
            return target
        return posixpath.relpath(file_of(path), here or ".") + hash + anchor

    def replace(match: re.Match[str]) -> str:
        value = html.unescape(match[2])
        if match[1].endswith("srcset"):
            pieces = [each.strip().split(" ") for each in value.split(",")]
            value = ", ".join(" ".join([one(piece[0]), *piece[1:]]) for piece in pieces)
        else:
            value = one(value)
        return f'{match[1]}="{html.escape(value)}"'

    return LINKS.sub(replace, text)
