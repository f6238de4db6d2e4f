"""Drawings as inline SVG without script: the seeds of a claim against its margin, the values of an arm, curves.

Horizontal places are percentages and text keeps its size, so a drawing fits a phone and a wide screen alike. Colours,
line styles and fonts come from ``svg.css``, which every page that shows a drawing includes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup, escape

from reprise.lab.paper import Claim
from reprise.lab.verdict import Judgement
from reprise.lab.words import number, signed

__all__ = ["Axis", "Series", "chart", "claim_axis", "dots", "drawing", "strip", "style", "swatch", "x_ticks"]

POINTS = 240  # of a line: more cannot be seen
HEIGHT = 190  # of a chart, in pixels
ARMS = 8  # colours and line styles in svg.css


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, numbers: Iterable[float], *, log: bool = False, pad: float = 0.05) -> Axis:
        """An axis that shows all of these numbers; what it cannot show (not finite, or not positive) is left out."""
        shown = [x for x in numbers if math.isfinite(x) and abs(x) < 1e100 and (x > 1e-100 or not log)]
        low, high = (min(shown), max(shown)) if shown else (1.0, 2.0)
        if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-200):
            low, high = (low / 1.1, high * 1.1) if log else (low - abs(low) / 10, high + abs(high) / 10)
            low, high = (-1.0, 1.0) if low == high else (low, high)
        if log:
            factor = (high / low) ** pad
            return cls(low / factor, high * factor, True)
        return cls(low - pad * (high - low), high + pad * (high - low))

    def place(self, x: float) -> float:
        """Where a number stands, in percent, held within the axis."""
        if self.log:
            share = math.log(max(x, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (x - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)

    def ticks(self, count: int = 4) -> list[tuple[float, str]]:
        """Round numbers on the axis and how they are written."""
        if self.log and self.high / self.low > 8:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            decades = math.log10(self.high / self.low)
            stride = math.ceil(decades / (count + 1))
            digits = (1, 2, 5) if decades < 1.5 else (1, 3) if decades < 2.5 else (1,)
            every = [digit * 10.0**exponent for exponent in range(first, last + 1, stride) for digit in digits]
            return [(x, number(x)) for x in every if self.low <= x <= self.high]
        raw = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= 0.7 * raw)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        large = max(abs(self.low), abs(self.high))
        plain = large < 1e7 and step >= 1e-5
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        texts = {i: f"{i * step:,.{decimals}f}" if plain else number(i * step) for i in range(first, last + 1)}
        return [(i * step, "0" if i == 0 else text.replace("-", "−")) for i, text in texts.items()]


# Claims --------------------------------------------------------------------------------------------------------------


def claim_axis(judgement: Judgement, claim: Claim) -> Axis:
    """The axis that shows every seed, interval and margin of a claim, all its cells included."""
    numbers = [_neutral(claim), *_margins(claim)]
    for each in judgement.cells.values() or [judgement]:
        numbers += each.differences.values()
        numbers += [x for x in (each.low, each.high) if x is not None]
    return Axis.over(numbers, log=claim.compare == "ratio")


def strip(judgement: Judgement, claim: Claim, *, axis: Axis | None = None, label: str = "") -> Markup:
    """Every seed as a dot over the interval of the mean, with the margin and the side that is as claimed.

    Args:
        judgement: of the claim or of one of its cells; nothing is drawn where it has no numbers.
        claim: for margin and direction.
        axis: the axis to use where several strips share one.
        label: what is plotted, written below; without it neither ticks nor label are drawn.
    """
    if judgement.mean is None:
        return Markup()
    axis = axis or claim_axis(judgement, claim)
    levels = _stack({seed: axis.place(x) for seed, x in judgement.differences.items()})
    base = 12 + 10 * max(levels.values(), default=0)
    bar, bottom = base + 15, base + 26
    parts = _zone(claim, axis, bottom)
    if judgement.low is not None and judgement.high is not None:
        left, right = axis.place(judgement.low), axis.place(judgement.high)
        parts.append(Markup('<line class="interval" x1="{}%" x2="{}%" y1="{}" y2="{}"/>').format(left, right, bar, bar))
        for end in (left, right):
            line = Markup('<line class="end" x1="{}%" x2="{}%" y1="{}" y2="{}"/>')
            parts.append(line.format(end, end, bar - 5, bar + 5))
    mean = axis.place(judgement.mean)
    parts.append(Markup('<circle class="mean" cx="{}%" cy="{}" r="4.5"/>').format(mean, bar))
    for seed, x in judgement.differences.items():
        dot = Markup('<circle class="seed" cx="{}%" cy="{}" r="4.5"><title>seed {}: {}</title></circle>')
        parts.append(dot.format(axis.place(x), base - 10 * levels[seed], seed, signed(x, claim)))
    if label:
        parts += x_ticks(axis, bottom, "×" if claim.compare == "ratio" else "")
    interval = "" if judgement.low is None else f" [{number(judgement.low)}, {number(judgement.high or 0.0)}]"
    told = f"{len(levels)} seeds, mean {signed(judgement.mean, claim)}{interval}, margin {number(claim.margin)}"
    drawn = drawing("strip", bottom + (22 if label else 2), told, parts)
    if not label:
        return drawn
    side = "between the lines: as claimed" if claim.expect == "equal" else "as claimed →"
    return drawn + Markup('<p class="axis"><span>{}</span> <strong>{}</strong></p>').format(label, side)


def _zone(claim: Claim, axis: Axis, bottom: float) -> list[Markup]:
    """The side of the margin that is as claimed, the margin's lines, and the line of no difference."""
    edges = [axis.place(x) for x in _margins(claim)]
    left, right = (edges[0], edges[1]) if claim.expect == "equal" else (edges[0], 100.0)
    zone = Markup('<rect class="zone" x="{}%" y="0" width="{}%" height="{}"/>')
    line = Markup('<line class="{}" x1="{}%" x2="{}%" y1="0" y2="{}"/>')
    parts = [zone.format(left, round(right - left, 2), bottom)]
    parts.append(Markup('<line class="base" x1="0" x2="100%" y1="{}" y2="{}"/>').format(bottom, bottom))
    if _neutral(claim) not in _margins(claim):
        neutral = axis.place(_neutral(claim))
        parts.append(line.format("neutral", neutral, neutral, bottom))
    return parts + [line.format("margin", edge, edge, bottom) for edge in edges]


