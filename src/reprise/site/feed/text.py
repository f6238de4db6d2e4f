"""What arrives from elsewhere as text: made plain, never trusted."""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Any
from urllib.parse import urlsplit

__all__ = ["address", "clean", "without_tags"]

# control characters, private use, unassigned, halves of surrogate pairs, and the marks that turn the reading direction
DROPPED = {"Cc", "Co", "Cn", "Cs"}
TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
BREAKS = re.compile(r"\s+")
TAG = re.compile(
    r"</?(a|abbr|b|big|blockquote|br|center|cite|code|dd|div|dl|dt|em|font|h[1-6]|hr|html|i|iframe|img|jats:\w+|li|object|ol"
    r"|p|pre|s|small|span|strong|sub|sup|svg|table|tbody|td|th|tr|tt|u|ul)(\s[^<>]{0,300})?/?>",
    re.IGNORECASE,
)
HIDDEN = re.compile(r"<(script|style)\b.*?(</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
CUT = "…"


def clean(value: Any, limit: int) -> str:
    """Text in one line of at most ``limit`` characters, in composed Unicode, without control characters.

    What is not text gives nothing. A longer text is cut at a word and ends in an ellipsis.

    Example:
        >>> clean("  Two\\n lines\\x00 ", 100), clean(None, 100), clean("one two three", 9)
        ('Two lines', '', 'one two…')
    """
    if not isinstance(value, str):
        return ""
    text = value[: 4 * limit]  # ten megabytes are not looked at to keep a few thousand letters
    text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))
    text = BREAKS.sub(" ", text)
    if not text.isascii() or not text.isprintable():
        text = "".join(c for c in text if unicodedata.category(c) not in DROPPED and c not in TURNING)
    text = text.strip()
    if len(text) <= limit:
        return text
    kept = text[: limit - 1]
    return (kept.rsplit(" ", 1)[0] if " " in kept[limit // 2 :] else kept) + CUT


def without_tags(value: Any) -> str:
    """The text of a piece of HTML; a sign that only looks like a tag ("a < b") stays.

    What comes out is text, not safe HTML: it is escaped where it is shown.

    Example:
        >>> without_tags("<p>Less &lt; more, a < b</p><script>alert(1)</script>")
        ' Less < more, a < b '
    """
    if not isinstance(value, str):
        return ""
    return html.unescape(TAG.sub(" ", HIDDEN.sub(" ", value)))


def address(value: Any) -> str | None:
    """A web address that a link may lead to: http or https, with a host, without spaces or a password; else None.

    Example:
        >>> address("https://github.com/a/b"), address("javascript:alert(1)"), address("https://a@b.c/")
        ('https://github.com/a/b', None, None)
    """
    if not isinstance(value, str) or len(value) > 1000 or re.search(r"[\s<>\"'`\\\x00-\x20\x7f-\x9f]", value):
        return None
    try:
        parts = urlsplit(value)
        host = parts.hostname
    except ValueError:
        return None
    return value if parts.scheme in ("http", "https") and host and "@" not in parts.netloc else None
