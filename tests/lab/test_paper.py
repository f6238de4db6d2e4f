"""paper.toml: what is read, and for each kind of damage one sentence that names file, key and the nearest valid key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reprise.lab.paper import Paper, PaperError, Reference, all_papers, find, nearest, read, slugs

COIN = Path(__file__).parents[1] / "toys" / "coin"


@pytest.fixture
def coin(tmp_path: Path) -> Path:
    """A copy of the toy to damage."""
    return Path(shutil.copytree(COIN, tmp_path / "coin", ignore=shutil.ignore_patterns("__pycache__")))


def damaged(coin: Path, old: str, new: str) -> str:
    """What reading says once a piece of the text is another."""
    path = coin / "paper.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(PaperError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(str(path)).lstrip(": ")


def changed(coin: Path, old: str, new: str) -> Paper:
    """The paper once a piece of the text is another."""
    path = coin / "paper.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    return read(path)


def test_good_paper() -> None:
    paper = read(COIN / "paper.toml")
    assert (paper.slug, paper.year, paper.room) == ("coin", 2020, "nn")
    first, second, third = paper.claims
    assert (first.value, first.against) == (Reference("recipe", "bent", "heads"), Reference("recipe", "fair", "heads"))
    assert (first.expect, first.compare, first.margin) == ("higher", "difference", 0.0)
    assert second.value.cell == "*" and str(second.value) == "bent.part[*]"
    assert (third.against, third.margin, third.expect) == (0.5, 0.1, "equal")
    experiment = paper.experiments["recipe"]
    assert experiment.arms["bent"].settings == {"bias": 0.7}
    assert experiment.metrics["heads"].resolution == 0.001
    assert experiment.scales["laptop"].seeds == 5 and experiment.scales["laptop"].settings == {"throws": 500}
    assert paper.identities[0].test == "tests/lab/test_toy.py::test_sum"


def test_experiments_and_ratios(coin: Path) -> None:
    shutil.copy(coin / "recipe.py", coin / "tails.py")
    more = 'module = "tails"\narms.fair = {}\nmetrics.heads = { label = "x" }\nlaptop = { seeds = 1 }\n'
    paper = changed(coin, "[experiments.recipe]", f"[experiments.more]\n{more}\n[experiments.recipe]")
    assert paper.experiments["more"].file.name == "tails.py"
    ratio = 'against = "more/fair.heads"\ncompare = "ratio"'
    claim = changed(coin, 'against = "fair.heads"', ratio).claims[0]
    assert claim.margin == 1.0 and str(claim.against) == "more/fair.heads"


def test_an_experiment_like_another_keeps_the_arms_it_names(coin: Path) -> None:
    more = '[experiments.more]\nlike = "recipe"\narms = ["fair"]\nlaptop = { seeds = 5 }\n'
    paper = changed(coin, "[experiments.recipe]", f"{more}\n[experiments.recipe]")
    assert list(paper.experiments["more"].arms) == ["fair"]
    assert list(paper.experiments["recipe"].arms) == ["fair", "bent"]
    message = damaged(coin, 'arms = ["fair"]', 'arms = ["fare"]')
    assert message == "experiments.more.arms: recipe has no arm 'fare'; did you mean 'fair'?"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('venue = "J', 'venu = "J', "the key 'venue' is missing; is 'venu' meant for it?"),
        ('title = "Fair', 'titel = "Fair', "the key 'title' is missing; is 'titel' meant for it?"),
        ('remark = "A', 'remarks = "A', "unknown key remarks; did you mean 'remark'?"),
        ('paper = "0.7', 'papers = "0.7', "unknown key claims[0].papers; did you mean 'paper'?"),
        ('what = "a fair coin"', 'waht = "x"', "unknown key experiments.recipe.arms.fair.waht; did you mean 'what'?"),
        ("arms.fair", "arm.fair", "unknown key experiments.recipe.arm; did you mean 'arms'?"),
        ("year = 2020", 'year = "2020"', "year must be a whole number, not '2020'"),
        ("year = 2020", "year = true", "year must be a whole number, not True"),
        ('differences = ["The coins are simulated."]', "differences = [1]", "differences must be a list of strings"),
        ("margin = 0.1", 'margin = "0.1"', "claims[2]: margin must be a number, not '0.1'"),
        ("resolution = 0.001", 'resolution = "fine"',
         "experiments.recipe.metrics.heads: resolution must be a number, not 'fine'"),
        ('{ what = "a fair coin", settings = { bias = 0.5 } }', "5", "experiments.recipe.arms.fair must be a table"),
        ("smoke = { seeds = 1, throws = 50 }", "smoke = 1", "experiments.recipe: smoke must be a table, not 1"),
        ('value = "bent.heads"', 'value = "bend.heads"',
         "claims[0].value = 'bend.heads': there is no arm 'bend'; did you mean 'bent'?"),
        ('against = "fair.heads"', 'against = "fair.head"',
         "claims[0].against = 'fair.head': there is no metric 'head'; did you mean 'heads'?"),
        ('value = "bent.heads"', 'value = "recipes/bent.heads"',
         "claims[0].value = 'recipes/bent.heads': there is no experiment 'recipes'; did you mean 'recipe'?"),
        ('value = "bent.heads"', 'value = "heads"',
         "claims[0].value = 'heads': a reference reads [experiment/]arm.metric or arm.metric[cell]"),
        ('value = "bent.part[*]"', 'value = "bent.part[first]"',
         "claims[1]: against is about every cell ([*]), value is not"),
        ('margin_from = "what an eye can tell"', "", "claims[2]: a margin of 0.1 needs margin_from, the reason for it"),
        ('expect = "equal"', 'expect = "same"', "claims[2]: expect must be one of higher, lower, equal, not 'same'"),
        ('expect = "equal"', 'compare = "quotient"',
         "claims[2]: compare must be one of difference, ratio, not 'quotient'"),
        ("margin = 0.1", 'compare = "ratio"\nmargin = 0',
         "claims[2]: the margin of a ratio is a factor above 0, not 0"),
        ("seeds = 1", "seeds = 0", "experiments.recipe.smoke.seeds must be at least 1, not 0"),
        ("seeds = 1, ", "", "experiments.recipe.smoke: the key 'seeds' is missing"),
        ("[experiments.recipe]", "[experiments.recipe]\nthreads = 0",
         "experiments.recipe.threads must be at least 1, not 0"),
        ("[experiments.recipe]", '[experiments.recipe]\nmodule = "tails"',
         "experiments.recipe needs the file tails.py beside it"),
        ('parts = ["reprise.nn.Coin"]', 'parts = ["Coin"]',
         'parts are dotted names such as "reprise.nn.IBN", at least one'),
        ('parts = ["reprise.nn.Coin"]', "parts = []", 'parts are dotted names such as "reprise.nn.IBN", at least one'),
    ],
)  # fmt: skip
def test_damage(coin: Path, old: str, new: str, message: str) -> None:
    assert damaged(coin, old, new) == message


def test_missing_recipe(coin: Path) -> None:
    (coin / "recipe.py").unlink()
    assert damaged(coin, "A toy.", "A toy") == "experiments.recipe needs the file recipe.py beside it"


def test_no_scale(coin: Path) -> None:
    text = (coin / "paper.toml").read_text()
    (coin / "paper.toml").write_text(text[: text.index("smoke = ")])
    expected = "experiments.recipe needs arms, metrics and at least one of smoke, laptop, paper"
    assert damaged(coin, "A toy.", "A toy") == expected


def test_nothing_claimed(coin: Path) -> None:
    text = (coin / "paper.toml").read_text()
    (coin / "paper.toml").write_text(text[: text.index("[[claims]]")] + text[text.index("[experiments.recipe]") :])
    assert damaged(coin, "A toy.", "A toy") == "a paper needs at least one claim or identity"


@pytest.mark.parametrize("content", [b"title = ", b"a = 1\na = 2\n", b'title = "\xff"\n'])
def test_invalid_toml(coin: Path, content: bytes) -> None:
    (coin / "paper.toml").write_bytes(content)
    with pytest.raises(PaperError, match=r"coin/paper\.toml is not valid TOML: "):
        read(coin / "paper.toml")


# Finding -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(coin: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of papers that also holds grad_cam."""
    shutil.copytree(coin, coin.parent / "bent_coin")
    monkeypatch.setenv("REPRISE_PAPERS", str(coin.parent))
    return coin.parent


@pytest.mark.parametrize("name", ["bent-coin", "bent_coin", "Bent-Coin", "bentcoin", "BENT COIN"])
def test_spelling_does_not_matter(shelf: Path, name: str) -> None:
    assert find(name).slug == "bent-coin"


def test_unknown_paper(shelf: Path) -> None:
    with pytest.raises(PaperError, match=r"^there is no paper 'bent-coins'; did you mean 'bent-coin'\?"):
        find("bent-coins")
    with pytest.raises(PaperError, match=r"^there is no paper '' \(known: .*bent-coin, .*coin.*\)"):
        find("")


def test_one_damaged_paper_leaves_the_others(shelf: Path) -> None:
    (shelf / "coin" / "paper.toml").write_text("title = ")
    papers, errors = all_papers()
    assert "bent-coin" in [paper.slug for paper in papers] and len(errors) == 1
    assert list(slugs()) == sorted(slugs())


def test_nearest() -> None:
    assert nearest("heads", ["head", "tail"]) == "; did you mean 'head'?"
    assert nearest("xyz", ["head", "tail"]) == " (known: head, tail)"
    assert nearest("xyz", []) == ""