def _neutral(claim: Claim) -> float:
    return 1.0 if claim.compare == "ratio" else 0.0


def _margins(claim: Claim) -> list[float]:
    if claim.expect != "equal":
        return [claim.margin]
    if claim.compare == "ratio":
        return sorted((1 / claim.margin, claim.margin))
    return [-abs(claim.margin), abs(claim.margin)]


def _stack(places: Mapping[int, float]) -> dict[int, int]:
    """A level for each dot, so that those at nearly one place stand above each other."""
    ends: list[float] = []
    levels = {}
    for seed, place in sorted(places.items(), key=lambda item: item[1]):
        level = next((i for i, end in enumerate(ends) if place - end > 2.4), len(ends))
        level = min(level, 5)
        ends[level : level + 1] = [place]
        levels[seed] = level
    return levels


def dots(values: Mapping[int, float], axis: Axis, *, arm: int = 0) -> Markup:
    """The values of one arm as dots on an axis without ticks, their mean as a bar.

    Args:
        values: by seed.
        axis: shared by all arms of the metric.
        arm: the number of the arm, for its colour.
    """
    shown = {seed: x for seed, x in values.items() if math.isfinite(x)}
    if not shown:
        return Markup()
    mean = axis.place(fmean(shown.values()))
    parts = [Markup('<line class="base" x1="0" x2="100%" y1="10" y2="10"/>')]
    for seed, x in shown.items():
        dot = Markup('<circle class="seed" cx="{}%" cy="10" r="4"><title>seed {}: {}</title></circle>')
        parts.append(dot.format(axis.place(x), seed, number(x)))
    parts.append(Markup('<line class="mean" x1="{}%" x2="{}%" y1="2" y2="18"/>').format(mean, mean))
    told = f"from {number(min(shown.values()))} to {number(max(shown.values()))}"
    return drawing(f"dots {style(arm)}", 20, told, parts)


