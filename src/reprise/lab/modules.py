"""What of our code a recipe's numbers stand on, and a fingerprint of it, without importing any of it.

Names are followed through the source: from the recipe's ``Settings``, ``prepare`` and ``measure`` to the functions,
classes and constants that they use, in whatever file those are, and through the rooms' tables of names. So a
measurement goes stale by what it used; not by the neighbours of that in its file, and not by how a figure is drawn.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from reprise.files import home, written_whole
from reprise.lab.paper import Experiment

__all__ = ["LAB", "closure", "of", "parsed", "resolve", "save_memory", "source_of", "table", "third_party"]

PACKAGE = Path(__file__).parent.parent
LAB = "reprise.lab.seeding"  # what the lab itself does to the numbers of a trial
ROOTS = ("Settings", "prepare", "measure")  # of a recipe; its figure makes no numbers
BODY = "<body>"  # stands for what a module does on import besides defining names

_PARSING = threading.Lock()

Scan = dict[str, list[Any]]  # name of a definition: fingerprint of its code, full names of what it uses


def of(experiment: Experiment) -> dict[str, str]:
    """The fingerprints of all that an experiment's numbers depend on; timings depend on how we time."""
    return closure(experiment.file, *(["reprise.lab.timing"] if experiment.alone else []))


def closure(recipe: Path, *also: str) -> dict[str, str]:
    """The fingerprints of what a recipe reaches: of each module, of the definitions in it that are used.

    Args:
        recipe: the recipe's file.
        also: modules of the lab to add.
    """
    _load_memory()
    key = " ".join([str(recipe), *also])
    stamps, found = _memory["closures"].get(key, ({}, {}))
    if not stamps or any(_stamp(Path(file)) != stamp for file, stamp in stamps.items()):
        scans: dict[Path, Scan] = {}
        found = {}
        for module, definitions in _reached(recipe, also, scans).items():
            codes = sorted((name, code) for name, (code, _) in definitions.items() if code)
            if codes:
                found[module] = _digest(codes)
        stamps = {str(file): _stamp(file) for file in [*scans, *PACKAGE.glob("*/__init__.pyi")]}
        _memory["closures"][key] = [stamps, found]
        _memory["changed"] = {"": True}
    return dict(sorted(found.items()))


def third_party(recipe: Path) -> list[str]:
    """Top-level packages of others that the recipe and what it reaches use, sorted."""
    scans = _reached(recipe).values()
    used = {name.split(".")[0] for definitions in scans for _, uses in definitions.values() for name in uses}
    return sorted(used - {"reprise", f"{BODY}reprise"} - sys.stdlib_module_names)


def _reached(recipe: Path, also: Iterable[str] = (), scans: dict[Path, Scan] | None = None) -> dict[str, Scan]:
    """The definitions that a recipe reaches, by module; ``scans`` is filled with every file that was looked at."""
    own = f"reprise.papers.{recipe.parent.name}.{recipe.stem}"
    lab = {LAB, *also}
    queue, asked = [*(f"{own}.{root}" for root in ROOTS), *lab], set[str]()
    reached: dict[str, Scan] = {}
    scans = {} if scans is None else scans  # every file is looked at once
    while queue:
        name = queue.pop()
        if name in asked:
            continue
        asked.add(name)
        on_import = name.startswith(BODY)
        module, part, file = own, name[len(own) + 1 :].split(".")[0], recipe  # its file may be outside the library
        if not name.startswith(f"{own}."):
            found, part = _locate(name.removeprefix(BODY))
            if found is None:
                queue.extend([] if on_import else _names_of_room(name))
            if found is None or (found.startswith("reprise.lab") and found not in lab):
                continue
            module, file = found, source_of(found)
        if file not in scans:
            scans[file] = _scan(file)
        scan = scans[file]
        if on_import or (module == own and part not in scan):  # a recipe need not have a prepare
            parts = [BODY]
        elif part in scan:
            parts = [part, BODY]
        else:  # the whole module, or a name that it makes in a way which is not seen here
            parts = list(scan)
        for each in parts:
            reached.setdefault(module, {})[each] = scan[each]
            queue.extend(scan[each][1])
    return reached


@cache
def source_of(module: str) -> Path:
    """The file of a module of ours; a package's is its ``__init__.py``."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def resolve(name: str) -> str | None:
    """The module that a dotted name of ours lives in; None for other people's names and for the rooms themselves."""
    return _locate(name)[0]


@cache
def _locate(name: str) -> tuple[str | None, str]:
    """The module that a dotted name lives in, and its name there; no name if the module itself is meant."""
    parts = name.split(".")
    if parts[0] != "reprise":
        return None, ""
    for length in range(len(parts), 1, -1):
        module = ".".join(parts[:length])
        part = parts[length] if length < len(parts) else ""
        folder = PACKAGE.joinpath(*parts[1:length])
        if folder.with_suffix(".py").is_file():
            return module, part
        if folder.is_dir():
            names = table(folder)
            if part in names:
                return _locate(".".join([module, names[part], *parts[length + 1 :]]))
            return (None, "") if names else (module, part)
    return None, ""


def parsed(file: Path) -> ast.Module:
    """The syntax tree of a file, from any thread: Python 3.11 counts the depth of recursion over all of them."""
    with _PARSING:
        return ast.parse(file.read_text(encoding="utf-8"))


