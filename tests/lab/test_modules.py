"""Fingerprints of code: what a recipe stands on is followed through the rooms; words and layout do not count."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reprise.lab import modules

FILES = {
    "lab/seeding.py": "def seed_everything(): ...",
    "lab/timing.py": "def compare_speed(): ...",
    "lab/trial.py": "from reprise.lab.timing import compare_speed",
    "nn/__init__.py": "import lazy_loader",
    "nn/__init__.pyi": "from .blocks import Block as Block, Wide as Broad\nfrom .heads import Head as Head\n",
    "nn/blocks.py": "import torch\nfrom .initial import start\n\nclass Block(torch.Module):\n    first = start\n\n"
    "class Wide(Block): ...\n\ndef other(): ...\n",
    "nn/initial.py": "from ..data.tables import sizes\nimport scipy.linalg\n\nstart = scipy.linalg.norm(sizes)\n",
    "nn/heads.py": "class Head: ...",
    "data/__init__.py": "",
    "data/tables.py": "sizes = 3",
    "papers/__init__.py": "",
    "papers/toy/__init__.py": "",
    "papers/toy/recipe.py": "from reprise.nn import Block\n\ndef measure(trial):\n    return Block()\n",
    "papers/toy/helper.py": "import sklearn.svm\n\nx = sklearn.svm.SVC()\n",
}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Path]:
    """A small library of its own in place of ours."""
    for name, text in FILES.items():
        path = tmp_path / "reprise" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(modules, "PACKAGE", tmp_path / "reprise")
    forget()
    yield tmp_path / "reprise"
    forget()


def forget() -> None:
    """What is remembered of where names live."""
    for remembered in (modules.table, modules.source_of, modules._locate):
        remembered.cache_clear()


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


def recipe_with(imports: str, use: str) -> str:
    return f"{imports}\n\ndef measure(trial):\n    return {use}\n"


@pytest.mark.parametrize(
    ("imports", "use"),
    [
        ("from reprise.nn import Block", "Block()"),
        ("from reprise.nn import Broad", "Broad()"),  # another name in the room than in the file
        ("from reprise.nn.blocks import Block as Brick", "[Brick() for _ in range(3)]"),
        ("import reprise.nn.blocks", "reprise.nn.blocks.Block.first"),
        ("import reprise.nn.blocks as blocks", "blocks.Block"),
        ("from reprise.nn import blocks", "blocks.Block()"),
        ("", "helper()\n\ndef helper():\n    from reprise.nn import Block\n    return Block"),
        ("from reprise.nn import Block\nfrom reprise.lab.trial import Trial", "Block(Trial)"),  # no part of the numbers
    ],
)
def test_a_name_is_followed_to_its_file(house: Path, imports: str, use: str) -> None:
    assert list(closure(house, recipe_with(imports, use))) == OF_BLOCK


@pytest.mark.parametrize(
    ("imports", "use"),
    [("from reprise import nn", "vars(nn)"), ("import reprise.nn as nn", "nn"), ("from reprise.nn import *", "Head")],
)
def test_a_whole_room_is_all_its_files(house: Path, imports: str, use: str) -> None:
    assert list(closure(house, recipe_with(imports, use))) == sorted([*OF_BLOCK, "reprise.nn.heads"])


def test_one_name_of_a_room_is_one_file(house: Path) -> None:
    found = closure(house, recipe_with("from reprise import nn", "nn.Head()"))
    assert list(found) == [SEEDING, "reprise.nn.heads", RECIPE]


def test_a_neighbour_in_the_paper_is_followed(house: Path) -> None:
    found = closure(house, recipe_with("from .helper import x", "x"))
    assert list(found) == [SEEDING, "reprise.papers.toy.helper", RECIPE]


def test_a_name_handed_on_by_another_file_is_followed(house: Path) -> None:
    write(house / "papers" / "toy" / "helper.py", "from reprise.nn.blocks import Block as Brick")
    assert list(closure(house, recipe_with("from .helper import Brick", "Brick"))) == OF_BLOCK


def test_what_a_module_does_on_import_counts(house: Path) -> None:
    before = closure(house, recipe_with("import reprise.nn.heads", "3"))
    assert list(before) == [SEEDING, RECIPE]
    write(house / "nn" / "heads.py", "import torch\n\ntorch.set_default_dtype(torch.float64)\n")
    assert list(closure(house)) == [SEEDING, "reprise.nn.heads", RECIPE]


def test_only_the_part_of_the_lab_that_makes_numbers(house: Path) -> None:
    path = house / "papers" / "toy" / "recipe.py"
    write(path, recipe_with("import torch", "torch"))
    assert list(modules.closure(path)) == [SEEDING, RECIPE]
    assert list(modules.closure(path, "reprise.lab.timing")) == [SEEDING, "reprise.lab.timing", RECIPE]


def test_packages_of_others(house: Path) -> None:
    path = house / "papers" / "toy" / "recipe.py"
    assert modules.third_party(path) == ["scipy", "torch"]
    write(path, recipe_with("import os\nimport matplotlib\nfrom .helper import x", "os, x"))
    assert modules.third_party(path) == ["sklearn"]


@pytest.mark.parametrize(
    "name", ["torch.nn.Linear", "reprise", "reprise.nn", "reprise.nn.Nothing", "reprise.nowhere.x"]
)
def test_names_that_are_no_module_of_ours(house: Path, name: str) -> None:
    assert modules.resolve(name) is None


# What a fingerprint sees ---------------------------------------------------------------------------------------------

CODE = '''"""Doc."""

from reprise.nn import Block

SIZE = 3


def measure(trial, rate=0.1):
    """Measure."""
    return {"x": rate, "size": SIZE}


def figure(results):
    return draw(results, width=4)
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Doc."""\n', '"""Other words."""\n'),
        ('"""Doc."""\n', ""),
        ('    """Measure."""\n', ""),
        ("    return {", "    # why\n    return {"),
        ('{"x": rate, ', "{\n        'x': (rate),\n    "),
        ("rate=0.1", "rate  =  1e-1"),
        ("width=4", "width=5"),  # the figure makes no numbers
        ("SIZE = 3", "OTHER = 4\nSIZE = 3"),
    ],
)
def test_words_layout_and_what_is_not_used_do_not_count(house: Path, old: str, new: str) -> None:
    before = closure(house, CODE)
    assert closure(house, CODE.replace(old, new)) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rate=0.1", "rate=0.2"),
        ('"x"', '"y"'),
        ("rate,", "-rate,"),
        ("    return {", "    trial = None\n    return {"),
        ("SIZE = 3", "SIZE = 4"),
        ("SIZE = 3", "SIZE = 3\nprint(SIZE)"),
    ],
)
def test_code_counts(house: Path, old: str, new: str) -> None:
    before, after = closure(house, CODE), closure(house, CODE.replace(old, new))
    assert [name for name in before if before[name] != after[name]] == [RECIPE]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("data/tables.py", "3", "4"), ("nn/initial.py", "norm", "inv"), ("lab/seeding.py", "...", "return 1")],
)
def test_code_far_below_counts(house: Path, name: str, old: str, new: str) -> None:
    before = closure(house)
    write(house / name, FILES[name].replace(old, new))
    after = closure(house)
    changed = "reprise." + name.removesuffix(".py").replace("/", ".")
    assert [module for module in before if before[module] != after[module]] == [changed]


