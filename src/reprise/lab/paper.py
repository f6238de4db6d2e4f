"""Reading ``paper.toml``: what a paper claims, the arms that are compared, and the settings of each scale."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = [
    "SCALES", "Arm", "Claim", "Experiment", "Identity", "Metric", "Paper", "PaperError", "Reference", "Scale",
    "all_papers", "find", "folders", "nearest", "read",
]  # fmt: skip

INHERITED = ("module", "arms", "metrics", "defaults", "alone", "threads")  # by an experiment that is like another
SCALES = ("smoke", "laptop", "paper")


class PaperError(ValueError):
    """A paper.toml, or a name given by the user, that does not fit; the message says where and how to mend it."""


@dataclass(frozen=True)
class Arm:
    """One thing that is compared."""

    name: str
    what: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A number that an arm yields. ``resolution`` is the smallest difference that the evaluation can show."""

    name: str
    label: str
    unit: str = ""
    resolution: float = 0.0


@dataclass(frozen=True)
class Reference:
    """``[experiment/]arm.metric[cell]``; the cell "*" stands for every cell."""

    experiment: str
    arm: str
    metric: str
    cell: str | None = None

    def __str__(self) -> str:
        prefix = "" if self.experiment == "recipe" else f"{self.experiment}/"
        return f"{prefix}{self.arm}.{self.metric}" + (f"[{self.cell}]" if self.cell is not None else "")


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper made measurable."""

    text: str
    value: Reference
    against: Reference | float
    expect: str = "higher"
    compare: str = "difference"
    margin: float = 0.0
    margin_from: str = ""
    paper: str = ""
    source: str = ""

    @property
    def experiments(self) -> set[str]:
        """The experiments that it is about."""
        return {side.experiment for side in (self.value, self.against) if isinstance(side, Reference)}


@dataclass(frozen=True)
class Identity:
    """A sentence that a test proves."""

    text: str
    test: str


@dataclass(frozen=True)
class Scale:
    """How many seeds, and the settings that make an experiment small or large."""

    seeds: int
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """One module of a paper with its own settings, arms and metrics."""

    name: str
    module: str
    file: Path
    arms: Mapping[str, Arm]
    metrics: Mapping[str, Metric]
    scales: Mapping[str, Scale]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    alone: bool = False
    threads: int = 1

    def load(self) -> ModuleType:
        """Import the recipe."""
        name = f"reprise.papers.{self.file.parent.name}.{self.module}"
        loaded = sys.modules.get(name)
        if loaded is not None and loaded.__file__ == str(self.file):
            return loaded
        spec = importlib.util.spec_from_file_location(name, self.file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module


@dataclass(frozen=True)
class Paper:
    """One publication."""

    slug: str
    folder: Path
    title: str
    authors: str
    venue: str
    year: int
    arxiv: str
    summary: str
    parts: tuple[str, ...]
    claims: tuple[Claim, ...]
    identities: tuple[Identity, ...]
    experiments: Mapping[str, Experiment]
    differences: tuple[str, ...] = ()
    remark: str = ""
    published_settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def room(self) -> str:
        """The room that the paper's first part lives in."""
        return self.parts[0].split(".")[1]

    @property
    def headline(self) -> str:
        """The experiment of the first claim."""
        return self.claims[0].value.experiment if self.claims else next(iter(self.experiments), "recipe")


# Reading -------------------------------------------------------------------------------------------------------------


def folders() -> list[Path]:
    """The folders that hold papers: the library's own, then those named by ``$REPRISE_PAPERS``."""
    extra = os.environ.get("REPRISE_PAPERS", "")
    return [Path(__file__).parent.parent / "papers", *(Path(path) for path in extra.split(os.pathsep) if path)]


def slugs() -> dict[str, Path]:
    """Every paper's slug and folder, in alphabetical order."""
    found = {
        path.parent.name.replace("_", "-"): path.parent for root in folders() for path in root.glob("*/paper.toml")
    }
    return dict(sorted(found.items()))


def all_papers() -> tuple[list[Paper], list[PaperError]]:
    """Every paper that can be read, and what is wrong with the others."""
    papers, errors = [], []
    for slug in slugs():
        try:
            papers.append(find(slug))
        except PaperError as error:
            errors.append(error)
    return papers, errors


def find(name: str) -> Paper:
    """The paper of that slug; spelling does not matter ("gradcam", "Grad-CAM" and "grad-cam" are one).

    Raises:
        PaperError: there is none, with the nearest slug; or its paper.toml is damaged.
    """
    known = slugs()
    for slug, folder in known.items():
        if plain(slug) == plain(name):
            return read(folder / "paper.toml")
    raise PaperError(f"there is no paper {name!r}{nearest(name, known)}")


