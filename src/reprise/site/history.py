"""How the verdicts came to be what they are: every published measurement of a paper, oldest first, from the commits."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reprise.files import home, written_whole
from reprise.lab import paper as papers, provenance, results
from reprise.site.library import Entry

__all__ = ["Change", "Event", "changes", "history", "newest_first"]

FORM = 1  # of what is remembered; another number forgets the old


@dataclass(frozen=True)
class Event:
    """A measurement as it was published.

    Attributes:
        commit: that brought it; empty where there is no repository to ask.
        at: when, as an ISO instant.
        verdicts: by the text of the claim.
    """

    commit: str
    at: str
    verdicts: dict[str, str]


@dataclass(frozen=True)
class Change:
    """A claim whose verdict became another one, or that was measured for the first time (``before`` is empty)."""

    slug: str
    title: str
    claim: str
    number: int  # of the claim, from 1
    before: str
    after: str
    at: str
    commit: str

    @property
    def id(self) -> str:
        """What never changes about it."""
        return f"papers/{self.slug}/claims/{self.number}/{self.at[:10]}/{self.after}"

    @property
    def sentence(self) -> str:
        """What happened."""
        if not self.before:
            return f"{self.after}, measured for the first time"
        return f"{self.after}, before: {self.before}"


def history(entry: Entry) -> list[Event]:
    """Every measurement that was published, oldest first; without a repository only the present one."""
    events = _from_commits(entry)
    today = {claim.text: judgement.verdict for claim, judgement in entry.judged if judgement.verdict != "unmeasured"}
    if today and (not events or events[-1].verdicts != today):
        finished = max((record["finished"] for record in entry.status.records.values()), default="")
        events.append(Event("", finished, today))
    return events


def changes(entries: Iterable[Entry]) -> list[Change]:
    """What changed in the verdicts of papers, the newest first."""
    found = []
    for entry in entries:
        before: dict[str, str] = {}
        numbers = {claim.text: i for i, claim in enumerate(entry.paper.claims, 1)}
        for event in history(entry):
            for claim, verdict in event.verdicts.items():
                if claim in numbers and before.get(claim, "") != verdict:
                    of = (entry.slug, entry.paper.title, claim, numbers[claim], before.get(claim, ""))
                    found.append(Change(*of, verdict, event.at, event.commit))
            before |= event.verdicts
    return newest_first(found)


def newest_first(found: Iterable[Change]) -> list[Change]:
    """Changes in the order in which they are read: the newest first, those of one moment by paper and claim."""
    return sorted(found, key=lambda change: (change.at, change.slug, -change.number), reverse=True)


def _from_commits(entry: Entry) -> list[Event]:
    folder = entry.paper.folder
    listed = provenance.git(folder, "log", "--format=%H %cI", "--", "results.json") or ""
    commits = [line.split(" ") for line in listed.splitlines()][::-1]
    path = home() / "cache" / "history" / f"{entry.slug}.json"
    remembered = _remembered(path)
    events, new = [], False
    for commit, at in commits:
        if commit not in remembered:
            remembered[commit] = asdict(Event(commit, _utc(at), _verdicts(folder, commit)))
            new = True
        events.append(Event(**remembered[commit]))
    if new:
        try:
            with written_whole(path) as temporary:
                temporary.write_text(json.dumps({"form": FORM, "events": remembered}), encoding="utf-8")
        except OSError:
            pass  # a cache that cannot be written is no fault
    return [event for event in events if event.verdicts]


def _remembered(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["events"]) if content["form"] == FORM else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _verdicts(folder: Path, commit: str) -> dict[str, str]:
    """What the results of a commit said of the claims as they were then; nothing where they cannot be read today."""
    packed = subprocess.run(
        ["git", "-C", str(folder), "archive", commit, "--", "."], capture_output=True, check=False, timeout=60
    )
    if packed.returncode:
        return {}
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / folder.name
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(target, filter="data")
        try:
            then = papers.read(target / "paper.toml")
            everything = results.published(then)
            scale = next(s for s in reversed(papers.SCALES) if any(s in scales for scales in everything.values()))
            kept = {name: scales[scale] for name, scales in everything.items() if scale in scales}
            known = {name: record for name, record in kept.items() if name in then.experiments}
            judgements: Sequence[Any] = results.judge_all(then, known)
        except (OSError, ValueError, KeyError, TypeError, StopIteration):
            return {}
    pairs = zip(then.claims, judgements, strict=True)
    return {claim.text: judgement.verdict for claim, judgement in pairs if judgement.verdict != "unmeasured"}


def _utc(at: str) -> str:
    return datetime.fromisoformat(at).astimezone(UTC).isoformat(timespec="seconds")
