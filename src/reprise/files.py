"""Where reprise keeps its files, and how it writes them: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["home", "written_whole"]


def home() -> Path:
    """The folder for all that reprise keeps: ``$REPRISE_HOME``, by default ``~/.cache/reprise``."""
    return Path(os.environ.get("REPRISE_HOME") or Path.home() / ".cache" / "reprise")


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that takes its place only if the block succeeds.

    A file that is there already is replaced; a folder that is there already is kept, and the new one dropped.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as folder:
        temporary = Path(folder) / target.name
        yield temporary
        if not target.is_dir():
            temporary.replace(target)
