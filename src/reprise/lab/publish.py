"""Move a finished run into results.json, and confirm a published one after the code changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from reprise.lab import modules, provenance, results, runner, store
from reprise.lab.paper import SCALES, Paper, PaperError, read
from reprise.lab.plan import make_plan
from reprise.lab.provenance import git

__all__ = ["RefusedError", "confirm", "publish"]


class RefusedError(RuntimeError):
    """Results that may not be published or confirmed; the message says why and what to do."""


def publish(paper: Paper, scale: str, experiments: tuple[str, ...] = ()) -> Path:
    """Write the finished trials of a scale into results.json, and the recipe's figure beside it.

    Experiments whose data is not on this machine keep what was published of them before.

    Raises:
        RefusedError: the tree is dirty; trials are missing, or were measured before their code, claims or settings
            were committed.
    """
    ours = (":/", ":(top,exclude)*results.json", ":(top,exclude)*figure.png")  # what publishing itself writes
    dirty = git(paper.folder, "status", "--porcelain", "--untracked-files=no", "--", *ours)
    if dirty is None:
        raise RefusedError(f"{paper.folder} is not in a git repository: publish from a clone of the project")
    if dirty:
        raise RefusedError(f"the tree has uncommitted changes ({dirty.split()[-1]}, ...): commit them, then publish")
    plan = make_plan(paper, scale, experiments=experiments)
    records = results.collect(plan)
    repeat = f"`reprise run {paper.slug} --scale {scale}` measures them"
    for part in plan.parts:
        record = records[part.experiment.name]
        there = {(trial["arm"], trial["seed"]) for trial in record["trials"]}
        missing = [job for job in part.jobs if (job.arm, job.identity["seed"]) not in there]
        if missing:
            first = f"{missing[0].arm} at seed {missing[0].identity['seed']}"
            raise RefusedError(f"{len(missing)} trials of {part.experiment.name} are missing, first {first}: {repeat}")
        for job in part.jobs:
            folder = store.trial_folder(paper.slug, job.identity)
            kept, name = store.read(folder), part.experiment.name
            if kept is None or not kept["committed"] or not _claimed(paper, name, scale, kept["commit"]):
                raise RefusedError(
                    f"{job.arm} at seed {job.identity['seed']} was measured before its code and claims were "
                    f"committed: remove {folder} and measure again"
                )
    everything = results.published(paper)
    for name, record in records.items():
        everything.setdefault(name, {})[scale] = results.slim(record)
    drawn = _drawn(paper)
    if drawn in records and scale == max(everything[drawn], key=SCALES.index):
        runner.draw(paper, drawn, records[drawn], paper.folder / "figure.png")
    return results.save(paper, everything)


def _drawn(paper: Paper) -> str:
    """The experiment whose figure is the paper's: that of the headline, or else the first that has one."""
    names = [paper.headline, *paper.experiments]
    return next((name for name in names if hasattr(paper.experiments[name].load(), "figure")), paper.headline)


@cache
def _claims_at(folder: Path, name: str, scale: str, commit: str) -> str | None:
    """The fingerprint of the claims about an experiment as they stood at a commit; None if there was no such thing."""
    text = git(folder, "show", f"{commit}:./paper.toml")
    with tempfile.TemporaryDirectory() as tmp:
        then = Path(tmp) / folder.name
        shutil.copytree(folder, then, ignore=shutil.ignore_patterns("*.json", "*.png"))
        (then / "paper.toml").write_text(text or "", encoding="utf-8")
        try:
            paper = read(then / "paper.toml")
        except PaperError:
            return None
    return provenance.claims(paper, name, scale) if name in paper.experiments else None


def _claimed(paper: Paper, name: str, scale: str, commit: str) -> bool:
    """Whether the claims about an experiment were the present ones at that commit."""
    return _claims_at(paper.folder, name, scale, commit) == provenance.claims(paper, name, scale)


