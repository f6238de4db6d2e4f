"""The report: one file, whole, readable offline, whatever was or was not measured."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from PIL import Image

from reprise.lab import report as module, results, svg
from reprise.lab.paper import Claim, Paper, Reference, read
from reprise.lab.report import render
from reprise.lab.results import Record
from reprise.lab.unit import Failed
from reprise.lab.verdict import Judgement

LAB = Path(module.__file__).parent
COIN = read(Path(__file__).parents[1] / "toys" / "coin" / "paper.toml")
VOID = {"meta", "br", "img", "wbr", "link", "input", "hr"}
NUMERIC = {"cx", "cy", "r", "x", "y", "x1", "x2", "y1", "y2", "width", "height"}


class Page(HTMLParser):
    """A page taken apart; wrong nesting is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data if "style" not in self.open else ""

    def of(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


def sound(text: str) -> Page:
    """The page, checked for what must hold of any report."""
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value.startswith(("data:image/png;base64,", "#", "https://arxiv.org/abs/")), value
            if name in NUMERIC and value:
                assert math.isfinite(float(value.removesuffix("%"))), (tag, name, value)
            if name == "points":
                assert not re.search(r"[^-\d., ]", value), value
    assert "url(" not in text and "@import" not in text
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", page.text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes]
    assert set(named) <= set(ids)
    assert {link["href"][1:] for link in page.of("a") if link["href"].startswith("#")} <= set(ids)
    assert all(image.get("alt") for image in page.of("img"))
    assert all("scope" in cell for cell in page.of("th"))
    assert page.of("html")[0]["lang"] == "en" and len(page.of("h1")) == 1
    return page


def measured(folder: Path | None = None, seeds: int = 5, paper: Paper = COIN) -> dict[str, Record]:
    """A record as ``collect`` gives it; with pictures and files where there is a folder for them."""
    trials = []
    for arm, base in (("fair", 0.5), ("bent", 0.7)):
        for seed in range(seeds):
            heads = base + 0.012345 * math.sin(3 * seed + base)
            trial: dict[str, Any] = {
                "arm": arm, "seed": seed, "seconds": 1.5, "counts": {"throws": 500.0},
                "metrics": {"heads": heads, "part[first]": heads + 0.01, "part[last]": heads - 0.01},
                "curves": {"heads so far": [[i, base + 0.1 * math.sin(i + seed) / i] for i in range(1, 400)]},
                "pictures": [{"file": "throws.png", "name": "throws", "caption": f"White is heads, {arm} {seed}"}],
                "prepare": {"seconds": 0.5, "counts": {}, "curves": {"warm": [[0, 1.0], [1, 0.5]]}, "pictures": []},
                "folder": "nowhere",
            }  # fmt: skip
            if folder is not None:
                trial["folder"] = str(folder / f"{arm}-{seed}")
                Path(trial["folder"]).mkdir()
                Image.new("L", (10, 5), seed).save(folder / f"{arm}-{seed}" / "throws.png")
            trials.append(trial)
    record: Record = {
        "scale": "laptop", "seeds": list(range(seeds)), "threads": 1, "device": "cpu", "trials": trials,
        "settings": {arm: {"bias": bias, "throws": 500, "rate": 1e-5} for arm, bias in (("fair", 0.5), ("bent", 0.7))},
        "modules": {"reprise.lab.seeding": "0123456789abcdef"}, "versions": {"torch": "2.5"},
        "data": {"mnist": {"train": "abc"}}, "commit": "c0ffee", "committed": True, "claims": "feed",
        "machine": {"processor": "a processor", "cores": 2}, "finished": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    return {"recipe": record}


def rendered(records: dict[str, Record], paper: Paper = COIN, **options: Any) -> str:
    return render(paper, records, results.judge_all(paper, records), **options)


# What is in it -------------------------------------------------------------------------------------------------------


def test_everything_is_there(tmp_path: Path) -> None:
    records = measured(tmp_path)
    figure = tmp_path / "figure.png"
    Image.new("RGB", (50, 40)).save(figure)
    text = rendered(records, figures={"recipe": figure})
    page = sound(text)
    for claim in COIN.claims:
        assert claim.text in page.text
    for piece in (
        COIN.title, COIN.authors, COIN.summary, "Holds at laptop scale", "All 3 claims hold.", "0.7 against 0.5",
        "Table 1", "Tolerance 0.1: what an eye can tell", "heads and tails sum to one", "a bent coin", "bias = 0.7",
        "1×10⁻⁵", "500 throws", "The coins are simulated.", "A toy.", "c0ffee", "0123456789abcdef", "a processor",
        "2026-01-02 03:04:05 UTC", "reprise run coin --scale laptop", "@inproceedings{coin2020coin", "abc",
    ):  # fmt: skip
        assert piece in page.text, piece
    assert "https://arxiv.org/abs/2001.00001" in [link["href"] for link in page.of("a")]
    assert base64.b64encode(figure.read_bytes()).decode() in text
    assert "<title>Fair and bent coins: holds at laptop scale · reprise</title>" in text


def test_every_seed_is_a_dot_and_a_number() -> None:
    records = measured()
    text = rendered(records)
    judgements = results.judge_all(COIN, records)
    expected = sum(
        len(each.differences) for judgement in judgements for each in judgement.cells.values() or [judgement]
    )
    strips = re.findall(r'<svg class="strip".*?</svg>', text, re.DOTALL)
    assert len(strips) == 4 and sum(strip.count('class="seed"') for strip in strips) == expected
    page = sound(text)
    for trial in records["recipe"]["trials"]:
        for value in trial["metrics"].values():
            assert module.number(value) in page.text


def test_order_of_the_page(tmp_path: Path) -> None:
    failed = Failed("recipe-1", "bent", "the coin is gone", "/log")
    text = rendered(
        measured(tmp_path), dataclasses.replace(COIN, published_settings={"throws": "a million"}), failures=[failed]
    )
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    assert [re.sub(r"<.*?>", "", heading).strip() for heading in headings] == [
        "✓ Holds at laptop scale", "Claims", "Numbers", "Proved by tests", "Curves", "Pictures", "Settings and costs",
        "This and the paper", "Failures", "Where the numbers come from", "Repeat it", "Cite the paper",
    ]  # fmt: skip
    page = sound(text)
    assert "the coin is gone" in page.text and "/log" in page.text and "1 part of this run failed." in page.text
    assert "a million" in page.text


def test_pictures_of_the_first_seed_come_first(tmp_path: Path) -> None:
    text = rendered(measured(tmp_path))
    open_part, _, folded = text.partition("<summary>The other seeds</summary>")
    assert open_part.count("data:image") == 2 and folded.count("data:image") == 8
    pictures = sound(text).of("img")
    assert pictures[0]["alt"] == "fair, seed 0: White is heads, fair 0"
    assert (pictures[0]["width"], pictures[0]["height"], pictures[0]["class"]) == ("160", "80", "small")


def test_a_page_carries_only_so_many_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EMBEDDED", 300)
    page = sound(rendered(measured(tmp_path)))
    assert 2 <= len(page.of("img")) < 10
    assert f"{10 - len(page.of('img'))} more pictures" in page.text


def test_unequal_budgets_are_marked() -> None:
    records = measured()
    assert "(unequal)" not in rendered(records)
    records["recipe"]["trials"][0]["counts"]["throws"] = 501.0
    page = sound(rendered(records))
    assert page.text.count("(unequal)") == 2 and "The arms did not spend the same: throws differ." in page.text


# Whatever was measured -----------------------------------------------------------------------------------------------


def missing_seed(records: dict[str, Record]) -> None:
    del records["recipe"]["trials"][1]


def no_trials(records: dict[str, Record]) -> None:
    records["recipe"]["trials"] = []
    for key in ("commit", "committed", "claims", "machine", "finished"):
        del records["recipe"][key]


def one_arm(records: dict[str, Record]) -> None:
    del records["recipe"]["trials"][5:]


def no_prepare(records: dict[str, Record]) -> None:
    for trial in records["recipe"]["trials"]:
        trial["prepare"] = {}


def broken_curves(records: dict[str, Record]) -> None:
    for trial in records["recipe"]["trials"]:
        trial["curves"] = {"heads so far": [[0, math.nan], [1, math.inf], [2, 1e300]], "one": [[3, 4.0]], "none": []}


def all_equal(records: dict[str, Record]) -> None:
    for trial in records["recipe"]["trials"]:
        trial["metrics"] = dict.fromkeys(trial["metrics"], 0.0)


def unknown_experiment(records: dict[str, Record]) -> None:
    records["gone"] = records["recipe"]


@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize(
    "change",
    [missing_seed, no_trials, one_arm, no_prepare, broken_curves, all_equal, unknown_experiment],
)
def test_any_state_gives_a_sound_page(seeds: int, change: Callable[[dict[str, Record]], None]) -> None:
    records = measured(seeds=seeds)
    change(records)
    page = sound(rendered(records))
    assert all(claim.text in page.text for claim in COIN.claims)


def test_missing_seed_is_said() -> None:
    records = measured()
    missing_seed(records)
    page = sound(rendered(records))
    assert "Undecided at laptop scale" in page.text and "Seed 1 is missing." in page.text
    assert "fair lacks seed 1." in page.text


def test_nothing_measured() -> None:
    page = sound(rendered({}))
    assert "Unmeasured" in page.text and "Nothing has been measured yet." in page.text
    assert "The experiment recipe has not been measured." in page.text


def test_published_records(tmp_path: Path) -> None:
    records = measured(tmp_path)
    published = {name: json.loads(json.dumps(results.slim(record))) for name, record in records.items()}
    text, whole = rendered(published), rendered(records)
    page = sound(text)
    assert not page.of("img") and page.text.count("Every seed") == Page(whole).text.count("Every seed")
    assert len(re.findall("<polyline", text)) == len(re.findall("<polyline", whole))


def test_only_identities() -> None:
    page = sound(rendered(measured(), dataclasses.replace(COIN, claims=())))
    assert "Proved by tests" in page.text and "heads and tails sum to one" in page.text


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    hostile = """<script>alert('x')</script>"><img src=x onerror="alert(1)">{{ 7 * 7 }}"""
    claim = dataclasses.replace(COIN.claims[0], text=hostile, paper=hostile, source=hostile)
    toss = dataclasses.replace(COIN.experiments["recipe"].metrics["heads"], label=hostile, unit=hostile)
    recipe = COIN.experiments["recipe"]
    experiment = dataclasses.replace(
        recipe,
        metrics={**recipe.metrics, "heads": toss},
        arms={name: dataclasses.replace(arm, what=hostile) for name, arm in recipe.arms.items()},
    )
    paper = dataclasses.replace(
        COIN, title=hostile, authors=hostile, venue=hostile, summary=hostile, remark=hostile, arxiv=f'"{hostile}',
        differences=(hostile,), published_settings={hostile: hostile}, claims=(claim,),
        experiments={"recipe": experiment},
    )  # fmt: skip
    records = measured(tmp_path)
    for trial in records["recipe"]["trials"]:
        trial["curves"] = {hostile: trial["curves"]["heads so far"]}
        trial["pictures"][0]["caption"] = hostile
        trial["counts"] = {hostile: 1.0}
        trial["metrics"][f"part[{hostile.replace(']', '')}]"] = 1.0
    records["recipe"]["machine"] = {hostile: hostile}
    text = rendered(records, paper, failures=[Failed(hostile, hostile, hostile, hostile)])
    page = sound(text)
    assert "<script" not in text and "onerror" not in "".join(str(sorted(a)) for _, a in page.tags)
    assert page.text.count(hostile) > 10 and "49" not in re.findall(r"\{\{.*?\}\}|\b49\b", page.text)


# Drawings ------------------------------------------------------------------------------------------------------------

ANY = st.floats(allow_nan=True, allow_infinity=True)
FINITE = st.floats(-1e99, 1e99)


@given(lines=st.lists(st.lists(st.tuples(FINITE, ANY), max_size=8), max_size=4))
def test_chart_of_anything(lines: list[list[tuple[float, float]]]) -> None:
    text = svg.chart([svg.Series("a", dict(enumerate(lines)), 0), svg.Series("b", {}, 9)], title="t")
    for _, attributes in Page(text).tags:
        for name in NUMERIC & attributes.keys():
            assert math.isfinite(float(attributes[name].removesuffix("%")))
        assert not re.search(r"[^-\d., ]", attributes.get("points", ""))


@given(
    numbers=st.lists(st.floats(1e-200, 1e200), min_size=1, max_size=12),
    half=st.none() | st.floats(0, 1e200),
    margin=st.floats(1e-3, 1e3),
    expect=st.sampled_from(["higher", "lower", "equal"]),
    ratio=st.booleans(),
)
def test_strip_of_anything(numbers: list[float], half: float | None, margin: float, expect: str, ratio: bool) -> None:
    reference = Reference("recipe", "a", "m")
    claim = Claim("text", reference, reference, expect, "ratio" if ratio else "difference", margin)
    mean = sum(numbers) / len(numbers)
    low, high = (None, None) if half is None else (max(mean - half, 0.0), mean + half)
    text = svg.strip(Judgement("holds", "", mean, low, high, dict(enumerate(numbers))), claim, label="label")
    assert text.count('class="seed"') == len(numbers)
    for _, attributes in Page(text).tags:
        for name in NUMERIC & attributes.keys():
            value = attributes[name]
            assert math.isfinite(float(value.removesuffix("%")))
            assert not value.endswith("%") or 0 <= float(value[:-1]) <= 100


@pytest.mark.parametrize(
    ("axis", "texts"),
    [
        (svg.Axis(0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (svg.Axis(-0.03, 0.05), ["−0.02", "0", "0.02", "0.04"]),
        (svg.Axis(0.0, 64_000.0), ["0", "20,000", "40,000", "60,000"]),
        (svg.Axis(0.5, 2.1, log=True), ["0.5", "1.0", "1.5", "2.0"]),
        (svg.Axis(0.9, 120.0, log=True), ["1", "3", "10", "30", "100"]),
        (svg.Axis(1e-7, 1.0, log=True), ["1×10⁻⁷", "1×10⁻⁵", "0.001", "0.1"]),
    ],
)
def test_ticks(axis: svg.Axis, texts: list[str]) -> None:
    ticks = axis.ticks()
    assert [text for _, text in ticks] == texts
    assert [axis.place(x) for x, _ in ticks] == sorted(axis.place(x) for x, _ in ticks)


def test_mean_of_a_curve_is_where_all_seeds_are() -> None:
    series = svg.Series("a", {0: [(0, 1.0), (1, 2.0), (2, 3.0)], 1: [(0, 3.0), (2, math.nan), (1, 4.0)]})
    assert series.mean == [(0.0, 2.0), (1.0, 3.0)]


# Colours -------------------------------------------------------------------------------------------------------------


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2 between two colours "#rrggbb"."""
    levels = []
    for color in (one, other):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        levels.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(levels) + 0.05) / (min(levels) + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_from_the_paper(theme: int) -> None:
    colors: dict[str, str] = {}
    for name in ("svg.css", "report.css"):
        blocks = re.findall(r":root \{(.*?)\}", (LAB / name).read_text(encoding="utf-8"), re.DOTALL)
        colors |= dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[theme]))
    for ground in ("paper", "card"):
        for text in ("ink", "soft", "link", "good", "bad", "open"):
            assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
        for line in [f"arm-{i}" for i in range(svg.ARMS)] + ["arm-shared", "mark"]:
            assert contrast(colors[line], colors[ground]) >= 3, (line, ground)
    assert contrast(colors["mark"], colors["zone"]) >= 3
