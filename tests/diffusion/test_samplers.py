import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from reprise.diffusion import Churn, sample, sigma_schedule

F64 = torch.float64
START = 2 * torch.tensor([[-1.5, -0.2, 0.4, 2.0]], dtype=F64)
SIGMAS = sigma_schedule("karras", 6, 0.02, 2.0)
CHURN = Churn(3.0, 0.05, 1.5, 1.1)
ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpm_2": 2, "dpmpp_2s": 2, "dpmpp_2m": 2, "lms": 4}
ANCESTRAL = {"euler_ancestral": "euler", "dpmpp_2s_ancestral": "dpmpp_2s"}


def curved(x, sigma):
    """A stand-in for a denoiser."""
    s = sigma[:, None]
    return torch.tanh(x / (1 + s**2)) + 0.2 * s * torch.cos(x)


def fixed_noises(steps):
    return torch.stack([torch.cos(torch.arange(1, 5, dtype=F64) * (i + 1.0))[None] for i in range(steps)])


# k-diffusion 0.1.1.post1: sample_* of `curved` from START over get_sigmas_karras(6, .02, 2) with `fixed_noises`.
# DPM-Solver++(2S) is sample_dpmpp_2s_ancestral with eta=0.
K_DIFFUSION = [
    ("euler", {}, [-0.614323648, 0.147812209, 0.447600942, 0.646325848]),
    ("ddim", {}, [-0.614323648, 0.147812209, 0.447600942, 0.646325848]),
    ("heun", {}, [-0.534164036, 0.093959109, 0.424595217, 0.585829975]),
    ("dpm_2", {}, [-0.556717695, 0.091511688, 0.435120075, 0.608880243]),
    ("lms", {}, [-0.582473749, 0.13155058, 0.441000515, 0.621774757]),
    ("dpmpp_2m", {}, [-0.575045944, 0.092221263, 0.451867361, 0.643192973]),
    ("dpmpp_2s", {}, [-0.579426589, 0.110055416, 0.441810544, 0.626684311]),
    ("dpmpp_2s_ancestral", {}, [-0.429894776, -0.046033561, 0.246505688, 0.452236743]),
    ("euler_ancestral", {}, [-0.455943555, 0.041131674, 0.263377811, 0.45444576]),
    ("euler_ancestral", {"eta": 0.5}, [-0.595325063, 0.025953879, 0.358421067, 0.602872429]),
    ("euler", {"churn": CHURN}, [-0.639255706, 0.191305996, 0.444629204, 0.567614987]),
    ("heun", {"churn": CHURN}, [-0.489337285, 0.093845124, 0.424925606, 0.48703606]),
    ("dpm_2", {"churn": CHURN}, [-0.541799469, 0.096889583, 0.465074992, 0.537646775]),
]


@pytest.mark.parametrize(("sampler", "options", "expected"), K_DIFFUSION, ids=lambda value: str(value)[:30])
def test_samplers_are_those_of_k_diffusion(sampler, options, expected):
    x = sample(curved, START, SIGMAS, sampler, noises=fixed_noises(6), **options)
    assert x[0].tolist() == pytest.approx(expected, abs=3e-7)


# --- closed forms -----------------------------------------------------------------------------------------------------


def gaussian(mean, std):
    """The perfect denoiser of data N(mean, std^2)."""
    return lambda x, s: mean + std**2 / (std**2 + s[:, None] ** 2) * (x - mean)


CENTRES, SHARES, WIDTH = torch.tensor([-1.0, 0.5], dtype=F64), torch.tensor([0.4, 0.6], dtype=F64), 0.3


def mixture(x, s):
    """The perfect denoiser of two normal distributions."""
    variance = (WIDTH**2 + s**2)[:, None]
    distance = x - CENTRES
    share = (SHARES.log() - distance.square() / (2 * variance)).softmax(1)
    return (share * (CENTRES + WIDTH**2 / variance * distance)).sum(1, keepdim=True)


def share_below(x, sigma):
    """The mixture's distribution function at noise level sigma."""
    std = math.sqrt(WIDTH**2 + sigma**2)
    return (SHARES * torch.special.ndtr((x - CENTRES) / std)).sum(1)


