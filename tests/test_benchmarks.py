"""The benchmark table: every module yields rows of work done by both sides."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from reprise.lab import speed_table
from reprise.lab.speed_table import Benchmark, Row

ROOT = Path(__file__).parent.parent


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.table")


def test_a_row_tells_who_is_faster(table: object) -> None:
    def work(count: int) -> int:
        return sum(range(count)) * 0

    (row,) = table.compare("sums", lambda: work(1_000), {"ten times as many": lambda: work(20_000)})  # type: ignore[attr-defined]
    assert row.ratio > 5 and row.ours < row.theirs and row.settings == "best" and not row.behind


def test_a_limit_is_not_a_peer(table: object) -> None:
    (row,) = table.compare("sums", lambda: sum(range(20_000)), limits={"half of it": lambda: sum(range(10_000))})  # type: ignore[attr-defined]
    assert row.ratio < 0.8 and not row.behind


def test_memory_at_the_peak_is_what_a_call_allocates() -> None:
    resources = importlib.import_module("benchmarks.resources")
    if resources.peak_memory(int) is None:
        pytest.skip("this system does not tell")
    assert resources.peak_memory(lambda: np.ones(2**21)) == pytest.approx(16, abs=2)
    assert resources.peak_memory(int) < 2


def test_flops_are_those_of_the_products() -> None:
    resources = importlib.import_module("benchmarks.resources")
    x, y = torch.randn(8, 16), torch.randn(16, 32)
    assert resources.count_flops(lambda: x @ y) == 2 * 8 * 16 * 32
    assert resources.arithmetic_peak() > 1e8 and resources.bandwidth() > 1e8


def test_a_ratio_that_left_its_spread_is_told(table: object) -> None:
    main = importlib.import_module("benchmarks.__main__")
    kept, level, slower = (
        [Benchmark("lab", "", {}, {}, [Row("sums", "other", "3", spread=spread, ratio=ratio)])]
        for spread, ratio in (((1, 2, 4, 6), 3.0), ((1, 1, 2, 2.5), 2.2), ((1, 1, 1, 1.5), 1.1))
    )
    assert main.changes(kept, level) == []
    assert main.changes(kept, slower) == ["changed: sums, 3 against other: 3.00, now 1.10"]


def test_measured_again_the_spread_covers_both(table: object) -> None:
    main = importlib.import_module("benchmarks.__main__")
    row = {"work": "sums", "size": "3", "peer": "other", "settings": "best"}
    kept, found = {"rows": [row | {"spread": [2, 3, 4, 6]}]}, {"rows": [row | {"spread": [1, 2, 5, 7]}]}
    assert main.widened(kept, found) == {"rows": [row | {"spread": [1, 3, 4, 7]}]}
    assert main.widened(None, found) == found
    other = {"rows": [row | {"size": "4", "spread": [8, 9, 8, 9]}, row | {"spread": None}]}
    assert main.widened(other, found) == found and main.widened(kept, other) == other


def test_what_left_its_spread_or_fell_behind_is_measured_twice(table: object, monkeypatch: pytest.MonkeyPatch) -> None:
    main = importlib.import_module("benchmarks.__main__")

    def measured(*spread: float) -> dict[str, object]:
        row = Row(
            "sums",
            "other",
            ours=spread[0],
            theirs=spread[2],
            spread=spread,
            ratio=spread[2] / spread[0],
            share=1 / spread[0],
        )  # type: ignore[arg-type]
        return {"measured": "", "machine": {}, "versions": {}, "rows": [dataclasses.asdict(row)]}

    kept, like_it, slower, behind = (
        measured(1, 2, 4, 6),
        measured(1, 2, 4, 7),
        measured(4, 5, 4, 5),
        measured(2, 3, 1, 9),
    )
    for processes, ratio, changed in (
        ([like_it], 4, 0),
        ([slower, like_it], 2, 0),
        ([slower, slower], 1, 1),
        ([behind, like_it], 2**0.5, 0),
    ):
        answers = iter(processes)
        monkeypatch.setattr(main, "_in_a_process", lambda *_, answers=answers: next(answers))
        old, found = (speed_table.parse({"sums": each}) for each in (kept, main._settled("sums", False, kept, None)))
        row = found[0].rows[0]
        assert row.ratio == pytest.approx(ratio) and row.share == pytest.approx(1 / row.ours)
        assert len(main.changes(old, found)) == changed and next(answers, None) is None


def test_other_outputs_are_refused(table: object) -> None:
    with pytest.raises(ValueError, match="peer and ours differ by 1"):
        list(table.compare("numbers", lambda: 1.0, {"other": lambda: 2.0}))  # type: ignore[attr-defined]


def test_an_unknown_benchmark_is_one_sentence(table: object, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module("benchmarks.__main__")
    assert main.main(["grad_cma"]) == 2
    assert "there is no benchmark 'grad_cma'" in capsys.readouterr().err
    assert {"cnn_svm", "grad_cam", "hopfield", "ibn_net", "lab"} <= set(main.NAMES)
    sys.modules.pop("benchmarks.__main__")


def test_the_page_tells_the_rows_that_are_kept(table: object) -> None:
    main = importlib.import_module("benchmarks.__main__")
    kept = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    page = speed_table.markdown(speed_table.parse(kept))
    assert (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8") == page
    assert speed_table.summary(speed_table.parse(kept)) in (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(kept) <= set(main.NAMES)
    sys.modules.pop("benchmarks.__main__")
