import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from reprise.data import processes, simulate
from reprise.data.processes import (
    autoregressive,
    block_bootstrap,
    continue_geometric_brownian,
    fractional_brownian,
    geometric_brownian,
    harmonic,
    heston,
    narma,
)

PATHS = 40_000
RECORD = torch.linspace(0.9, 1.1, 60, dtype=torch.float64)


def covariance(x):
    """Of (B, N) columns."""
    return torch.from_numpy(np.cov(x.numpy(), rowvar=False))


def near(found, expected, count=PATHS, sigmas=5.0):
    """Covariances of normal variables, within so many of their own standard errors."""
    spread = expected.diagonal().sqrt()
    error = ((spread[:, None] * spread) ** 2 + expected**2).div(count).sqrt()
    assert ((found - expected).abs() < sigmas * error + 1e-12).all()


def options(process):
    return {"returns": RECORD} if process == "bootstrap" else {}


@pytest.mark.parametrize("process", processes.PROCESSES)
def test_shapes_seeds_and_first_prices(process):
    first, again, other = (simulate(process, 7, 12, seed, **options(process)) for seed in (3, 3, (3, 1)))
    assert first.shape == (7, 1, 12) and first.dtype == torch.float64 and first.isfinite().all()
    assert first.equal(again) and not first.equal(other)
    assert (first[..., 0] == 100).all() == (process != "gbm")


def test_geometric_brownian_has_its_moments():
    x = geometric_brownian(PATHS, 6, 0, spot=90, drift=0.05, volatility=0.3, maturity=2, assets=2)
    t = torch.arange(1, 7, dtype=torch.float64) / 3
    expected = 0.09 * torch.minimum(t[:, None], t)
    for asset in (0, 1):
        near(covariance(x[:, asset].log()), expected)
    error = x.std(0) / PATHS**0.5
    assert ((x.mean(0) - 90 * (0.05 * t).exp()).abs() < 5 * error).all()
    assert covariance(torch.stack([x[:, 0, -1], x[:, 1, -1]], 1).log())[0, 1].abs() < 5 * 0.18 / PATHS**0.5


def test_continuations_start_where_the_history_ends():
    history = torch.tensor([[[90.0, 50.0]], [[10.0, 200.0]]])
    x = continue_geometric_brownian(history, PATHS, 4, 0, drift=0.1, volatility=0.2, maturity=2)
    assert x.shape == (2, PATHS, 1, 2)
    expected = history[:, :, -1:].double() * torch.tensor([0.05, 0.1], dtype=torch.float64).exp()
    assert ((x.mean(1) - expected).abs() < 5 * x.std(1) / PATHS**0.5).all()
    with pytest.raises(ValueError, match="a history of 2 dates cannot be continued to 2"):
        continue_geometric_brownian(history, 3, 2, 0)


@pytest.mark.parametrize("method", ["davies-harte", "cholesky"])
@pytest.mark.parametrize("hurst", [0.2, 0.5, 0.7])
def test_fractional_brownian_has_its_covariance(hurst, method):
    t = torch.arange(1, 9, dtype=torch.float64) / 8
    s = t[:, None]
    expected = (s ** (2 * hurst) + t ** (2 * hurst) - (t - s).abs() ** (2 * hurst)) / 2
    near(covariance(fractional_brownian(PATHS, 8, 1, hurst=hurst, method=method)[:, 0]), expected)


@pytest.mark.parametrize("method", ["davies-harte", "cholesky"])
def test_hurst_one_is_a_straight_line(method):
    x = fractional_brownian(500, 20, 0, hurst=1.0, method=method)[:, 0]
    torch.testing.assert_close(x, x[:, -1:] * torch.arange(1, 21) / 20, atol=1e-6, rtol=0)
    assert x[:, -1].std() > 0.9


def test_prices_on_fractional_brownian_motion_are_spot_and_spot_times_motion():
    x = simulate("fbm", PATHS, 5, 2, hurst=0.7)[:, 0] / 100 - 1
    assert (x[:, 0] == 0).all() and abs(float(x[:, -1].std()) - 1) < 5 / (2 * PATHS) ** 0.5


def test_autoregression_is_stationary_from_the_first_increment():
    steps = autoregressive(PATHS, 14, 0, noise=2.0)[:, 0].diff()
    # Yule-Walker: the variance of an AR(2), then its recursion.
    gamma = [4 * 1.75 / (0.25 * (1.75**2 - 1.5**2))]
    gamma.append(1.5 / 1.75 * gamma[0])
    while len(gamma) < 13:
        gamma.append(1.5 * gamma[-1] - 0.75 * gamma[-2])
    lag = (torch.arange(13)[:, None] - torch.arange(13)).abs()
    near(covariance(steps), torch.tensor(gamma, dtype=torch.float64)[lag])


def test_autoregression_follows_its_recursion():
    steps = autoregressive(PATHS, 30, 1, coefficients=(0.5, 0.2, -0.3), noise=0.7)[:, 0].diff()
    shocks = steps[:, 3:] - 0.5 * steps[:, 2:-1] - 0.2 * steps[:, 1:-2] + 0.3 * steps[:, :-3]
    near(covariance(shocks), 0.49 * torch.eye(26, dtype=torch.float64))


def test_harmonic_increments_have_their_moments():
    x = harmonic(PATHS, 20, 0)[:, 0].diff()
    variance = 100**2 * (2 * 0.15**2 + 2 * 0.2**2 / 2)
    assert (x.mean(0).abs() < 5 * (variance / PATHS) ** 0.5).all()
    assert abs(float(x.var()) / variance - 1) < 0.01


