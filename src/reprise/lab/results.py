"""What was measured: records of experiments, from a run or as published in results.json, and what they say today."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprise.files import written_whole
from reprise.lab import modules, provenance, store
from reprise.lab.paper import SCALES, Arm, Experiment, Paper
from reprise.lab.verdict import Judgement, Measurement, judge

if TYPE_CHECKING:
    from reprise.lab.plan import Plan

__all__ = [
    "Record", "Results", "ResultsError", "Status", "changed", "collect", "cost", "judge_all", "published",
    "save", "slim", "smoke_costs", "status",
]  # fmt: skip

Record = dict[str, Any]  # one experiment at one scale: seeds, settings by arm, modules, data, versions, trials, ...
POINTS = 60  # of a published curve


class ResultsError(ValueError):
    """A results.json that cannot be read."""


@dataclass(frozen=True)
class Results:
    """The finished trials of one experiment, as a recipe's ``figure`` and the report read them."""

    experiment: Experiment
    record: Record

    @property
    def arms(self) -> Mapping[str, Arm]:
        """The arms that were measured."""
        measured = {trial["arm"] for trial in self.record["trials"]}
        return {name: arm for name, arm in self.experiment.arms.items() if name in measured}

    @property
    def seeds(self) -> list[int]:
        """The seeds that any arm was measured with."""
        return sorted({trial["seed"] for trial in self.record["trials"]})

    def values(self, arm: str, metric: str, cell: str | None = None) -> dict[int, float]:
        """The metric of each seed."""
        key = metric if cell is None else f"{metric}[{cell}]"
        return {trial["seed"]: trial["metrics"][key] for trial in self._of(arm) if key in trial["metrics"]}

    def cells(self, metric: str) -> list[str]:
        """The cells of a metric in any arm."""
        measurement = Measurement.of(self.seeds, self.record["trials"])
        return list(dict.fromkeys(cell for arm in self.arms for cell in measurement.cells(arm, metric)))

    def curve(self, arm: str, name: str) -> dict[int, list[tuple[float, float]]]:
        """The points of a curve by seed."""
        return {trial["seed"]: trial["curves"][name] for trial in self._of(arm) if name in trial["curves"]}

    def file(self, arm: str, seed: int, name: str) -> Path | None:
        """A file that the trial left in its folder; None if it is not there (published results keep no files)."""
        for trial in self._of(arm):
            if trial["seed"] == seed and "folder" in trial and (path := Path(trial["folder"]) / name).is_file():
                return path
        return None

    def _of(self, arm: str) -> list[dict[str, Any]]:
        return sorted(
            (trial for trial in self.record["trials"] if trial["arm"] == arm), key=lambda trial: trial["seed"]
        )


def collect(plan: Plan) -> dict[str, Record]:
    """The records of a plan's experiments from all its finished trials."""
    records = {}
    for part in plan.parts:
        trials, origin = [], {}
        for job in part.jobs:
            folder = store.trial_folder(plan.paper.slug, job.identity)
            kept = store.read(folder)
            if kept is not None:
                origin = {key: kept[key] for key in ("commit", "committed", "machine", "finished")}
                shown = {key: kept[key] for key in ("metrics", "counts", "seconds", "curves", "pictures", "prepare")}
                trials.append({"arm": job.arm, "seed": job.identity["seed"], **shown, "folder": str(folder)})
        records[part.experiment.name] = {
            "scale": plan.scale,
            "seeds": list(part.seeds),
            "threads": part.experiment.threads,
            "settings": {job.arm: dict(job.settings) for job in part.jobs},
            **part.facts,
            "claims": provenance.claims(plan.paper, part.experiment.name, plan.scale),
            **origin,
            "trials": trials,
        }
    return records


def judge_all(paper: Paper, records: Mapping[str, Record]) -> list[Judgement]:
    """The verdict on every claim of a paper, in their order."""
    measurements = {name: Measurement.of(record["seeds"], record["trials"]) for name, record in records.items()}
    return [judge(claim, measurements, paper.experiments) for claim in paper.claims]


# results.json --------------------------------------------------------------------------------------------------------


def published(paper: Paper) -> dict[str, dict[str, Record]]:
    """The published records by experiment and scale; empty if nothing has been published.

    Raises:
        ResultsError: the file is damaged.
    """
    return _content(paper)[0]


def smoke_costs(paper: Paper) -> dict[str, Any]:
    """What the smoke scale took when the paper was last confirmed; empty if it never was.

    Returns:
        "yardstick": of the machine; "prepare": seconds by experiment; "arms": by experiment and arm a digest of the
        "settings" and "seconds".

    Raises:
        ResultsError: the file is damaged.
    """
    return _content(paper)[1]