@pytest.mark.parametrize("sampler", ORDERS)
def test_a_mixture_is_reached_with_the_sampler_s_order(sampler):
    """In one dimension no paths cross: the share of the data below a sample stays what it was at the start."""
    start = torch.linspace(-12, 12, 15, dtype=F64)[:, None]
    errors = []
    for steps in (20, 40, 80):
        sigmas = sigma_schedule("exponential", steps + 1, 0.02, 10.0)[:-1]
        x = sample(mixture, start, sigmas, sampler)
        errors.append(float((share_below(x, 0.02) - share_below(start, 10.0)).abs().max()))
    order = math.log2(errors[1] / errors[2])
    assert errors[2] < {1: 0.03, 2: 2e-3, 4: 2e-4}[ORDERS[sampler]]
    assert order > ORDERS[sampler] - {1: 0.2, 2: 0.3, 4: 1.0}[ORDERS[sampler]], errors


@pytest.mark.parametrize("schedule", ["karras", "exponential", "linear", "cosine"])
def test_gaussian_data_are_reached_along_every_schedule(schedule):
    """x_0 = mean + std / sqrt(std^2 + sigma^2) (x - mean)."""
    start = torch.linspace(-3, 3, 7, dtype=F64)[:, None]
    x = sample(gaussian(0.4, 0.5), start, sigma_schedule(schedule, 400, 0.002, 2.0), "heun")
    torch.testing.assert_close(x, 0.4 + 0.5 / math.sqrt(0.25 + 4) * (start - 0.4), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("sampler", "steps", "ratio"),
    [("heun", 256, 0.01250124), ("euler", 256, 0.01237348), ("heun", 32, 0.01265895)],
)
def test_unit_gaussian_data_from_level_80(sampler, steps, ratio):
    """Policy-guided diffusion's sampler without churn; the limit is 1 / sqrt(1 + 80^2) = 0.0124990."""
    x = sample(gaussian(0, 1), torch.ones(1, 1, dtype=F64), sigma_schedule("karras", steps, 0.002, 80), sampler)
    assert float(x) == pytest.approx(ratio, abs=5e-9)


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        ("euler_ancestral", {}),
        ("dpmpp_2s_ancestral", {}),
        ("euler_ancestral", {"eta": 0.5}),
        ("heun", {"churn": Churn(20, 0.01, 5)}),
        ("euler", {"churn": Churn(20)}),
        ("dpm_2", {"churn": Churn(20)}),
    ],
    ids=str,
)
def test_samplers_that_add_noise_reach_the_variance_of_the_data(sampler, options):
    """Everything is linear, so one run with a unit in each noise in turn says all of it."""
    errors = []
    for steps in (50, 100, 200):
        sigmas = sigma_schedule("karras", steps, 0.002, 10.0)
        start, noises = torch.zeros(steps + 1, 1, dtype=F64), torch.zeros(steps, steps + 1, 1, dtype=F64)
        start[0] = sigmas[0]
        noises[range(steps), range(1, steps + 1)] = 1
        x = sample(gaussian(0, 0.5), start, sigmas, sampler, noises=noises, **options)
        errors.append(abs(float(x.square().sum().sqrt()) - 0.5))
    assert errors[-1] < 0.02 and errors[1] < 0.7 * errors[0] and errors[2] < 0.7 * errors[1], errors


@pytest.mark.parametrize("sampler", [*ORDERS, *ANCESTRAL])
def test_one_step_to_zero_is_the_denoiser(sampler):
    x = sample(curved, START, torch.tensor([2.0, 0.0]), sampler)
    expected = curved(START, torch.tensor([2.0], dtype=F64))
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-15 if sampler == "lms" else 0)


@pytest.mark.parametrize("sampler", ANCESTRAL)
def test_an_ancestral_sampler_without_new_noise_is_the_other(sampler):
    assert torch.equal(
        sample(curved, START, SIGMAS, sampler, eta=0.0), sample(curved, START, SIGMAS, ANCESTRAL[sampler])
    )


# --- the loop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [("ddim", 6), ("heun", 11), ("dpm_2", 11), ("dpmpp_2s", 11), ("dpmpp_2m", 6), ("lms", 6), ("euler_ancestral", 6)],
)
def test_number_of_calls_of_the_denoiser(sampler, calls):
    seen = []
    sample(lambda x, s: seen.append(s) or curved(x, s), START.expand(3, -1), SIGMAS, sampler)
    assert len(seen) == calls and {s.shape for s in seen} == {(3,)}
    assert all(float(s[0]) > 0 for s in seen)


