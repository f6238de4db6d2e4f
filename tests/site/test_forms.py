"""The same page in other forms, and what a paper's page shows beside the measurement itself."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from reprise.lab import paper as papers, results
from reprise.site import views
from reprise.site.queue import Queue

ATOM = "{http://www.w3.org/2005/Atom}"
PAGES = {  # each with the forms that it must have
    "/papers": "json md atom", "/papers/coin": "json md atom", "/papers/coin/numbers": "json md",
    "/claims": "json md atom", "/log": "json md atom", "/parts": "json md", "/parts/explain": "json md",
    "/parts/explain/GradCAM": "json md", "/runs": "json md atom", "/runs/1": "json md atom", "/feed": "json md atom",
    "/feed/sources": "json", "/arxiv/1706.03762": "json md", "/search?q=gradcam": "json md atom",
    "/speed": "json md",
}  # fmt: skip


@pytest.fixture
def ended(reader: TestClient) -> TestClient:
    """The page with a run that was stopped."""
    queue = Queue()
    queue.stop(queue.add("coin", "smoke"))
    return reader


def test_every_page_names_its_other_forms_and_has_them(ended: TestClient) -> None:
    for path, forms in PAGES.items():
        page = ended.get(path).text
        named = re.findall(r'<link rel="alternate" type="[^"]+" href="([^"]+)"', page)
        assert {each.partition("?")[0].rsplit(".", 1)[1] for each in named} == set(forms.split()), path
        for each in named:
            assert f'<a href="{each}">' in page, "readers see them, too"
            answer = ended.get(each.replace("&amp;", "&"))
            assert answer.status_code == 200, each
            if ".json" in each:
                json.loads(answer.text)
            elif ".md" in each:
                assert answer.text.startswith("# ") and "</" not in answer.text, each
            else:
                ids = [
                    entry.findtext(f"{ATOM}id") for entry in ElementTree.fromstring(answer.content).iter(f"{ATOM}entry")
                ]
                assert len(ids) == len(set(ids)), each


def test_a_run_is_a_feed_that_tells_when_it_has_ended(ended: TestClient) -> None:
    feed = ElementTree.fromstring(ended.get("/runs/1.atom").content)
    assert [entry.findtext(f"{ATOM}title") for entry in feed.iter(f"{ATOM}entry")] == [
        "Run 1, coin: stopped", "Run 1, coin: queued",
    ]  # fmt: skip


def test_numbers_in_other_forms(reader: TestClient) -> None:
    assert reader.get("/papers/coin/numbers.json").json()["recipe"]["trials"][0]["metrics"]["heads"] == 0.5
    assert re.search(r"\| bent \| 0\.\d+ ± 0\.\d+ \| 0: 0\.7,", reader.get("/papers/coin/numbers.md").text)


@pytest.mark.parametrize(
    ("query", "there"),
    [("year=2020", True), ("year=1999", False), ("device=cpu", True), ("device=cuda", False), ("room=nn", True)],
)
def test_papers_by_year_device_and_family(reader: TestClient, query: str, there: bool) -> None:
    page = reader.get(f"/papers?{query}").text
    assert ("/papers/coin" in page) == there
    assert "<option>cpu</option>" in page or "<option selected>cpu</option>" in page


# Effect against scale ------------------------------------------------------------------------------------------------


def test_the_effect_stands_against_scale(published: Path, reader: TestClient) -> None:
    paper = papers.find("coin")
    everything = results.published(paper)
    smoke = {**everything["recipe"]["laptop"], "scale": "smoke", "seeds": [0, 1]}
    smoke["trials"] = [trial for trial in smoke["trials"] if trial["seed"] < 2]
    assert views.by_scale(paper)[1]["rows"] == []  # one scale, and the paper printed nothing: nothing to compare
    results.save(paper, {"recipe": {"smoke": smoke, **everything["recipe"]}})
    names = [[name for name, _, _ in claim["rows"]] for claim in views.by_scale(paper)]
    assert names[0][:2] == ["ours, smoke scale", "ours, laptop scale"]


# Pictures ------------------------------------------------------------------------------------------------------------


def trial_of(published: Path, home: Path, seed: int, **changes: Any) -> Path:
    """A folder as a trial leaves it, with a picture, whose numbers are those published unless changed."""
    record = results.published(papers.find("coin"))["recipe"]["laptop"]
    trial = next(each for each in record["trials"] if (each["arm"], each["seed"]) == ("bent", seed))
    folder = home / "runs" / "coin" / "recipe" / f"bent-{seed}-{len(changes)}"
    folder.mkdir(parents=True)
    Image.new("L", (8, 8), seed).save(folder / "throws.png")
    kept = {
        "identity": {"arm": "bent", "seed": seed}, "metrics": {**trial["metrics"], **changes}, "counts": {},
        "pictures": [{"file": "throws.png", "name": "throws", "caption": "White is heads"}], "seconds": 1.0,
        "curves": {}, "prepare": {}, "finished": "",
    }  # fmt: skip
    (folder / "trial.json").write_text(json.dumps(kept))
    return folder


def test_pictures_of_published_trials_are_shown_where_their_folders_are(
    published: Path, reader: TestClient, home: Path
) -> None:
    assert 'id="pictures"' not in reader.get("/papers/coin").text
    trial_of(published, home, 0, heads=0.1)  # seed 0 of other code
    folder = trial_of(published, home, 1)
    page = reader.get("/papers/coin").text
    addresses = re.findall(r'<img src="(/runs/pictures/[^"]+)" alt="bent, seed 1: White is heads"', page)
    assert addresses == ["/runs/pictures/coin/recipe/bent/1/throws.png"]
    assert reader.get(addresses[0]).content == (folder / "throws.png").read_bytes()
    for wrong in ("bent/0/throws", "bent/1/other", "bent/1/..%2Ftrial"):
        assert reader.get(f"/runs/pictures/coin/recipe/{wrong}.png").status_code == 404
    shutil.rmtree(folder)
    assert reader.get(addresses[0]).status_code == 404


def test_the_first_view_is_light(client: TestClient) -> None:
    page = client.get("/")
    loads = re.findall(r'(?:<link rel="(?:stylesheet|icon)"|<script|<img)[^>]* ?(?:href|src)="([^"]+)"', page.text)
    assert any("site.css" in each for each in loads)
    sizes = {each: int(client.get(each).headers["Content-Length"]) for each in loads}
    assert int(page.headers["Content-Length"]) + sum(sizes.values()) < 100_000, sizes
