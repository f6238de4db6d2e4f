"""Finished trials on disk: each a folder that appears whole or not at all, found again by what made it.

A trial's identity is all that its numbers depend on: experiment, arm, seed, settings, code, data and versions. Its
folder is named after that identity, so a trial is finished if its folder is there, and a killed run goes on where it
stopped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reprise.files import home, written_whole

__all__ = ["digest", "finished", "locked", "parse", "read", "runs", "sweep", "trial_folder", "write"]

KEYS = {"identity", "metrics", "counts", "curves", "pictures", "seconds", "prepare", "finished"}


def runs(slug: str) -> Path:
    """The folder that keeps a paper's trials and reports."""
    return home() / "runs" / slug


def digest(identity: Any) -> str:
    """A short fingerprint of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def trial_folder(slug: str, identity: dict[str, Any]) -> Path:
    """Where the trial of that identity is kept."""
    name = f"{identity['arm']}-{identity['seed']}-{digest(identity)}"
    return runs(slug) / identity["experiment"] / name


def read(folder: Path) -> dict[str, Any] | None:
    """The record of a finished trial; None if there is none.

    A damaged record is set aside under another name, so that the trial runs again and nothing is lost.
    """
    record = parse(folder / "trial.json")
    if record is not None or not folder.is_dir():
        return record
    number = 1
    while (aside := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
        number += 1
    folder.rename(aside)
    return None


def parse(path: Path) -> dict[str, Any] | None:
    """The record in a trial's file, left where it is; None if it is missing, damaged or not whole."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return dict(record) if record.keys() >= KEYS else None
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return None


def finished(slug: str, experiment: str) -> Iterator[dict[str, Any]]:
    """Every finished trial of an experiment, whatever settings and code it was measured with."""
    for path in (runs(slug) / experiment).glob("*/trial.json"):
        record = parse(path)
        if record is not None:
            yield record


def write(folder: Path, record: dict[str, Any], files: Path) -> None:
    """Keep a finished trial: its record and the files that it left in ``files``."""
    if folder.is_dir():
        return
    with written_whole(folder) as temporary:
        shutil.copytree(files, temporary)
        (temporary / "trial.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold a unit of work: two runs of the same paper at one time share the work instead of doing it twice."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # the kernel lets go of it when the process dies, however it dies
        yield
    finally:
        os.close(descriptor)


def sweep(slug: str) -> None:
    """Remove the partial folders that killed runs left a day ago or earlier; younger ones may be at work."""
    for path in runs(slug).glob("*/.partial-*"):
        if time.time() - path.stat().st_mtime > 24 * 3600:
            shutil.rmtree(path, ignore_errors=True)
