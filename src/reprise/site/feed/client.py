"""Asking other people's servers politely: who we are, one question at a time, and not again before they wish it."""

from __future__ import annotations

import email.utils
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from reprise import __version__
from reprise.site.database import Database

__all__ = ["Answer", "Client", "SourceError", "user_agent"]

PACE = 3.0  # seconds between requests to the servers of one organisation, over all processes that share the database
TIMEOUT = 30.0  # seconds without a byte
LONGEST = 120.0  # seconds for a whole answer
LARGEST = 64 * 2**20  # bytes of an answer


class SourceError(RuntimeError):
    """A source did not answer as it should; ``wait`` is how many seconds it asked to be left alone."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class Answer:
    """What a server said; ``unchanged`` if nothing is new since the last time (304)."""

    body: bytes
    etag: str | None = None
    modified: str | None = None
    unchanged: bool = False


def user_agent() -> str:
    """Name, version and, from ``$REPRISE_CONTACT``, where their keeper can write to."""
    contact = "".join(c for c in os.environ.get("REPRISE_CONTACT", "") if c.isprintable() and c.isascii()).strip()
    return f"reprise/{__version__} (feed reader; {f'contact: {contact}' if contact else 'no contact given'})"


class Client:
    """Asks for addresses, never faster than ``pace`` at one organisation.

    Args:
        database: where the time of the next request is kept.
        pace: seconds between two requests.
        clock, sleep: the time; for tests.
    """

    def __init__(
        self,
        database: Database,
        pace: float = PACE,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.database, self.pace, self.clock, self.sleep = database, pace, clock, sleep
        self._opener = urllib.request.build_opener(_Redirects)

    def get(self, url: str, etag: str | None = None, modified: str | None = None) -> Answer:
        """The answer to a GET; conditional if there is an entity tag or date of an earlier one.

        Raises:
            SourceError: no answer, one with an error status, or one that is too large or too slow.
        """
        request = urllib.request.Request(url, headers={"User-Agent": user_agent(), "Accept-Encoding": "identity"})
        if etag:
            request.add_header("If-None-Match", etag)
        if modified:
            request.add_header("If-Modified-Since", modified)
        self._take_turn(url)
        try:
            with self._opener.open(request, timeout=TIMEOUT) as reply:
                return Answer(_read(reply), reply.headers.get("ETag"), reply.headers.get("Last-Modified"))
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 304:
                    return Answer(b"", etag, modified, unchanged=True)
                wait = _retry_after(error.headers.get("Retry-After"), self.clock())
                raise SourceError(
                    f"it answered {error.code} ({http.client.responses.get(error.code, '?')})", wait
                ) from error
        except urllib.error.URLError as error:
            raise SourceError(f"no connection ({error.reason})") from error
        except (TimeoutError, OSError, http.client.HTTPException, ValueError) as error:
            raise SourceError(f"the connection broke ({error or type(error).__name__})") from error

    def _take_turn(self, url: str) -> None:
        """Wait for the next free moment at this organisation, and take it."""
        host = organisation(url)
        with self.database.write() as connection:
            now = self.clock()
            found = connection.execute("SELECT next FROM paces WHERE host = ?", (host,)).fetchone()
            turn = max(now, found[0]) if found else now
            if turn > now + 60:  # the clock was put back, or was wrong before
                turn = now
            connection.execute("INSERT OR REPLACE INTO paces VALUES (?, ?)", (host, turn + self.pace))
        if turn > now:
            self.sleep(turn - now)


def organisation(url: str) -> str:
    """Whose server it is: the last two parts of a name ("arxiv.org"), a number with its port as it is."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.netloc if host.replace(".", "").isdigit() else ".".join(host.split(".")[-2:])


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 4
    max_repeats = 2


def _read(reply: http.client.HTTPResponse) -> bytes:
    end, parts, size = time.monotonic() + LONGEST, list[bytes](), 0
    while part := reply.read(2**16):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise SourceError(f"its answer is larger than {LARGEST // 2**20} MB")
        if time.monotonic() > end:
            raise SourceError(f"its answer took longer than {LONGEST:.0f} s")
    return b"".join(parts)


def _retry_after(value: str | None, now: float) -> float | None:
    """Seconds from a Retry-After header, which has seconds or a date."""
    if not value:
        return None
    if value.strip().isdigit():
        return min(float(value), 7 * 86400.0)
    try:
        return max(0.0, min(email.utils.parsedate_to_datetime(value).timestamp() - now, 7 * 86400.0))
    except (TypeError, ValueError, OverflowError):
        return None
