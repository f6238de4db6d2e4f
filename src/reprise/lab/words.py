"""Numbers, claims and verdicts in words, the same on the terminal, in reports and on pages."""

from __future__ import annotations

from collections.abc import Mapping

from reprise.lab.paper import Claim, Experiment, Paper
from reprise.lab.verdict import Judgement

__all__ = ["SYMBOLS", "bibtex", "number", "ours", "verdict_words"]

SYMBOLS = {"holds": "✓", "fails": "✗", "undecided": "?", "unmeasured": "·", "proved": "✓"}


def number(x: float) -> str:
    """A number with three significant digits and a true minus sign.

    Example:
        >>> number(0.01234), number(-1234.5), number(0.0)
        ('0.0123', '−1,230', '0')
    """
    if x == 0 or abs(x) < 5e-5:
        text = "0"
    elif abs(x) >= 100:
        text = f"{float(f'{x:.3g}'):,.0f}"
    else:
        text = f"{float(f'{x:.3g}'):g}" if abs(x) >= 1e-3 else f"{x:.4f}"
    return text.replace("-", "−")


def ours(claim: Claim, judgement: Judgement, experiments: Mapping[str, Experiment]) -> str:
    """What we measured, with its interval: "+0.031 [0.012, 0.05] share", "×1.42 [1.31, 1.55]"."""
    unit = experiments[claim.value.experiment].metrics[claim.value.metric].unit
    if judgement.cells:
        means = [cell.mean for cell in judgement.cells.values() if cell.mean is not None]
        if not means:
            return ""
        span = f"{_signed(min(means), claim)} to {_signed(max(means), claim)} in {len(judgement.cells)} cells"
        return span if claim.compare == "ratio" or not unit else f"{span}, {unit}"
    if judgement.mean is None:
        return ""
    text = _signed(judgement.mean, claim)
    if judgement.low is not None and judgement.high is not None:
        text += f" [{number(judgement.low)}, {number(judgement.high)}]"
    return text if claim.compare == "ratio" or not unit else f"{text} {unit}"


def _signed(x: float, claim: Claim) -> str:
    if claim.compare == "ratio":
        return f"×{number(x)}"
    return number(x) if (number(x)[0] in "−0" and number(x) == "0") or x < 0 else f"+{number(x)}"


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
