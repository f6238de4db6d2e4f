"""Networks that score every date of a path at once: over the history, in one pass, or one small net per date.

A network is called as ``network(paths, payoffs) -> (B, N)`` with prices (B, d, N) and payoffs (B, N); a positive score
of date n means stop, and depends on nothing after n. The score of the last date is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DOSNetworks", "HistoryNetwork", "history_cnn", "history_mlp"]


class HistoryNetwork(nn.Module):
    """One set of weights for all dates, over the prices and payoffs so far.

    The state of date n is the last ``window`` values up to n, the newest last, zeros before the first. Convolutions of
    kernel 3, each with a ReLU and batch norm, then a hidden layer with a ReLU, batch norm and dropout, then the score.

    The windows of all dates slide over one zero-padded sequence. So the sequence is convolved once, and the hidden
    layer is one more convolution whose kernel covers a whole window: all scores in one pass, the same numbers as
    window by window at a small part of the cost. Batch statistics of the first layers count every place once.

    Args:
        n_dates: N.
        assets: d.
        window: values per state, N unless given.
        channels: of the convolutions; empty gives a dense net on the window.
        differences: show changes of prices, 0 at the first date, instead of prices.
        static: numbers that join the convolved window, say strike and maturity.
        hidden: width of the hidden layer.
        dropout: share of hidden units left out in training.
        norm: "shared": batch norm with statistics over all dates, and running averages of them in evaluation;
            "per_date": statistics of the batch, date by date, in evaluation, too, as published (this needs the slow
            pass, and makes a path's score depend on the other paths); None: no batch norm.
        output_relu: a ReLU on the score, as published. Where it is zero for all paths, nothing is learned any more.

    Raises:
        ValueError: a window shorter than what the convolutions need (2 per convolution and 1) or longer than the path;
            unknown norm.

    Source: Felizardo, Matsumoto and Del-Moral-Hernandez, IJCNN 2022, section on the CNN, and its published code.

    Example:
        >>> net = history_cnn(50)
        >>> net(torch.randn(4, 1, 50), torch.rand(4, 50)).shape
        torch.Size([4, 50])
    """

    static: Tensor

    def __init__(
        self,
        n_dates: int,
        assets: int = 1,
        *,
        window: int | None = None,
        channels: Sequence[int] = (),
        differences: bool = False,
        static: Sequence[float] = (),
        hidden: int = 50,
        dropout: float = 0.0,
        norm: str | None = "shared",
        output_relu: bool = False,
    ) -> None:
        super().__init__()
        self.n_dates, self.window = n_dates, n_dates if window is None else window
        self.differences, self.norm, self.output_relu = differences, norm, output_relu
        if norm not in ("shared", "per_date", None):
            raise ValueError(f'norm is "shared", "per_date" or None, not {norm!r}')
        least = 2 * len(channels) + 1
        if not least <= self.window <= n_dates:
            raise ValueError(
                f"a window of {self.window} dates does not fit {len(channels)} convolutions of 3 on paths of {n_dates} "
                f"dates; it must be between {least} and {n_dates}"
            )
        widths = (assets + 1, *channels)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv1d(before, after, 3), nn.ReLU(), self._batch_norm(after)]
        self.features = nn.Sequential(*layers)
        self.dense = nn.Linear(widths[-1] * (self.window - least + 1) + len(static), hidden)
        self.batch_norm = self._batch_norm(hidden)
        self.dropout, self.reach = dropout, least
        self.score = nn.Linear(hidden, 1)
        self.register_buffer("static", torch.tensor(static, dtype=torch.float32))

    def forward(self, paths: Tensor, payoffs: Tensor) -> Tensor:
        """Prices (B, d, N) and payoffs (B, N) to scores (B, N)."""
        if self.norm == "per_date":
            windows = self.windows(paths, payoffs).unbind(1)
            return torch.stack([self.on_window(window) for window in windows], 1)
        # Features of nothing but padding are the same for all paths and places: one such place stands for all.
        features = self.features(F.pad(self._shown(paths, payoffs), (self.reach, 0)))
        padding = features[:1, :, :1]
        moving = self.dense.weight[:, : self.dense.in_features - len(self.static)]
        kernel = moving.reshape(len(moving), features.shape[1], -1)
        constant = self.dense.bias + self.dense.weight[:, moving.shape[1] :] @ self.static
        constant = constant + kernel.sum(2) @ padding[0, :, 0]
        return self._scores(causal_convolution(features[..., 1:] - padding, kernel, constant))

    def on_window(self, window: Tensor) -> Tensor:
        """States of one date (B, d + 1, window), of :meth:`windows`, to their scores (B,)."""
        features = self.features(window).flatten(1)
        features = torch.cat([features, self.static.expand(len(window), -1)], 1)
        return self._scores(self.dense(features)[:, None])[:, 0]

    def windows(self, paths: Tensor, payoffs: Tensor) -> Tensor:
        """Prices (B, d, N) and payoffs (B, N) to the states of all dates (B, N, d + 1, window), a view."""
        padded = F.pad(self._shown(paths, payoffs), (self.window - 1, 0))
        return padded.unfold(2, self.window, 1).transpose(1, 2)

    def _shown(self, paths: Tensor, payoffs: Tensor) -> Tensor:
        """(B, d + 1, N): what the net sees of every date."""
        prices = torch.diff(paths, dim=2, prepend=paths[..., :1]) if self.differences else paths
        return torch.cat([prices, payoffs[:, None]], 1)

    def _scores(self, hidden: Tensor) -> Tensor:
        """(B, n, hidden) before the ReLU to (B, n) scores."""
        weight: Tensor = self.score.weight[0]
        bias: Tensor = self.score.bias
        hidden, norm = F.relu(hidden), self.batch_norm
        if isinstance(norm, nn.BatchNorm1d) and norm.running_var is not None and not self.training:
            assert norm.running_mean is not None
            # A batch norm with fixed statistics is an affine map, and joins the one that follows.
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            bias = bias + (norm.bias - norm.running_mean * scale) @ weight
            weight = weight * scale
        else:
            hidden = norm(hidden.flatten(0, 1)).view_as(hidden)
        if self.training and self.dropout:
            # A path loses the same units at all of its dates: far fewer random numbers, and no pass over the units.
            weight = (weight * F.dropout(torch.ones_like(hidden[:, 0]), self.dropout))[..., None]
        score = (hidden @ weight).view(hidden.shape[:2]) + bias
        return F.relu(score) if self.output_relu else score

    def _batch_norm(self, features: int) -> nn.Module:
        if self.norm is None:
            return nn.Identity()
        return nn.BatchNorm1d(features, track_running_stats=self.norm == "shared")


def causal_convolution(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Convolve sequences with a kernel that is about as long as they are, as products with its banded matrix.

    Args:
        x: (B, C, N), zero before its first place.
        kernel: (H, C, k); its last entry meets the newest value.
        bias: (H,).

    Returns:
        (B, N, H): ``y[b, n, h] = bias[h] + sum over c and i < k of kernel[h, c, k - 1 - i] x[b, c, n - i]``.

    Example:
        >>> causal_convolution(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[10.0, 1.0]]]), torch.zeros(1))
        tensor([[[ 1.],
                 [12.],
                 [23.]]])
    """
    B, C, N = x.shape
    H, _, k = kernel.shape
    # By lag n - m = 1 - N .. N - 1, zero for values to come and for those that have left the window; laid out so that a
    # row of the banded matrix is one piece of memory. Values go backwards, for lags to go forwards.
    by_lag = F.pad(kernel.flip(2)[..., :N], (N - 1, max(N - k, 0))).permute(1, 2, 0).contiguous()
    parts = []
    for start in range(0, N, 64):  # dates per product, which bounds the matrix of long paths and skips later values
        stop = min(start + 64, N)
        bands = by_lag.unfold(1, stop - start, 1)[:, N - stop + start : N + start]  # (C, values, H, dates)
        matrix = bands.transpose(2, 3).reshape(C * stop, -1)
        product = torch.addmm(bias.repeat(stop - start), x[..., :stop].flip(2).reshape(B, -1), matrix)
        parts.append(product.view(B, -1, H))
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def history_cnn(
    n_dates: int,
    assets: int = 1,
    *,
    strike: float = 100.0,
    maturity: float = 3.0,
    norm: str | None = "shared",
    output_relu: bool = False,
) -> HistoryNetwork:
    """The paper's CNN on the history of price changes and payoffs: 6 and 3 channels, 50 hidden units, dropout 1/2.

    Args:
        n_dates: N, at least 5.
        assets: d.
        strike, maturity: the two numbers that join the convolved history.
        norm, output_relu: of :class:`HistoryNetwork`; "per_date" and True as published.

    Example:
        >>> sum(p.numel() for p in history_cnn(100).parameters())
        14818
    """
    return HistoryNetwork(
        n_dates,
        assets,
        channels=(6, 3),
        differences=True,
        static=(strike, maturity),
        dropout=0.5,
        norm=norm,
        output_relu=output_relu,
    )


def history_mlp(
    n_dates: int,
    assets: int = 1,
    *,
    window: int | None = None,
    norm: str | None = "shared",
    output_relu: bool = False,
) -> HistoryNetwork:
    """The paper's dense net on the history of prices and payoffs: 50 hidden units; window 1 sees the last ones only.

    Args:
        n_dates: N.
        assets: d.
        window, norm, output_relu: of :class:`HistoryNetwork`.

    Example:
        >>> [sum(p.numel() for p in history_mlp(100, window=w).parameters()) for w in (100, 1)]
        [10201, 301]
    """
    return HistoryNetwork(n_dates, assets, window=window, norm=norm, output_relu=output_relu)


class DOSNetworks(nn.Module):
    """The networks of Deep Optimal Stopping: one of its own for every date but the last, run as one batched product.

    Batch norm, then two hidden layers, each affine, batch norm and ReLU, then the affine score.

    Where all paths start at one price, the norms of the first date see a constant: 0 in training, but in evaluation
    what their running means still lack, over a deviation near zero. So look at the share of paths that stop at the
    first date: if it is not 0 where nothing is paid there, the evaluated score is this artefact.

    Args:
        n_dates: N.
        assets: d.
        history: the state is all prices so far (zeros for those to come) instead of the last ones; the payoff joins
            either.
        hidden: width of both hidden layers; d + 40 unless given.

    Raises:
        ValueError: fewer than 2 dates.

    Source: Becker, Cheridito and Jentzen, Deep Optimal Stopping, JMLR 2019, sections 2.3 and 4.

    Example:
        >>> DOSNetworks(9, assets=2)(torch.rand(16, 2, 9), torch.rand(16, 9)).shape
        torch.Size([16, 9])
    """

    def __init__(self, n_dates: int, assets: int = 1, *, history: bool = False, hidden: int | None = None) -> None:
        super().__init__()
        if n_dates < 2:
            raise ValueError(f"{n_dates} date(s) leave nothing to decide; there must be 2 at least")
        self.n_dates, self.history = n_dates, history
        width = assets + 40 if hidden is None else hidden
        sizes = (assets * (n_dates if history else 1) + 1, width, width, 1)
        nets = n_dates - 1
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for before, after in pairwise(sizes):
            self.weights.append(
                torch.stack([nn.init.xavier_uniform_(torch.empty(after, before)).T for _ in range(nets)])
            )
            self.biases.append(torch.zeros(nets, 1, after))
        # One layer of batch norm over the units of all dates normalises every date by itself.
        self.norms = nn.ModuleList(nn.BatchNorm1d(nets * size) for size in sizes[:-1])

    def forward(self, paths: Tensor, payoffs: Tensor) -> Tensor:
        """Prices (B, d, N) and payoffs (B, N) to scores (B, N), the last of them 0."""
        B, d, N = paths.shape
        if self.history:
            seen = torch.ones(N - 1, N, dtype=torch.bool, device=paths.device).tril()
            state = (paths[:, None] * seen[:, None]).reshape(B, N - 1, d * N)
        else:
            state = paths[..., :-1].transpose(1, 2)
        x = torch.cat([state, payoffs[:, :-1, None]], 2)  # (B, N - 1, features)
        for i, (weight, bias, norm) in enumerate(zip(self.weights, self.biases, self.norms, strict=True)):
            x = norm(x.reshape(B, -1)).view(B, N - 1, -1)
            x = torch.baddbmm(bias, (F.relu(x) if i else x).transpose(0, 1), weight).transpose(0, 1)
        return F.pad(x[..., 0], (0, 1))