def test_a_neighbour_does_not_count(house: Path) -> None:
    before = closure(house)
    write(house / "nn" / "heads.py", "class Head:\n    size = 3\n")  # in the room
    write(
        house / "nn" / "blocks.py", FILES["nn/blocks.py"].replace("other(): ...", "other(): return Wide()")
    )  # in the file
    assert closure(house) == before


def test_lists_that_hold_nothing_differ_from_none(house: Path) -> None:
    for one, other in [("None", "[]"), ("0", "False")]:
        assert closure(house, recipe_with("", one))[RECIPE] != closure(house, recipe_with("", other))[RECIPE]


# The memory of scans -------------------------------------------------------------------------------------------------


def test_memory_is_kept_and_used(house: Path, home: Path) -> None:
    before = closure(house)
    modules.save_memory()
    path = home / "cache" / "definitions.json"
    kept = json.loads(path.read_text())
    recipe = str(house / "papers" / "toy" / "recipe.py")
    kept["closures"][recipe][1][RECIPE] = "remembered"
    path.write_text(json.dumps(kept))
    modules._loaded_from = None
    assert closure(house) == {**before, RECIPE: "remembered"}
    kept["closures"].clear()
    kept["scans"][recipe][1]["measure"][0] = "remembered"
    path.write_text(json.dumps(kept))
    modules._loaded_from = None
    after = closure(house)
    assert after[RECIPE] != before[RECIPE] and {**after, RECIPE: before[RECIPE]} == before
    write(Path(recipe), FILES["papers/toy/recipe.py"])
    assert closure(house) == before, "a touched file is read again"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"scans": 3}', '{"scans": {"file": [1, 2]}, "closures": {}}', "\x00"]
)
def test_damaged_memory_is_ignored(house: Path, home: Path, content: str) -> None:
    before = closure(house)
    path = home / "cache" / "definitions.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    modules._loaded_from = None
    assert closure(house) == before
    modules.save_memory()
    assert str(house / "papers" / "toy" / "recipe.py") in json.loads(path.read_text())["scans"]


def test_memory_that_cannot_be_written_is_no_fault(house: Path, home: Path) -> None:
    (home / "cache").write_text("a file where the folder should be")
    closure(house)
    modules.save_memory()