# Curves --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """The lines of one arm: points (x, y) by seed.

    Attributes:
        name: of the arm.
        lines: points by seed.
        arm: the number of the arm, for its colour; None is what all arms share.
    """

    name: str
    lines: Mapping[int, Sequence[tuple[float, float]]]
    arm: int | None = 0

    @property
    def mean(self) -> list[tuple[float, float]]:
        """The mean over the seeds at every x that all of them have."""
        lines = [dict(_finite(points)) for points in self.lines.values()]
        shared = sorted(set(lines[0]).intersection(*lines[1:])) if lines else []
        return [(x, fmean(line[x] for line in lines)) for x in shared]


def chart(series: Sequence[Series], *, title: str, x_label: str = "step") -> Markup:
    """Curves: a thin line per seed, a thick one for the mean of each arm, and a legend with the mean's last value.

    Args:
        series: one per arm.
        title: what the vertical axis shows.
        x_label: what the horizontal axis shows.
    """
    points = [point for one in series for line in one.lines.values() for point in _finite(line)]
    if not points:
        return Markup()
    heights = [y for _, y in points]
    log = min(heights) > 1e-100 and max(heights) / min(heights) > 300
    x, y = Axis.over((x for x, _ in points), pad=0.0), Axis.over(heights, log=log)
    grid, lines, legend = [], [], []
    for value, text in y.ticks(5):
        height = round(HEIGHT * (1 - y.place(value) / 100), 1)
        grid.append(Markup('<line class="grid" x1="0" x2="100%" y1="{}" y2="{}"/>').format(height, height))
        grid.append(Markup('<text class="tick" x="-8" y="{}" text-anchor="end">{}</text>').format(height + 4, text))
    for one in series:
        for line in map(_finite, one.lines.values()):
            if len(line) == 1:
                places = x.place(line[0][0]), round(HEIGHT * (1 - y.place(line[0][1]) / 100), 1), style(one.arm)
                grid.append(Markup('<circle cx="{}%" cy="{}" r="3.5" class="seed {}"/>').format(*places))
            elif len(one.lines) > 1:
                lines.append(_line(line, x, y, f"seed-line {style(one.arm)}"))
        mean = one.mean
        lines.append(_line(mean, x, y, f"mean-line {style(one.arm)}"))
        last = Markup(" <small>{}</small>").format(number(mean[-1][1])) if mean else ""
        legend.append(Markup("<li>{} {}{}</li>").format(swatch(one.arm), one.name, last))
    inner = Markup(
        '<svg width="100%" height="{h}" viewBox="0 0 1000 {h}" preserveAspectRatio="none" overflow="visible">{lines}'
        "</svg>"
    ).format(h=HEIGHT, lines=Markup().join(lines))
    told = f"{title} by {x_label} for {', '.join(one.name for one in series)}; last means in the legend"
    drawn = drawing("curves", HEIGHT + 22, told, [*grid, inner, *x_ticks(x, HEIGHT)])
    scale = " (logarithmic scale)" if log else ""
    return Markup(
        '<figure class="chart"><figcaption>{}{}</figcaption><div class="plot">{}<p class="axis"><span></span><span>{} →'
        '</span></p></div><ul class="legend">{}</ul></figure>'
    ).format(title, scale, drawn, x_label, Markup().join(legend))


def swatch(arm: int | None) -> Markup:
    """A short line in the colour and style of an arm, for legends."""
    line = Markup('<line class="mean-line {}" x2="26" y1="5" y2="5"/>').format(style(arm))
    return Markup('<svg class="swatch" width="26" height="10" aria-hidden="true">{}</svg>').format(line)


def style(arm: int | None) -> str:
    """The class, in svg.css, of an arm's colour and line; None is what all arms share."""
    if arm is None:
        return "arm-shared"
    return f"arm-{arm % ARMS}" if arm < ARMS else f"arm-{arm % ARMS} again"


def _line(points: Sequence[tuple[float, float]], x: Axis, y: Axis, style: str) -> Markup:
    step = max(1, -(-len(points) // POINTS))
    kept = points[::-step][::-1]  # from the end, so that the last point stays
    places = " ".join(f"{10 * x.place(a):.1f},{HEIGHT * (1 - y.place(b) / 100):.1f}" for a, b in kept)
    return Markup('<polyline class="{}" vector-effect="non-scaling-stroke" points="{}"/>').format(style, places)


def _finite(points: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
    return sorted((float(x), float(y)) for x, y in points if math.isfinite(x) and math.isfinite(y) and abs(y) < 1e100)


# Both ----------------------------------------------------------------------------------------------------------------


def x_ticks(axis: Axis, bottom: float, mark: str = "") -> list[Markup]:
    """Ticks with their numbers below a drawing that is ``bottom`` pixels high; ``mark`` stands before each number."""
    parts = []
    for value, text in axis.ticks():
        place = axis.place(value)
        anchor = "start" if place < 6 else "end" if place > 94 else "middle"
        line = Markup('<line class="base" x1="{}%" x2="{}%" y1="{}" y2="{}"/>').format(place, place, bottom, bottom + 4)
        label = Markup('<text class="tick" x="{}%" y="{}" text-anchor="{}">{}{}</text>')
        parts += [line, label.format(place, bottom + 17, anchor, mark, text)]
    return parts


def drawing(style: str, height: float, told: str, parts: Iterable[Markup]) -> Markup:
    """These parts as one drawing: its class in ``svg.css``, its height in pixels, and what a screen reader tells."""
    head = Markup('<svg class="{}" role="img" aria-label="{}" width="100%" height="{}" overflow="visible">')
    return head.format(style, escape(told), height) + Markup().join(parts) + Markup("</svg>")
