"""What every request passes before any page sees it: host, secret, form token; and the headers of every answer."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.datastructures import FormData, Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reprise.site.settings import Settings, host_name

__all__ = ["HEADERS", "POLICY", "Guard", "Limits", "cookie", "gate_cookie", "same"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SAFE = ("GET", "HEAD")
UNSAFE = ("POST",)  # all that the page's forms use
LARGEST_FORM = 64 * 1024  # bytes
SESSION = "reprise_session"
GATE = "reprise_gate"


class Guard:
    """Middleware that refuses what could be forged.

    Args:
        app: what it guards.
        settings: names that the server answers to, and the secret.
        key: signs cookies and tokens.
        private: beginnings of paths that demand the secret even where reading is free.
        open_posts: beginnings of paths that anyone may post to where reading is free.
        unasked: beginnings of paths whose posts carry no token, since a machine sends them (one-click leaving).
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        key: str,
        private: Sequence[str] = (),
        open_posts: Sequence[str] = (),
        unasked: Sequence[str] = (),
    ) -> None:
        self.app, self.settings, self.key = app, settings, key
        self.private, self.open_posts, self.unasked = tuple(private), tuple(open_posts), tuple(unasked)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket: there are none here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        cookies = _cookies(headers)
        session = cookies.get(SESSION, "")
        fresh = not re.fullmatch(r"[0-9a-f]{32}", session)
        session = secrets.token_hex(16) if fresh else session
        state = scope["state"] = {**scope.get("state", {}), "csrf": self._sign("form", session), "csrf_used": False}

        silent = scope["method"] == "HEAD"  # answered like GET, without the body

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    answer.setdefault(name, value)
                if state["csrf_used"]:
                    answer["Cache-Control"] = "private, no-cache"
                    if fresh:
                        answer.append("Set-Cookie", self._cookie(SESSION, session))
                message["headers"] = answer.raw
            elif silent and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        refusal = self._host(headers) or self._gate(scope, headers, cookies)
        if refusal is None and scope["method"] not in SAFE:
            refusal, receive = await self._form(scope, headers, receive, state)
        if silent:
            scope["method"] = "GET"
        await (refusal or self.app)(scope, receive, send_safely)

    def _host(self, headers: Headers) -> Response | None:
        hosts = headers.getlist("host")
        if len(hosts) == 1 and self.settings.answers_to(hosts[0]):
            return None
        return PlainTextResponse(
            "This server does not answer to that name. Open it as it told when it started, or set REPRISE_PUBLIC_URL.",
            421,
        )

    def _gate(self, scope: Scope, headers: Headers, cookies: dict[str, str]) -> Response | None:
        """Where others can reach the page, what demands the secret and does not come with it."""
        path: str = scope["path"]
        if not self.settings.exposed or path == "/enter" or path.startswith("/static/"):
            return None
        if self.settings.public_url:
            free = not _begins(path, self.private) if scope["method"] in SAFE else _begins(path, self.open_posts)
            if free:
                return None
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if same(given, self.settings.secret) or same(cookies.get(GATE, ""), gate_cookie(self.key, self.settings)):
            return None
        if scope["method"] in SAFE and "text/html" in headers.get("accept", ""):
            query = scope["query_string"].decode("latin-1")
            return RedirectResponse(f"/enter?to={quote(path + ('?' + query if query else ''))}", 303)
        return PlainTextResponse("This demands the secret: Authorization: Bearer SECRET, or open /enter.", 401)

    async def _form(
        self, scope: Scope, headers: Headers, receive: Receive, state: dict[str, Any]
    ) -> tuple[Response | None, Receive]:
        """Read a form that is posted, and refuse one that another site has sent."""
        if scope["method"] not in UNSAFE:
            return PlainTextResponse("Only GET, HEAD and POST are answered here.", 405), receive
        asked = not _begins(scope["path"], self.unasked)
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        foreign = site not in (None, "same-origin") or (
            origin is not None and host_name(urlsplit(origin).netloc) != host_name(headers.get("host", ""))
        )
        if asked and foreign:
            return PlainTextResponse("Another site has sent this form; nothing was done.", 403), receive
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return PlainTextResponse("", 400), receive
            body += message.get("body", b"")
            if len(body) > LARGEST_FORM:
                return PlainTextResponse(f"A form has at most {LARGEST_FORM // 1024} KB here.", 413), receive
            if not message.get("more_body"):
                break
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        try:
            pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=1000)
        except ValueError:
            return PlainTextResponse("A form has at most 1,000 fields here.", 400), receive
        if body and kind != "application/x-www-form-urlencoded":
            return PlainTextResponse("Forms are application/x-www-form-urlencoded here.", 415), receive
        form = state["form"] = FormData(pairs)
        if asked and not same(str(form.get("csrf", "")), state["csrf"]):
            text = "This form is too old, or cookies are off: go back, reload the page and send it again."
            return PlainTextResponse(text, 403), receive

        told = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            return next(told, None) or await receive()

        return None, again

    def _sign(self, purpose: str, text: str) -> str:
        return _sign(self.key, purpose, text)

    def _cookie(self, name: str, value: str) -> str:
        return cookie(name, value, self.settings)


def cookie(name: str, value: str, settings: Settings) -> str:
    """A Set-Cookie header that scripts cannot read and other sites' forms do not send."""
    secure = "; Secure" if settings.public_url.startswith("https:") else ""
    return f"{name}={value}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax{secure}"


def gate_cookie(key: str, settings: Settings) -> str:
    """What the cookie of a visitor who knew the secret holds."""
    return _sign(key, "gate", settings.secret)


def _sign(key: str, purpose: str, text: str) -> str:
    return hmac.new(key.encode(), f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def same(given: str, expected: str) -> bool:
    """Whether a secret is right, told in a time that does not depend on how much of it is; an empty one never is."""
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def _begins(path: str, beginnings: Sequence[str]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in beginnings)


def _cookies(headers: Headers) -> dict[str, str]:
    found: SimpleCookie = SimpleCookie()
    for line in headers.getlist("cookie"):
        try:
            found.load(line)
        except CookieError:  # somebody else's, on the same host
            continue
    return {name: morsel.value for name, morsel in found.items()}


class Limits:
    """How often somebody may do something; kept in memory, so a restart forgets it.

    Example:
        >>> limits = Limits()
        >>> [limits.allow("enter", "127.0.0.1", 2, 60.0) for _ in range(3)]
        [True, True, False]
    """

    def __init__(self, largest: int = 10_000) -> None:
        self._times: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._largest = largest  # pairs that are remembered; the longest unused is forgotten first

    def allow(self, what: str, who: str, count: int, seconds: float) -> bool:
        """Whether ``who`` may do ``what`` once more: at most ``count`` times in any ``seconds``."""
        now = time.monotonic()
        times = self._times.setdefault((what, who), deque())
        self._times.move_to_end((what, who))
        if len(self._times) > self._largest:
            self._times.popitem(last=False)
        while times and now - times[0] > seconds:
            times.popleft()
        if len(times) >= count:
            return False
        times.append(now)
        return True