def plain(text: str) -> str:
    """Letters and digits only, in lower case."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?", or the known names where nothing is near."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f" (known: {', '.join(known)})" if known else ""


def read(path: Path) -> Paper:
    """Read and check a paper.toml.

    Raises:
        PaperError: names the file, the key, what is wrong and the nearest valid key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PaperError(f"{path} is not valid TOML: {error}") from error
    table = _Table(path, "", content)
    tables = table.take("experiments", dict, {})
    experiments = {name: _experiment(path, name, _inherit(path, name, tables)) for name in tables}
    paper = Paper(
        slug=path.parent.name.replace("_", "-"),
        folder=path.parent,
        title=table.take("title", str),
        authors=table.take("authors", str),
        venue=table.take("venue", str),
        year=table.take("year", int),
        arxiv=table.take("arxiv", str),
        summary=" ".join(table.take("summary", str).split()),
        parts=table.strings("parts"),
        differences=table.strings("differences", ()),
        remark=table.take("remark", str, ""),
        published_settings=table.take("published_settings", dict, {}),
        experiments=experiments,
        claims=tuple(_claim(entry, experiments) for entry in table.tables("claims")),
        identities=tuple(_identity(entry) for entry in table.tables("identities")),
    )
    table.done()
    if not paper.claims and not paper.identities:
        raise PaperError(f"{path}: a paper needs at least one claim or identity")
    if not paper.parts or not all(re.fullmatch(r"reprise(\.\w+){2,}", part) for part in paper.parts):
        raise PaperError(f'{path}: parts are dotted names such as "reprise.nn.IBN", at least one')
    return paper


def _inherit(path: Path, name: str, tables: Mapping[str, Any]) -> Any:
    """The table of an experiment; with ``like = "other"`` it has the other's arms, metrics and module too.

    ``arms = ["one", "two"]`` keeps only those of the other's arms.
    """
    content = tables[name]
    if not isinstance(content, dict) or "like" not in content:
        return content
    other = content["like"]
    if other not in tables or other == name or not isinstance(tables[other], dict):
        known = nearest(str(other), [key for key in tables if key != name])
        raise PaperError(f"{path}: experiments.{name}.like: there is no other experiment {other!r}{known}")
    merged = {"module": other, **{key: tables[other][key] for key in INHERITED if key in tables[other]}}
    for key, value in content.items():
        if key == "arms" and isinstance(value, list):
            unknown = [arm for arm in value if arm not in merged["arms"]]
            if unknown:
                known = nearest(str(unknown[0]), merged["arms"])
                raise PaperError(f"{path}: experiments.{name}.arms: {other} has no arm {unknown[0]!r}{known}")
            merged["arms"] = {arm: merged["arms"][arm] for arm in value}
            continue
        both = isinstance(value, dict) and key in merged and key in ("arms", "metrics", "defaults")
        merged[key] = {**merged[key], **value} if both else value
    del merged["like"]
    return merged


def _experiment(path: Path, name: str, content: Any) -> Experiment:
    table = _Table(path, f"experiments.{name}", content)
    module = table.take("module", str, name)
    arms = {}
    for arm, entry in table.take("arms", dict).items():
        inner = _Table(path, f"experiments.{name}.arms.{arm}", entry)
        arms[arm] = Arm(arm, inner.take("what", str, ""), inner.take("settings", dict, {}))
        inner.done()
    metrics = {}
    for metric, entry in table.take("metrics", dict).items():
        inner = _Table(path, f"experiments.{name}.metrics.{metric}", entry)
        label, unit = inner.take("label", str), inner.take("unit", str, "")
        metrics[metric] = Metric(metric, label, unit, inner.take("resolution", float, 0.0))
        inner.done()
    scales = {}
    for scale in SCALES:
        if (settings := table.take(scale, dict, None)) is not None:
            seeds = _Table(path, f"experiments.{name}.{scale}", settings).take("seeds", int)
            if seeds < 1:
                raise PaperError(f"{path}: experiments.{name}.{scale}.seeds must be at least 1, not {seeds}")
            scales[scale] = Scale(seeds, {key: value for key, value in settings.items() if key != "seeds"})
    experiment = Experiment(
        name, module, path.parent / f"{module}.py", arms, metrics, scales,
        defaults=table.take("defaults", dict, {}), data=table.strings("data", ()),
        alone=table.take("alone", bool, False), threads=table.take("threads", int, 1),
    )  # fmt: skip
    table.done()
    if not experiment.file.is_file():
        raise PaperError(f"{path}: experiments.{name} needs the file {experiment.file.name} beside it")
    if experiment.threads < 1:
        raise PaperError(f"{path}: experiments.{name}.threads must be at least 1, not {experiment.threads}")
    if not arms or not metrics or not scales:
        raise PaperError(f"{path}: experiments.{name} needs arms, metrics and at least one of {', '.join(SCALES)}")
    return experiment


