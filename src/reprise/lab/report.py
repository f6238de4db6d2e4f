"""The report of a measurement: one HTML file that opens offline and needs no script."""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from reprise.lab import svg, words
from reprise.lab.paper import Arm, Claim, Experiment, Paper
from reprise.lab.results import Record, Results
from reprise.lab.unit import Failed
from reprise.lab.verdict import Judgement, student
from reprise.lab.words import number

__all__ = ["FILTERS", "claim_view", "curves", "experiment_view", "headline_view", "render"]

EMBEDDED = 12_000_000  # bytes of pictures of further seeds in one report; those of each arm's first seed always are
SMALL = 160  # pixels: pictures of a few pixels are shown at least this wide


def render(
    paper: Paper,
    records: Mapping[str, Record],
    judgements: Sequence[Judgement],
    *,
    figures: Mapping[str, Path] = {},
    failures: Sequence[Failed] = (),
) -> str:
    """The report as one HTML page.

    Args:
        paper: the paper.
        records: what was measured, by experiment: of a run (``results.collect``) or as published.
        judgements: one per claim, in their order.
        figures: the PNG files that the recipes' ``figure`` drew, by experiment.
        failures: the trials that failed.
    """
    known = {name: record for name, record in records.items() if name in paper.experiments}
    measured = {name: record for name, record in known.items() if record["trials"]}
    scale = next((record["scale"] for record in known.values()), None)
    claims = [
        claim_view(claim, judgement, paper.experiments, scale)
        for claim, judgement in zip(paper.claims, judgements, strict=True)
    ]
    return _template().render(
        paper=paper,
        scale=scale,
        claims=claims,
        headline=headline_view(claims, scale),
        figures=[(name, _data_uri(path.read_bytes())) for name, path in figures.items() if path.is_file()],
        experiments=[
            experiment_view(paper.experiments[name], known[name], Results(paper.experiments[name], known[name]))
            for name in measured
        ],
        records=known,
        failures=failures,
        citation=words.bibtex(paper),
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= FILTERS
    return environment.get_template("report.html")


def sentence(text: str) -> str:
    """The text with a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def breakable(name: str) -> Markup:
    """An identifier that a narrow column may break after its separators."""
    return Markup("").join(Markup("{}<wbr>").format(part) for part in re.findall(r"[^_/.]*[_/.]+|[^_/.]+", name))


def plain(value: Any) -> str:
    """A setting or a fact as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):  # exact: a setting is not rounded
        return number(value) if float(f"{value:.3g}") == value or value == round(value) else f"{value:.12g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    return str(value) if value not in ("", None) else "none"


FILTERS = {"breakable": breakable, "number": number, "plain": plain, "sentence": sentence}  # of measurement.html


# Claims --------------------------------------------------------------------------------------------------------------


def claim_view(
    claim: Claim, judgement: Judgement, experiments: Mapping[str, Experiment], scale: str | None
) -> dict[str, Any]:
    """A claim with its verdict, numbers and drawings, as ``measurement.html`` shows it."""
    axis = svg.claim_axis(judgement, claim)
    label = words.compared(claim, experiments)
    drawn = [cell for cell, each in judgement.cells.items() if each.mean is not None]
    cells = [
        {
            "name": cell,
            **_judged(claim, each, experiments, scale),
            "strip": svg.strip(each, claim, axis=axis, label=label if [cell] == drawn[-1:] else ""),
        }
        for cell, each in judgement.cells.items()
    ]
    neutral = 1.0 if claim.compare == "ratio" else 0.0
    return {
        "text": claim.text,
        "paper": claim.paper,
        "source": claim.source,
        **_judged(claim, judgement, experiments, scale),
        "strip": svg.strip(judgement, claim, axis=axis, label=label),
        "cells": cells,
        "label": label,
        "margin": "" if claim.margin == neutral else _margin(claim),
    }


def _margin(claim: Claim) -> str:
    """The margin and where it comes from."""
    kind = "tolerance" if claim.expect == "equal" else "margin"
    mark = "×" if claim.compare == "ratio" else ""
    return f"{kind} {mark}{number(claim.margin)}" + (f": {claim.margin_from}" if claim.margin_from else "")


