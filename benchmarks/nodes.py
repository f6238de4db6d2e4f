"""The smoke set on two Ray nodes of one core each against one such node: what spreading a run is worth."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator

from rich.console import Console

from benchmarks import table
from benchmarks.table import Row, absent
from reprise.lab import engines, paper as papers, provenance, runner
from reprise.lab.plan import make_plan

WORK = "every paper at smoke scale"
ROUNDS = 3  # of a good minute


def rows() -> Iterator[Row]:
    """Runs each way in alternation, into empty stores, with the nodes started before the clock."""
    if provenance.cores() < 2:
        yield from absent(WORK, "one Ray node of one core", "two nodes need two cores")
        return
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        yield from absent(WORK, "one Ray node of one core", "Ray is not installed")
        return
    rounds = [(seconds(1), seconds(2)) for _ in range(1 if table.ONCE else ROUNDS)]
    one, two = (sorted(times) for times in zip(*rounds, strict=True))
    ours, theirs = statistics.median(two), statistics.median(one)
    spread = (two[0], two[-1], one[0], one[-1])
    yield Row(WORK, "one Ray node of one core", "two nodes of one core", "best", ours, theirs, spread, theirs / ours)


def seconds(nodes: int) -> float:
    """How long the smoke set takes on so many nodes."""
    import ray
    from ray.cluster_utils import Cluster

    before = os.environ.get("REPRISE_HOME")
    with tempfile.TemporaryDirectory() as home:
        os.environ["REPRISE_HOME"] = home
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            for _ in range(nodes - 1):
                cluster.add_node(num_cpus=1)
            one_thread = dict.fromkeys(engines.ONE_THREAD, "1")
            variables = {"env_vars": engines.environment() | one_thread}
            ray.init(address=cluster.address, log_to_driver=False, runtime_env=variables)
            plans = [make_plan(papers.find(slug), "smoke") for slug in papers.slugs()]
            start = time.perf_counter()
            for plan, outcome in runner.run(plans, Console(quiet=True), "ray"):
                if outcome.failures:
                    raise RuntimeError(f"{plan.paper.slug}: {outcome.failures[0].message}")
            return time.perf_counter() - start
        finally:
            ray.shutdown()
            cluster.shutdown()
            os.environ.pop("REPRISE_HOME")
            if before is not None:
                os.environ["REPRISE_HOME"] = before
