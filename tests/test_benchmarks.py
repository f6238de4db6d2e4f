"""The benchmark table: every module yields rows of work done by both sides."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.table")


def test_a_row_tells_who_is_faster(table: object) -> None:
    def work(count: int) -> int:
        return sum(range(count)) * 0

    (row,) = table.compare("sums", lambda: work(1_000), {"ten times as many": lambda: work(20_000)})  # type: ignore[attr-defined]
    assert row.ratio > 5 and row.ours < row.theirs


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
    assert (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8") == main.page(kept)
    assert set(kept["rows"]) <= set(main.NAMES)
    sys.modules.pop("benchmarks.__main__")
