import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from reprise.data import processes, simulate
from reprise.rl import (
    LSMC,
    DOSNetworks,
    HistoryNetwork,
    HoldToMaturity,
    NeuralStopper,
    Option,
    binomial,
    black_scholes,
    clairvoyant,
    history_cnn,
    history_mlp,
    upper_bound,
)
from reprise.rl.optimal_stopping import Estimate, best_fixed_date, next_stop, soft_payoff
from reprise.rl.optimal_stopping.networks import causal_convolution
from reprise.training import Diverged

PUT = Option("put", strike=40.0, rate=0.06, maturity=1.0)
PUT_MARKET = {"spot": 36.0, "drift": 0.06, "volatility": 0.2, "maturity": 1.0}
PUT_TERMS = {"spot": 36, "strike": 40, "rate": 0.06, "volatility": 0.2, "maturity": 1}
CALL_TERMS = {"spot": 100, "strike": 100, "rate": 0.05, "volatility": 0.2, "maturity": 3, "dividend": 0.1}
NETWORKS = {
    "cnn": lambda N, d=1: history_cnn(N, d),
    "published cnn": lambda N, d=1: history_cnn(N, d, norm="per_date", output_relu=True),
    "mlp": lambda N, d=1: history_mlp(N, d),
    "last": lambda N, d=1: history_mlp(N, d, window=1),
    "dos": lambda N, d=1: DOSNetworks(N, d),
    "dos, history": lambda N, d=1: DOSNetworks(N, d, history=True),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def reward(paths):
    """Stopping earns the process itself."""
    return paths[:, 0]


def spread(net):
    """Statistics of batch norms as training might leave them, so that no test passes for their being 0 and 1."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d) and module.running_var is not None:
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return net.eval()


# --- payoffs and rules ------------------------------------------------------------------------------------------------


def test_payoffs():
    paths = torch.tensor([[[90.0, 110.0, 130.0]]])
    discount = torch.exp(-0.05 * torch.arange(1.0, 4))
    for kind, expected in {
        "call": [0, 10, 30],
        "put": [10, 0, 0],
        "asian": [0, 0, 10],
        "max_call": [0, 10, 30],
    }.items():
        torch.testing.assert_close(Option(kind)(paths), torch.tensor([expected]) * discount)
    two = torch.cat([paths, paths.flip(2)], 1)
    torch.testing.assert_close(Option("max_call")(two), torch.tensor([[30.0, 10.0, 30.0]]) * discount)
    with pytest.raises(ValueError, match="a call has one asset, these paths have 2"):
        Option("call")(two)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5))
def test_next_stop_is_the_first_from_there_on(stop):
    expected = [[next((m for m in range(n, 3) if row[m]), 3) for n in range(4)] for row in stop]
    assert next_stop(torch.tensor(stop)).tolist() == expected


def test_objective_is_the_backward_recursion():
    scores, payoffs = torch.randn(50, 7, requires_grad=True), torch.rand(50, 7)
    g, total = payoffs[:, -1], torch.zeros(())
    for n in range(5, -1, -1):
        chance = torch.sigmoid(scores[:, n])
        total = total + (payoffs[:, n] * chance + g * (1 - chance)).mean()
        g = torch.where(scores[:, n] > 0, payoffs[:, n], g).detach()
    ours = soft_payoff(scores, payoffs)
    torch.testing.assert_close(ours, total)
    torch.testing.assert_close(torch.autograd.grad(ours, scores)[0], torch.autograd.grad(total, scores)[0])


def test_estimate():
    assert Estimate.of(torch.tensor([1.0, 3.0])) == (2.0, 1.0)


# --- closed forms and trees -------------------------------------------------------------------------------------------


def test_american_put():
    assert binomial("put", **PUT_TERMS).value == pytest.approx(4.4867, abs=1e-4)
    assert binomial("put", dates=50, **PUT_TERMS).value == pytest.approx(4.4779, abs=2e-4)
    assert black_scholes("put", **PUT_TERMS) == pytest.approx(3.8444, abs=1e-4)
    assert binomial("put", dates=1, **PUT_TERMS).value == pytest.approx(3.8444, abs=2e-4)


def test_least_squares_put_is_near_the_tree_and_not_above_it_out_of_sample():
    rule = LSMC(PUT).fit(simulate("gbm", 100_000, 50, 0, **PUT_MARKET))
    value = rule.value(simulate("gbm", 100_000, 50, 1, **PUT_MARKET))
    assert 4.478 - 0.02 < value.mean < 4.478 + 2 * value.stderr


def test_laguerre_functions_are_as_good():
    train, paths = simulate("gbm", 10_000, 10, 0, **PUT_MARKET), simulate("gbm", 20_000, 10, 1, **PUT_MARKET)
    powers, laguerre = (LSMC(PUT, basis=basis).fit(train).value(paths).mean for basis in ("poly", "laguerre"))
    assert laguerre == pytest.approx(powers, abs=0.01) and laguerre != powers


@pytest.mark.parametrize(("dates", "value"), [(9, 7.964), (10, 7.983), (50, 8.136)])
def test_bermudan_call_on_one_asset(dates, value):
    assert binomial("call", dates=dates, **CALL_TERMS).value == pytest.approx(value, abs=1e-3)


def test_call_without_dividends_is_never_exercised_early():
    terms = CALL_TERMS | {"dividend": 0.0}
    european = black_scholes("call", **terms)
    tree = binomial("call", dates=10, **terms)
    assert np.isnan(tree.boundary[:-1]).all() and tree.value == pytest.approx(european, abs=2e-3)
    market = {"drift": 0.05, "volatility": 0.2}
    rule = LSMC(Option("call")).fit(simulate("gbm", 50_000, 10, 0, **market))
    paths = simulate("gbm", 50_000, 10, 1, **market)
    held = HoldToMaturity(Option("call")).value(paths)
    assert abs(held.mean - european) < 3 * held.stderr
    assert held.mean - 0.01 * european < rule.value(paths).mean < held.mean + held.stderr


def test_holding_values_of_the_published_worlds():
    held = HoldToMaturity(Option("call")).value(simulate("gbm", 100_000, 5, 0))
    assert abs(held.mean - 6.021) < 3 * held.stderr
    held = HoldToMaturity(Option("call", maturity=3.0)).value(simulate("fbm", 100_000, 6, 0))
    assert abs(held.mean - math.exp(-0.15) * 100 / math.sqrt(2 * math.pi)) < 3 * held.stderr


@pytest.mark.parametrize(
    ("assets", "spot", "value"),
    [(2, 90, 8.074), (2, 100, 13.899), (2, 110, 21.349), (5, 90, 16.644), (5, 100, 26.159), (5, 110, 36.772)],
)
def test_bermudan_max_call_by_least_squares(assets, spot, value):
    option = Option("max_call")
    rule = LSMC(option, degree=3).fit(simulate("gbm", 10_000, 9, 0, spot=spot, assets=assets))
    found = rule.value(simulate("gbm", 10_000, 9, 1, spot=spot, assets=assets))
    assert 0.97 * value - 2 * found.stderr < found.mean < value + 3 * found.stderr


# --- Longstaff and Schwartz's example ---------------------------------------------------------------------------------

TABLE = torch.tensor(
    [[1.09, 1.08, 1.34], [1.16, 1.26, 1.54], [1.22, 1.07, 1.03], [0.93, 0.97, 0.92], [1.11, 1.56, 1.52],
     [0.76, 0.77, 0.90], [0.92, 0.84, 1.01], [0.88, 1.22, 1.34]], dtype=torch.float64,
)[:, None]  # fmt: skip


def test_eight_paths_of_longstaff_and_schwartz():
    rule = LSMC(Option("put", strike=1.10, rate=0.06, maturity=3.0), degree=2).fit(TABLE)
    assert rule.value(TABLE).mean == pytest.approx(0.1144, abs=5e-5)
    stop = rule.decisions(TABLE)
    assert (stop[:, 1].nonzero()[:, 0] + 1).tolist() == [4, 6, 7]
    assert (stop[:, 0].nonzero()[:, 0] + 1).tolist() == [4, 6, 7, 8]
    fitted, money = rule.continuation(TABLE), rule.payoff(TABLE) > 0
    # Published coefficients discount to the date itself, ours to today.
    for n, published in ((1, (-1.813, 2.983, -1.070)), (0, (1.356, -3.335, 2.038))):
        x, y = TABLE[money[:, n], 0, n].numpy(), fitted[money[:, n], n].numpy() * math.exp(0.06 * (n + 1))
        assert np.polyfit(x, y, 2) == pytest.approx(published, abs=6e-4)


def test_regressions_in_lagged_prices_see_what_the_last_price_hides():
    rules = {lags: LSMC(Option("call"), lags=lags).fit(simulate("ar2", 20_000, 20, 0)) for lags in (1, 3)}
    paths = simulate("ar2", 20_000, 20, 1)
    assert rules[3].value(paths).mean > 1.1 * rules[1].value(paths).mean
    assert rules[1].value(paths).mean > HoldToMaturity(Option("call")).value(paths).mean


def test_least_squares_on_all_paths_may_stop_out_of_the_money():
    paths = simulate("fbm", 4000, 6, 0) - 100
    rule = LSMC(reward, itm_only=False, degree=2).fit(paths)
    assert (rule.decisions(paths) & (paths[:, 0] < 0)).any()
    assert not (LSMC(reward, degree=2).fit(paths).decisions(paths) & (paths[:, 0] < 0)).any()


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "count"),
    [(lambda N=N: history_cnn(N), count) for N, count in ((10, 1318), (50, 7318), (100, 14_818), (400, 59_818))]
    + [(lambda: history_mlp(100), 10_201), (lambda: history_mlp(100, window=1), 301)],
)
def test_numbers_of_parameters(make, count):
    assert sum(p.numel() for p in make().parameters()) == count


@pytest.mark.parametrize("norm", ["shared", None])
@pytest.mark.parametrize("kind", ["cnn", "mlp", "last", "short"])
@pytest.mark.parametrize(("dates", "assets"), [(7, 2), (40, 1), (140, 1)])
def test_one_pass_equals_window_by_window(kind, norm, dates, assets):
    nets = {
        "cnn": lambda: history_cnn(dates, assets, norm=norm),
        "mlp": lambda: history_mlp(dates, assets, norm=norm),
        "last": lambda: history_mlp(dates, assets, window=1, norm=norm),
        "short": lambda: HistoryNetwork(dates, assets, window=6, channels=(4,), static=(2.0,), norm=norm),
    }
    net = spread(nets[kind]()).double()
    paths, payoffs = torch.randn(5, assets, dates).double(), torch.rand(5, dates).double()
    slow = torch.stack([net.on_window(window) for window in net.windows(paths, payoffs).unbind(1)], 1)
    torch.testing.assert_close(net(paths, payoffs), slow, atol=1e-10, rtol=1e-10)
    assert slow.std() > 0


def test_layers_come_in_the_published_order():
    net = spread(history_cnn(9, strike=2.0)).double()
    window = torch.randn(5, 2, 9).double()
    states = torch.cat([net.features(window).flatten(1), torch.tensor([[2.0, 3.0]]).expand(5, -1)], 1)
    torch.testing.assert_close(net.on_window(window), net.score(net.batch_norm(F.relu(net.dense(states))))[:, 0])


def test_gradients_of_one_pass_equal_those_of_the_windows():
    net = history_cnn(9, norm=None).double()
    net.dropout = 0.0
    paths, payoffs = torch.randn(6, 1, 9).double(), torch.rand(6, 9).double()
    slow = torch.stack([net.on_window(window) for window in net.windows(paths, payoffs).unbind(1)], 1)
    fast = torch.autograd.grad(soft_payoff(net(paths, payoffs), payoffs), list(net.parameters()))
    for ours, theirs in zip(fast, torch.autograd.grad(soft_payoff(slow, payoffs), list(net.parameters())), strict=True):
        torch.testing.assert_close(ours, theirs)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 150), st.integers(1, 160), st.integers(1, 3))
def test_causal_convolution(length, width, channels):
    x, kernel = torch.randn(2, channels, length).double(), torch.randn(4, channels, width).double()
    bias = torch.randn(4).double()
    expected = F.conv1d(F.pad(x, (width - 1, 0)), kernel, bias).transpose(1, 2)
    torch.testing.assert_close(causal_convolution(x, kernel, bias), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_do_not_see_the_future(name):
    net = spread(NETWORKS[name](12))
    paths = simulate("harmonic", 6, 12, 0).float()
    changed = paths.clone()
    changed[..., 7:] += 50 * torch.randn(6, 1, 5)
    before, after = (net(x, Option()(x)) for x in (paths, changed))
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:11], after[:, 7:11]) or name == "published cnn"


@pytest.mark.parametrize("name", NETWORKS)
def test_paths_are_scored_each_by_itself_in_evaluation(name):
    net = spread(NETWORKS[name](9, 2))
    paths = simulate("gbm", 8, 9, 0, assets=2).float()
    payoffs, order = Option("max_call")(paths), torch.randperm(8)
    scores = net(paths, payoffs)
    torch.testing.assert_close(net(paths[order], payoffs[order])[:, :-1], scores[order, :-1], atol=1e-5, rtol=1e-4)
    alone = torch.allclose(net(paths[:4], payoffs[:4])[:, :-1], scores[:4, :-1], atol=1e-5, rtol=1e-4)
    assert alone == (name != "published cnn"), "statistics of the batch, as published, make paths depend on each other"


def test_networks_of_dates_are_each_of_their_own():
    net = DOSNetworks(6)
    paths, payoffs = torch.randn(32, 1, 6), torch.rand(32, 6)
    net(paths, payoffs)[:, 2].sum().backward()
    for weight in net.weights:
        touched = weight.grad.flatten(1).abs().sum(1) > 0
        assert touched.tolist() == [False, False, True, False, False]


def test_training_repeats_by_seed_and_is_saved_and_loaded(tmp_path):
    rules = []
    for _ in range(2):
        torch.manual_seed(0)
        rules.append(NeuralStopper(Option(), history_cnn(8)))
        rules[-1].fit(lambda count, seed: simulate("harmonic", count, 8, seed), steps=12, batch_size=32)
    paths = simulate("harmonic", 300, 8, 9)
    assert rules[0].stopping_times(paths).equal(rules[1].stopping_times(paths))
    save_file(rules[0].network.state_dict(), tmp_path / "rule.safetensors")
    other = NeuralStopper(Option(), history_cnn(8))
    other.network.load_state_dict(load_file(tmp_path / "rule.safetensors"))
    assert other.stopping_times(paths).equal(rules[0].stopping_times(paths))


def test_training_keeps_the_best_weights_on_the_validation_paths():
    seen, validation = [], simulate("harmonic", 400, 8, 1)
    rule = NeuralStopper(Option(), history_cnn(8))
    rule.fit(
        simulate("harmonic", 500, 8, 0),
        steps=30,
        batch_size=64,
        learning_rate=0.3,
        milestones=(),
        validation=validation,
        on_step=lambda step, steps, values: seen.append((step, values["payoff"])),
    )
    assert [step for step, _ in seen] == list(range(3, 31, 3))
    assert rule.value(validation).mean == pytest.approx(max(value for _, value in seen))
    assert len({value for _, value in seen}) > 3


# --- what trained rules are worth -------------------------------------------------------------------------------------


def test_networks_find_the_value_of_a_bermudan_max_call():
    rule = NeuralStopper(Option("max_call"), DOSNetworks(9, 2))
    rule.fit(lambda n, seed: simulate("gbm", n, 9, seed, assets=2), steps=100, batch_size=512, learning_rate=0.02)
    value = rule.value(simulate("gbm", 20_000, 9, 5, assets=2))
    assert 13.899 * 0.985 - 2 * value.stderr < value.mean < 13.899 + 3 * value.stderr


def test_stopping_fractional_brownian_motion():
    """A random line tells its slope at the first date: wait where it rises, stop where it falls."""
    values = {}
    for hurst in (1.0, 0.5):
        rule = NeuralStopper(reward, DOSNetworks(100, hidden=8))

        def motion(count, seed, hurst=hurst):
            return processes.fractional_brownian(count, 100, seed, hurst=hurst)

        rule.fit(motion, steps=50 if hurst == 1 else 5, batch_size=128, validation=motion(500, 1), checks=5)
        values[hurst] = rule.value(motion(10_000, 2))
    assert values[1.0].mean == pytest.approx(0.99 / math.sqrt(2 * math.pi), abs=3 * values[1.0].stderr)
    assert values[0.5].mean == pytest.approx(0, abs=4 * values[0.5].stderr)


def test_rules_lie_between_the_best_date_and_the_clairvoyant():
    train, paths = simulate("harmonic", 4000, 12, 0), simulate("harmonic", 4000, 12, 1)
    cnn = NeuralStopper(Option(), history_cnn(12))
    cnn.fit(train, steps=60, batch_size=256, validation=simulate("harmonic", 2000, 12, 2))
    date, best = best_fixed_date(Option(), paths), clairvoyant(Option(), paths)
    for rule in (cnn, LSMC(Option()).fit(train)):
        assert date.mean < rule.value(paths).mean < best.mean
        assert rule.stopping_times(paths).unique().numel() > 3


def test_bounds_of_a_bermudan_call_enclose_its_value():
    rule = LSMC(Option("call"), degree=4).fit(simulate("gbm", 20_000, 9, 0))

    def onward(history, count, seed):
        return processes.continue_geometric_brownian(history, count, 9, seed)

    low = rule.value(simulate("gbm", 50_000, 9, 1))
    high = upper_bound(rule, simulate("gbm", 200, 9, 2), onward, inner=200)
    assert low.mean - 2 * low.stderr < 7.964 < high.mean + 2 * high.stderr
    assert high.mean - low.mean < 1 and high.stderr < 1
    # A rule that never stops gives a looser bound, and a bound all the same.
    loose = upper_bound(HoldToMaturity(Option("call")), simulate("gbm", 200, 9, 2), onward, inner=200)
    assert loose.mean > high.mean


@pytest.mark.parametrize("name", ["lsmc", "cnn"])
def test_decide_is_the_decision_on_the_path(name):
    train, paths = simulate("harmonic", 3000, 10, 0), simulate("harmonic", 50, 10, 1)
    if name == "lsmc":
        rule = LSMC(Option(), lags=2).fit(train)
    else:
        rule = NeuralStopper(Option(), history_cnn(10))
        rule.fit(train, steps=20, batch_size=128)
    expected = rule.decisions(paths)
    for n in (1, 4, 9):
        assert rule.decide(paths[..., :n]).equal(expected[:, n - 1])
    assert rule.decide(paths).all()
    with pytest.raises(ValueError, match="a history of 11 dates came to a rule fitted on paths of 10"):
        rule.decide(simulate("harmonic", 2, 11, 0))


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Option("straddle"), "kind is one of call, put"),
        (lambda: Option(strike=0.0), "the strike is 0.0"),
        (lambda: Option(maturity=-1.0), "the maturity is -1.0"),
        (lambda: history_cnn(4), "a window of 4 dates does not fit 2 convolutions"),
        (lambda: history_mlp(10, window=11), "a window of 11 dates"),
        (lambda: history_cnn(10, norm="batch"), 'norm is "shared"'),
        (lambda: DOSNetworks(1), "nothing to decide"),
        (lambda: LSMC(PUT, degree=0), "degree and lags are at least 1"),
        (lambda: LSMC(PUT, basis="chebyshev"), 'basis is "poly" or "laguerre"'),
        (lambda: LSMC(PUT, degree=3).fit(TABLE[:3]), "3 paths are fewer than the 4 basis functions"),
        (lambda: LSMC(PUT).fit(TABLE[..., :1]), "with one date"),
        (lambda: LSMC(PUT, basis="laguerre").fit(simulate("harmonic", 400, 9, 0)), "for prices above 0"),
        (lambda: LSMC(PUT).fit(TABLE.where(TABLE < 1.55, torch.nan)), "path 4 has a price at date 1 that is not"),
        (lambda: LSMC(PUT).fit(TABLE[:, 0]), r"paths are floats \(B, d, N\)"),
        (lambda: LSMC(lambda paths: paths).fit(TABLE), "the payoff of paths"),
        (lambda: LSMC(PUT).fit(TABLE).value(TABLE[..., :2]), "paths of 2 dates came to a rule fitted on 3"),
        (lambda: binomial("asian", **PUT_TERMS), 'kind is "call" or "put"'),
        (lambda: binomial("put", **PUT_TERMS | {"rate": 9.0}, steps=10), "10 steps are too few"),
        (lambda: NeuralStopper(PUT, DOSNetworks(3)).fit(TABLE, batch_size=9), "batch_size 9 does not fit 8 paths"),
        (lambda: NeuralStopper(PUT, history_cnn(5)).fit(TABLE, batch_size=8), "paths of 3 dates came to a network"),
        (lambda: NeuralStopper(PUT, history_cnn(5)).fit(TABLE, steps=0), "steps and checks are at least 1"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rules_before_their_fit():
    with pytest.raises(RuntimeError, match="this LSMC has not been fitted"):
        LSMC(PUT).value(TABLE)
    with pytest.raises(RuntimeError, match="this LSMC has not been fitted"):
        LSMC(PUT).decide(TABLE)


def test_continuations_of_another_shape():
    rule = LSMC(PUT, degree=1).fit(TABLE)
    with pytest.raises(ValueError, match=r"continuations have the shape \(8, 3\)"):
        upper_bound(rule, TABLE, lambda history, count, seed: torch.zeros(8, 3))


def test_divergence_is_told():
    rule = NeuralStopper(Option(), history_cnn(8))
    with pytest.raises(Diverged, match="lower the learning rate"):
        rule.fit(simulate("harmonic", 100, 8, 0), steps=20, batch_size=50, learning_rate=1e30, milestones=())
