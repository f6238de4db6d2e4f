"""Real prices: daily closes, read from the library's data store, checked, and split by time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reprise.data import store

__all__ = ["PriceSeries", "load"]


@dataclass(frozen=True)
class PriceSeries:
    """The closes of one asset in the order of their dates.

    Attributes:
        symbol: its name.
        dates: (T,) datetime64[D], strictly ascending.
        close: (T,) doubles above 0.

    Raises:
        ValueError: lengths differ, dates are out of order, or a price is not a positive number.

    Example:
        >>> days = np.array(["2021-01-04", "2021-01-05", "2021-01-06"], "datetime64[D]")
        >>> PriceSeries("toy", days, torch.tensor([100.0, 110.0, 99.0], dtype=torch.float64)).returns
        tensor([1.1000, 0.9000], dtype=torch.float64)
    """

    symbol: str
    dates: NDArray[np.datetime64]
    close: Tensor

    def __post_init__(self) -> None:
        if self.close.shape != self.dates.shape or self.close.ndim != 1:
            raise ValueError(
                f"{self.symbol}: {self.dates.shape} dates came with {tuple(self.close.shape)} prices; both are (T,)"
            )
        good = self.close.isfinite() & (self.close > 0)
        if not good.all():
            at = int((~good).nonzero()[0])
            raise ValueError(
                f"{self.symbol}: the close of {self.dates[at]} is {float(self.close[at])}; prices are finite and above "
                "0, leave such days out"
            )
        late = np.flatnonzero(~(self.dates[1:] > self.dates[:-1]))
        if len(late):
            at = int(late[0]) + 1
            raise ValueError(
                f"{self.symbol}: dates are out of order, {self.dates[at]} follows {self.dates[at - 1]}; sort them, "
                "oldest first, each once"
            )

    def __len__(self) -> int:
        return len(self.dates)

    @property
    def returns(self) -> Tensor:
        """(T - 1,) gross returns, price over the price before."""
        return self.close[1:] / self.close[:-1]

    def split(self, share: float) -> tuple[PriceSeries, PriceSeries]:
        """The earlier part, with this share of the days, and the later one.

        Raises:
            ValueError: a part would have fewer than two days.

        Example:
            >>> days = np.arange(10).astype("datetime64[D]")
            >>> [len(part) for part in PriceSeries("toy", days, torch.ones(10)).split(0.7)]
            [7, 3]
        """
        cut = round(share * len(self))
        if not 2 <= cut <= len(self) - 2:
            raise ValueError(f"{self.symbol}: a share of {share} leaves {cut} of {len(self)} days; both parts need two")
        return (
            PriceSeries(self.symbol, self.dates[:cut], self.close[:cut]),
            PriceSeries(self.symbol, self.dates[cut:], self.close[cut:]),
        )


def load(name: str = "prices") -> dict[str, PriceSeries]:
    """Daily closes of several assets: a table with the columns ``date``, ``close`` and ``symbol``, rows in any order.

    Args:
        name: a folder where :mod:`reprise.data.store` looks; "prices" has the S&P 500, AMD, Intel and crude oil (WTI).

    Returns:
        By symbol, each sorted by date.

    Raises:
        reprise.data.DataMissing: the set is not on this machine.
        ValueError: the table is damaged, lacks a column, has a date twice, or a price that is not a positive number.
    """
    path = store.find(name, "train")
    table = store.read_table(path, ["date", "close", "symbol"])
    symbols = np.array(table["symbol"].to_pylist())
    try:
        dates = np.array(table["date"].to_pylist(), "datetime64[D]")
    except ValueError as error:
        raise ValueError(f"{path} has a date that is not YYYY-MM-DD: {error}") from error
    close = torch.from_numpy(table["close"].to_numpy().astype(np.float64))
    found = {}
    for symbol in sorted(set(symbols.tolist())):
        rows = np.flatnonzero(symbols == symbol)
        rows = rows[np.argsort(dates[rows], kind="stable")]
        found[symbol] = PriceSeries(symbol, dates[rows], close[torch.from_numpy(rows)])
    return found
