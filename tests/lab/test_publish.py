"""Publishing, going stale, and confirming, in a repository of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from reprise.lab import engines, paper as papers, results, runner
from reprise.lab.paper import Paper
from reprise.lab.plan import make_plan
from reprise.lab.publish import RefusedError, _drawn, confirm, publish

TOYS = Path(__file__).parent.parent / "toys"


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def coin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paper:
    """The toy paper, committed in a repository of its own."""
    shutil.copytree(TOYS, tmp_path / "repository" / "papers", ignore=shutil.ignore_patterns("__pycache__"))
    repository = tmp_path / "repository"
    (repository / ".gitignore").write_text("__pycache__/\n")
    git(repository, "init", "--quiet")
    git(repository, "add", "-A")
    git(repository, "commit", "--quiet", "-m", "Add a coin")
    monkeypatch.setenv("REPRISE_PAPERS", str(repository / "papers"))
    return papers.find("coin")


def run(paper: Paper, **options: object) -> None:
    failures = [event for event in engines.local(make_plan(paper, **options).units) if hasattr(event, "message")]  # type: ignore[arg-type]
    assert not failures


def edit(paper: Paper, old: str, new: str) -> Paper:
    for path in paper.folder.glob("*.*"):
        if path.suffix in (".py", ".toml"):
            path.write_text(path.read_text().replace(old, new))
    return papers.find("coin")


def test_a_whole_run_is_published_and_judged_from_the_file(coin: Paper) -> None:
    neighbour = coin.folder.parent / "neighbour" / "results.json"
    neighbour.parent.mkdir()
    neighbour.write_text("{}")
    git(coin.folder, "add", "-A", "..")
    git(coin.folder, "commit", "--quiet", "-m", "Publish another paper")
    run(coin)
    neighbour.write_text("{ }")  # what publishing another paper writes is no reason to refuse
    before = results.judge_all(coin, results.collect(make_plan(coin)))
    path = publish(coin, "laptop")
    assert (coin.folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    status = results.status(coin)
    assert status.judgements == before and status.mark == "" and status.scale == "laptop"
    record = json.loads(path.read_text())["experiments"]["recipe"]["laptop"]
    assert record["seeds"] == [0, 1, 2, 3, 4] and len(record["trials"]) == 10
    assert record["settings"]["bent"]["bias"] == 0.7 and record["commit"] and record["machine"]["processor"]
    assert "folder" not in record["trials"][0]


def test_what_may_not_be_published(coin: Paper) -> None:
    with pytest.raises(RefusedError, match="10 trials of recipe are missing"):
        publish(coin, "laptop")
    run(coin, seeds=range(1000, 1005))
    with pytest.raises(RefusedError, match="missing"):
        publish(coin, "laptop")
    changed = edit(coin, "throws = 500", "throws = 400")
    with pytest.raises(RefusedError, match="uncommitted changes"):
        publish(changed, "laptop")
    run(changed)  # measured before the settings were committed
    git(coin.folder, "commit", "--quiet", "-am", "Throw less")
    with pytest.raises(RefusedError, match="before its code and claims were committed"):
        publish(changed, "laptop")


def test_claims_made_after_the_measurement_are_not_published(coin: Paper) -> None:
    run(coin)
    later = edit(coin, "margin = 0.1", "margin = 0.2")
    git(coin.folder, "commit", "--quiet", "-am", "Widen the margin")
    with pytest.raises(RefusedError, match="before its code and claims were committed"):
        publish(later, "laptop")
    reworded = edit(edit(later, "margin = 0.2", "margin = 0.1"), "A fair coin is fair", "Fair coins are fair")
    git(coin.folder, "commit", "--quiet", "-am", "Say it better")
    publish(reworded, "laptop")


def test_stale_by_code_and_by_claims_but_not_by_words(coin: Paper) -> None:
    run(coin)
    publish(coin, "laptop")
    assert results.status(edit(coin, '"""Does a bent coin', '"""Does any bent coin')).stale == []
    assert results.status(edit(coin, "A fair coin is fair", "A fair coin is a fair coin")).stale == []
    assert results.status(edit(coin, "margin = 0.1", "margin = 0.2")).stale == ["paper.toml"]
    edit(coin, "margin = 0.2", "margin = 0.1")
    assert results.status(edit(coin, "range(1, 11)", "range(1, 12)")).stale == ["reprise.papers.coin.recipe"]


def test_confirm_needs_something_to_compare(coin: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    run(coin)
    publish(coin, "laptop")
    monkeypatch.setattr("reprise.lab.publish._smoke", lambda *_: [])
    with pytest.raises(RefusedError, match="nothing at smoke scale"):
        confirm(coin)


def test_confirm_tells_equal_bits_from_others(coin: Paper) -> None:
    run(coin)
    publish(coin, "laptop")
    git(coin.folder, "add", "-A")
    git(coin.folder, "commit", "--quiet", "-m", "Publish")
    edit(coin, "first, last = heads.chunk(2)", "first, last = heads.split(len(heads) // 2)")
    assert results.status(coin).mark == "stale"
    smoke = make_plan(coin, "smoke")
    assert runner.estimate(smoke) is None
    assert confirm(coin) == {"equal": True, "trials": 2, "differs": None}
    assert results.smoke_costs(coin)["arms"]["recipe"].keys() == {"fair", "bent"}
    estimate = runner.estimate(smoke)
    assert estimate is not None and estimate < 60
    assert runner.estimate(make_plan(coin, "smoke", overrides=["throws=7"])) is None
    assert results.status(coin).mark == "confirmed"
    edit(coin, "- 0.05", "- 0.04")
    assert results.status(coin).mark == "stale"
    answer = confirm(coin)
    assert not answer["equal"] and answer["differs"].startswith("heads of fair in recipe")
    assert results.status(coin).mark == "stale"


@pytest.mark.parametrize(("slug", "drawn"), [("ibn-net", "recipe"), ("carp", "recipe")])  # carp's headline is a count
def test_the_figure_is_of_the_headline_or_of_the_first_experiment_that_has_one(slug: str, drawn: str) -> None:
    assert _drawn(papers.find(slug)) == drawn