def test_harmonic_waves_without_noise():
    """Every increment is the wave at some later point of the grid, and a phase of its own moves it."""
    grid = 20 * np.sin(2 * np.pi * 0.3 * np.linspace(0, 10, 23))
    x = harmonic(200, 12, 0, frequencies=(0.3,), noise=0.0, random_phase=False)[:, 0].diff().numpy()
    places = np.abs(x[..., None] - grid).min(-1)
    assert places.max() < 1e-9
    moved = harmonic(200, 12, 0, frequencies=(0.3,), noise=0.0)[:, 0].diff().numpy()
    assert np.abs(moved[..., None] - grid).min(-1).max() > 0.1


def test_narma_follows_its_recursion():
    x = narma(3, 30, 5, order=2, scale=10)[:, 0].diff().numpy()
    rng = np.random.default_rng(5)
    u = rng.uniform(0, 0.5, (3, 31))
    for path in range(3):
        y = [0.0, 0.0]
        for t in range(1, 30):
            y.append(0.3 * y[t] + 0.05 * y[t] * (y[t] + y[t - 1]) + 1.5 * u[path, t] * u[path, t - 1] + 0.1)
        steps = 10 * np.array(y[2:])
        assert np.allclose(np.ptp(x[path] - steps), 0) and np.isclose(x[path], 0).any()


def test_heston_keeps_its_mean_and_becomes_geometric_brownian_motion():
    x = heston(PATHS, 13, 0)[:, 0]
    t = torch.linspace(0, 3, 13, dtype=torch.float64)
    assert ((x.mean(0) - 100 * (0.1 * t).exp()).abs() <= 5 * x.std(0) / PATHS**0.5).all()
    plain = heston(PATHS, 7, 0, variance=0.04, vol_of_vol=0.0)[:, 0, 1:].log()
    t = t[2::2]
    near(covariance(plain), 0.04 * torch.minimum(t[:, None], t))


def test_leverage_has_its_sign():
    falls = [
        float(torch.corrcoef(torch.stack([x[:, :6].sum(1), x[:, 6:].abs().sum(1)]))[0, 1])
        for x in (heston(PATHS, 13, 0, correlation=c)[:, 0].log().diff() for c in (-0.9, 0.9))
    ]
    assert falls[0] < -0.02 and falls[1] > 0.02


def test_bootstrap_takes_consecutive_returns():
    returns = torch.stack([RECORD, RECORD + 1], 1)
    x = block_bootstrap(300, 12, 0, returns=returns, spot=50)
    steps = x[..., 1:] / x[..., :-1]
    assert torch.allclose(steps[:, 1] - steps[:, 0], torch.ones((), dtype=torch.float64))
    assert torch.allclose(steps.diff(), RECORD.diff()[0])
    starts = ((steps[:, 0, 0] - 0.9) / RECORD.diff()[0]).round()
    assert starts.min() == 0 and starts.max() == 60 - 11


def test_bootstrap_joins_blocks():
    steps = block_bootstrap(300, 12, 0, returns=RECORD, block=4)[:, 0]
    steps = steps[:, 1:] / steps[:, :-1]
    inside = (steps.diff() - RECORD.diff()[0]).abs() < 1e-9
    assert inside[:, [0, 1, 2, 4, 5, 6, 8, 9]].all() and inside[:, [3, 7]].double().mean() < 0.1


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(processes.PROCESSES)), st.integers(1, 5), st.integers(2, 30), st.integers(0, 2**32))
def test_any_size_and_seed(process, paths, dates, seed):
    x = simulate(process, paths, dates, seed, **options(process))
    assert x.shape == (paths, 1, dates) and x.isfinite().all()


@pytest.mark.parametrize(
    ("process", "bad", "message"),
    [
        ("fbm", {"hurst": 1.2}, r"Hurst exponent lies in \(0, 1\], not at 1.2"),
        ("fbm", {"hurst": 0.0}, "Hurst exponent"),
        ("fbm", {"method": "fft"}, "davies-harte"),
        ("gbm", {"spot": -1}, "spot is -1"),
        ("gbm", {"volatility": -0.1}, "volatility is -0.1"),
        ("heston", {"maturity": float("nan")}, "maturity is nan"),
        ("heston", {"correlation": 2}, "correlation lies in"),
        ("ar2", {"coefficients": (1.0, 0.5)}, "no stationary law"),
        ("narma", {"order": 0}, "order is 0"),
        ("bootstrap", {"returns": torch.tensor([1.0, -0.5, 1.1])}, "return 1 is .* prices must be positive"),
        ("bootstrap", {"returns": torch.tensor([1.0, float("nan"), 1.1])}, "return 1 is"),
        ("bootstrap", {"returns": RECORD[:5]}, "a block of 11 returns does not fit a record of 5"),
        ("levy", {}, "unknown process 'levy'"),
    ],
)
def test_bad_options(process, bad, message):
    with pytest.raises(ValueError, match=message):
        simulate(process, 4, 12, 0, **bad)


@pytest.mark.parametrize("sizes", [(0, 12), (4, 1)])
def test_bad_sizes(sizes):
    with pytest.raises(ValueError, match=r"at least 1 path and 2 date\(s\) are needed"):
        simulate("harmonic", *sizes, 0)
