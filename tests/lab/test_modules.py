"""Fingerprints of code: what a recipe stands on is followed through the rooms; words and layout do not count."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from reprise.lab import modules

FILES = {
    "lab/seeding.py": "def seed_everything(): ...",
    "lab/timing.py": "def compare_speed(): ...",
    "lab/trial.py": "from reprise.lab.timing import compare_speed",
    "nn/__init__.py": "import lazy_loader",
    "nn/__init__.pyi": "from .blocks import Block as Block, Wide as Broad\nfrom .heads import Head as Head\n",
    "nn/blocks.py": "import torch\nfrom .initial import start\n\nclass Block: ...\n\nclass Wide: ...\n",
    "nn/initial.py": "from ..data.tables import sizes\nimport scipy.linalg\n",
    "nn/heads.py": "class Head: ...",
    "data/__init__.py": "",
    "data/tables.py": "sizes = 3",
    "papers/__init__.py": "",
    "papers/toy/__init__.py": "",
    "papers/toy/recipe.py": "from reprise.nn import Block\n",
    "papers/toy/helper.py": "import sklearn.svm\n",
}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """A small library of its own in place of ours."""
    for name, text in FILES.items():
        path = tmp_path / "reprise" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(modules, "PACKAGE", tmp_path / "reprise")
    modules.table.cache_clear()
    return tmp_path / "reprise"


def closure(house: Path, recipe: str | None = None) -> dict[str, str]:
    """The closure of the toy's recipe, or of other text in its place."""
    path = house / "papers" / "toy" / "recipe.py"
    if recipe is not None:
        write(path, recipe)
    return modules.closure(path)


def write(path: Path, text: str) -> None:
    """Write a file so that its time of change differs even on a coarse clock."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


RECIPE, SEEDING = "reprise.papers.toy.recipe", "reprise.lab.seeding"
OF_BLOCK = ["reprise.data.tables", SEEDING, "reprise.nn.blocks", "reprise.nn.initial", RECIPE]


# What is followed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "from reprise.nn import Block",
        "from reprise.nn import Broad",  # another name in the room than in the file
        "from reprise.nn.blocks import Block",
        "import reprise.nn.blocks",
        "from reprise.nn import blocks",
        "def measure(trial):\n    from reprise.nn import Block\n",
        "from reprise.nn import Block\nfrom reprise.lab.trial import Trial",  # the lab is no part of the numbers
    ],
)
def test_a_name_is_followed_to_its_file(house: Path, text: str) -> None:
    assert list(closure(house, text)) == OF_BLOCK


@pytest.mark.parametrize("text", ["from reprise import nn", "import reprise.nn as nn", "from reprise.nn import *"])
def test_a_whole_room_is_all_its_files(house: Path, text: str) -> None:
    assert list(closure(house, text)) == sorted([*OF_BLOCK, "reprise.nn.heads"])


def test_a_neighbour_in_the_paper_is_followed(house: Path) -> None:
    assert list(closure(house, "from .helper import x")) == [SEEDING, "reprise.papers.toy.helper", RECIPE]


def test_only_the_part_of_the_lab_that_makes_numbers(house: Path) -> None:
    path = house / "papers" / "toy" / "recipe.py"
    write(path, "import torch")
    assert list(modules.closure(path)) == [SEEDING, RECIPE]
    assert list(modules.closure(path, "reprise.lab.timing")) == [SEEDING, "reprise.lab.timing", RECIPE]


def test_packages_of_others(house: Path) -> None:
    path = house / "papers" / "toy" / "recipe.py"
    assert modules.third_party(path) == ["scipy", "torch"]
    write(path, "import os\nfrom .helper import x\n")
    assert modules.third_party(path) == ["sklearn"]


@pytest.mark.parametrize(
    "name", ["torch.nn.Linear", "reprise", "reprise.nn", "reprise.nn.Nothing", "reprise.nowhere.x"]
)
def test_names_that_are_no_module_of_ours(house: Path, name: str) -> None:
    assert modules.resolve(name) is None


# What a fingerprint sees ---------------------------------------------------------------------------------------------

CODE = '''"""Doc."""

from reprise.nn import Block


def measure(trial, rate=0.1):
    """Measure."""
    return {"x": rate}
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Doc."""\n', '"""Other words."""\n'),
        ('"""Doc."""\n', ""),
        ('    """Measure."""\n', ""),
        ("    return", "    # why\n    return"),
        ('{"x": rate}', "{\n        'x': (rate),\n    }"),
        ("rate=0.1", "rate  =  1e-1"),
    ],
)
def test_words_and_layout_do_not_count(house: Path, old: str, new: str) -> None:
    before = closure(house, CODE)
    assert closure(house, CODE.replace(old, new)) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [("rate=0.1", "rate=0.2"), ('"x"', '"y"'), ("rate}", "-rate}"), ("    return", "    trial = None\n    return")],
)
def test_code_counts(house: Path, old: str, new: str) -> None:
    before, after = closure(house, CODE), closure(house, CODE.replace(old, new))
    assert [name for name in before if before[name] != after[name]] == [RECIPE]


@pytest.mark.parametrize("name", ["data/tables.py", "nn/initial.py", "lab/seeding.py"])
def test_code_far_below_counts(house: Path, name: str) -> None:
    before = closure(house)
    write(house / name, FILES[name] + "\nchanged = True\n")
    after = closure(house)
    changed = "reprise." + name.removesuffix(".py").replace("/", ".")
    assert [module for module in before if before[module] != after[module]] == [changed]


def test_a_neighbour_in_the_room_does_not_count(house: Path) -> None:
    before = closure(house)
    write(house / "nn" / "heads.py", "class Head:\n    size = 3\n")
    assert closure(house) == before


def test_lists_that_hold_nothing_differ_from_none(house: Path) -> None:
    assert closure(house, "x = None")[RECIPE] != closure(house, "x = []")[RECIPE]
    assert closure(house, "x = 0")[RECIPE] != closure(house, "x = False")[RECIPE]


# The memory of scans -------------------------------------------------------------------------------------------------


def test_memory_is_kept_and_used(house: Path, home: Path) -> None:
    before = closure(house)
    modules.save_memory()
    path = home / "cache" / "modules.json"
    kept = json.loads(path.read_text())
    recipe = str(house / "papers" / "toy" / "recipe.py")
    kept[recipe][1] = "remembered"
    path.write_text(json.dumps(kept))
    modules._loaded_from = None
    assert closure(house) == {**before, RECIPE: "remembered"}
    write(Path(recipe), FILES["papers/toy/recipe.py"])
    assert closure(house) == before, "a touched file is read again"


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"file": 3}', '{"file": [1, 2]}', "\x00"])
def test_damaged_memory_is_ignored(house: Path, home: Path, content: str) -> None:
    before = closure(house)
    path = home / "cache" / "modules.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    modules._loaded_from = None
    assert closure(house) == before
    modules.save_memory()
    assert str(house / "papers" / "toy" / "recipe.py") in json.loads(path.read_text())


def test_memory_that_cannot_be_written_is_no_fault(house: Path, home: Path) -> None:
    (home / "cache").write_text("a file where the folder should be")
    closure(house)
    modules.save_memory()
