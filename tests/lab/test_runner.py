"""Several papers in one run: their units at once, each paper's outcome as soon as it is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from reprise.lab import paper as papers, runner
from reprise.lab.plan import Plan, make_plan


@pytest.fixture
def two(toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The toy, and a second paper like it whose middle seed fails."""
    for name in ("coin", "penny"):
        shutil.copytree(toys / "coin", tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("REPRISE_PAPERS", str(tmp_path))
    good, bad = papers.find("coin"), papers.find("penny")
    return [make_plan(good, seeds=range(3)), make_plan(bad, seeds=range(3), overrides=["fault=raise"])]


def test_each_paper_has_its_own_outcome(two: list[Plan]) -> None:
    done = {plan.paper.slug: outcome for plan, outcome in runner.run(two, Console(quiet=True))}
    assert set(done) == {"coin", "penny"}
    assert not done["coin"].failures and len(done["coin"].records["recipe"]["trials"]) == 6
    assert {failure.message for failure in done["penny"].failures} == {"the coin is gone"}
    assert len(done["penny"].records["recipe"]["trials"]) == 4
    assert all(failure.unit.startswith("penny/") for failure in done["penny"].failures)


def test_what_is_finished_comes_at_once_and_takes_no_part(two: list[Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    coin, penny = two
    ((_, before),) = runner.run([coin], Console(quiet=True))
    first, outcome = next(runner.run([penny, coin], Console(quiet=True)))
    assert first.paper.slug == "coin" and outcome.records == before.records
    monkeypatch.setitem(runner.ENGINES, "local", lambda units: pytest.fail("there is nothing to run"))
    assert [plan.paper.slug for plan, _ in runner.run([coin], Console(quiet=True))] == ["coin"]


def test_what_takes_longest_begins_first_and_papers_stay_together(
    two: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = {"coin": 1.0, "penny": 5.0}
    monkeypatch.setattr(
        runner,
        "_known_costs",
        lambda plan: dict.fromkeys([("recipe", "fair"), ("recipe", "bent")], costs[plan.paper.slug]),
    )
    begun: list[str] = []
    monkeypatch.setitem(runner.ENGINES, "local", lambda units: iter([begun.append(unit.name) for unit in units][:0]))
    assert not list(runner.run([*two, two[0]], Console(quiet=True)))
    assert [name.split("/")[0] for name in begun] == ["penny"] * 3 + ["coin"] * 3
