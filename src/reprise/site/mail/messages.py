"""Messages as readers get them: text first, then HTML, nothing that loads from elsewhere."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote, urlsplit

from markupsafe import Markup

from reprise.site.mail.subscriptions import Subscription, links, topic_words

__all__ = ["compose", "trial"]


def compose(
    key: str, base: str, subscription: Subscription, period: str, content: Mapping[str, Any], now: float
) -> EmailMessage:
    """The message of one delivery; composed again it is the same, but for its date and signatures.

    Args:
        key: signs the links.
        base: the address that they begin with.
        subscription: whose.
        period: the day or week it is for, or "confirm-1".
        content: what was frozen.
        now: the time.
    """
    made = links(key, subscription, now)
    host = urlsplit(base).hostname or "localhost"
    message = _begun(host, subscription.address, now)
    digest = hmac.new(key.encode(), f"message:{subscription.id}:{period}".encode(), hashlib.sha256).hexdigest()[:16]
    message["Message-ID"] = f"<{period}.{subscription.id}.{digest}@{_domain(host)}>"
    if period.startswith("confirm-"):
        message["Subject"] = "Please confirm your subscription to reprise"
        paragraphs = [
            f"Somebody, probably you, asked reprise for mail every {subscription.every}: {topic_words(subscription)}.",
            "If it was you, open this address within 48 hours and press the button there:",
            f"{base}{made.confirm}",
            "If it was not you, do nothing: no other message will come.",
        ]
        message.set_content("\n\n".join(paragraphs) + "\n")
        link = Markup('<a href="{0}">{0}</a>').format(paragraphs[2])
        parts = [Markup("<p>{}</p>").format(link if i == 2 else text) for i, text in enumerate(paragraphs)]
        message.add_alternative(_page("Please confirm", Markup("").join(parts)), subtype="html")
        return message
    items = content["items"]
    message["Subject"] = f"reprise, {period}: {_counted(items)}"
    message["List-Id"] = f"{subscription.topic} <{subscription.topic}.reprise.{_domain(host)}>"
    _leaving(message, base, made.leave)
    why = f"You get this every {subscription.every} because you subscribed to {topic_words(subscription)}."
    message.set_content(_text(base, items, why, made.leave))
    message.add_alternative(_html(base, items, why, made.leave, period), subtype="html")
    return message


def trial(base: str, address: str, now: float) -> EmailMessage:
    """A message that tries the settings."""
    host = urlsplit(base).hostname or "localhost"
    message = _begun(host, address, now)
    message["Message-ID"] = f"<test.{int(now)}@{_domain(host)}>"
    message["Subject"] = "A test of reprise"
    message.set_content("The settings of the mail server are right.\n")
    return message


def _begun(host: str, address: str, now: float) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = os.environ.get("REPRISE_MAIL_FROM", f"reprise <reprise@{_domain(host)}>")
    message["To"] = address
    message["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    message["Auto-Submitted"] = "auto-generated"
    return message


def _leaving(message: EmailMessage, base: str, path: str) -> None:
    """One click is promised only where it can work: over HTTPS, under an address that the world can reach."""
    mailbox = os.environ.get("REPRISE_LEAVE_MAILBOX", "")
    ways = []
    if base.startswith("https://"):
        ways.append(f"<{base}{path}>")
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    if "@" in mailbox:
        ways.append(f"<mailto:{mailbox}?subject={quote('leave ' + path.rsplit('/', 1)[1])}>")
    if ways:
        message["List-Unsubscribe"] = ", ".join(ways)


def _text(base: str, items: list[dict[str, str]], why: str, leave: str) -> str:
    lines = []
    for item in items:
        lines += [item["title"], *([f"  {item['line']}"] if item["line"] else []), f"  {base}{item['path']}", ""]
    return "\n".join([*lines, "-- ", why, f"Leave: {base}{leave}", ""])


def _html(base: str, items: list[dict[str, str]], why: str, leave: str, period: str) -> str:
    entries = Markup("\n").join(
        Markup('<li style="margin:0 0 1em"><a href="{}">{}</a><br>{}</li>').format(
            base + item["path"], item["title"], item["line"]
        )
        for item in items
    )
    foot = Markup('<p><small>{} <a href="{}">Leave</a></small></p>').format(why, base + leave)
    return _page(f"reprise, {period}", Markup("<h1>{}</h1><ul>{}</ul>{}").format(_counted(items), entries, foot))


def _page(title: str, body: Markup) -> str:
    return Markup(
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{}</title></head>'
        '<body style="font-family:sans-serif;line-height:1.45;max-width:40em">{}</body></html>\n'
    ).format(title, body)


def _counted(items: list[dict[str, str]]) -> str:
    papers, verdicts = (sum(item["kind"] == kind for item in items) for kind in ("paper", "verdict"))
    told = [f"{papers} new paper{'s' * (papers > 1)}"] if papers else []
    told += [f"{verdicts} changed verdict{'s' * (verdicts > 1)}"] if verdicts else []
    return " and ".join(told)


def _domain(host: str) -> str:
    return host if "." in host and not host.replace(".", "").isdigit() else "reprise.localhost"
