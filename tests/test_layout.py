"""The order of the house: who may import whom, what is public, and that looking around stays quick."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import reprise
from reprise.lab import modules

PACKAGE = Path(reprise.__file__).parent
LEVELS = [
    {"files", "data", "nn", "envs"},
    {"training", "diffusion"},
    {"rl"},
    {"policies", "align", "augment", "architecture", "explain", "safety"},
    {"testing"},
    {"papers"},
    {"lab"},
    {"site", "cli", "__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
SIBLINGS = LEVELS[3]
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages([str(PACKAGE)], "reprise.")
    if ".papers." not in name and name != "reprise.__main__"
]


def imports(path: Path) -> list[str]:
    """Dotted names of ours that a file imports, in full."""
    package = ["reprise", *path.relative_to(PACKAGE).parent.parts]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found += [".".join([*base, *([node.module] if node.module else []), alias.name]) for alias in node.names]
    return [name for name in found if name.startswith("reprise.")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    assert room in LEVEL, f"{room} has no place in the order of rooms"
    for name in imports(path):
        other = name.split(".")[1]
        if other not in LEVEL:  # a name of the package itself
            continue
        assert LEVEL[other] <= LEVEL[room], f"{room} must not import {name}"
        assert not (room in SIBLINGS and other in SIBLINGS and room != other), f"{room} must not import {name}"
        if room == "papers":
            assert other != "papers" or name.split(".")[2] in (path.parent.name, "figures"), (
                "papers do not import each other"
            )


@pytest.mark.parametrize("stub", sorted(PACKAGE.glob("*/__init__.pyi")), ids=lambda stub: stub.parent.name)
def test_public_names_exist_and_are_listed(stub: Path) -> None:
    room = importlib.import_module(f"reprise.{stub.parent.name}")
    table = modules.table(stub.parent)
    assert set(dir(room)) == set(table)
    for name, target in table.items():
        value = getattr(room, name)
        module, _, attribute = target.rpartition(".")
        if module:
            assert attribute in importlib.import_module(f"{room.__name__}.{module}").__all__
        assert value.__doc__, f"{room.__name__}.{name} has no docstring"


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    torch.manual_seed(0)
    namespace = {**vars(module), "torch": torch, "np": np}
    finder = doctest.DocTestFinder(exclude_empty=True)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for test in finder.find(module, name, module=module, globs=namespace):
        result = doctest.DocTestRunner(optionflags=flags).run(test)
        assert not result.failed, test.name


@pytest.mark.parametrize("command", [["list"], ["show", "coin"], ["search", "coin"], ["--help"]], ids=" ".join)
def test_looking_around_does_not_import_torch(command: list[str], toys: Path) -> None:
    code = f"import sys; sys.argv[1:] = {command!r}; import reprise.cli, atexit\n"
    code += "atexit.register(lambda: print('torch' in sys.modules, 'numpy' in sys.modules))\nreprise.cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"


def test_list_is_quick(toys: Path) -> None:
    command = [sys.executable, "-m", "reprise", "list"]
    seconds = []
    for _ in range(6):  # the first fills the cache of fingerprints
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3, "seconds of one core, which other work on the machine does not change"