def _judged(
    claim: Claim, judgement: Judgement, experiments: Mapping[str, Experiment], scale: str | None
) -> dict[str, Any]:
    half = None if judgement.low is None else ((judgement.high or 0.0) - judgement.low) / 2
    return {
        "verdict": judgement.verdict,
        "symbol": words.SYMBOLS[judgement.verdict],
        "words": words.verdict_words(Judgement(judgement.verdict), scale),
        "reason": judgement.reason,
        "ours": words.ours(claim, judgement, experiments),
        "seeds": [(seed, words.signed(x, claim, half)) for seed, x in judgement.differences.items()],
    }


def headline_view(claims: Sequence[Mapping[str, Any]], scale: str | None) -> dict[str, Any]:
    """The verdict on the first claim, and how the others went."""
    if not claims:
        return {
            "verdict": "proved",
            "symbol": words.SYMBOLS["proved"],
            "words": "Proved by tests",
            "text": "Nothing here needs measuring: each sentence below is proved by a test.",
            **dict.fromkeys(("reason", "ours", "label", "others"), ""),
        }
    first = claims[0]
    verdicts = [claim["verdict"] for claim in claims]
    counts = [(kind, verdicts.count(kind)) for kind in ("holds", "fails", "undecided", "unmeasured")]
    several = [f"{count} {_agree(kind, count)}" for kind, count in counts if count]
    others = (
        f"Of {len(claims)} claims, {', '.join(several)}."
        if len(several) > 1
        else f"All {several[0].replace(' ', ' claims ')}."
    )
    return {
        "verdict": first["verdict"],
        "symbol": first["symbol"],
        "words": sentence(first["words"]),
        "text": first["text"],
        "reason": first["reason"],
        "ours": first["ours"],
        "label": first["label"],
        "others": others if len(claims) > 1 else "",
    }


def _agree(kind: str, count: int) -> str:
    if kind in ("holds", "fails"):
        return kind if count == 1 else kind[:-1]
    return f"is {kind}" if count == 1 else f"are {kind}"


# Experiments ---------------------------------------------------------------------------------------------------------


def experiment_view(experiment: Experiment, record: Record, results: Results) -> dict[str, Any]:
    """What was measured in an experiment: metrics with every seed, curves, pictures, settings, what was spent."""
    order = {name: i for i, name in enumerate(experiment.arms)}
    seeds = record["seeds"]
    there = {(trial["arm"], trial["seed"]) for trial in record["trials"]}
    missing = {arm: [seed for seed in seeds if (arm, seed) not in there] for arm in record["settings"]}
    return {
        "name": experiment.name,
        "arms": [(name, arm.what, svg.style(order[name])) for name, arm in results.arms.items()],
        "missing": {arm: absent for arm, absent in missing.items() if absent},
        "metrics": list(_metrics(experiment, results)),
        "curves": list(curves(results)),
        **_pictures(record, results),
        **_settings(record, results.arms),
        "spent": _spent(record, results.arms),
        "record": record,
    }


def _metrics(experiment: Experiment, results: Results) -> Iterator[dict[str, Any]]:
    """Each metric with its cells, each of these with a row per arm."""
    for metric in experiment.metrics.values():
        cells = [None, *results.cells(metric.name)]
        found = {(cell, arm): results.values(arm, metric.name, cell) for cell in cells for arm in results.arms}
        found = {key: values for key, values in found.items() if values}
        if not found:
            continue
        numbers = [x for values in found.values() for x in values.values()]
        axis = svg.Axis.over(numbers)
        means = {key: student(list(values.values())) for key, values in found.items()}
        step = min((half for _, half in means.values() if half > 0), default=None)  # all arms with equal decimals
        rows = [
            {
                "cell": cell,
                "arm": arm,
                "mean": _interval(*means[cell, arm], step),
                "dots": svg.dots(values, axis, arm=list(experiment.arms).index(arm)),
                "seeds": [(seed, number(x)) for seed, x in values.items()],
            }
            for (cell, arm), values in found.items()
        ]
        by_cell = [(cell, [row for row in rows if row["cell"] == cell]) for cell in cells]
        yield {
            "label": metric.label,
            "unit": metric.unit,
            "cells": [(cell, own) for cell, own in by_cell if own],
            "rows": rows,
            "span": f"{number(min(numbers), step)} to {number(max(numbers), step)}",
        }


def _interval(mean: float, half: float, step: float | None) -> str:
    """A mean with the half-width of its 95 % Student interval."""
    return f"{number(mean, step)} ± {number(half, step)}" if math.isfinite(half) else number(mean)


