"""Pages about papers: everything that was measured is shown, with where it comes from, in every form."""

from __future__ import annotations

import json
import re
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from reprise.lab import paper as papers
from reprise.site import views
from reprise.site.history import history
from reprise.site.library import Library

ATOM = "{http://www.w3.org/2005/Atom}"


def test_a_paper_shows_all_that_was_measured(reader: TestClient) -> None:
    page = reader.get("/papers/coin").text
    assert "Holds at laptop scale" in page and "A bent coin shows heads more often than a fair one" in page
    assert page.count('<circle class="seed"') >= 5 * 3  # every seed of the claims
    assert "0.7 against 0.5" in page and "The paper, Table 1" in page  # the paper's number and where it stands
    assert "24 November 2026" in page and "5, each redraws" in page
    assert "In every cell the bent coin is ahead" in page and page.count('class="cell"') == 2
    assert "All 3 claims hold." in page
    assert "heads and tails sum to one" in page and "<code>tests/" in page
    assert "The coins are simulated." in page and "A toy." in page
    assert "@inproceedings" in page and "from reprise.nn import Coin" in page
    assert "<code>" + "0" * 10 not in page and "0" * 40 in page  # the commit of the measurement
    assert 'rel="alternate" type="application/atom+xml"' in page


def test_curves_have_a_table_beside_them(reader: TestClient) -> None:
    for path in ("/papers/coin", "/papers/coin/numbers"):
        page = reader.get(path).text
        assert "heads as a table" in page
        table = page.split("heads as a table</summary>")[1].split("</table>")[0]
        assert re.findall(r'<th scope="col">(\d)</th>', table) == ["1", "2", "3"]
        assert "0.504" in table and "fair" in table and "bent" in table


def test_the_history_of_verdicts(reader: TestClient) -> None:
    page = reader.get("/papers/coin").text
    history_of = page.split("History of the verdicts")[1].split("</ol>")[0]
    assert "undecided" in history_of and "before: undecided" in history_of
    log = reader.get("/log").text
    assert "Fair and bent coins" in log and "before: undecided" in log
    entries = json.loads(reader.get("/log.json").text)
    mine = [each for each in entries if each["slug"] == "coin" and each["number"] == 1]
    assert [(each["before"], each["after"]) for each in mine] == [("undecided", "holds"), ("", "undecided")]


def test_history_is_remembered_and_needs_no_repository(published: Path, shelf: Path, home: Path) -> None:
    entry = Library().current.entries["coin"]
    first = history(entry)
    assert [event.verdicts[entry.headline] for event in first] == ["undecided", "holds"]
    remembered = home / "cache" / "history" / "coin.json"
    assert remembered.is_file() and history(entry) == first
    remembered.write_text("{ damaged")
    assert history(entry) == first
    (published.parent.parent / ".git").rename(published.parent.parent / "elsewhere")
    alone = history(entry)
    assert len(alone) == 1 and alone[0].commit == "" and alone[0].at.startswith("2026-11-24")


@pytest.mark.parametrize("path", ["/log.atom", "/papers/coin.atom"])
def test_feeds_are_valid(reader: TestClient, path: str) -> None:
    answer = reader.get(path)
    assert answer.headers["Content-Type"].startswith("application/atom+xml")
    feed = ElementTree.fromstring(answer.text)
    ids = [entry.findtext(f"{ATOM}id") for entry in feed.iter(f"{ATOM}entry")]
    assert ids and len(set(ids)) == len(ids)
    assert all(str(each).startswith("tag:reprise,2026:papers/") for each in ids)
    for stamp in feed.iter(f"{ATOM}updated"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\+00:00|Z)", stamp.text or "")
    for link in feed.iter(f"{ATOM}link"):
        assert link.get("href", "").startswith("http://127.0.0.1:8000/")


def test_the_same_as_json_and_markdown(reader: TestClient) -> None:
    paper = reader.get("/papers/coin.json").json()
    assert paper["claims"][0]["verdict"] == "holds" and len(paper["claims"][0]["seeds"]) == 5
    assert paper["claims"][1]["cells"]["a"]["verdict"] == "holds"
    assert paper["scale"] == "laptop" and paper["experiments"]["recipe"]["commit"] == "0" * 40
    text = reader.get("/papers/coin.md").text
    assert text.startswith("# Fair and bent coins") and "**holds at laptop scale**" in text
    assert "0.7 against 0.5 (Table 1)" in text and "```bibtex" in text
    assert any(row["slug"] == "coin" for row in reader.get("/papers.json").json())
    assert "| [Fair and bent coins](http://127.0.0.1:8000/papers/coin)" in reader.get("/papers.md").text


def test_a_change_of_the_recipe_makes_it_stale(reader: TestClient, published: Path) -> None:
    assert "fresh: nothing" in reader.get("/papers/coin").text
    toml = published / "paper.toml"
    toml.write_text(toml.read_text().replace("throws = 500", "throws = 600"))
    deadline = time.monotonic() + 20
    while "changed since" not in (page := reader.get("/papers/coin").text):
        assert time.monotonic() < deadline, "the page does not notice that files have changed"
        time.sleep(0.2)
    assert "paper.<wbr>toml" in page and "#stale" in page, page[page.index("changed since") - 300 :][:400]
    assert "stale" in reader.get("/papers/coin/claims/1.svg").text