def _content(paper: Paper) -> tuple[dict[str, dict[str, Record]], dict[str, Any]]:
    path = paper.folder / "results.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: dict(scales) for name, scales in content["experiments"].items()}, dict(content.get("smoke", {}))
    except FileNotFoundError:
        return {}, {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path} is damaged ({error!r}); restore it with `git checkout {path}`") from error


def save(paper: Paper, records: Mapping[str, Mapping[str, Record]], smoke: Mapping[str, Any] | None = None) -> Path:
    """Write results.json; what the smoke scale took stays as it was, where nothing newer is given."""
    path = paper.folder / "results.json"
    smoke = smoke_costs(paper) if smoke is None else smoke
    with written_whole(path) as temporary:
        text = json.dumps({"experiments": records} | ({"smoke": smoke} if smoke else {}), indent=1)
        text = re.sub(r"\[[^\[\]{}]*\]", lambda innermost: " ".join(innermost[0].split()), text)  # one point, one line
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def slim(record: Record) -> Record:
    """A record as it is published: curves thinned, no files, what ``prepare`` showed once per seed."""
    trials, prepared = [], set()
    for trial in record["trials"]:
        kept = {key: value for key, value in trial.items() if key not in ("folder", "pictures")}
        kept["curves"] = {name: _thin(points) for name, points in trial["curves"].items()}
        if trial["prepare"] and trial["seed"] not in prepared:
            prepared.add(trial["seed"])
            curves = {name: _thin(points) for name, points in trial["prepare"]["curves"].items()}
            kept["prepare"] = {
                "seconds": trial["prepare"]["seconds"],
                "counts": trial["prepare"]["counts"],
                "curves": curves,
            }
        else:
            kept["prepare"] = {}
        trials.append(kept)
    return {**record, "trials": trials}


def _thin(points: Sequence[tuple[float, float]]) -> list[list[float]]:
    step = max(1, -(-len(points) // POINTS))
    kept = list(points[::-step])[::-1]  # from the end, so that the last point stays
    return [[float(f"{x:.6g}"), float(f"{y:.4g}")] for x, y in kept]


# What the published results say today --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status:
    """A paper's published measurement as of today.

    Attributes:
        scale: the largest scale that was published, or None.
        records: its records by experiment.
        judgements: one per claim.
        stale: what has changed since, as module names; empty if nothing has.
        confirmed: whether a smoke run gave the same bits after such a change.
        date: the day of the last trial.
    """

    scale: str | None
    records: Mapping[str, Record]
    judgements: Sequence[Judgement]
    stale: Sequence[str]
    confirmed: bool
    date: str

    @property
    def mark(self) -> str:
        """ "stale", "confirmed" or nothing."""
        return "stale" if self.stale else "confirmed" if self.confirmed else ""

    @property
    def seconds(self) -> float:
        """Core-seconds that the measurement took."""
        return sum(cost(record) for record in self.records.values())


def status(paper: Paper) -> Status:
    """Judge the published results and compare their modules with today's."""
    everything = published(paper)
    scales = [scale for scale in SCALES if any(scale in records for records in everything.values())]
    scale = scales[-1] if scales else None
    records = {
        name: scales[scale]
        for name, scales in everything.items()
        if scale is not None and scale in scales and name in paper.experiments
    }
    stale: list[str] = []
    confirmed = False
    for name, record in records.items():
        today = modules.of(paper.experiments[name])
        if record["claims"] != provenance.claims(paper, name, record["scale"]):
            stale.append("paper.toml")
        if today == record["modules"]:
            continue
        if today == record.get("confirmed"):
            confirmed = True
        else:
            stale.extend(changed(record["modules"], today))
    date = max((record["finished"][:10] for record in records.values()), default="")
    return Status(scale, records, judge_all(paper, records), list(dict.fromkeys(stale)), confirmed, date)


def changed(recorded: Mapping[str, str], today: Mapping[str, str]) -> list[str]:
    """Names of the modules whose code differs."""
    return [name for name in sorted({*recorded, *today}) if recorded.get(name) != today.get(name)]


def cost(record: Record) -> float:
    """Core-seconds of a record's trials; ``prepare`` counts once per seed."""
    prepare = {trial["seed"]: trial["prepare"]["seconds"] for trial in record["trials"] if trial["prepare"]}
    return record["threads"] * (sum(trial["seconds"] for trial in record["trials"]) + sum(prepare.values()))
