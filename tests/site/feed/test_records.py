"""Records: ids of every form, text from elsewhere, and the day that a paper belongs to."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings, strategies as st

from reprise.site.feed.records import arxiv_id, instant, listing_day, make, today
from reprise.site.feed.text import address, clean, without_tags


@pytest.mark.parametrize(
    ("written", "id", "version"),
    [
        ("2506.15799", "2506.15799", None),
        ("2506.15799v3", "2506.15799", 3),
        ("arXiv:2506.15799v1", "2506.15799", 1),
        ("ARXIV: 1706.03762", "1706.03762", None),
        ("0704.0001", "0704.0001", None),
        ("1412.6980v9", "1412.6980", 9),
        ("http://arxiv.org/abs/1501.00001v1", "1501.00001", 1),
        ("https://www.arxiv.org/pdf/2410.24164v2.pdf", "2410.24164", 2),
        ("https://arxiv.org/abs/2410.24164?context=cs#top", "2410.24164", None),
        ("https://export.arxiv.org/html/2410.24164/", "2410.24164", None),
        ("oai:arXiv.org:2411.00003v1", "2411.00003", 1),
        ("10.48550/arXiv.2005.14165", "2005.14165", None),
        ("cs/9905014", "cs/9905014", None),
        ("cs.LG/0301012v2", "cs/0301012", 2),
        ("math.GT/0309136", "math/0309136", None),
        ("hep-th/9901001v3", "hep-th/9901001", 3),
        ("https://arxiv.org/abs/cond-mat/0703470", "cond-mat/0703470", None),
        ("quant-ph/0612086", "quant-ph/0612086", None),
    ],
)
def test_ids_of_every_form_are_one(written: str, id: str, version: int | None) -> None:
    assert arxiv_id(written) == (id, version)


@pytest.mark.parametrize(
    "written",
    [
        "", "1501.0001", "1412.69801", "2513.00001", "0703.0001", "cs/0713001", "cs/0801001", "math/9913001",
        "10.1000/182", "https://example.org/abs/2506.15799", "2506.15799v0", "x" * 10_000, None, 2506.15,
        b"2506.15799",
    ],
)  # fmt: skip
def test_what_is_no_id_is_none(written: object) -> None:
    assert arxiv_id(written) is None


def test_text_from_elsewhere_is_one_plain_line() -> None:
    assert clean("a\x00b\u202e evil\u2066\ud800 \n\t end\ufeff", 100) == "ab evil? end"
    assert clean("e\u0301", 10) == "é"
    assert clean(["list"], 10) == "" and clean(5, 10) == ""


def test_ten_megabytes_are_cut_at_once() -> None:
    start = time.perf_counter()
    kept = clean("word " * 2_000_000, 6000)
    assert len(kept) <= 6000 and kept.endswith("word…")
    assert time.perf_counter() - start < 0.5


def test_tags_are_taken_out_and_comparisons_stay() -> None:
    assert without_tags("<b>a</b> < b, x<y and y>z <script>alert('x')</script>&amp;<style>p{}").split() == [
        "a", "<", "b,", "x<y", "and", "y>z", "&",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        "javascript:alert(1)", "data:text/html,x", "//evil", "https://", "http://a b", "https://[", "ftp://host/",
        'https://a"onclick="x', "https://user:secret@host/", None, 3,
    ],
)  # fmt: skip
def test_only_plain_web_addresses_are_links(bad: object) -> None:
    assert address(bad) is None


def test_a_record_of_garbage_is_none_or_clean() -> None:
    assert make(title="no id") is None
    assert make(id="2506.15799") is None
    record = make(
        id="2506.15799v2", title="A <b>title</b>", authors=["A", None, 5, ""], abstract={"a": 1}, day="soon",
        published=17, version="two", categories=["cs.LG", "<x>", 4], code="javascript:x", upvotes=-3, stars=True,
    )  # fmt: skip
    assert record is not None
    assert (record.version, record.authors, record.categories) == (2, ("A",), ("cs.LG",))
    assert (record.abstract, record.day, record.published, record.code) == ("", "", "", "")
    assert record.upvotes is None and record.stars is None


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(plain, lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["title", "authors", "abstract", "day", "published", "updated", "version",
       "categories", "comment", "journal", "doi", "code", "project", "upvotes", "stars"]), anything))  # fmt: skip
def test_no_value_of_any_kind_raises(told: dict[str, object]) -> None:
    record = make(id="2506.15799", **told)
    assert record is None or "\n" not in record.title


def test_instants_are_compared_in_utc() -> None:
    assert instant("2025-06-18T13:59:58-04:00") == "2025-06-18T17:59:58Z"
    assert instant("2025-06-18") == "2025-06-18"
    assert instant("yesterday") == "" and instant("0001-01-01T00:00:00+14:00") == ""


@pytest.mark.parametrize(
    ("submitted", "listed"),
    [
        ("2026-11-24T18:59", "2026-11-25"),  # Tuesday 13:59 Eastern, winter time
        ("2026-11-24T19:00", "2026-11-26"),  # 14:00
        ("2026-07-14T17:59", "2026-07-15"),  # 13:59, summer time
        ("2026-11-20T18:00", "2026-11-23"),  # Friday before the deadline: Monday's list
        ("2026-11-20T20:00", "2026-11-24"),  # Friday after it: Tuesday's
        ("2026-11-22T12:00", "2026-11-24"),  # Sunday
        ("2026-11-19T20:00", "2026-11-23"),  # Thursday after the deadline: announced on Sunday evening
    ],
)
def test_the_day_of_the_list(submitted: str, listed: str) -> None:
    assert listing_day(datetime.fromisoformat(submitted).replace(tzinfo=UTC)).isoformat() == listed


def test_a_day_begins_in_new_york() -> None:
    assert today(datetime(2026, 11, 25, 4, 59, tzinfo=UTC).timestamp()) == "2026-11-24"
    assert today(datetime(2026, 11, 25, 5, 0, tzinfo=UTC).timestamp()) == "2026-11-25"
