"""Days and what is said of them, what rises, filters, mathematics."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings, strategies as st

from reprise.site.database import Database
from reprise.site.feed import days, listing, store, trending
from reprise.site.feed.days import neighbours, period, sentences
from reprise.site.feed.mathml import with_mathematics
from reprise.site.feed.records import make
from reprise.site.feed.trending import score

DAY = 86400.0


def arrive(database: Database, id: str, day: str, now: float = 0.0, **told: Any) -> int:
    record = make(id=id, title=f"Paper {id}", day=day, **told)
    assert record is not None
    (number, *_) = store.add(database, "huggingface", [record], now) or [0]
    return number


def asked(database: Database, at: float, day: str, outcome: str, new: int = 0) -> None:
    with database.write() as connection:
        connection.execute("INSERT INTO checks VALUES ('huggingface', ?, ?, ?, ?, 0)", (at, day, outcome, new))
        good = at if outcome != "failed" else None
        connection.execute("INSERT OR IGNORE INTO sources (name, address) VALUES ('huggingface', '')")
        connection.execute(
            "UPDATE sources SET asked = ?, succeeded = coalesce(?, succeeded), error = ?",
            (at, good, None if good else "it answered 429 (Too Many Requests)"),
        )


# What is said --------------------------------------------------------------------------------------------------------


def test_three_things_are_three_sentences(database: Database, clock: Any) -> None:
    day = period("2026-11-25")
    assert day is not None
    assert sentences(database, day, clock()) == ["No source was asked yet today."]
    asked(database, clock() - 3600, "2026-11-25", "empty")
    (quiet,) = sentences(database, day, clock())
    assert quiet == "No announcement today so far: the lists were empty at 08:46 UTC."
    asked(database, clock(), "2026-11-25", "failed")
    (_, stale) = sentences(database, day, clock())
    assert "Hugging Face's daily papers: stale since 2026-11-25 08:46 UTC (it answered 429" in stale
    for i in range(12):
        arrive(database, f"2611.{i + 1:05}", "2026-11-25")
    assert sentences(database, day, clock())[0] == "12 new."


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("2026-11-26", "No announcement today (Thanksgiving)."), ("2026-11-28", "No announcement today (Saturday)."),
        ("2026-12-25", "No announcement today (Christmas Day)."),
        ("2027-05-31", "No announcement today (Memorial Day)."),
    ],
)  # fmt: skip
def test_a_day_off_tells_why(database: Database, clock: Any, key: str, told: str) -> None:
    day = period(key)
    assert day is not None
    clock.now += (day.first - days.of_day(period("2026-11-25").first).first).days * DAY  # type: ignore[union-attr]
    asked(database, clock(), key, "empty")
    assert sentences(database, day, clock()) == [told]


def test_a_source_that_was_read_two_days_ago_is_stale_without_an_error(database: Database, clock: Any) -> None:
    asked(database, clock(), "2026-11-25", "new", 1)
    (state,) = days.source_states(database, clock() + 2 * DAY)
    assert state.stale and "stale since" in state.sentence
    assert not days.source_states(database, clock() + 3600)[0].stale


def test_days_to_come_and_days_long_gone(database: Database, clock: Any) -> None:
    assert sentences(database, period("2031-01-06"), clock()) == ["This has not come yet."]  # type: ignore[arg-type]
    assert sentences(database, period("2020-01-06"), clock()) == ["No source was asked on this day."]  # type: ignore[arg-type]


# Addresses -----------------------------------------------------------------------------------------------------------


@given(st.dates())
@settings(max_examples=50, deadline=None)
def test_every_day_is_in_its_week_and_month(day: Any) -> None:
    for kind in ("day", "week", "month"):
        try:
            found = days.of_day(day, kind)
        except (AssertionError, OverflowError):
            assert day.year in (1, 9999)  # whose first and last weeks reach beyond the calendar
            continue
        assert found.first <= day <= found.last and period(found.key) == found


@pytest.mark.parametrize(
    "key", ["2026", "2026-1-1", "2026-W00", "2026-W54", "2025-W53", "2026-02-30", "0000-01-01", "today", ""]
)
def test_what_is_no_period_is_none(key: str) -> None:
    assert period(key) is None


def test_neighbours_skip_what_is_empty_and_end_today(database: Database, clock: Any) -> None:
    for id, day in (("2611.00001", "2026-11-02"), ("2611.00002", "2026-11-20"), ("2611.00003", "2026-11-23")):
        arrive(database, id, day)
    here = neighbours(database, period("2026-11-20"), clock())  # type: ignore[arg-type]
    assert here.before and here.after and (here.before.key, here.after.key) == ("2026-11-02", "2026-11-23")
    last = neighbours(database, period("2026-11-23"), clock())  # type: ignore[arg-type]
    assert last.after and last.after.key == "2026-11-25"  # today, though it is empty
    week = neighbours(database, period("2026-W47"), clock())  # type: ignore[arg-type]
    assert week.before and week.after and (week.before.key, week.after.key) == ("2026-W45", "2026-W48")
    assert neighbours(database, period("2026-11-25"), clock()).after is None  # type: ignore[arg-type]


# What rises ----------------------------------------------------------------------------------------------------------


def test_trending_counts_gains_not_sizes(database: Database, clock: Any) -> None:
    now = clock()
    for id, day, before, votes in (
        ("2611.00001", "2026-11-24", None, 40),  # listed yesterday: all its votes are new
        ("2609.00002", "2026-09-01", 900, 905),  # old and large
        ("2609.00003", "2026-09-01", 100, 400),  # old, and found again
        ("2609.00004", "2026-09-01", 50, 30),  # lost some
        ("2609.00005", "2026-09-01", None, 700),  # old, never seen before: nobody knows when it was voted for
    ):
        if before is not None:
            arrive(database, id, day, now - 8 * DAY, upvotes=before)
        arrive(database, id, day, now, upvotes=votes)
    found = trending.trending(database, now)
    assert [(each.entry.id, each.votes) for each in found] == [
        ("2611.00001", 40), ("2609.00003", 300), ("2609.00002", 5),
    ]  # fmt: skip
    assert all(each.score == pytest.approx(score(each.votes, each.stars, each.age)) for each in found)


def test_stars_that_were_there_before_do_not_count(database: Database, clock: Any) -> None:
    arrive(database, "2611.00001", "2026-11-24", clock() - 3600, stars=90_000)
    arrive(database, "2611.00001", "2026-11-24", clock() + 3600, stars=90_010)
    (rising,) = trending.trending(database, clock() + 3600)
    assert rising.stars == 10


def test_no_votes_no_trend(database: Database, clock: Any) -> None:
    arrive(database, "2611.00001", "2026-11-24")
    assert trending.trending(database, clock()) == []


# Filters -------------------------------------------------------------------------------------------------------------


def test_filters(database: Database) -> None:
    with database.write() as connection:
        connection.execute(
            "INSERT INTO library VALUES ('dsrl', '2506.15799', 'DSRL: x', 'policies', 'holds', '', 'laptop')"
        )
    arrive(database, "2506.15799", "2025-06-19", published="2025-06-18T17:00:00Z")
    near = arrive(database, "2611.00001", "2026-11-24", code="https://github.com/a/b")
    arrive(database, "2611.00002", "2026-11-23")
    with database.write() as connection:
        connection.execute("INSERT INTO nearest VALUES (?, 0, 'dsrl', 0.5, 'frozen, policy')", (near,))

    def ids(**wanted: str) -> list[str]:
        where = listing.chosen(None, wanted)
        shown = listing.show(database, where)
        assert len(shown) == listing.count(database, where)
        return [each.entry.id for each in shown]

    assert ids() == ["2611.00001", "2611.00002", "2506.15799"]
    assert ids(year="2025") == ids(implemented="1") == ids(verdict="holds") == ["2506.15799"]
    assert ids(code="1") == ["2611.00001"] and ids(verdict="fails") == []
    assert ids(room="policies") == ["2611.00001", "2506.15799"] and ids(room="nn") == []
    assert ids(room="' OR 1=1 --") == []
    assert listing.years(database) == ["2026", "2025"]


# Mathematics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (r"of order $\mathcal{O}(n^2)$ here", "<msup>"), (r"$\frac{1}{2}$", "<mfrac>"), (r"$\pi_0$: A", "<msub>"),
        (r"$$\sum_{i=1}^n x_i$$", 'display="block"'), (r"$\alpha$-divergence", "<mi>"),
    ],
)  # fmt: skip
def test_mathematics_is_set(text: str, made: str) -> None:
    shown = str(with_mathematics(text))
    assert "<math" in shown and made in shown and "alttext" in shown
    ElementTree.fromstring(f"<p>{shown}</p>")


KNOWN = {"p", "math", "mrow", "mi", "mo", "mn", "mtext", "mspace", "mstyle", "mtable"}


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>", "costs $5 and $6", "$x", "$$", "a $ b $ c", r"\$5", r"$\nosuchcommand{x}$",
        r"$\href{javascript:alert(1)}{x}$", r"$\text{<img src=x onerror=alert(1)>}$", r"$\class{evil}{x}$",
        r"$\style{color:red}{x}$", r"$\unicode{x3c}$", "$" + "{" * 400 + "}" * 400 + "$", r"$\begin{matrix}$",
        "$x<y$ \x00",
    ],
)  # fmt: skip
def test_what_cannot_be_set_stays_as_text_and_nothing_gets_through(text: str) -> None:
    shown = str(with_mathematics(text))
    root = ElementTree.fromstring(f"<p>{shown.replace(chr(0), '')}</p>")
    for element in root.iter():
        assert element.tag.rsplit("}")[-1] in {
            "p",
            "math",
            "mrow",
            "mi",
            "mo",
            "mn",
            "mtext",
            "mspace",
            "mstyle",
            "mtable",
        }
        assert not any(name.startswith("on") or name in ("href", "style", "class", "src") for name in element.attrib)


@given(st.text(alphabet=st.sampled_from(list("$\\{}^_<>&\"'abx12 ")), max_size=40))
@settings(max_examples=80, deadline=None)
def test_any_text_gives_well_formed_markup(text: str) -> None:
    ElementTree.fromstring(f"<p>{with_mathematics(text)}</p>")