def _claim(table: _Table, experiments: Mapping[str, Experiment]) -> Claim:
    value = _reference(table, "value", table.take("value", str), experiments)
    against = table.take("against", (str, int, float))
    compare = table.choice("compare", ("difference", "ratio"))
    default = 1.0 if compare == "ratio" else 0.0
    margin = table.take("margin", float, default)
    claim = Claim(
        text=table.take("text", str),
        value=value,
        against=_reference(table, "against", against, experiments) if isinstance(against, str) else float(against),
        expect=table.choice("expect", ("higher", "lower", "equal")),
        compare=compare,
        margin=margin,
        margin_from=table.take("margin_from", str, ""),
        paper=table.take("paper", str, ""),
        source=table.take("source", str, ""),
    )
    table.done()
    if margin != default and not claim.margin_from:
        raise PaperError(f"{table.where}: a margin of {margin:g} needs margin_from, the reason for it")
    if isinstance(claim.against, Reference) and claim.against.cell == "*" and value.cell != "*":
        raise PaperError(f"{table.where}: against is about every cell ([*]), value is not")
    if compare == "ratio" and margin <= 0:
        raise PaperError(f"{table.where}: the margin of a ratio is a factor above 0, not {margin:g}")
    return claim


def _identity(table: _Table) -> Identity:
    identity = Identity(table.take("text", str), table.take("test", str))
    table.done()
    return identity


REFERENCE = re.compile(r"(?:(?P<experiment>[\w-]+)/)?(?P<arm>[\w-]+)\.(?P<metric>\w+)(?:\[(?P<cell>[^\]]+)\])?")


def _reference(table: _Table, key: str, text: str, experiments: Mapping[str, Experiment]) -> Reference:
    match = REFERENCE.fullmatch(text)
    where = f"{table.where}.{key} = {text!r}"
    if match is None:
        raise PaperError(f"{where}: a reference reads [experiment/]arm.metric or arm.metric[cell]")
    reference = Reference(match["experiment"] or "recipe", match["arm"], match["metric"], match["cell"])
    known: Iterable[str] = experiments
    for kind in ("experiment", "arm", "metric"):
        name = getattr(reference, kind)
        if name not in known:
            raise PaperError(f"{where}: there is no {kind} {name!r}{nearest(name, known)}")
        experiment = experiments[reference.experiment]
        known = experiment.arms if kind == "experiment" else experiment.metrics
    return reference


class _Table:
    """A TOML table whose keys are taken one by one; what was not asked for is an error in the end."""

    def __init__(self, file: Path, path: str, content: Any) -> None:
        self.file, self.path, self.known = file, path, set[str]()
        self.where = f"{file}: {path}" if path else str(file)
        if not isinstance(content, dict):
            raise PaperError(f"{self.where} must be a table")
        self.content = content

    def take(self, key: str, kind: Any, default: Any = ...) -> Any:
        """The value of a key, checked; without a default the key must be there."""
        self.known.add(key)
        if key not in self.content:
            if default is ...:
                typo = difflib.get_close_matches(key, set(self.content) - self.known, n=1)
                found = f"; is {typo[0]!r} meant for it?" if typo else ""
                raise PaperError(f"{self.where}: the key {key!r} is missing{found}")
            return default
        value = self.content[key]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if float in kinds and type(value) is int:
            value = float(value)
        if type(value) not in kinds:
            names = " or ".join(NAMES[kind] for kind in kinds)
            raise PaperError(f"{self.where}: {key} must be {names}, not {value!r}")
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """One of several words; the first is the default."""
        value: str = self.take(key, str, choices[0])
        if value not in choices:
            raise PaperError(f"{self.where}: {key} must be one of {', '.join(choices)}, not {value!r}")
        return value

    def strings(self, key: str, default: Any = ...) -> tuple[str, ...]:
        """A list of strings."""
        values = self.take(key, list, default)
        if not all(isinstance(value, str) for value in values):
            raise PaperError(f"{self.where}: {key} must be a list of strings")
        return tuple(values)

    def tables(self, key: str) -> list[_Table]:
        """A list of tables, each with its number in the path."""
        return [_Table(self.file, f"{key}[{i}]", entry) for i, entry in enumerate(self.take(key, list, []))]

    def done(self) -> None:
        """Refuse the keys that nobody asked for."""
        prefix = f"{self.path}." if self.path else ""
        for key in self.content:
            if key not in self.known:
                raise PaperError(f"{self.file}: unknown key {prefix}{key}{nearest(key, sorted(self.known))}")


NAMES = {
    str: "a string", int: "a whole number", float: "a number", bool: "true or false", dict: "a table", list: "a list",
}  # fmt: skip
