"""The engines give the same numbers, wherever units run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from reprise.lab import engines, modules, paper as papers, results
from reprise.lab.plan import Plan, make_plan
from reprise.lab.provenance import cores
from reprise.lab.unit import Event, Failed, Finished


def numbers(plan: Plan) -> dict[tuple[str, int], Any]:
    trials = results.collect(plan)["recipe"]["trials"]
    return {(trial["arm"], trial["seed"]): (trial["metrics"], trial["curves"]) for trial in trials}


def coin(seeds: int, *overrides: str, arms: tuple[str, ...] = ()) -> Plan:
    return make_plan(papers.find("coin"), seeds=range(seeds), overrides=overrides, arms=arms)


def test_order_and_choice_of_arms_change_no_number(toys: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    list(engines.local(coin(2).units))
    both = numbers(coin(2))
    monkeypatch.setenv("REPRISE_HOME", str(tmp_path))
    plan = coin(2, arms=("bent",))
    list(engines.local(plan.units))
    assert numbers(plan) == {key: value for key, value in both.items() if key[0] == "bent"}
    assert numbers(plan)["bent", 0] != numbers(plan)["bent", 1]


def test_a_trial_costs_little_beyond_its_own_work(toys: Path) -> None:
    context = engines.warm_up()
    list(engines.local(coin(1, "throws=10").units))  # the server has loaded PyTorch by now
    overheads = []
    for throws in (20, 30, 40):  # trials that nobody has kept; what else the machine does meanwhile is not our cost
        start = time.perf_counter()
        with context.Pool(cores(), maxtasksperchild=1) as pool:  # nor what it takes the machine to start a process
            pool.map(abs, range(10), chunksize=1)
        bare = time.perf_counter() - start
        plan = coin(10, f"throws={throws}")
        start = time.perf_counter()
        events = list(engines.local(plan.units))
        seconds = sum(event.seconds for event in events if isinstance(event, Finished))
        overheads.append((time.perf_counter() - start - seconds / min(10, cores()) - bare) / 20)
        if overheads[-1] < 0.3:
            break
    assert min(overheads) < 0.3


def test_the_server_loads_what_trials_import_and_no_more(toys: Path, tmp_path: Path) -> None:
    assert engines._imports(papers.find("coin").experiments["recipe"].file) == [modules.LAB]
    stopping = engines._imports(papers.find("optimal-stopping").experiments["recipe"].file)
    assert {"torch._dynamo", "matplotlib.figure", "reprise.training.fit"} <= {*stopping}
    assert "sklearn.datasets" not in stopping
    assert "sklearn.datasets" in engines._imports(papers.find("cnn-svm").experiments["recipe"].file)
    damaged = tmp_path / "recipe.py"
    damaged.write_text("def measure(trial:\n")
    assert engines._imports(damaged) == []


def test_ray_gives_the_same_numbers_and_survives_the_loss_of_a_node(
    toys: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_DEDUP_LOGS", "0")
    overrides = ("pause=0.05",)
    list(engines.local(coin(6, *overrides).units))
    expected = numbers(coin(6, *overrides))

    monkeypatch.setenv("REPRISE_HOME", str(tmp_path / "ray"))
    environment = {name: os.environ[name] for name in ("REPRISE_HOME", "REPRISE_PAPERS")}
    settings: dict[str, Any] = {"include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **settings})
    doomed = cluster.add_node(num_cpus=1)
    try:
        ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": environment})
        plan = coin(6, *overrides)
        events: list[Event] = []
        for event in engines.ray(plan.units):
            events.append(event)
            if doomed is not None and sum(isinstance(event, Finished) for event in events) >= 2:
                cluster.remove_node(doomed, allow_graceful=False)
                doomed = None
        assert doomed is None
        assert not [event for event in events if isinstance(event, Failed)]
        assert numbers(plan) == expected
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_ray_starts_a_cluster_of_its_own_and_tells_failures(toys: Path) -> None:
    ray = pytest.importorskip("ray")
    plan = coin(3, "fault=raise")
    events = list(engines.ray(plan.units))
    failures = [event for event in events if isinstance(event, Failed)]
    assert {failure.message for failure in failures} == {"the coin is gone"}
    assert {key for key in numbers(plan)} == {(arm, seed) for arm in ("fair", "bent") for seed in (0, 2)}
    assert not ray.is_initialized()


def test_ray_without_a_cluster_at_the_address_is_one_sentence(toys: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConnectionError, match=r"there is no Ray cluster at 127\.0\.0\.1:1"):
        list(engines.ray(coin(1).units, address="127.0.0.1:1"))
