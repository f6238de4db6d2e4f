"""Numbers, claims and verdicts in words."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from reprise.lab.paper import Arm, Claim, Experiment, Metric, Reference, read
from reprise.lab.verdict import Judgement
from reprise.lab.words import bibtex, compared, number, ours, signed, verdict_words

METRICS = {"m": Metric("m", "accuracy", "share"), "n": Metric("n", "time", "s")}
EXPERIMENTS = {"recipe": Experiment("recipe", "recipe", Path("recipe.py"), {"a": Arm("a"), "b": Arm("b")}, METRICS, {})}
A, B = Reference("recipe", "a", "m"), Reference("recipe", "b", "m")


def claim(**options: Any) -> Claim:
    """a.m against b.m."""
    return Claim(**{"text": "text", "value": A, "against": B, **options})


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.0, "0"), (-0.0, "0"), (1e-17, "0"), (0.5, "0.5"), (0.01234, "0.0123"), (-0.01234, "−0.0123"),
        (0.99999, "1"), (12.345, "12.3"), (1234.5, "1,230"), (3_274_634, "3,274,634"), (3e-4, "0.0003"),
        (1.234e-5, "1.23×10⁻⁵"), (-2e12, "−2×10¹²"), (math.inf, "∞"), (-math.inf, "−∞"), (math.nan, "not a number"),
    ],
)  # fmt: skip
def test_number(x: float, text: str) -> None:
    assert number(x) == text


@pytest.mark.parametrize(
    ("x", "step", "text"),
    [
        (0.05, 0.019, "0.050"), (0.0312, 0.019, "0.031"), (-1e-9, 0.019, "0.000"), (1e-17, 0.02, "0.000"),
        (12345.6, 230.0, "12,346"), (0.9712, 0.0, "0.971"), (0.9712, math.inf, "0.971"), (2.5, 10.0, "2"),
    ],
)  # fmt: skip
def test_number_as_exact_as_it_is_known(x: float, step: float, text: str) -> None:
    assert number(x, step) == text


@given(st.floats(-1e300, 1e300))
def test_number_keeps_sign_and_size(x: float) -> None:
    text = number(x)
    assert "-" not in text and "e" not in text
    digits, _, power = text.replace("−", "-").replace(",", "").partition("×10")
    exponent = int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)
    assert float(f"{digits}e{exponent}") == pytest.approx(x, rel=0.006, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "judgement", "text"),
    [
        ({}, Judgement("holds", "", 0.031, 0.012, 0.050), "+0.031 [0.012, 0.050] share"),
        ({}, Judgement("fails", "worse", -0.031, -0.050, -0.012), "−0.031 [−0.050, −0.012] share"),
        ({}, Judgement("undecided", "", 1e-17, -0.01, 0.01), "0.000 [−0.010, 0.010] share"),
        ({}, Judgement("undecided", "", 0.25), "+0.25 share"),
        ({"compare": "ratio"}, Judgement("holds", "", 1.42, 1.31, 1.55), "×1.42 [1.31, 1.55]"),
        ({"value": Reference("recipe", "a", "n"), "against": 3.0},
         Judgement("holds", "", 2.0, 1.9, 2.1), "+2.00 [1.90, 2.10] s"),
        ({}, Judgement("undecided", "no seed gave a.m"), ""),
        ({}, Judgement("unmeasured"), ""),
    ],
)  # fmt: skip
def test_ours(options: dict[str, Any], judgement: Judgement, text: str) -> None:
    assert ours(claim(**options), judgement, EXPERIMENTS) == text


def test_ours_in_every_cell() -> None:
    cells = {str(mean): Judgement("holds", "", mean, mean - 0.01, mean + 0.01) for mean in (0.05, 0.02, 0.03)}
    assert ours(claim(), Judgement("holds", cells=cells), EXPERIMENTS) == "+0.020 to +0.050 share in 3 cells"
    assert ours(claim(), Judgement("holds", cells={"x": cells["0.05"]}), EXPERIMENTS) == "+0.05 share in 1 cell"
    empty = {"x": Judgement("undecided", "no seed gave a.m[x]")}
    assert ours(claim(), Judgement("undecided", cells=empty), EXPERIMENTS) == ""


def test_signed() -> None:
    assert [signed(x, claim()) for x in (0.1, 0.0, -0.1)] == ["+0.1", "0", "−0.1"]
    assert signed(0.5, claim(compare="ratio")) == "×0.5"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "accuracy (share): a − b"),
        ({"expect": "lower"}, "accuracy (share): b − a"),
        ({"compare": "ratio"}, "accuracy: a ÷ b"),
        ({"compare": "ratio", "expect": "lower"}, "accuracy: b ÷ a"),
        ({"against": 0.5}, "accuracy (share): a − 0.5"),
        ({"against": Reference("recipe", "b", "n")}, "a.m − b.n (share)"),
        ({"against": Reference("other", "a", "m")}, "accuracy (share): a.m − other/a.m"),
        (
            {"value": Reference("recipe", "a", "m", "x"), "against": Reference("recipe", "a", "m", "y")},
            "accuracy (share): a[x] − a[y]",
        ),
    ],
)
def test_compared(options: dict[str, Any], text: str) -> None:
    assert compared(claim(**options), EXPERIMENTS).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("judgement", "scale", "text"),
    [
        (Judgement("holds"), "laptop", "holds at laptop scale"),
        (Judgement("holds"), None, "holds"),
        (Judgement("undecided", "too wide"), "laptop", "undecided at laptop scale: too wide"),
        (Judgement("unmeasured", "the experiment recipe has not been measured"), "smoke", "unmeasured"),
    ],
)  # fmt: skip
def test_verdict_words(judgement: Judgement, scale: str | None, text: str) -> None:
    assert verdict_words(judgement, scale) == text


def test_bibtex() -> None:
    text = bibtex(read(Path(__file__).parents[1] / "toys" / "coin" / "paper.toml"))
    assert text.startswith("@inproceedings{coin2020coin,\n")
    assert "author = {A. Coin and B. Coin}" in text and "eprint = {2001.00001}" in text


def test_words_are_light() -> None:
    code = "import sys, reprise.lab.words; print({'torch', 'matplotlib', 'numpy', 'scipy'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