def _names_of_room(name: str) -> list[str]:
    """All names of a room that is imported as a whole, for then any of them may be used; none for other names."""
    room = name.removesuffix(".*")
    folder = PACKAGE.joinpath(*room.split(".")[1:])
    return [f"{room}.{known}" for known in table(folder)] if room.startswith("reprise.") and folder.is_dir() else []


@cache
def table(folder: Path) -> dict[str, str]:
    """A room's public names and the names they come from, out of its ``__init__.pyi``."""
    stub = folder / "__init__.pyi"
    if not stub.is_file():
        return {}
    names = {}
    for node in parsed(stub).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}" if node.module else alias.name
    return names


# Scans of files, and what recipes reach, are remembered on disk by time of change and size of the files, because every
# `reprise list` asks for all.

_memory: dict[str, dict[str, Any]] = {"scans": {}, "closures": {}}
_loaded_from: Path | None = None


def _scan(file: Path) -> Scan:
    _load_memory()
    stamp, scan = _memory["scans"].get(str(file), (None, {}))
    if stamp != (now := _stamp(file)):
        scan = _read(parsed(file), file)
        _memory["scans"][str(file)] = [now, scan]
        _memory["changed"] = {"": True}
    return dict(scan)


def _stamp(file: Path) -> list[int] | None:
    try:
        stat = file.stat()
    except OSError:  # gone since
        return None
    return [stat.st_mtime_ns, stat.st_size]


def _load_memory() -> None:
    global _loaded_from
    path = home() / "cache" / "definitions.json"
    if _loaded_from == path:
        return
    _loaded_from = path
    _memory.update(scans={}, closures={})
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        scans = {file: [stamp, {**scan, BODY: scan[BODY]}] for file, (stamp, scan) in known["scans"].items()}
        closures = {recipe: [dict(stamps), dict(found)] for recipe, (stamps, found) in known["closures"].items()}
        _memory.update(scans=scans, closures=closures)
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        pass  # not there yet, or damaged: it is made again


def save_memory() -> None:
    """Keep the scans for the next process; a cache that cannot be written is no fault."""
    if _memory.pop("changed", None) is None or _loaded_from is None:
        return
    try:
        with written_whole(_loaded_from) as temporary:
            temporary.write_text(json.dumps(_memory), encoding="utf-8")
    except OSError:
        pass


# Reading a file ------------------------------------------------------------------------------------------------------


def _read(tree: ast.Module, file: Path) -> Scan:
    """Its definitions: functions, classes, constants, names that it imports, and the body that remains."""
    package = _package(file)
    statements: dict[str, list[ast.stmt]] = {BODY: []}
    for statement in tree.body:
        if not (_is_docstring(statement) or isinstance(statement, (ast.Import, ast.ImportFrom))):
            for name in _defined(statement) or [BODY]:
                statements.setdefault(name, []).append(statement)
    statements.pop("__all__", None)
    module = ".".join([*package, *([] if file.stem == "__init__" else [file.stem])])
    imported = _imported(tree, package)
    known = imported | {name: f"{module}.{name}" for name in statements}
    scan: Scan = {name: ["", [target]] for name, target in imported.items()}
    for name, nodes in statements.items():
        uses = {use for node in nodes for use in _used(node, known) if use != known[name]}
        scan[name] = [_digest(_plain(nodes)) if nodes else "", sorted(uses)]
    bodies = [f"{BODY}{target}" for target in imported.values() if target.startswith("reprise.")]
    scan[BODY][1] += sorted({*bodies, *(target for target in imported.values() if target.endswith(".*"))})
    return scan


def _package(file: Path) -> list[str]:
    if file.is_relative_to(PACKAGE):
        return ["reprise", *file.relative_to(PACKAGE).parent.parts]
    return ["reprise", "papers", file.parent.name]


def _defined(statement: ast.stmt) -> list[str]:
    """The names that a top-level statement defines; none if it does anything else."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    flat = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return (
        [part.id for part in flat if isinstance(part, ast.Name)] if all(isinstance(p, ast.Name) for p in flat) else []
    )


def _imported(tree: ast.AST, package: list[str]) -> dict[str, str]:
    """What a file calls the things that it imports anywhere, and their full names."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name] = alias.name
                if not alias.asname:  # `import a.b` binds a; what of a is used shows where it is used
                    found[alias.name.split(".")[0]] = alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                found[f"{stem}.*" if alias.name == "*" else alias.asname or alias.name] = f"{stem}.{alias.name}"
    return found


def _used(node: ast.AST, known: Mapping[str, str]) -> Iterator[str]:
    """Full names of what a piece of code uses of ``known``; of other people's packages only the package."""
    root, attributes = node, list[str]()
    while isinstance(root, ast.Attribute):
        attributes.insert(0, root.attr)
        root = root.value
    if isinstance(root, ast.Name):
        if root.id in known:
            name = ".".join([known[root.id], *attributes])
            yield name if name.startswith("reprise.") else name.split(".")[0]
        return
    for child in ast.iter_child_nodes(node):
        yield from _used(child, known)


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def _plain(node: Any) -> Any:
    """The syntax tree as nested tuples without docstrings, positions and empty fields, equal in every Python."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            value = [item for i, item in enumerate(value) if i > 0 or not _is_docstring(item)]
        if value not in (None, []) and name != "type_comment":
            fields.append((name, _plain(value)))
    return type(node).__name__, fields


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
