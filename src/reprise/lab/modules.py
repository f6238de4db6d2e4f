"""Which of our modules a recipe stands on, and a fingerprint of their code, without importing any of them.

Imports are read from the source. A name taken from a room (``from reprise.nn import IBN``) is followed through the
room's table of names to the file that defines it, so that a measurement goes stale by what it used, not by its
neighbours.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from reprise.files import home, written_whole
from reprise.lab.paper import Experiment

__all__ = ["LAB", "closure", "of", "resolve", "save_memory", "source_of", "table", "third_party"]

PACKAGE = Path(__file__).parent.parent
LAB = "reprise.lab.seeding"  # what the lab itself does to the numbers of a trial

Scan = tuple[str, tuple[str, ...]]  # fingerprint of the code, dotted names it imports


def of(experiment: Experiment) -> dict[str, str]:
    """The fingerprints of all that an experiment's numbers depend on; timings depend on how we time."""
    return closure(experiment.file, *(["reprise.lab.timing"] if experiment.alone else []))


def closure(recipe: Path, *also: str) -> dict[str, str]:
    """The fingerprints of a recipe and of every module of ours that it reaches, by module name.

    Args:
        recipe: the recipe's file.
        also: modules of the lab to add.
    """
    name = f"reprise.papers.{recipe.parent.name}.{recipe.stem}"
    found = {name: _scan(recipe)[0]}
    own = {LAB, *also}
    queue = [*_scan(recipe)[1], *own]
    while queue:
        asked = queue.pop()
        module = resolve(asked)
        if module is None:
            queue.extend(_names_of_room(asked))
        elif module not in found and not (module.startswith("reprise.lab") and module not in own):
            found[module], imports = _scan(source_of(module))
            queue.extend(imports)
    return dict(sorted(found.items()))


def third_party(recipe: Path) -> list[str]:
    """Top-level packages of others that the recipe and its modules import, sorted."""
    files = {recipe, *map(source_of, closure(recipe))}
    found = [file for file in files if file.is_file()]  # a recipe outside the library is not where its name says
    names = {name.split(".")[0] for file in found for name in _scan(file)[1]}
    return sorted(name for name in names if name != "reprise")


def source_of(module: str) -> Path:
    """The file of a module of ours; a package's is its ``__init__.py``."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def resolve(name: str) -> str | None:
    """The module that a dotted name of ours lives in; None for other people's names and for the rooms themselves."""
    parts = name.split(".")
    if parts[0] != "reprise":
        return None
    for length in range(len(parts), 1, -1):
        module = ".".join(parts[:length])
        folder = PACKAGE.joinpath(*parts[1:length])
        if folder.with_suffix(".py").is_file():
            return module
        if folder.is_dir():
            names = table(folder)
            if length < len(parts) and parts[length] in names:
                return resolve(f"{module}.{names[parts[length]]}")
            return None if names else module
    return None


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
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}" if node.module else alias.name
    return names


# One scan of a file: remembered on disk by path, time of change and size, because every `reprise list` asks for all.

_memory: dict[str, list[Any]] = {}
_loaded_from: Path | None = None


def _scan(file: Path) -> Scan:
    _load_memory()
    stat = file.stat()
    key, stamp = str(file), [stat.st_mtime_ns, stat.st_size]
    if key not in _memory or _memory[key][0] != stamp:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        _memory[key] = [stamp, _fingerprint(tree), _imports(tree, file)]
        _memory["changed"] = [True]
    _, code, imports = _memory[key]
    return code, tuple(imports)


def _load_memory() -> None:
    global _loaded_from
    path = home() / "cache" / "modules.json"
    if _loaded_from == path:
        return
    _memory.clear()
    _loaded_from = path
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        _memory.update({file: [stamp, code, imports] for file, (stamp, code, imports) in known.items()})
    except (OSError, ValueError, AttributeError, TypeError):
        _memory.clear()  # not there yet, or damaged: it is made again


def save_memory() -> None:
    """Keep the scans for the next process; a cache that cannot be written is no fault."""
    if _memory.pop("changed", None) is None or _loaded_from is None:
        return
    try:
        with written_whole(_loaded_from) as temporary:
            temporary.write_text(json.dumps(_memory), encoding="utf-8")
    except OSError:
        pass


def _fingerprint(tree: ast.Module) -> str:
    return hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()[:16]


def _plain(node: Any) -> Any:
    """The syntax tree as nested tuples without docstrings, positions and empty fields, equal in every Python."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            value = [item for i, item in enumerate(value) if i > 0 or not _is_docstring(item)]
        if value not in (None, []) and name != "type_comment":
            fields.append((name, _plain(value)))
    return type(node).__name__, fields


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imports(tree: ast.Module, file: Path) -> list[str]:
    """Dotted names that a file imports anywhere, in full; other people's as well."""
    inside = file.is_relative_to(PACKAGE)
    package = (
        ["reprise", *file.relative_to(PACKAGE).parent.parts] if inside else ["reprise", "papers", file.parent.name]
    )
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found.update(f"{stem}.{alias.name}" for alias in node.names)
    return sorted(name for name in found if name.split(".")[0] not in sys.stdlib_module_names)
