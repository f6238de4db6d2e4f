"""A row for every paper, as `reprise list` shows it: remembered until a file of the library or of a paper changes."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from reprise.files import home, written_whole
from reprise.lab import modules, paper as papers, results, words
from reprise.lab.paper import Paper

__all__ = ["row", "rows", "stamp"]

COUNTED = (".py", ".pyi", ".toml", ".json")  # files that what is listed depends on


def rows() -> tuple[list[dict[str, Any]], list[ValueError]]:
    """The rows of all papers that can be read, and what is wrong with the others."""
    path, now = home() / "cache" / "rows.json", stamp()
    try:
        remembered = json.loads(path.read_text(encoding="utf-8"))
        if remembered["stamp"] == now:
            return list(remembered["rows"]), []
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there yet, or damaged: it is made again
    everything, broken = papers.all_papers()
    found, damaged = [], list[ValueError](broken)
    for paper in everything:
        try:
            found.append(row(paper))
        except results.ResultsError as error:
            damaged.append(error)
    if not damaged:
        try:
            with written_whole(path) as temporary:
                temporary.write_text(json.dumps({"stamp": now, "rows": found}), encoding="utf-8")
        except OSError:
            pass  # a cache that cannot be written is no fault
    return found, damaged


def row(paper: Paper) -> dict[str, Any]:
    """Headline claim, verdict, age and cost of one paper."""
    status = results.status(paper)
    if paper.claims:
        claim, verdict = paper.claims[0].text, words.verdict_words(status.judgements[0], status.scale)
    else:
        claim, verdict = paper.identities[0].text, "proved by a test"
    return {
        "slug": paper.slug,
        "title": paper.title,
        "arxiv": paper.arxiv,
        "room": paper.room,
        "claim": claim,
        "verdict": verdict.split(":")[0] + (f", {status.mark}" if status.mark else ""),
        "measured": status.date,
        "stale": list(status.stale),
        "core_seconds": round(status.seconds),
    }


def stamp() -> str:
    """A fingerprint of the names, times of change and sizes of all files that count."""
    found = []
    for root in (modules.PACKAGE, *papers.folders()[1:]):
        for folder, _, names in os.walk(root):
            for name in names:
                if name.endswith(COUNTED):
                    stat = os.stat(os.path.join(folder, name))
                    found.append((folder, name, stat.st_mtime_ns, stat.st_size))
    return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()[:16]
