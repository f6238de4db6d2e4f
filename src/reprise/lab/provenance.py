"""Where a number comes from: code, data, versions, machine, and the claims as they stood."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from reprise.lab import modules, store
from reprise.lab.paper import Experiment, Paper

__all__ = ["claims", "cores", "data", "devices", "git", "machine", "origin", "packages", "versions"]


def origin(paper: Paper, recorded: Iterable[str]) -> dict[str, Any]:
    """What is kept beside the numbers of a trial without being part of its identity."""
    return {"machine": machine(), **_commit(paper, recorded)}


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def claims(paper: Paper, name: str, scale: str) -> str:
    """A fingerprint of what is claimed of an experiment, and of the metrics, arms and scale it is judged by."""
    words = ("text", "paper", "source", "margin_from")  # not numbers: they may be put better at any time
    about = [dataclasses.asdict(claim) for claim in paper.claims if name in claim.experiments]
    experiment = paper.experiments[name]
    size = experiment.scales.get(scale)
    return store.digest(
        [
            [{key: value for key, value in claim.items() if key not in words} for claim in about],
            {metric: entry.resolution for metric, entry in experiment.metrics.items()},
            size and [size.seeds, dict(size.settings)],
            {arm: dict(entry.settings) for arm, entry in experiment.arms.items()},
            dict(experiment.defaults),
        ]
    )


def data(experiment: Experiment, settings: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Fingerprints of the data sets that the settings name, or else of all that the experiment names.

    An experiment that names none makes what it needs.
    """
    from reprise.data import store as data_store

    if not experiment.data:
        return {}
    names = [settings["data"]] if isinstance(settings.get("data"), str) else experiment.data
    return {
        name: {path.stem: data_store.digest(path) for path in data_store.files(name)}
        for name in names
        if name != "digits"  # comes with scikit-learn, whose version is recorded
    }


def versions(experiment: Experiment) -> dict[str, str]:
    """Versions of Python and of all packages that the recipe and its modules import."""
    distributions = _distributions()
    imported = {"torch", "numpy", *modules.third_party(experiment.file)}
    return packages("python", *sorted({distributions[name][0] for name in imported if name in distributions}))


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Installed packages by what they are imported as; they are asked for once, for that takes a fifth of a second."""
    from importlib import metadata  # slow to import, and not needed to list papers

    return metadata.packages_distributions()


def packages(*names: str) -> dict[str, str]:
    """Versions of Python and of installed packages by their distribution names; absent ones are left out."""
    from importlib import metadata

    found = {}
    for name in names:
        try:
            found[name] = platform.python_version() if name == "python" else metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def devices() -> list[str]:
    """The devices that PyTorch finds here, the fastest first."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, found in there.items() if found]


@cache
def machine() -> dict[str, Any]:
    """What this machine is, and how fast: seconds for a fixed piece of work on one core."""
    return {"system": platform.system(), "processor": _processor(), "cores": cores(), "yardstick": _yardstick()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _yardstick() -> float:
    """Seconds for a small convolutional forward and backward pass on one core: what estimates of time are scaled by."""
    import torch
    from torch.nn import functional as F

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 32, 28, 28, generator=generator)
    weight = torch.randn(32, 32, 3, 3, generator=generator, requires_grad=True)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        F.conv2d(x, weight).square().mean().backward()
        seconds.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return round(min(seconds), 6)


def _commit(paper: Paper, recorded: Iterable[str]) -> dict[str, Any]:
    """The commit of the paper's repository, and whether the recipe, its modules and paper.toml are as committed."""
    root = git(paper.folder, "rev-parse", "--show-toplevel")
    if root is None:
        return {"commit": None, "committed": False}
    files = [modules.source_of(name) for name in recorded if ".papers." not in name]
    files += [paper.folder / "paper.toml", *paper.folder.glob("*.py")]
    inside = [str(path) for path in files if path.is_relative_to(root)]  # a paper of one's own may use our parts
    changed = git(paper.folder, "status", "--porcelain", "--", *inside)
    return {"commit": git(paper.folder, "rev-parse", "HEAD"), "committed": changed == ""}


def git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
