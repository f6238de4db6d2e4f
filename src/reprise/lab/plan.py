"""From a paper and the user's wishes to the units of work: settings resolved, identities known, data looked up."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from reprise.lab import modules, provenance
from reprise.lab.paper import Experiment, Paper, PaperError, nearest
from reprise.lab.unit import Job, Unit

__all__ = ["Part", "Plan", "make_plan", "parse_seeds"]


@dataclass(frozen=True)
class Part:
    """What a plan asks of one experiment."""

    experiment: Experiment
    seeds: tuple[int, ...]
    jobs: tuple[Job, ...]
    facts: Mapping[str, Any]  # modules, data, versions, device: what all its trials share


@dataclass(frozen=True)
class Plan:
    """The trials of one command."""

    paper: Paper
    scale: str
    parts: tuple[Part, ...]
    units: tuple[Unit, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)  # experiment: why it cannot run here


def make_plan(
    paper: Paper,
    scale: str = "laptop",
    *,
    experiments: Sequence[str] = (),
    arms: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
) -> Plan:
    """Resolve what is to run.

    Args:
        paper: the paper.
        scale: "smoke", "laptop" or "paper".
        experiments: only these; by default all whose data is here.
        arms: only these; by default all.
        seeds: only these; by default 0 to n-1 as the scale says.
        overrides: "key=value" settings, stronger than all others.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        PaperError: an unknown name, with the nearest known one; a setting of the wrong type; no experiment at that
            scale.
        reprise.data.DataMissing: an experiment asked for by name lacks its data, or all do.
    """
    from reprise.data import DataMissing

    for name in experiments:
        if name not in paper.experiments:
            raise PaperError(f"{paper.slug} has no experiment {name!r}{nearest(name, paper.experiments)}")
    known_arms = list(dict.fromkeys(arm for experiment in paper.experiments.values() for arm in experiment.arms))
    for name in arms:
        if name not in known_arms:
            raise PaperError(f"{paper.slug} has no arm {name!r}{nearest(name, known_arms)}")
    chosen = [paper.experiments[name] for name in experiments or paper.experiments]
    possible = [experiment for experiment in chosen if scale in experiment.scales]
    if not possible:
        scales = dict.fromkeys(scale for experiment in chosen for scale in experiment.scales)
        raise PaperError(f"{paper.slug} has no scale {scale!r}{nearest(scale, scales)}")
    device = _device(device)
    parts, units, skipped = [], [], {}
    missing = None
    for experiment in possible:
        try:
            part, own = _plan_experiment(paper, experiment, scale, arms, seeds, overrides, device)
        except DataMissing as error:
            missing, skipped[experiment.name] = error, str(error)
            continue
        parts.append(part)
        units.extend(own)
    if missing is not None and (experiments or not parts):
        raise missing
    return Plan(paper, scale, tuple(parts), tuple(units), skipped)


def _plan_experiment(
    paper: Paper,
    experiment: Experiment,
    scale: str,
    arms: Sequence[str],
    seeds: Sequence[int] | None,
    overrides: Sequence[str],
    device: str,
) -> tuple[Part, list[Unit]]:
    recipe = experiment.load()
    settings_class = recipe.Settings
    level = experiment.scales[scale]
    given = _parse(overrides, settings_class, experiment)
    wanted = tuple(seeds) if seeds is not None else tuple(range(level.seeds))

    def resolve(arm: Mapping[str, Any]) -> dict[str, Any]:
        merged = {**experiment.defaults, **level.settings, **arm, **given}
        return _settings(merged, settings_class, experiment)

    base = resolve({})
    facts: dict[str, Any] = {
        "modules": modules.of(experiment),
        "data": provenance.data(experiment, base),
        "versions": provenance.versions(experiment),
        "device": device,
    }
    origin = provenance.origin(paper, facts["modules"])
    shares = hasattr(recipe, "prepare") or experiment.alone
    names = [arm for arm in experiment.arms if not arms or arm in arms]
    jobs, units = [], []
    for seed in wanted:
        of_seed = []
        for name in names:
            settings = resolve(experiment.arms[name].settings)
            identity = {"experiment": experiment.name, "arm": name, "seed": seed, "settings": settings, **facts}
            of_seed.append(Job(name, settings, identity))
        jobs.extend(of_seed)
        for group in [of_seed] if shares else [[job] for job in of_seed]:
            label = f"{experiment.name}-{seed}" + ("" if shares else f"-{group[0].arm}")
            units.append(Unit(label, paper, experiment, seed, base, tuple(group), device, origin))
    return Part(experiment, wanted, tuple(jobs), facts), [unit for unit in units if unit.jobs]


# Settings ------------------------------------------------------------------------------------------------------------


def _settings(merged: Mapping[str, Any], settings_class: type, experiment: Experiment) -> dict[str, Any]:
    """All settings with their defaults, checked against the types of the recipe's ``Settings``."""
    hints = get_type_hints(settings_class)
    for key, value in merged.items():
        if key not in hints:
            raise PaperError(f"{experiment.name} has no setting {key!r}{nearest(key, hints)}")
        if not _fits(value, hints[key]):
            raise PaperError(f"the setting {key} of {experiment.name} is {hints[key]}, not {value!r}")
    converted = {key: float(value) if hints[key] is float else value for key, value in merged.items()}
    settings = settings_class(**{key: tuple(v) if isinstance(v, list) else v for key, v in converted.items()})
    return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(settings).items()}


def _fits(value: Any, hint: Any) -> bool:
    if hint in (int, float, str, bool):
        return type(value) is hint or (hint is float and type(value) is int)
    return True  # lists and unions: the recipe's own business


def _parse(overrides: Iterable[str], settings_class: type, experiment: Experiment) -> dict[str, Any]:
    """ "key=value" strings as typed settings."""
    hints = get_type_hints(settings_class)
    parsed: dict[str, Any] = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise PaperError(f"a setting is given as key=value, not {override!r}")
        if hints.get(key) is str:
            parsed[key] = text
            continue
        try:
            parsed[key] = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            parsed[key] = text
    return parsed


def parse_seeds(text: str) -> tuple[int, ...]:
    """ "5" is the first five seeds, "0,3,7" and "1000-1004" are those seeds.

    Example:
        >>> parse_seeds("3"), parse_seeds("7,9"), parse_seeds("1000-1002")
        ((0, 1, 2), (7, 9), (1000, 1001, 1002))
    """
    try:
        if "-" in text:
            first, last = (int(part) for part in text.split("-"))
            seeds = tuple(range(first, last + 1))
        elif "," in text:
            seeds = tuple(int(part) for part in text.split(",") if part)
        else:
            seeds = tuple(range(int(text)))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise PaperError(f"seeds are a count (5), a list (0,3,7) or a range (1000-1004), not {text!r}")
    return seeds


def _device(name: str) -> str:
    """The device to run on; "auto" takes the fastest that is there."""
    there = provenance.devices()
    if name == "auto":
        return there[0]
    if name not in ("cpu", "cuda", "mps"):
        raise PaperError(f"there is no device {name!r}{nearest(name, ['auto', 'cpu', 'cuda', 'mps'])}")
    if name not in there:
        raise PaperError(f"PyTorch finds no {name} device on this machine; leave --device out to take what is there")
    return name
