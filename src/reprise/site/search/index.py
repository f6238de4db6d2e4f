"""What search and feed stand on, kept up to date beside the server: the database, the vectors, the nearest methods."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fastapi import FastAPI

from reprise.site.database import Database
from reprise.site.feed.store import add_example
from reprise.site.library import Library
from reprise.site.parts import all_parts
from reprise.site.search import encoder, nearest
from reprise.site.search.library import sync
from reprise.site.search.vectors import Vectors

__all__ = ["Index", "of"]


class Index:
    """The database with its vectors; :meth:`refresh` reads what changed.

    Attributes:
        database: of feed, search and mail.
        vectors: empty until the first refresh: until then search goes by names and words.
        ready: set after the first refresh.
        trouble: why the last update in the background could not be kept; empty if it was.

    Args:
        library: the implemented papers.
        clock: the time.
    """

    def __init__(self, library: Library, clock: Callable[[], float] = time.time) -> None:
        self.library, self.clock = library, clock
        self.database = Database()
        self.vectors = Vectors(self.database, encoder.configured())
        self.ready, self.trouble = threading.Event(), ""
        add_example(self.database, clock())

    def refresh(self) -> None:
        """Bring texts, vectors and neighbours in step with the papers and the feed."""
        snapshot = self.library.current
        papers = [(entry.paper, entry.status) for entry in snapshot.entries.values()]
        parts = [(part.dotted, part.summary) for room in all_parts(snapshot).values() for part in room.values()]
        sync(self.database, snapshot.version, papers, parts, self.clock(), complete=not snapshot.damaged)
        self.vectors.refresh()
        nearest.refresh(self.database, self.vectors.model)
        self.ready.set()


_making = threading.Lock()


def of(app: FastAPI) -> Index:
    """The index of an application, made when it is first asked for.

    Raises:
        DatabaseError: the database cannot be used.
    """
    with _making:
        if not hasattr(app.state, "index"):
            app.state.index = Index(app.state.library)
        made: Index = app.state.index
        return made
