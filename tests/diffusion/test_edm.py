import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats
from torch import nn

from reprise.diffusion import (
    EDM,
    edm_coefficients,
    edm_loss_weight,
    log_logistic_sigmas,
    log_normal_sigmas,
    sample,
    sigma_schedule,
    uniform_sigmas,
)

F64 = torch.float64


class Net(nn.Module):
    """Takes noise, a condition and an option, as policies do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3, dtype=F64)
        self.seen = []

    def forward(self, x, c_noise, goal=None, flip=False):
        self.seen.append((x.detach(), c_noise.detach()))
        y = torch.tanh(self.layer(torch.cat([x, c_noise[:, None]], 1)))
        y = y if goal is None else y + goal
        return -y if flip else y


class Zero(nn.Module):
    def forward(self, x, c_noise):
        return torch.zeros_like(x)


class Narrow(nn.Module):
    def forward(self, x, c_noise):
        return x[:, :1]


# --- preconditioning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_limits_of_the_coefficients(sigma_data):
    low, high = torch.tensor([1e-9, 1e9], dtype=F64)
    assert [float(c) for c in edm_coefficients(low, sigma_data)[:3]] == pytest.approx([1, 0, 1 / sigma_data], abs=1e-8)
    assert [float(c) for c in edm_coefficients(high, sigma_data)[:3]] == pytest.approx([0, sigma_data, 0], abs=1e-8)


@settings(max_examples=30, deadline=None)
@given(sigma=st.floats(1e-3, 1e3), sigma_data=st.floats(0.05, 5))
def test_identities_of_the_coefficients(sigma, sigma_data):
    c_skip, c_out, c_in, c_noise = (float(c) for c in edm_coefficients(torch.tensor(sigma, dtype=F64), sigma_data))
    assert c_in * math.hypot(sigma, sigma_data) == pytest.approx(1)  # inputs of unit variance
    assert (1 - c_skip) ** 2 * sigma_data**2 + c_skip**2 * sigma**2 == pytest.approx(c_out**2)  # targets, too
    assert math.exp(4 * c_noise) == pytest.approx(sigma)
    weight = float(edm_loss_weight(torch.tensor(sigma, dtype=F64), sigma_data))
    assert weight == pytest.approx((sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2)


def test_the_network_sees_scaled_data_and_the_logarithm_of_the_level():
    net = Net()
    x, sigma = torch.randn(5, 3, dtype=F64), torch.tensor([0.01, 0.1, 1.0, 10.0, 80.0], dtype=F64)
    EDM(net, 0.5)(x, sigma)
    ((seen, level),) = net.seen
    torch.testing.assert_close(seen, x / (sigma.square() + 0.25).sqrt()[:, None])
    torch.testing.assert_close(level, sigma.log() / 4)


def test_a_network_that_says_nothing_leaves_the_skip():
    denoiser = EDM(Zero(), sigma_data=1.0)
    x = torch.randn(2, 3, dtype=F64)
    torch.testing.assert_close(denoiser(x, torch.full((2,), 2.0, dtype=F64)), x / 5)
    # Then D is that of unit Gaussian data: the sampler ends at the known ratio.
    x = sample(denoiser, torch.ones(1, 1, dtype=F64), sigma_schedule("karras", 256, 0.002, 80), "heun")
    assert float(x) == pytest.approx(0.01250124, abs=5e-9)


def test_conditions_and_options_are_handed_on():
    denoiser, x, sigma, goal = EDM(Net()), torch.randn(2, 3, dtype=F64), torch.ones(2, dtype=F64), torch.ones(3)
    skip = edm_coefficients(sigma).c_skip[:, None] * x
    torch.testing.assert_close(denoiser(x, sigma, goal, flip=True) - skip, -(denoiser(x, sigma, goal) - skip))
    assert not torch.allclose(denoiser(x, sigma, goal), denoiser(x, sigma))
    noise = torch.randn_like(x)
    losses = [denoiser.loss(x, *given_, sigma=sigma, noise=noise) for given_ in ((), (goal,))]
    assert losses[0] != losses[1]


# --- the loss ---------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(sigma_data=st.floats(0.1, 2), seed=st.integers(0, 100))
def test_the_loss_is_the_weighted_error_of_the_denoiser(sigma_data, seed):
    generator = torch.Generator().manual_seed(seed)
    denoiser = EDM(Net(), sigma_data)
    x0, noise = torch.randn(2, 6, 3, dtype=F64, generator=generator)
    sigma = log_normal_sigmas(6, generator=generator).double()
    error = (denoiser(x0 + sigma[:, None] * noise, sigma) - x0).square() * edm_loss_weight(sigma, sigma_data)[:, None]
    for reduction, expected in (("none", error), ("example", error.mean(1)), ("mean", error.mean())):
        torch.testing.assert_close(denoiser.loss(x0, sigma=sigma, noise=noise, reduction=reduction), expected)


def test_the_loss_trains_the_network():
    denoiser = EDM(Net())
    denoiser.loss(torch.randn(8, 3, dtype=F64), sigma=log_normal_sigmas(8)).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in denoiser.parameters())
    assert list(denoiser.state_dict()) == ["net.layer.weight", "net.layer.bias"]


# --- densities of noise levels ----------------------------------------------------------------------------------------


def seeded(draw, *arguments, **options):
    return draw(20_000, *arguments, generator=torch.Generator().manual_seed(0), **options).numpy()


def test_log_normal_levels():
    assert stats.kstest(seeded(log_normal_sigmas), stats.lognorm(1.2, scale=math.exp(-1.2)).cdf).pvalue > 0.01
    assert stats.kstest(seeded(log_normal_sigmas, 0.3, 0.5), stats.lognorm(0.5, scale=math.exp(0.3)).cdf).pvalue > 0.01


def test_log_logistic_levels():
    whole = stats.fisk(1 / 0.5, scale=0.5)  # the logistic distribution of the logarithm
    assert stats.kstest(seeded(log_logistic_sigmas), whole.cdf).pvalue > 0.01
    assert float(torch.tensor(seeded(log_logistic_sigmas)).median()) == pytest.approx(0.5, rel=0.02)
    low, high = whole.cdf([0.05, 1.0])
    cut = seeded(log_logistic_sigmas, 0.05, 1.0)
    assert stats.kstest(cut, lambda s: (whole.cdf(s) - low) / (high - low)).pvalue > 0.01


def test_uniform_levels():
    assert stats.kstest(seeded(uniform_sigmas, 0.1, 2.0), stats.uniform(0.1, 1.9).cdf).pvalue > 0.01


@pytest.mark.parametrize(("minimum", "maximum"), [(0.001, 80.0), (0.05, 1.0), (0.0, math.inf), (1e-8, 1e8)])
def test_log_logistic_levels_stay_in_their_range(minimum, maximum):
    sigma = log_logistic_sigmas(100_000, minimum, maximum)
    assert sigma.dtype == torch.float32 and bool((sigma > 0).all()) and bool(sigma.isfinite().all())
    assert float(sigma.min()) >= torch.tensor(minimum) and float(sigma.max()) <= torch.tensor(maximum)


def test_the_tails_of_log_logistic_levels_are_finite(monkeypatch):
    """In float32 the largest number that can be drawn would round to 1, whose logit is infinite."""
    monkeypatch.setattr(torch, "rand", lambda count, dtype, **_: torch.tensor([0.0, 1 - 2**-53], dtype=dtype))
    low, high = log_logistic_sigmas(2).log().tolist()
    assert (low, high) == pytest.approx((math.log(0.5) - 18.37, math.log(0.5) + 18.37), abs=0.01)


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EDM(Net(), 0.0), "sigma_data is the data's standard deviation, finite and above 0, not 0.0"),
        (lambda: EDM(Net(), math.nan), "not nan"),
        (lambda: EDM(Net())(X, torch.ones(3)), r"sigma is \(2,\), one level for each example, not \(3,\)"),
        (lambda: EDM(Net())(X, torch.tensor(1.0)), r"not \(\)"),
        (lambda: EDM(Net())(X, torch.tensor([0.0, 1.0])), "finite and above 0; they go from 0 to 1"),
        (lambda: EDM(Net())(X, torch.tensor([1.0, math.inf])), "go from 1 to inf"),
        (lambda: EDM(Net())(X, torch.tensor([1.0, math.nan])), "go from nan"),
        (lambda: EDM(Net()).loss(X, sigma=torch.ones(2), noise=X[:1]), "noise has shape"),
        (lambda: EDM(Narrow())(X, torch.ones(2)), r"the network's output has shape \(2, 1\)"),
        (lambda: edm_loss_weight(torch.tensor([-1.0])), "go from -1 to -1"),
        (lambda: log_normal_sigmas(3, std=0.0), "finite std above 0"),
        (lambda: log_logistic_sigmas(3, 1.0, 0.5), "0 <= minimum < maximum, not 1.0 and 0.5"),
        (lambda: log_logistic_sigmas(3, scale=0.0), "finite scale above 0"),
        (lambda: uniform_sigmas(3, 0.0, math.inf), "need a finite maximum"),
        (lambda: uniform_sigmas(3, -1.0, 1.0), "not -1.0 and 1.0"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
