import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings, strategies as st

from reprise.diffusion import (
    alpha_bar_to_sigma,
    alpha_bars,
    betas,
    ddim_timesteps,
    sigma_schedule,
    sigma_to_alpha_bar,
)

# diffusers 0.42.1 (float32), 1,000 steps: betas 0, 10, 500, 998, 999 and cumulated alphas 0, 10, 500, 999.
DIFFUSERS = {
    "linear": ({}, [1e-4, 2.991992e-4, 1.0059959e-2, 1.998008e-2, 0.02], [0.9999, 0.9978065, 7.779665e-2, 4.035830e-5]),
    "scaled_linear": (
        {"start": 0.00085, "end": 0.012},
        [8.5e-4, 8.975693e-4, 4.814954e-3, 1.198237e-2, 0.012],
        [0.99915, 0.9904313, 0.2763325, 4.660095e-3],
    ),
    "squared_cosine": (
        {},
        [4.128422e-5, 8.987136e-5, 3.155692e-3, 0.7499994, 0.999],
        [0.9999587, 0.9992788, 0.4922850, 2.428735e-9],
    ),
}


@pytest.mark.parametrize("name", DIFFUSERS)
def test_betas_are_those_of_diffusers(name):
    options, expected, kept = DIFFUSERS[name]
    values = betas(name, 1000, **options)
    assert values[[0, 10, 500, 998, 999]].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert alpha_bars(values)[[0, 10, 500, 999]].tolist() == pytest.approx(kept, rel=1e-4)


def test_the_chain_of_twenty_steps():
    """As in the denoisers that DSRL and DPPO steer."""
    values = betas("squared_cosine", 20)
    assert values[[0, 1, 10, 19]].tolist() == pytest.approx([0.0079927, 0.0200750, 0.1569971, 0.999], abs=5e-8)
    assert ddim_timesteps(20, 5) == [16, 12, 8, 4, 0]
    kept = alpha_bars(values)[ddim_timesteps(20, 5)]
    assert kept.tolist() == pytest.approx([0.0536592, 0.2691675, 0.5715266, 0.8470122, 0.9920073], abs=1e-7)


def test_visited_steps():
    assert ddim_timesteps(100, 16) == list(range(90, -1, -6))
    assert ddim_timesteps(1000, 20, offset=1) == list(range(951, 0, -50))
    assert ddim_timesteps(10, 10) == list(range(9, -1, -1))


@settings(max_examples=50, deadline=None)
@given(data=st.data(), train=st.integers(1, 1000))
def test_visited_steps_fall_within_the_chain(data, train):
    steps = data.draw(st.integers(1, train))
    offset = data.draw(st.integers(0, train - 1 - train // steps * (steps - 1)))
    visited = ddim_timesteps(train, steps, offset=offset)
    assert len(visited) == steps and visited[-1] == offset and visited[0] < train
    assert visited == sorted(set(visited), reverse=True)


# k-diffusion 0.1.1.post1: 5 levels from 1 to 0.05.
K_DIFFUSION = {
    "karras": ({"rho": 5}, [1.0, 0.5500491, 0.2789330, 0.1271041, 0.05, 0.0]),
    "exponential": ({}, [1.0, 0.4728708, 0.2236068, 0.1057371, 0.05, 0.0]),
    "linear": ({}, [1.0, 0.7625, 0.525, 0.2875, 0.05, 0.0]),  # by hand
}


@pytest.mark.parametrize("name", K_DIFFUSION)
def test_levels_are_those_of_k_diffusion(name):
    options, expected = K_DIFFUSION[name]
    assert sigma_schedule(name, 5, 0.05, 1.0, **options).tolist() == pytest.approx(expected, abs=1e-7)


def test_cosine_levels_leave_a_squared_cosine_of_the_variance():
    kept = sigma_to_alpha_bar(sigma_schedule("cosine", 9, 0.01, 50.0)[:-1])
    angles = torch.linspace(math.atan(50.0), math.atan(0.01), 9, dtype=torch.float64)
    torch.testing.assert_close(kept, angles.cos().square())


@settings(max_examples=50, deadline=None)
@given(
    name=st.sampled_from(["karras", "exponential", "linear", "cosine"]), steps=st.integers(1, 60),
    minimum=st.floats(1e-3, 0.5), factor=st.floats(1.5, 1e4), rho=st.floats(1, 10),
)  # fmt: skip
def test_levels_fall_from_maximum_to_minimum_to_zero(name, steps, minimum, factor, rho):
    levels = sigma_schedule(name, steps, minimum, minimum * factor, rho=rho).tolist()
    assert len(levels) == steps + 1 and levels[0] == minimum * factor and levels[-1] == 0
    assert steps == 1 or levels[-2] == minimum
    assert all(a > b for a, b in pairwise(levels))


def test_both_conventions_are_inverse_to_each_other():
    kept = alpha_bars(betas("linear", 1000))
    torch.testing.assert_close(sigma_to_alpha_bar(alpha_bar_to_sigma(kept)), kept)
    # The variances of signal and noise have the same ratio.
    torch.testing.assert_close(alpha_bar_to_sigma(kept).square(), (1 - kept) / kept)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: betas("cosine"), 'unknown schedule \'cosine\'; there are "linear", "scaled_linear" and "squared_cos'),
        (lambda: betas("linear", 0), "at least 1 step, not 0"),
        (lambda: betas("linear", start=0.1, end=0.05), "0 < start <= end < 1, not start 0.1 and end 0.05"),
        (lambda: betas("linear", end=float("nan")), "and end nan"),
        (lambda: alpha_bars(torch.tensor([0.1, 1.0])), "above 0 and below 1"),
        (lambda: alpha_bars(torch.tensor([0.1, torch.nan])), "above 0 and below 1"),
        (lambda: alpha_bars(torch.full((2, 2), 0.1)), "are a vector"),
        (lambda: ddim_timesteps(100, 0), "visits 1 to 100 of them, not 0"),
        (lambda: ddim_timesteps(100, 101), "not 101"),
        (lambda: ddim_timesteps(100, 100, offset=1), "it may be 0 to 0"),
        (lambda: ddim_timesteps(100, 4, offset=-1), "offset -1 moves"),
        (lambda: sigma_schedule("cosin", 5, 0.1, 1), "unknown schedule 'cosin'; there are \"cosine\""),
        (lambda: sigma_schedule("linear", 0, 0.1, 1), "at least 1 step"),
        (lambda: sigma_schedule("linear", 5, 0.0, 1), "need 0 < minimum < maximum"),
        (lambda: sigma_schedule("linear", 5, 1, 0.1), "not 1 and 0.1"),
        (lambda: sigma_schedule("linear", 5, 0.1, math.inf), "both finite"),
        (lambda: sigma_schedule("linear", 5, 0.1, math.nan), "not 0.1 and nan"),
        (lambda: sigma_schedule("karras", 5, 0.1, 1, rho=0), "rho is a finite number above 0"),
        (lambda: alpha_bar_to_sigma(torch.zeros(1)), "lies above 0"),
        (lambda: sigma_to_alpha_bar(torch.tensor([math.inf])), "finite and at least 0"),
        (lambda: sigma_to_alpha_bar(torch.tensor([-1.0])), "unlike \\[-1.0\\]"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