def test_badges_tell_verdict_and_scale(reader: TestClient) -> None:
    badge = reader.get("/papers/coin/claims/1.svg")
    assert badge.headers["Content-Type"] == "image/svg+xml"
    assert badge.headers["Cross-Origin-Resource-Policy"] == "cross-origin"  # READMEs elsewhere show it
    assert "holds at laptop scale" in ElementTree.fromstring(badge.text).get("aria-label", "")
    assert reader.get("/papers/coin/claims/1").headers["Location"] == "/papers/coin#claim-1"
    for number in ("0", "9", "x", "-1"):
        assert reader.get(f"/papers/coin/claims/{number}.svg").status_code == 404


def test_filters_and_lists(reader: TestClient) -> None:
    assert "Fair and bent coins" in reader.get("/papers?verdict=holds&room=nn").text
    assert "Fair and bent coins" not in reader.get("/papers?verdict=fails").text
    assert "No paper is like that" in reader.get("/papers?room=nothing&page=99999999999999999999").text
    assert "In every cell" in reader.get("/claims?room=nn&verdict=holds").text
    assert "<script>alert" not in reader.get("/papers?verdict=<script>alert(1)</script>").text


def test_paging(reader: TestClient) -> None:
    first, second = reader.get("/claims").text, reader.get("/claims?page=2").text
    assert 'href="/claims?page=2"' in first and 'href="/claims"' in second
    assert reader.get("/claims?page=0").status_code == reader.get("/claims?page=٣").status_code == 200


def test_names_that_are_nearly_right(client: TestClient) -> None:
    assert client.get("/papers/coyn").status_code == 404
    assert "did you mean &#39;coin&#39;?" in client.get("/papers/coyn").text
    assert client.get("/papers/" + "x" * 5000).status_code == 404
    assert client.get("/papers/%00%ff").status_code == 404


def test_an_unmeasured_paper_says_so(client: TestClient) -> None:
    page = client.get("/papers/coin").text
    assert "Nothing has been measured yet." in page and "Unmeasured" in page
    assert "Nothing has been measured yet." in client.get("/papers/coin/numbers").text


def test_a_damaged_paper_does_not_hide_the_others(published: Path, reader: TestClient) -> None:
    (published / "results.json").write_text("{ damaged")
    broken = published.parent / "broken"
    broken.mkdir()
    (broken / "paper.toml").write_text("not = [valid")
    snapshot = Library().current
    assert "grad-cam" in snapshot.entries and "coin" not in snapshot.entries
    assert len(snapshot.damaged) == 2 and any("results.json is damaged" in each for each in snapshot.damaged)


@pytest.mark.parametrize("slug", ["grad-cam", "scattering"])
def test_pages_of_real_papers_are_quick_and_light(client: TestClient, slug: str) -> None:
    client.app.state.library.warm_up()  # type: ignore[attr-defined]
    for path, heavy in {f"/papers/{slug}": 60_000, f"/papers/{slug}/numbers": 100_000, "/": 20_000}.items():
        client.get(path)
        seconds = []
        for _ in range(5):
            start = time.process_time()
            answer = client.get(path)
            seconds.append(time.process_time() - start)
        assert answer.status_code == 200 and int(answer.headers["Content-Length"]) < heavy
        assert min(seconds) < 0.05, f"{path} took {min(seconds):.3f} s of one core"


def test_figures_are_light(client: TestClient) -> None:
    small = client.get("/papers/grad-cam/figure-480.webp")
    assert small.headers["Content-Type"] == "image/webp" and len(small.content) < 60_000
    assert client.get("/papers/grad-cam/figure-480.webp").content == small.content  # now from the cache
    assert client.get("/papers/grad-cam/figure.png").content[:4] == b"\x89PNG"
    for path in ("/papers/grad-cam/figure-9999.webp", "/papers/coin/figure.png", "/papers/coin/figure-480.webp"):
        assert client.get(path).status_code == 404


def test_the_papers_number_stands_on_the_axis_only_in_the_same_unit() -> None:
    svm, fish = papers.find("cnn-svm"), papers.find("darn-good-control")
    numbers = {claim.paper: views.printed(claim, paper.experiments) for paper in (svm, fish) for claim in paper.claims}
    assert numbers["99.23 % against 99.04 %"] == pytest.approx(0.19)
    assert numbers["94 against 80 of 100"] == pytest.approx(0.14)
    assert numbers["36.76 against 44.52"] == pytest.approx(7.76)  # the claim says "lower"
    assert numbers["19.94 against 19.77"] == pytest.approx(19.94 / 19.77)  # a ratio
    for other in ("grad-cam", "ibn-net", "spartan"):  # top-1 errors of larger nets
        paper = papers.find(other)
        assert all(views.printed(claim, paper.experiments) is None for claim in paper.claims)