def confirm(paper: Paper) -> dict[str, Any]:
    """Run seed 0 at smoke scale from the recorded commit and from the working tree, and compare to the last bit.

    If they agree, the published results are marked as confirmed for today's code, and what the smoke scale took is
    kept for estimates.

    Returns:
        "equal": whether they agree; "trials": how many were compared; "differs": the first metric that does not.

    Raises:
        RefusedError: nothing was published, or the recorded commit is not in this repository.
    """
    everything = results.published(paper)
    latest = {name: scales[max(scales, key=SCALES.index)] for name, scales in everything.items() if scales}
    if not latest:
        raise RefusedError(f"nothing of {paper.slug} has been published: `reprise publish {paper.slug}` comes first")
    commits = {record["commit"] for record in latest.values()}
    root = Path(git(paper.folder, "rev-parse", "--show-toplevel") or "/")
    trials = _smoke(paper, root, root)
    now = _metrics(trials)
    compared = 0
    for commit in sorted(commits):
        with tempfile.TemporaryDirectory() as tmp:
            tree = Path(tmp) / "tree"
            if git(paper.folder, "worktree", "add", "--detach", str(tree), commit) is None:
                raise RefusedError(f"commit {commit[:10]} is not in this repository: fetch the history first")
            try:
                before = _metrics(_smoke(paper, root, tree))
            finally:
                git(paper.folder, "worktree", "remove", "--force", str(tree))
        elsewhere = {name for name, record in latest.items() if record["commit"] != commit}
        for key, metrics in before.items():
            if key[0] in elsewhere:  # what is never published, as it only stands in for large experiments, counts too
                continue
            compared += 1
            for metric, value in metrics.items():
                if now.get(key, {}).get(metric) != value:
                    differs = f"{metric} of {key[1]} in {key[0]}: {value!r} then, {now.get(key, {}).get(metric)!r} now"
                    return {"equal": False, "trials": compared, "differs": differs}
    if not compared:
        raise RefusedError(f"{paper.slug} has nothing at smoke scale that could be compared; measure it again")
    for name, record in latest.items():
        today = modules.of(paper.experiments[name]) if name in paper.experiments else record["modules"]
        if today != record["modules"]:
            record["confirmed"] = today
    results.save(paper, everything, _costs(paper, trials))
    return {"equal": True, "trials": compared, "differs": None}


def _smoke(paper: Paper, root: Path, tree: Path) -> list[dict[str, Any]]:
    """The trials of seed 0 at smoke scale, in a home of its own, with ``tree`` in the place of the repository."""

    def moved(path: Path) -> str:
        return str(tree / path.relative_to(root) if path.is_relative_to(root) else path)

    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "PYTHONPATH": moved(modules.PACKAGE.parent), "REPRISE_HOME": home}
        if not paper.folder.is_relative_to(modules.PACKAGE):
            environment["REPRISE_PAPERS"] = moved(paper.folder.parent)
        command = [sys.executable, "-m", "reprise", "run", paper.slug, "--scale", "smoke", "--seeds", "1", "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise RefusedError(f"the smoke run from {tree} failed: {last}")
        trials: list[dict[str, Any]] = json.loads(done.stdout)["trials"]
    return trials


def _metrics(trials: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, float]]:
    return {(trial["experiment"], trial["arm"]): trial["metrics"] for trial in trials}


def _costs(paper: Paper, trials: list[dict[str, Any]]) -> dict[str, Any]:
    """What :func:`reprise.lab.results.smoke_costs` gives, of the trials of a smoke run."""
    prepare: dict[str, float] = {}
    arms: dict[str, dict[str, Any]] = {}
    parts = make_plan(paper, "smoke").parts
    digests = {(part.experiment.name, job.arm): store.digest(job.settings) for part in parts for job in part.jobs}
    for trial in trials:
        name, arm = trial["experiment"], trial["arm"]
        prepare[name] = trial["prepare_seconds"]
        arms.setdefault(name, {})[arm] = {"settings": digests[name, arm], "seconds": trial["seconds"]}
    return {"yardstick": provenance.machine()["yardstick"], "prepare": prepare, "arms": arms}
