"""The page about speed: every part beside what a user would take instead, as ``make bench`` last measured it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import Response

from reprise.lab import modules, speed_table, svg
from reprise.lab.speed_table import Benchmark, Comparison, Row
from reprise.lab.svg import Axis
from reprise.lab.words import number
from reprise.site import pages
from reprise.site.library import Snapshot
from reprise.site.pages import Alternate, Extension

__all__ = ["EXTENSION", "table"]

router = APIRouter()
FILE = modules.PACKAGE.parent.parent / "benchmarks" / "results.json"  # beside the sources: a wheel has none
FORMS = (Alternate("/speed.json", "JSON"), Alternate("/speed.md", "Markdown"))
SETTINGS = {"best": "with its best settings", "defaults": "as it comes", "limit": "a limit, no peer"}
RADII = (3.0, 4.5, 6.0)  # of a dot, by size


def table(snapshot: Snapshot) -> list[Benchmark]:
    """What is kept of the benchmarks; nothing where the sources are not."""
    found: list[Benchmark] = snapshot.remember("speed", lambda: speed_table.read(FILE) if FILE.is_file() else [])
    return found


@router.get("/speed")
def speed_page(request: Request) -> Response:
    """All comparisons, drawn, with their numbers below."""
    snapshot = pages.library(request).current
    benchmarks = table(snapshot)
    shown = snapshot.remember("speed, shown", lambda: [_shown(each) for each in benchmarks])
    return pages.render(
        request, "speed.html", shown=shown, how=speed_table.HOW, verdict=speed_table.verdict(benchmarks),
        behind=speed_table.behind(benchmarks), kinds=SETTINGS, alternates=FORMS if shown else (),
    )  # fmt: skip


@router.get("/speed.json")
def speed_json(request: Request) -> Response:
    """The file itself."""
    if not FILE.is_file():
        raise HTTPException(404)
    return pages.as_json(request, json.loads(FILE.read_text(encoding="utf-8")))


@router.get("/speed.md")
def speed_markdown(request: Request) -> Response:
    """The same as Markdown."""
    benchmarks = table(pages.library(request).current)
    if not benchmarks:
        raise HTTPException(404)
    return pages.reply(request, speed_table.markdown(benchmarks), pages.TYPES["md"])


def _shown(benchmark: Benchmark) -> dict[str, Any]:
    """Pieces of work with their comparisons; all of a benchmark on one axis."""
    ratios = [row.ratio for row in benchmark.rows if row.ratio is not None]
    axis = Axis.over([1.0, *ratios], log=True, pad=0.06)
    works: dict[str, list[dict[str, Any]]] = {}
    for one in speed_table.comparisons(benchmark.rows):
        drawn = _strip(one, axis) if one.rows[0].ratio is not None else Markup()
        works.setdefault(one.work, []).append({"one": one, "drawn": drawn, "ratios": _ratios(one.rows)})
    ticks = svg.drawing("strip", 20, "times as fast", svg.x_ticks(axis, 0, "×")) if ratios else ""
    return {"benchmark": benchmark, "works": works, "ticks": ticks}


def _ratios(rows: Sequence[Row]) -> str:
    return " → ".join(f"×{row.ratio:.3g}" for row in rows if row.ratio is not None)


def _strip(one: Comparison, axis: Axis) -> Markup:
    """A dot for every size, the larger the size, over the range of its rounds; a line where both are level."""
    level = axis.place(1.0)
    zone = Markup('<rect class="zone" x="{}%" y="0" width="{}%" height="26"/>').format(level, round(100 - level, 2))
    parts = [zone, Markup('<line class="margin" x1="{0}%" x2="{0}%" y1="0" y2="26"/>').format(level)]
    for i, row in enumerate(one.rows):
        assert row.ratio is not None
        radius = RADII[min(i, 2)] if len(one.rows) > 1 else RADII[1]
        if row.spread and all(math.isfinite(x) and x > 0 for x in row.spread):
            low, high = axis.place(row.spread[2] / row.spread[1]), axis.place(row.spread[3] / row.spread[0])
            parts.append(Markup('<line class="interval" x1="{}%" x2="{}%" y1="13" y2="13"/>').format(low, high))
        dot = Markup('<circle class="seed" cx="{}%" cy="13" r="{}"><title>{}</title></circle>')
        parts.append(dot.format(axis.place(row.ratio), radius, f"{row.size or one.work}: ×{number(row.ratio)}"))
    return svg.drawing("strip", 28, f"{_ratios(one.rows)} against {one.peer}", parts)


EXTENSION = Extension(
    router, nav=(("Speed", "/speed"),), warm=table, urls=lambda: [form.href for form in FORMS if FILE.is_file()]
)
