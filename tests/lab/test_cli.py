"""The commands as a user types them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOYS = Path(__file__).parent.parent / "toys"


def reprise(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reprise", *arguments],
        capture_output=True, text=True, env={**os.environ, "COLUMNS": "200", **environment}, check=False,
    )  # fmt: skip


pytestmark = pytest.mark.usefixtures("toys")


def test_a_run_from_end_to_end(home: Path) -> None:
    first = reprise("run", "Coin")
    assert first.returncode == 0, first.stderr
    assert "holds" in first.stdout and "ours, at laptop scale" in first.stdout
    report = Path(first.stdout.split("Report: ")[1].strip())
    assert report.read_text().count("<html") == 1

    again = reprise("run", "coin", "--json")
    assert again.returncode == 0
    assert "10 finished before" in again.stderr
    result = json.loads(again.stdout)
    assert len(result["trials"]) == 10 and result["claims"][0]["verdict"] == "holds"

    dry = reprise("run", "coin", "--dry-run", "--seeds", "6")
    assert "12 trials (10 finished before)" in dry.stdout and "All together" not in dry.stdout
    both = reprise("run", "coin", "coin/recipe", "--dry-run")
    assert "All together: about" in both.stdout
    assert reprise("report", "coin").returncode == 0


def test_all_papers_but_those_without_their_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRISE_DATA", raising=False)
    told = reprise("run", "--all", "--dry-run").stdout
    assert "without ibn-net: the data set 'cifar10' is not on this machine" in told
    assert "grad-cam at laptop scale" in told and "All together: about" in told


def test_part_of_the_arms_and_seeds() -> None:
    done = reprise("run", "coin/recipe", "--arm", "fair", "--seeds", "1000-1001", "--set", "throws=50", "--json")
    trials = json.loads(done.stdout)["trials"]
    assert [(trial["arm"], trial["seed"]) for trial in trials] == [("fair", 1000), ("fair", 1001)]
    assert all(trial["counts"] == {"throws": 50.0} for trial in trials)


def test_list_show_search_info() -> None:
    assert reprise("--version").stdout.startswith("reprise ")
    assert "coin" in reprise("list").stdout
    assert any(row["slug"] == "coin" for row in json.loads(reprise("list", "--json").stdout))
    assert "| [Fair and bent coins]" in reprise("list", "--markdown").stdout
    shown = reprise("show", "coin").stdout
    for text in ("A bent coin shows heads more often", "0.7 against 0.5", "The coins are simulated.", "@", "recipe: "):
        assert text in shown
    assert reprise("search", "bent", "coins").stdout.startswith("coin")
    for query in ("gradcam", "Grad-CAM", "grad cam"):
        assert reprise("search", query).stdout.startswith("grad-cam"), query
    assert reprise("search", "explain", "a", "decision").stdout.startswith("grad-cam")
    assert reprise("search", "xyzzy").returncode == 1
    assert json.loads(reprise("info", "--json").stdout)["torch"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["run", "coyn"], 2, "there is no paper 'coyn'; did you mean 'coin'?"),
        (["run", "coin/recipy"], 2, "coin has no experiment 'recipy'; did you mean 'recipe'?"),
        (["run", "coin", "--arm", "bnt"], 2, "coin has no arm 'bnt'; did you mean 'bent'?"),
        (["run", "coin", "--set", "bais=1"], 2, "recipe has no setting 'bais'; did you mean 'bias'?"),
        (["run", "coin", "--set", "bias"], 2, "a setting is given as key=value, not 'bias'"),
        (["run", "coin", "--set", "throws=many"], 2, "the setting throws of recipe is"),
        (["run", "coin", "--scale", "huge"], 2, "there is no scale 'huge'"),
        (["run", "coin", "--scale", "paper"], 2, "coin has no scale 'paper'"),
        (["run", "coin", "--engine", "slurm"], 2, "there is no engine 'slurm'"),
        (["run", "coin", "--seeds", "x"], 2, "seeds are a count"),
        (["run", "coin", "--device", "cuda"], 2, "PyTorch finds no cuda device"),
        (["run"], 2, "name the papers to run"),
        (["frobnicate"], 2, "No such command"),
        (["report", "coin"], 2, "has not been measured here"),
        (["confirm", "coin"], 1, "nothing of coin has been published"),
        (["data", "get", "mnsit"], 1, "unknown data set 'mnsit'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_is_one_sentence(arguments: list[str], status: int, message: str, home: Path) -> None:
    done = reprise(*arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(home.glob("runs/*/*/*/trial.json"))


def test_a_failing_trial_is_told_in_full_and_the_rest_goes_on() -> None:
    for fault, message in [("raise", "the coin is gone"), ("crash", "SIGSEGV"), ("nan", "returns the worst value")]:
        done = reprise("run", "coin", "--set", f"fault={fault}", "--json")
        assert done.returncode == 1
        result = json.loads(done.stdout)
        assert {trial["seed"] for trial in result["trials"]} == {0, 2, 3, 4}
        assert message in result["failures"][0]["message"]
        assert Path(result["failures"][0]["log"]).read_text()
        assert "seed 1 is missing" in result["claims"][0]["reason"]


def damaged_copy(tmp_path: Path, file: str, text: str) -> Path:
    shutil.copytree(TOYS / "coin", tmp_path / "papers" / "coin")
    (tmp_path / "papers" / "coin" / file).write_text(text)
    return tmp_path / "papers"


@pytest.mark.parametrize("file", ["paper.toml", "results.json"])
def test_a_damaged_paper_does_not_hide_the_others(file: str, tmp_path: Path) -> None:
    folder = damaged_copy(tmp_path, file, "{ not valid")
    done = reprise("list", REPRISE_PAPERS=str(folder))
    assert done.returncode == 1
    assert file in done.stderr and "Traceback" not in done.stderr
    assert "grad-cam" in done.stdout


def test_a_damaged_trial_is_set_aside_and_measured_again(home: Path) -> None:
    reprise("run", "coin", "--seeds", "2")
    path = next(home.glob("runs/coin/recipe/fair-0-*/trial.json"))
    whole = json.loads(path.read_text())
    path.write_text(path.read_text()[:100])
    done = reprise("run", "coin", "--seeds", "2", "--json")
    assert done.returncode == 0 and "3 finished before" in done.stderr
    assert json.loads(path.read_text())["metrics"] == whole["metrics"]
    assert len(list(home.glob("runs/coin/recipe/*.damaged-1/trial.json"))) == 1


def test_a_home_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    done = reprise("run", "coin", REPRISE_HOME=str(tmp_path / "home"))
    assert done.returncode == 1 and "Error: Not a directory" in done.stderr and "Traceback" not in done.stderr
