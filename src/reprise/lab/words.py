"""Numbers, claims and verdicts in words, the same on the terminal, in reports and on pages."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from reprise.lab.paper import Claim, Experiment, Paper, Reference
from reprise.lab.verdict import Judgement

__all__ = ["SYMBOLS", "bibtex", "coded", "compared", "number", "ours", "signed", "unmarked", "verdict_words"]

SYMBOLS = {"holds": "✓", "fails": "✗", "undecided": "?", "unmeasured": "·", "proved": "✓"}
SPACE = "\N{NO-BREAK SPACE}"  # a line never begins with a sign
ROLE = re.compile(r":\w+:`~?(?:[^`]*\.)?([^`.]+)`")  # ":class:`~reprise.data.Episodes`" in a docstring
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(x: float, step: float | None = None) -> str:
    """A number as people write it, with a true minus sign.

    Args:
        x: the number.
        step: how exactly it is known, say the half-width of its interval: it is shown to two digits of that. By
            default three significant digits, and whole numbers below ten million in full.

    Example:
        >>> number(0.01234), number(-1234.5), number(0.00003), number(64_000), number(1e-17)
        ('0.0123', '−1,230', '3×10⁻⁵', '64,000', '0')
        >>> number(0.0312, 0.019), number(0.05, 0.019), number(1e-17, 0.019), number(12_345.6, 230.0)
        ('0.031', '0.050', '0.000', '12,346')
    """
    if not math.isfinite(x):
        return {math.inf: "∞", -math.inf: "−∞"}.get(x, "not a number")
    if step and math.isfinite(step) and step > 1e-6:
        text = f"{x:,.{max(0, 1 - math.floor(math.log10(step)))}f}"
        text = text.lstrip("-") if not text.strip("-0.,") else text
    elif abs(x) < 1e-12:
        text = "0"
    elif x == round(x) and abs(x) < 1e7:
        text = f"{x:,.0f}"
    elif not 1e-4 <= abs(x) < 1e9:
        digits, exponent = f"{x:.2e}".split("e")
        text = f"{float(digits):g}×10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    else:
        decimals = 2 - math.floor(math.log10(abs(x)))
        text = f"{round(x, decimals):,.{max(0, decimals)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−")


def signed(x: float, claim: Claim, step: float | None = None) -> str:
    """A difference with its sign ("+0.03") or a quotient with its mark ("×1.4"), as the claim compares.

    Args:
        x: the difference or quotient.
        claim: tells which of both it is.
        step: see :func:`number`.
    """
    text = number(x, step)
    if claim.compare == "ratio":
        return f"×{text}"
    return text if x < 0 or not text.strip("0.") else f"+{text}"


def ours(claim: Claim, judgement: Judgement, experiments: Mapping[str, Experiment]) -> str:
    """What was measured for a claim, positive (above one) as claimed; empty where nothing was.

    "+0.031 [0.012, 0.050] share", "×1.42 [1.31, 1.55]", or "+0.02 to +0.05 share in 3 cells".
    """
    unit = experiments[claim.value.experiment].metrics[claim.value.metric].unit
    unit = f" {unit}" if unit and claim.compare == "difference" else ""
    if judgement.cells:
        means = [cell.mean for cell in judgement.cells.values() if cell.mean is not None]
        if not means:
            return ""
        span = max(means) - min(means)
        low, high = (signed(mean, claim, span) for mean in (min(means), max(means)))
        count = f"{len(judgement.cells)} cell{'s' if len(judgement.cells) > 1 else ''}"
        return f"{low}{unit} in {count}" if low == high else f"{low} to {high}{unit} in {count}"
    if judgement.mean is None:
        return ""
    if judgement.low is None or judgement.high is None:
        return f"{signed(judgement.mean, claim)}{unit}"
    half = (judgement.high - judgement.low) / 2
    interval = f"[{number(judgement.low, half)}, {number(judgement.high, half)}]"
    return f"{signed(judgement.mean, claim, half)} {interval}{unit}"


def compared(claim: Claim, experiments: Mapping[str, Experiment]) -> str:
    """What the number of a claim is, for an axis: "accuracy (share): method − baseline", "seconds: peer ÷ ours"."""
    metric = experiments[claim.value.experiment].metrics[claim.value.metric]
    value, against = claim.value, claim.against
    unit = f" ({metric.unit})" if metric.unit and claim.compare == "difference" else ""
    if isinstance(against, Reference) and against.metric != value.metric:
        sides, label = [str(value), str(against)], ""
    else:
        sides = [_side(value), _side(against) if isinstance(against, Reference) else number(against)]
        if isinstance(against, Reference) and (value.experiment != against.experiment or sides[0] == sides[1]):
            sides = [str(value), str(against)]
        label = metric.label
    if claim.expect == "lower":
        sides.reverse()
    formula = f"{SPACE}{'÷' if claim.compare == 'ratio' else '−'} ".join(sides)
    return f"{label}{unit}: {formula}" if label else f"{formula}{unit}"


def _side(reference: Reference) -> str:
    cell = reference.cell
    return reference.arm if cell in (None, "*") else f"{reference.arm}[{cell}]"


def verdict_words(judgement: Judgement, scale: str | None) -> str:
    """The verdict with its scale, and the reason where there is one."""
    if judgement.verdict == "unmeasured":
        return "unmeasured"
    text = f"{judgement.verdict} at {scale} scale" if scale else judgement.verdict
    return f"{text}: {judgement.reason}" if judgement.reason else text


def bibtex(paper: Paper) -> str:
    """A BibTeX entry."""
    key = paper.authors.split(",")[0].split()[-1].lower() + str(paper.year) + paper.slug.replace("-", "")
    fields = {
        "title": paper.title,
        "author": " and ".join(name.strip() for name in paper.authors.split(",")),
        "year": str(paper.year),
        "booktitle": paper.venue,
        "eprint": paper.arxiv,
        "archiveprefix": "arXiv",
    }
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@inproceedings{{{key},\n{lines}\n}}"


def coded(text: str) -> str:
    """A piece of a docstring with its references as plain code: the last part of each name between double backticks.

    Example:
        >>> coded("What :class:`~reprise.data.Episodes` holds, as ``float32``.")
        'What ``Episodes`` holds, as ``float32``.'
    """
    return ROLE.sub(r"``\1``", text)


def unmarked(text: str) -> str:
    """A piece of a docstring as plain text, without the marks of reStructuredText.

    Example:
        >>> unmarked("What :class:`~reprise.data.Episodes` holds, as ``float32``.")
        'What Episodes holds, as float32.'
    """
    return coded(text).replace("``", "")
