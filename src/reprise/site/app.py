"""The application: what guards it, what it serves, and what it says when something is wrong."""

from __future__ import annotations

import logging
import mimetypes
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from reprise import __version__
from reprise.lab.paper import PaperError
from reprise.site import pages, views
from reprise.site.database import DatabaseError
from reprise.site.library import Library, Snapshot
from reprise.site.pages import Extension
from reprise.site.security import GATE, HEADERS, Guard, Limits, cookie, gate_cookie, same
from reprise.site.settings import Settings, signing_key

__all__ = ["create_app", "extensions"]

log = logging.getLogger("reprise.site")
router = APIRouter()


def extensions() -> tuple[Extension, ...]:
    """The parts of the site, in the order of its head."""
    from reprise.site import papers, parts, runs, speed
    from reprise.site.feed import pages as feed
    from reprise.site.mail import pages as mail
    from reprise.site.search import pages as search

    return (
        feed.EXTENSION, papers.EXTENSION, parts.EXTENSION, speed.EXTENSION, runs.EXTENSION, search.EXTENSION,
        mail.EXTENSION,
    )  # fmt: skip


def create_app(settings: Settings | None = None, parts: Sequence[Extension] | None = None) -> FastAPI:
    """The page as an ASGI application.

    Args:
        settings: where it is served; by default on this machine alone.
        parts: what plugs into it; by default all there is.
    """
    settings = settings or Settings()
    parts = extensions() if parts is None else tuple(parts)
    key = signing_key()
    guard = Middleware(
        Guard,
        settings=settings,
        key=key,
        private=[path for part in parts for path in part.private],
        open_posts=["/enter", *(path for part in parts for path in part.open_posts)],
        unasked=[path for part in parts for path in part.unasked],
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for part in parts:
                if part.lifespan is not None:
                    await stack.enter_async_context(part.lifespan(app))
            yield
        await run_in_threadpool(app.state.library.settle)

    app = FastAPI(
        title="reprise",
        version=__version__,
        openapi_url=None,  # its pages load scripts from elsewhere
        middleware=[guard, Middleware(GZipMiddleware, minimum_size=800, compresslevel=5)],
        lifespan=lifespan,
        exception_handlers={
            HTTPException: _http_error,
            PaperError: _paper_error,
            DatabaseError: _database_error,
            RequestValidationError: _validation_error,
            Exception: _our_error,
        },
    )
    app.state.settings, app.state.key, app.state.parts = settings, key, parts
    app.state.library, app.state.limits = Library([part.warm for part in parts if part.warm is not None]), Limits()
    app.state.nav = [item for part in parts if not (settings.static and part.private) for item in part.nav]
    app.include_router(router)
    for part in parts:
        app.include_router(part.router)
    return app


# What belongs to no part ---------------------------------------------------------------------------------------------


@router.get("/")
def home(request: Request) -> Response:
    """The first page: what this is for, a search, what was measured last."""
    snapshot = pages.library(request).current
    sections = [part.home(request) for part in request.app.state.parts if part.home is not None]
    shown = snapshot.remember("shown", lambda: _shown(snapshot))
    return pages.render(request, "home.html", snapshot=snapshot, sections=sections, shown=shown)


def _shown(snapshot: Snapshot) -> dict[str, Any] | None:
    """The claim that shows a stranger what a verdict is: the headline that was measured last, holds, and varies."""
    for entry in snapshot.latest:
        first = next(iter(entry.status.judgements), None)
        if first is not None and first.verdict == "holds" and len(set(first.differences.values())) > 2:
            view = views.claim_views(entry.paper, entry.status.judgements, entry.status.scale)[0]
            return {**view, "slug": entry.slug, "title": entry.paper.title}
    return None


@router.get("/static/{name}")
def static(request: Request, name: str) -> Response:
    """A style sheet, script or picture of ours."""
    try:
        content, fingerprint = pages.static(name)
    except KeyError as error:
        raise HTTPException(404) from error
    lasting = request.query_params.get("v") == fingerprint
    headers = {"Cache-Control": "public, max-age=31536000, immutable" if lasting else "no-cache"}
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return pages.reply(request, content, kind, headers=headers)


@router.get("/favicon.ico")
def favicon() -> Response:
    """Where browsers look for a picture that no page has named."""
    return RedirectResponse(pages.asset("icon.svg"), 302)


@router.get("/enter")
def enter(request: Request, to: str = "/") -> Response:
    """Ask for the secret."""
    return pages.render(request, "enter.html", to=_local(to), wrong=False)


@router.post("/enter")
def entered(request: Request) -> Response:
    """Take the secret, and remember in a cookie that it was right."""
    form, settings = request.state.form, request.app.state.settings
    who = request.client.host if request.client else ""
    to = _local(str(form.get("to", "/")))
    if not request.app.state.limits.allow("enter", who, 10, 600):
        return PlainTextResponse("Too many attempts; try again in ten minutes.", 429, {"Retry-After": "600"})
    if not same(str(form.get("secret", "")), settings.secret):
        return pages.render(request, "enter.html", status=403, to=to, wrong=True)
    answer = RedirectResponse(to, 303)
    answer.headers.append("Set-Cookie", cookie(GATE, gate_cookie(request.app.state.key, settings), settings))
    return answer


def _local(path: str) -> str:
    """A path on this server; anything else becomes the first page."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"


# Errors --------------------------------------------------------------------------------------------------------------


def _error(request: Request, status: int, title: str, text: str) -> Response:
    if request.url.path.endswith((".json", ".md", ".atom", ".svg")):
        return PlainTextResponse(f"{title}. {text}\n", status)
    return pages.render(request, "error.html", status=status, title=title, text=text)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        return _error(request, error.status_code, "There is no such page", "The address may be mistyped, or old.")
    answer = _error(request, error.status_code, "That did not work", str(error.detail))
    answer.headers.update(error.headers or {})
    return answer


async def _paper_error(request: Request, error: Exception) -> Response:
    return _error(request, 404, "There is no such paper", f"{pages.environment().filters['sentence'](str(error))}.")


async def _database_error(request: Request, error: Exception) -> Response:
    log.error("%s: %s", request.url.path, error)
    return _error(
        request, 503, "The database cannot be used", f"{pages.environment().filters['sentence'](str(error))}."
    )


async def _validation_error(request: Request, error: Exception) -> Response:
    return _error(request, 404, "There is no such page", "A part of its address is not what is expected there.")


async def _our_error(request: Request, error: Exception) -> Response:
    log.error("%s failed: %s", request.url.path, type(error).__name__, exc_info=error)
    text = f"{type(error).__name__}: the server's log has the story."
    answer = _error(request, 500, "Something here is broken", text)
    answer.headers.update(HEADERS)  # this answer passes no middleware
    return answer