def curves(results: Results) -> Iterator[dict[str, Any]]:
    """Each curve with its name, a series per arm, and their chart; what prepare drew belongs to all arms."""
    record, order = results.record, {name: i for i, name in enumerate(results.experiment.arms)}
    shared: dict[str, dict[int, Any]] = {}
    for trial in record["trials"]:
        for name, points in (trial["prepare"] or {}).get("curves", {}).items():
            shared.setdefault(name, {})[trial["seed"]] = points
    names = dict.fromkeys(name for trial in record["trials"] for name in trial["curves"])
    for name in {**dict.fromkeys(shared), **names}:
        series = [svg.Series("shared", shared[name], None)] if name in shared else []
        series += [svg.Series(arm, lines, order[arm]) for arm in results.arms if (lines := results.curve(arm, name))]
        if chart := svg.chart(series, title=name):
            yield {"name": name, "series": series, "chart": chart}


def _pictures(record: Record, results: Results) -> dict[str, Any]:
    """The pictures of each arm's first seed, and those of the other seeds as far as a page can carry them."""
    first: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    size, left_out = 0, 0
    start: dict[str, int] = {}
    shown = set()
    for trial in sorted(record["trials"], key=lambda trial: (list(results.arms).index(trial["arm"]), trial["seed"])):
        arm, seed = trial["arm"], trial["seed"]
        first_seed = start.setdefault(arm, seed) == seed
        shared = [("shared", picture) for picture in (trial["prepare"] or {}).get("pictures", [])]
        for owner, picture in [*shared, *((arm, picture) for picture in trial.get("pictures", []))]:
            path = Path(trial.get("folder", "")) / picture["file"]
            if (owner, seed, picture["name"]) in shown or not path.is_file():
                continue
            shown.add((owner, seed, picture["name"]))
            content = path.read_bytes()
            size += 0 if first_seed else len(content)
            if size > EMBEDDED:
                left_out += 1
                continue
            caption = picture["caption"] or picture["name"]
            entry = {"arm": owner, "seed": seed, "caption": caption, "uri": _data_uri(content), **_size(content)}
            (first if first_seed else others).append(entry)
    return {"pictures": first, "more_pictures": others, "left_out": left_out}


def _settings(record: Record, arms: Mapping[str, Arm]) -> dict[str, Any]:
    """What differs between the arms, by arm, and what they have in common."""
    settings = {arm: values for arm, values in record["settings"].items() if arm in arms}
    first = next(iter(settings.values()))
    different = [key for key in first if any(own[key] != first[key] for own in settings.values())]
    return {
        "different": {arm: {key: own[key] for key in different} for arm, own in settings.items()},
        "common": {key: value for key, value in first.items() if key not in different},
    }


def _spent(record: Record, arms: Iterable[str]) -> dict[str, Any]:
    """Counts and seconds per trial of each arm, and which counts are not equal."""
    trials = record["trials"]
    by_arm = {arm: [trial for trial in trials if trial["arm"] == arm] for arm in arms}
    names = list(dict.fromkeys(name for trial in trials for name in trial["counts"]))
    counts = {arm: {name: _average(t["counts"].get(name, 0.0) for t in own) for name in names}
              for arm, own in by_arm.items()}  # fmt: skip
    unequal = [name for name in names if len({round(own[name], 6) for own in counts.values()}) > 1]
    rows = [
        {"arm": arm, "counts": counts[arm], "seconds": _average(trial["seconds"] for trial in own)}
        for arm, own in by_arm.items()
    ]
    prepares = {trial["seed"]: trial["prepare"] for trial in trials if trial["prepare"]}
    if prepares:
        also = dict.fromkeys(name for prepare in prepares.values() for name in prepare["counts"])
        names += [name for name in also if name not in names]
        shared = {name: _average(p["counts"].get(name, 0.0) for p in prepares.values()) for name in also}
        seconds = _average(prepare["seconds"] for prepare in prepares.values())
        rows.insert(0, {"arm": "shared", "counts": shared, "seconds": seconds})
    return {"names": names, "rows": rows, "unequal": unequal}


def _average(numbers: Iterable[float]) -> float:
    kept = list(numbers)
    return sum(kept) / len(kept)


# Pictures as text ----------------------------------------------------------------------------------------------------


def _data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _size(png: bytes) -> dict[str, Any]:
    """Width and height to show a picture at; one of a few pixels is enlarged by a whole factor."""
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        return {"width": None, "height": None, "small": False}
    width, height = struct.unpack(">II", png[16:24])
    factor = max(1, -(-SMALL // max(1, width)))
    return {"width": width * factor, "height": height * factor, "small": factor > 1}
