import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from reprise.data import DataMissing, PriceSeries, prices

DAYS = np.array(["2020-01-01", "2020-01-02", "2020-01-06", "2020-01-07"], "datetime64[D]")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a table as the set "prices" where sets are looked up."""
    monkeypatch.setenv("REPRISE_DATA", str(tmp_path))

    def write(**columns):
        (tmp_path / "prices").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "prices" / "train.parquet")

    return write


def series(close, days=DAYS):
    return PriceSeries("toy", np.asarray(days, "datetime64[D]"), torch.tensor(close, dtype=torch.float64))


def test_rows_in_any_order_become_series_by_time(write):
    write(date=["2020-01-02", "2020-01-01", "2020-01-01"], close=[3.0, 7.0, 2.0], symbol=["B", "A", "B"])
    found = prices.load()
    assert list(found) == ["A", "B"] and found["B"].close.tolist() == [2, 3] and found["B"].returns.tolist() == [1.5]
    assert found["B"].dates[0] == np.datetime64("2020-01-01")


def test_split_goes_by_time():
    early, late = series([1.0, 2.0, 3.0, 4.0]).split(0.5)
    assert early.close.tolist() == [1, 2] and late.close.tolist() == [3, 4] and late.dates[0] == DAYS[2]
    with pytest.raises(ValueError, match=r"a share of 0.9 leaves 4 of 4 days"):
        series([1.0, 2.0, 3.0, 4.0]).split(0.9)


@pytest.mark.parametrize(
    ("close", "days", "message"),
    [
        ([1.0, -37.63, 2.0, 3.0], DAYS, "the close of 2020-01-02 is -37.63; prices are finite and above 0"),
        ([1.0, 2.0, float("nan"), 3.0], DAYS, "the close of 2020-01-06 is nan"),
        ([1.0, 2.0, 3.0, 4.0], DAYS[::-1], "out of order, 2020-01-06 follows 2020-01-07"),
        ([1.0, 2.0], DAYS[[0, 0]], "out of order"),
        ([1.0, 2.0], DAYS, r"\(4,\) dates came with \(2,\) prices"),
    ],
)
def test_bad_series(close, days, message):
    with pytest.raises(ValueError, match=message):
        series(close, days)


def test_bad_tables(write, tmp_path):
    with pytest.raises(DataMissing, match="'prices' is not on this machine"):
        prices.load()
    write(date=["2020-01-01"], close=[1.0])
    with pytest.raises(ValueError, match="no column symbol"):
        prices.load()
    write(date=["yesterday"], close=[1.0], symbol=["A"])
    with pytest.raises(ValueError, match="not YYYY-MM-DD"):
        prices.load()
    write(date=["2020-01-01", "2020-01-01"], close=[1.0, 1.0], symbol=["A", "A"])
    with pytest.raises(ValueError, match="out of order"):
        prices.load()
    (tmp_path / "prices" / "train.parquet").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        prices.load()
