"""Subscribing, confirming and leaving; and the outbox, where no mail server is set."""

from __future__ import annotations

import email
import email.policy
import ipaddress
import re
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from reprise.site import pages
from reprise.site.mail import subscriptions, transport
from reprise.site.mail.subscriptions import CONSENT, Subscription, TooMany, topic_words
from reprise.site.pages import Extension
from reprise.site.search import index
from reprise.site.search.library import known

__all__ = ["EXTENSION"]

router = APIRouter()


@router.get("/subscribe")
def form(request: Request, topic: str = "room", value: str = "") -> Response:
    """The form, filled in as the page that led here knows."""
    asked = {"topic": topic if topic in subscriptions.TOPICS else "room", "value": value[:200], "every": "day"}
    return _form(request, asked, "")


def _form(request: Request, asked: dict[str, str], wrong: str, status: int = 200) -> Response:
    papers = known(index.of(request.app).database)
    outbox = isinstance(_transport(), transport.Outbox)
    return pages.render(
        request, "subscribe.html", status=status, asked=asked, wrong=wrong, consent=CONSENT, outbox=outbox,
        rooms=sorted({paper.room for paper in papers.values()}), papers=papers.values(),
    )  # fmt: skip


def _transport() -> transport.Transport | None:
    try:
        return transport.configured()
    except ValueError:  # told in the log at every round
        return None


@router.post("/subscribe")
def sign_up(request: Request) -> Response:
    """Take a subscription; known or not, the answer is the same."""
    sent = request.state.form
    topic = str(sent.get("topic", ""))
    asked = {"topic": topic, "every": str(sent.get("every", "")), "value": str(sent.get(topic, ""))[:1000]}
    made = index.of(request.app)
    if not sent.get("consent"):
        return _form(request, asked, "Without your consent no mail is sent: please tick the box.", 422)
    try:
        subscriptions.sign_up(
            made.database, request.app.state.key, str(sent.get("address", ""))[:1000], asked["every"], topic,
            asked["value"], _network(request), made.clock(),
        )  # fmt: skip
    except TooMany as error:
        return _form(request, asked, str(error), 429)
    except ValueError as error:
        return _form(request, asked, str(error), 422)
    getattr(request.app.state, "wake", _nobody)()
    outbox = isinstance(_transport(), transport.Outbox)
    return pages.render(request, "subscribed.html", outbox=outbox)


def _nobody() -> None:
    """Without a schedule the message waits for `reprise mail send`."""


def _network(request: Request) -> str:
    """The network that a request comes from: a whole household or office."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network(f"{address}/{24 if address.version == 4 else 64}", strict=False))


@router.get("/subscribe/{purpose}/{token}")
def ask(request: Request, purpose: str, token: str) -> Response:
    """Show one button: opening the link changes nothing, since mail scanners open every link."""
    found = _subscription(request, purpose, token)
    return pages.render(request, "subscription.html", purpose=purpose, found=found, about=_about(found), done=False)


@router.post("/subscribe/confirm/{token}")
def confirm(request: Request, token: str) -> Response:
    """Begin."""
    found, made = _subscription(request, "confirm", token), index.of(request.app)
    if found is None:
        raise HTTPException(404)
    subscriptions.confirm(made.database, found, made.clock())
    return pages.render(request, "subscription.html", purpose="confirm", found=found, about=_about(found), done=True)


@router.post("/subscribe/leave/{token}")
def leave(request: Request, token: str) -> Response:
    """End, by the button or by a mail program's one click; again and again."""
    found, made = _subscription(request, "leave", token), index.of(request.app)
    if found is None:
        raise HTTPException(404)
    subscriptions.leave(made.database, request.app.state.key, found, made.clock())
    if str(request.state.form.get("List-Unsubscribe", "")) == "One-Click":
        return PlainTextResponse("You get no more of these messages.\n")
    return pages.render(request, "subscription.html", purpose="leave", found=found, about=_about(found), done=True)


def _subscription(request: Request, purpose: str, token: str) -> Subscription | None:
    if purpose not in ("confirm", "leave"):
        raise HTTPException(404)
    made = index.of(request.app)
    return subscriptions.find(made.database, request.app.state.key, purpose, token, made.clock())


def _about(found: Subscription | None) -> str:
    return topic_words(found) if found is not None else ""


# The outbox ----------------------------------------------------------------------------------------------------------


@router.get("/outbox")
def outbox(request: Request) -> Response:
    """The messages that would have been sent."""
    kept = _transport()
    if not isinstance(kept, transport.Outbox):
        raise HTTPException(404)
    files = sorted(kept.folder.glob("*.eml"), key=lambda file: file.stat().st_mtime, reverse=True)
    page = pages.paged(request, files)
    messages: list[dict[str, Any]] = [_read(file.name, file.read_bytes()) for file in page.items]
    return pages.render(request, "outbox.html", messages=messages, page=page, folder=kept.folder)


@router.get("/outbox/{name}")
def message(request: Request, name: str) -> Response:
    """One of them, as its text part; links in it work here."""
    kept = _transport()
    if not isinstance(kept, transport.Outbox) or not re.fullmatch(r"[\w.-]+\.eml", name) or ".." in name:
        raise HTTPException(404)
    try:
        content = (kept.folder / name).read_bytes()
    except OSError as error:
        raise HTTPException(404) from error
    return pages.render(
        request, "outbox_message.html", message=_read(name, content), base=request.app.state.settings.base
    )


def _read(name: str, content: bytes) -> dict[str, Any]:
    parsed = email.message_from_bytes(content, policy=email.policy.default)
    body = parsed.get_body(("plain",))
    text = str(body.get_content()) if body is not None else ""
    return {
        "name": name, "subject": str(parsed["Subject"]), "to": str(parsed["To"]), "date": str(parsed["Date"]),
        "lines": text.splitlines(),
    }  # fmt: skip


EXTENSION = Extension(
    router,
    private=["/outbox"],
    open_posts=["/subscribe"],
    unasked=["/subscribe/leave"],
)
