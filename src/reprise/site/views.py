"""What the pages show of a measurement, published or one's own: claims with their drawings, curves with a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from reprise.lab import report, results, svg, words
from reprise.lab.paper import SCALES, Claim, Experiment, Paper
from reprise.lab.results import Record, Results
from reprise.lab.svg import Axis, Series
from reprise.lab.verdict import Judgement
from reprise.lab.words import number
from reprise.site.library import Entry

__all__ = [
    "by_scale",
    "charts",
    "claim_data",
    "claim_views",
    "compared_strips",
    "experiment_views",
    "paper_data",
    "printed",
]

ROWS = 6  # of the table beside a chart
PRINTED = re.compile(r"(\d+(?:\.\d+)?) ?(%?) against (\d+(?:\.\d+)?) ?(%?)(?: of (\d+))?")


# Claims --------------------------------------------------------------------------------------------------------------


def claim_views(paper: Paper, judgements: Sequence[Judgement], scale: str | None) -> list[dict[str, Any]]:
    """The claims as reports show them, each with its number from 1."""
    return [
        {"id": i, **report.claim_view(claim, judgement, paper.experiments, scale)}
        for i, (claim, judgement) in enumerate(zip(paper.claims, judgements, strict=True), 1)
    ]


def printed(claim: Claim, experiments: Mapping[str, Experiment]) -> float | None:
    """The paper's difference or quotient on the claim's own axis; None where it printed no pair in the same unit.

    "99.23 % against 99.04 %" is +0.19 on an axis of points, "94 against 80 of 100" is +0.14 on one of shares. Anything
    else, say the error of a larger net, stays text: a number in another unit has no place on the axis.
    """
    found = PRINTED.fullmatch(claim.paper)
    if found is None or found[2] != found[4]:
        return None
    value, against = float(found[1]), float(found[3])
    unit = experiments[claim.value.experiment].metrics[claim.value.metric].unit
    if found[5] is not None:
        if unit != "share" or found[2]:
            return None
        value, against = value / float(found[5]), against / float(found[5])
    elif (unit in ("points", "%")) != (found[2] == "%") or unit == "share":
        return None
    if claim.expect == "lower":
        value, against = against, value
    if claim.compare == "ratio":
        return value / against if value > 0 and against > 0 else None
    return value - against


def compared_strips(
    claim: Claim, experiments: Mapping[str, Experiment], rows: Mapping[str, Judgement]
) -> tuple[list[tuple[str, str, Markup]], Markup]:
    """Measurements of one claim and the paper's number on one axis.

    Args:
        claim: what is compared; a claim about every cell has no single axis and gives no rows.
        experiments: of its paper.
        rows: judgements by what they are called.

    Returns:
        Rows of (name, number, drawing), and the axis below them; both empty where nothing can be drawn.
    """
    drawn = {name: each for name, each in rows.items() if each.mean is not None and not each.cells}
    if not drawn:
        return [], Markup()
    theirs = printed(claim, experiments)
    numbers = [x for each in drawn.values() for x in _ends(svg.claim_axis(each, claim))]
    axis = Axis.over([*numbers, *([] if theirs is None else [theirs])], log=claim.compare == "ratio", pad=0.02)
    shown = [
        (name, words.ours(claim, each, experiments), svg.strip(each, claim, axis=axis)) for name, each in drawn.items()
    ]
    if theirs is not None:
        shown.append(("the paper", f"{words.signed(theirs, claim)}, from {claim.paper}", _diamond(axis, theirs)))
    elif claim.paper:
        shown.append(("the paper", claim.paper, Markup('<p class="hint">in another unit: no place on this axis</p>')))
    mark = "×" if claim.compare == "ratio" else ""
    ticks = svg.drawing("strip", 20, "axis", svg.x_ticks(axis, 0, mark))
    label = Markup('<p class="axis"><span>{}</span> <strong>as claimed →</strong></p>')
    return shown, ticks + label.format(words.compared(claim, experiments))


def by_scale(paper: Paper) -> list[dict[str, Any]]:
    """For each claim the effect against scale: what was published at each, and what the paper printed, on one axis.

    A claim of which there is only one such number has no rows.
    """
    everything = results.published(paper)
    judged = {}
    for scale in SCALES:
        records = {
            name: each[scale] for name, each in everything.items() if scale in each and name in paper.experiments
        }
        if records:
            judged[scale] = results.judge_all(paper, records)
    shown = []
    for i, claim in enumerate(paper.claims):
        measured = {f"ours, {scale} scale": each[i] for scale, each in judged.items() if each[i].mean is not None}
        rows, axis = compared_strips(claim, paper.experiments, measured)
        several = len(measured) > 1 or printed(claim, paper.experiments) is not None
        shown.append({"rows": rows, "axis": axis} if several else {"rows": [], "axis": ""})
    return shown


def _ends(axis: Axis) -> tuple[float, float]:
    return axis.low, axis.high


def _diamond(axis: Axis, x: float) -> Markup:
    inner = Markup('<path class="theirs" d="M0 -7 7 0 0 7 -7 0Z"/>')
    place = Markup('<svg x="{}%" y="12" overflow="visible">{}</svg>').format(axis.place(x), inner)
    line = Markup('<line class="base" x1="0" x2="100%" y1="12" y2="12"/>')
    return svg.drawing("strip", 24, f"the paper's number, {number(x)}", [line, place])


def claim_data(claim: Claim, judgement: Judgement, paper: Paper) -> dict[str, Any]:
    """A claim with its verdict as JSON holds it."""
    return {
        "text": claim.text,
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "ours": words.ours(claim, judgement, paper.experiments),
        "mean": judgement.mean,
        "interval": None if judgement.low is None else [judgement.low, judgement.high],
        "seeds": {str(seed): x for seed, x in judgement.differences.items()},
        "cells": {name: claim_data(claim, each, paper) for name, each in judgement.cells.items()},
        "compared": words.compared(claim, paper.experiments),
        "value": str(claim.value),
        "against": claim.against if isinstance(claim.against, float) else str(claim.against),
        "expect": claim.expect,
        "compare": claim.compare,
        "margin": claim.margin,
        "margin_from": claim.margin_from,
        "paper": claim.paper,
        "source": claim.source,
    }


def paper_data(entry: Entry) -> dict[str, Any]:
    """A paper as JSON holds it."""
    paper, status = entry.paper, entry.status
    return {
        "slug": paper.slug, "title": paper.title, "authors": paper.authors, "venue": paper.venue, "year": paper.year,
        "arxiv": paper.arxiv, "room": paper.room, "summary": paper.summary, "parts": list(paper.parts),
        "measured": status.date, "scale": status.scale, "mark": status.mark, "stale": list(status.stale),
        "core_seconds": round(status.seconds),
        "claims": [claim_data(claim, judgement, paper) for claim, judgement in entry.judged],
        "identities": [{"text": each.text, "test": each.test} for each in paper.identities],
        "differences": list(paper.differences), "remark": " ".join(paper.remark.split()),
        "experiments": {
            name: {key: record.get(key) for key in ("seeds", "commit", "finished", "machine", "versions", "device")}
            for name, record in status.records.items()
        },
        "bibtex": words.bibtex(paper),
    }  # fmt: skip


# Experiments ---------------------------------------------------------------------------------------------------------


def experiment_views(paper: Paper, records: Mapping[str, Record]) -> list[dict[str, Any]]:
    """What was measured in each experiment: metrics with every seed, curves with tables, settings, what was spent."""
    views = []
    for name, record in records.items():
        if name not in paper.experiments or not record["trials"]:
            continue
        experiment = paper.experiments[name]
        view = report.experiment_view(experiment, record, Results(experiment, record))
        views.append({**view, "curves": [_with_table(curve) for curve in view["curves"]]})
    return views


def charts(experiment: Experiment, record: Record) -> list[dict[str, Any]]:
    """The curves of an experiment: for each its name, the chart and a table that says the same in numbers."""
    return [_with_table(curve) for curve in report.curves(Results(experiment, record))]


def _with_table(curve: Mapping[str, Any]) -> dict[str, Any]:
    return {**curve, "table": curve_table(curve["series"])}


def curve_table(series: Iterable[Series]) -> dict[str, Any]:
    """The means of curves at a few places, as the table beside a chart: the steps, and a row per arm."""
    means = {one.name: dict(one.mean) for one in series}
    steps = sorted({x for line in means.values() for x in line})
    kept = sorted({steps[round(i * (len(steps) - 1) / (ROWS - 1))] for i in range(ROWS)}) if steps else []
    rows = {name: [line.get(_near(line, x)) for x in kept] for name, line in means.items()}
    return {
        "steps": [number(x) for x in kept],
        "rows": {name: ["" if y is None else number(y) for y in row] for name, row in rows.items()},
    }


def _near(line: Mapping[float, float], x: float) -> float:
    """The step of a curve that is nearest to another curve's."""
    return min(line, key=lambda own: abs(own - x), default=x)


def trial_identity(trial: Mapping[str, Any]) -> tuple[str, int]:
    """What tells the trials of a record apart."""
    return trial["arm"], trial["seed"]


def judge(paper: Paper, records: Mapping[str, Record]) -> list[Judgement]:
    """The verdicts on a paper's claims from records of one's own."""
    return results.judge_all(paper, {name: record for name, record in records.items() if name in paper.experiments})