@settings(max_examples=20, deadline=None)
@given(sampler=st.sampled_from([*ORDERS, *ANCESTRAL]), factor=st.floats(0.1, 10), steps=st.integers(1, 12))
def test_data_in_other_units_give_samples_in_other_units(sampler, factor, steps):
    sigmas, noises = sigma_schedule("karras", steps, 0.02, 2.0), torch.randn(steps, 1, 4, dtype=F64)

    def scaled(x, s):
        return factor * curved(x / factor, s / factor)

    x = sample(scaled, factor * START, factor * sigmas, sampler, noises=noises)
    torch.testing.assert_close(x, factor * sample(curved, START, sigmas, sampler, noises=noises))


def test_before_each_step_x_may_be_changed():
    """As BESO may hold past actions fixed."""
    seen = []

    def hold(i, x, sigma):
        seen.append((i, sigma))
        return torch.cat([torch.full_like(x[:, :1], 9.0), x[:, 1:]], 1)

    x = sample(curved, START, SIGMAS, before_step=hold)
    assert seen == list(enumerate(SIGMAS.tolist()[:-1]))
    last = torch.tensor([[9.0]], dtype=F64)
    torch.testing.assert_close(x[:, :1], curved(last, SIGMAS[-2:-1]))
    assert torch.equal(x[:, 1:], sample(curved, START, SIGMAS)[:, 1:])


def test_churn_outside_its_range_or_of_no_amount_changes_nothing():
    plain = sample(curved, START, SIGMAS, "heun")
    assert torch.equal(plain, sample(curved, START, SIGMAS, "heun", churn=Churn(0)))
    assert torch.equal(plain, sample(curved, START, SIGMAS, "heun", churn=Churn(80, 3.0, 9.0)))
    assert not torch.equal(plain, sample(curved, START, SIGMAS, "heun", churn=Churn(80)))


def test_churn_raises_the_level_by_the_published_factor():
    seen = []
    sample(lambda x, s: seen.append(float(s[0])) or curved(x, s), START, SIGMAS, churn=Churn(80, 0.05, 1.5))
    within = (SIGMAS[:-1] >= 0.05) & (SIGMAS[:-1] <= 1.5)
    expected = SIGMAS[:-1] * torch.where(within, math.sqrt(2), 1.0)  # 80 / 6 is above the limit
    assert seen == pytest.approx(expected.tolist())


def test_the_generator_decides_the_noise_and_the_sample_can_be_trained_on():
    net = torch.nn.Linear(4, 4).double()
    ends = [
        sample(lambda x, s: net(x), START, SIGMAS, "euler_ancestral", generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])
    net(ends[0]).sum().backward()
    assert net.weight.grad is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample(curved, START, SIGMAS, "dpm++"), "unknown sampler 'dpm\\+\\+'; there are 'ddim', 'euler'"),
        (lambda: sample(curved, START, SIGMAS, "lms", churn=CHURN), "'lms' takes no churn"),
        (lambda: sample(curved, START, SIGMAS, eta=2.0), "eta lies in 0"),
        (lambda: sample(curved, START, SIGMAS.flip(0)), "at least two finite levels that fall"),
        (lambda: sample(curved, START, torch.tensor([1.0])), "at least two"),
        (lambda: sample(curved, START, torch.tensor([1.0, -0.1])), "to 0 or above"),
        (lambda: sample(curved, START, torch.tensor([math.inf, 1.0])), "finite levels"),
        (lambda: sample(curved, START, torch.tensor([1.0, math.nan, 0.0])), "finite levels"),
        (lambda: sample(curved, START, torch.ones(2, 2)), "at least two"),
        (lambda: sample(curved, START, SIGMAS, noises=torch.zeros(5, 1, 4)), r"noises are \(6, 1, 4\)"),
        (lambda: sample(lambda x, s: x[:, :1], START, SIGMAS), "the denoiser's output has shape"),
        (lambda: sample(curved, START, SIGMAS, before_step=lambda i, x, s: x[:, :1]), "what before_step returned has"),
        (lambda: Churn(-1.0), "amount and noise of at least 0"),
        (lambda: Churn(math.nan), "amount and noise"),
        (lambda: Churn(1.0, 2.0, 1.0), "minimum <= maximum"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_sample_that_is_not_finite_is_refused():
    with pytest.raises(FloatingPointError, match="returned NaN or infinity"):
        sample(lambda x, s: x / 0, START, SIGMAS)
