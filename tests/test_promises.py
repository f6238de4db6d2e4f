"""What every paper promises, tested for all papers alike: a new paper brings these tests with it."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import pickle
import re
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reprise.lab import paper as papers
from reprise.lab.paper import Experiment, Paper
from reprise.lab.plan import make_plan
from reprise.lab.results import Results, judge_all, published, status
from reprise.lab.unit import Failed, Unit, run_unit

SLUGS = list(papers.slugs())
ROOT = Path(__file__).parent.parent
SMOKE_SECONDS = 6.0  # of one core, for all arms of a paper; twice that before the test fails, for slower machines


@cache
def paper_of(slug: str) -> Paper:
    return papers.find(slug)


@pytest.fixture(params=SLUGS)
def paper(request: pytest.FixtureRequest) -> Paper:
    return paper_of(request.param)


def test_there_are_papers() -> None:
    assert {"cnn-svm", "grad-cam", "ibn-net"} <= set(SLUGS)


def test_parts_can_be_imported(paper: Paper) -> None:
    for part in paper.parts:
        room, name = part.rsplit(".", 1)
        assert getattr(importlib.import_module(room), name).__doc__


def test_identities_name_tests_that_exist(paper: Paper) -> None:
    for identity in paper.identities:
        file, _, name = identity.test.partition("::")
        functions = [node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if hasattr(node, "name")]
        assert name in functions, f"{identity.test} does not exist"


def test_it_has_a_headline_with_a_smoke_scale(paper: Paper) -> None:
    assert paper.claims or paper.identities
    for claim in paper.claims:
        assert "laptop" in paper.experiments[claim.value.experiment].scales
    assert any("smoke" in experiment.scales for experiment in paper.experiments.values())


def test_settings_are_documented(paper: Paper) -> None:
    for experiment in paper.experiments.values():
        lines = experiment.file.read_text(encoding="utf-8").splitlines()
        start = lines.index("class Settings:")
        fields = [line for line in lines[start + 1 :] if line.startswith("    ") or not line]
        fields = fields[: next((i for i, line in enumerate(lines[start + 1 :]) if line and line[0] != " "), None)]
        for line in fields:
            if re.match(r"    \w+: ", line):
                assert "#" in line, f"{experiment.file.name}: {line.strip()} needs a comment that says what it is"


def test_measure_does_not_ask_for_the_name_of_the_arm(paper: Paper) -> None:
    for experiment in paper.experiments.values():
        for node in ast.walk(ast.parse(experiment.file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                assert "trial.arm" not in ast.unparse(node), ast.unparse(node)


def test_recipe_fits_on_two_screens(paper: Paper) -> None:
    for experiment in paper.experiments.values():
        assert len(experiment.file.read_text(encoding="utf-8").splitlines()) <= 150


def smoke(paper: Paper) -> tuple[list[Unit], dict[tuple[str, str, int], dict[str, float]], float]:
    """Run the smoke scale in this process, in the home that is set."""
    plan = make_plan(paper, "smoke", seeds=(0,), device="cpu")
    failures: list[Any] = []
    start = time.process_time()
    threads = torch.get_num_threads()
    for unit in plan.units:
        run_unit(unit, lambda event: failures.append(event) if isinstance(event, Failed) else None, Path("log"))
    seconds = time.process_time() - start
    torch.set_num_threads(threads)
    assert not failures, failures
    from reprise.lab.results import collect

    records = collect(plan)
    metrics = {(n, t["arm"], t["seed"]): t["metrics"] for n, record in records.items() for t in record["trials"]}
    for name, record in records.items():
        recipe = paper.experiments[name].load()
        if hasattr(recipe, "figure"):
            recipe.figure(Results(paper.experiments[name], record)).savefig(Path(tempfile.mkdtemp()) / "figure.png")
    assert len(judge_all(paper, records)) == len(paper.claims)
    return list(plan.units), metrics, seconds


def test_smoke_twice_gives_the_same_bits(
    paper: Paper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPRISE_DATA", raising=False)  # smoke needs no data set but what the dependencies bring
    monkeypatch.setenv("REPRISE_HOME", str(tmp_path / "first"))
    _, first, seconds = smoke(paper)
    monkeypatch.setenv("REPRISE_HOME", str(tmp_path / "second"))
    _, second, _ = smoke(paper)
    assert first and first == second
    record_property("smoke_seconds", seconds)
    assert seconds < 2 * SMOKE_SECONDS, f"the smoke run took {seconds:.1f} s of one core"


def fingerprint(value: Any) -> Any:
    """The content of whatever recipes share: equal before and after if nothing was changed."""
    if isinstance(value, torch.nn.Module):
        flags = [module.training for module in value.modules()]
        return fingerprint(dict(value.state_dict())), flags, [p.requires_grad for p in value.parameters()]
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, hash(value.tobytes())
    if dataclasses.is_dataclass(value):
        return [fingerprint(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, dict):
        return {key: fingerprint(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [fingerprint(item) for item in value]
    return pickle.dumps(value)


def test_measure_leaves_what_is_shared_unchanged(paper: Paper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_HOME", str(tmp_path))
    units = {unit.experiment.name: unit for unit in reversed(make_plan(paper, "smoke", seeds=(0,)).units)}
    for unit in units.values():
        recipe = unit.experiment.load()
        if not hasattr(recipe, "prepare"):
            continue
        seen: list[Any] = []

        def remembering(trial: Any, prepare: Any = recipe.prepare, seen: list[Any] = seen) -> Any:
            seen.append(prepare(trial))
            seen.append(fingerprint(seen[0]))
            return seen[0]

        monkeypatch.setattr(recipe, "prepare", remembering)
        run_unit(unit, lambda event: None, tmp_path / "log")
        assert fingerprint(seen[0]) == seen[1], f"a measure of {unit.experiment.name} changed trial.shared"


def test_published_results_can_be_judged(paper: Paper) -> None:
    for name, scales in published(paper).items():
        experiment: Experiment = paper.experiments[name]
        for scale, record in scales.items():
            assert record["seeds"] == list(range(experiment.scales[scale].seeds))
            arms = {(trial["arm"], trial["seed"]) for trial in record["trials"]}
            assert arms == {(arm, seed) for arm in experiment.arms for seed in record["seeds"]}
    assert len(status(paper).judgements) == len(paper.claims)
