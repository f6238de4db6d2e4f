"""What runs beside the server: search is made ready, sources are asked every hour, mail is sent every few minutes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from reprise.site.database import DatabaseError
from reprise.site.feed.sources import configured
from reprise.site.feed.update import Schedule, update
from reprise.site.mail import transport
from reprise.site.mail.digests import deliver
from reprise.site.search import index

__all__ = ["refresh", "running", "send"]

log = logging.getLogger(__name__)
FEED, MAIL = 3600.0, 300.0  # seconds from the end of one round to the next
RECENT = 3000.0  # seconds: a source that was asked so lately is not asked again because the server was restarted


def refresh(app: FastAPI) -> None:
    """Papers on disk first, since they need no network: search is ready after a second or two. Then the sources."""
    try:
        made = index.of(app)
    except DatabaseError as error:
        log.error("%s", error)  # every page says so
        return
    try:
        made.refresh()
        asked = {row["name"]: row["asked"] for row in made.database.rows("SELECT name, asked FROM sources")}
        now = made.clock()
        due = [source for source in configured() if not 0 <= now - (asked.get(source.name) or 0.0) < RECENT]
        for outcome in update(made.database, due, clock=made.clock):
            log.info("%s", outcome)
        made.refresh()
        made.trouble = ""
    except (DatabaseError, ValueError) as error:  # a full disk, or a setting that makes no sense: told, tried again
        made.trouble = str(error)
        log.error("%s", error)


def send(app: FastAPI) -> None:
    """Digests that are due, and what waits."""
    try:
        made = index.of(app)
        done = deliver(made.database, transport.configured(), app.state.key, app.state.settings.base, made.clock)
        log.info("mail: %s", done)
    except (DatabaseError, ValueError) as error:
        log.error("%s", error)


@contextmanager
def running(app: FastAPI) -> Iterator[None]:
    """Both, while the server runs."""
    schedules = [Schedule(lambda: refresh(app), FEED), Schedule(lambda: send(app), MAIL)]
    app.state.wake = schedules[1].wake
    for schedule in schedules:
        schedule.start()
    try:
        yield
    finally:
        for schedule in schedules:
            schedule.stop()
