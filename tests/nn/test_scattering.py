"""Scattering: frames, the theorems on stability, and the coefficients of kymatio."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from reprise.nn import (
    FeatureExtractor,
    FilterBank,
    Scattering2D,
    ScatteringModule,
    ScatteringTransformer,
    deform,
    deformation_bound,
    deformation_error,
    feature_distance,
    feature_extractor,
    frequency_decreasing,
    gabor_bank,
    haar_bank,
    jacobian_norm,
    morlet_bank,
    random_bank,
    random_displacement,
    translation_bound,
    translation_error,
)


def conv_bank(N):
    torch.manual_seed(0)
    return FilterBank.from_conv(nn.Conv2d(1, 6, 5), N)


BANKS = {
    "haar": haar_bank,
    "random": random_bank,
    "conv": conv_bank,
    "morlet": lambda N: morlet_bank(N, J=2, L=3),
    "gabor": lambda N: gabor_bank(N, J=2, L=3),
}
NONLINEARITIES = ("modulus", "relu", "tanh", "sigmoid")
POOLINGS = ("sub", "avg", "max")


def signals(side=32, n=2, dtype=torch.float64, seed=0):
    return torch.randn(n, 1, side, side, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def picture(side=64, n=2):
    """Smooth random pictures with non-negative values, as photographs have."""
    noise = torch.fft.fft2(signals(side, n))
    frequency = torch.fft.fftfreq(side, dtype=torch.float64)
    weight = 1 / (1 / side + torch.hypot(frequency[:, None], frequency[None]))
    smooth = torch.fft.ifft2(noise * weight).real
    return (smooth - smooth.amin((2, 3), True)) / (smooth.amax((2, 3), True) - smooth.amin((2, 3), True))


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bank", [haar_bank(16), random_bank(16), conv_bank(16), morlet_bank(16, 2, 4).normalise()])
def test_parseval_banks_keep_the_energy(bank):
    assert bank.frame_bounds() == pytest.approx((1, 1), abs=1e-9)
    f = signals(16)
    parts = torch.fft.ifft2(torch.fft.fft2(f) * bank.filters_hat)
    assert float(parts.abs().square().sum() / f.square().sum()) == pytest.approx(1, abs=1e-6)


def test_littlewood_paley_sum_of_the_peers_wavelets():
    bank = morlet_bank(40, J=2, L=8)
    assert bank.frame_bounds(real_signals=True) == pytest.approx((0.123, 1), abs=1e-3)
    total = bank.littlewood_paley(real_signals=True)
    assert float(total[20, 20]) == pytest.approx(0.123, abs=1e-3)  # what is lost is the corner of the plane
    assert bank.filters_hat[bank.propagating, 0, 0].abs().max() < 1e-12  # each wavelet sums to zero
    assert gabor_bank(40, J=2, L=8).filters_hat[0, 0, 0].abs() > 1e-3


def test_tight_frame_completion():
    bank = morlet_bank(16, 2, 4)
    bank = bank.scale(bank.frame_bounds()[1] ** -0.5)
    complete = bank.complete()
    assert complete.frame_bounds() == pytest.approx((1, 1), abs=1e-9)
    assert len(complete.propagating) == len(bank.propagating) + 1
    assert torch.equal(complete.filters_hat[complete.lowpass_index], bank.filters_hat[bank.lowpass_index])
    with pytest.raises(ValueError, match="leaves no room"):
        bank.scale(2).complete()


def test_filters_of_a_layer_convolve_as_the_layer_does():
    conv = nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular", bias=False).double()
    bank = FilterBank.from_conv(conv, 8)
    ratio = bank.littlewood_paley()  # the bank is the layer up to a filter common to all
    assert ratio == pytest.approx(torch.ones(8, 8, dtype=torch.float64))
    f = signals(8)
    ours = torch.fft.fft2(f) * bank.filters_hat[bank.propagating]
    theirs = torch.fft.fft2(conv(f))
    quotient = (ours / theirs)[0]
    assert torch.allclose(quotient[0], quotient[1]) and quotient.imag.abs().max() < 1e-9


def test_one_seed_draws_the_same_random_filters_for_every_grid():
    first, other = random_bank(16, seed=3), random_bank(16, seed=4)
    assert torch.equal(first.filters_hat, random_bank(16, seed=3).filters_hat)
    assert not torch.allclose(first.filters_hat, other.filters_hat)


# --- theorems ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BANKS)
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_energy_non_expansiveness_covariance_and_zero(name, nonlinearity, pooling):
    network = feature_extractor(BANKS[name], 20, 2, nonlinearity, pooling)
    assert network.admissible()
    f, h = signals(20), signals(20, seed=1)
    features, others = network(f), network(h)
    assert torch.all(network.feature_norm(f) <= f.flatten(1).norm(dim=1) * (1 + 1e-9))
    assert torch.all(feature_distance(features, others).norm(dim=0) <= (f - h).flatten(1).norm(dim=1) * (1 + 1e-9))
    moved = network(f.roll((4, -8), (-2, -1)))  # a multiple of S_1·S_2 = 4
    for n, factor in enumerate(network.factors):
        assert torch.allclose(moved[n], features[n].roll((4 // factor, -8 // factor), (-2, -1)), atol=1e-12)
    assert all(not maps.any() for maps in network(torch.zeros_like(f)))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["haar", "random"]), st.sampled_from(POOLINGS), st.floats(0.01, 100))
def test_neighbours_stay_neighbours(seed, name, pooling, distance):
    network = feature_extractor(BANKS[name], 20, 2, "relu", pooling)
    f = signals(20, seed=seed)
    h = f + distance * signals(20, seed=seed + 1)
    moved = feature_distance(network(f), network(h)).norm(dim=0)
    assert torch.all(moved <= (f - h).flatten(1).norm(dim=1) * (1 + 1e-9))


@pytest.mark.parametrize("name", ["haar", "random", "morlet"])
@pytest.mark.parametrize("pooling", ["none", "avg", "max"])
def test_vertical_translation_bound(name, pooling):
    factor = 1 if pooling == "none" else 2
    network = feature_extractor(BANKS[name], 32, 2, "modulus", pooling, factor)
    f = picture(32)
    for t in (1, 3, (2, 1)):
        errors = translation_error(network, f, t)
        for n in range(3):
            assert torch.all(errors[n] <= translation_bound(network, f, t, n) * (1 + 1e-9))
    assert torch.equal(translation_error(network, f, 3, layer=2), translation_error(network, f, 3)[2])
    assert float(translation_bound(network, f, 4, 2)[0] / translation_bound(network, f, 2, 2)[0]) == pytest.approx(2)


def test_bound_falls_with_the_pooling_factors():
    f = picture(32)
    pooled, plain = (feature_extractor(haar_bank, 32, 2, pooling="sub", factor=S) for S in (2, 1))
    K = 2**-1.5  # of cos(πa)cos(πb)·|(a, b)| on the grid, near a = b = 1/4, and above it elsewhere
    assert float(translation_bound(plain, f, 1, 2)[0]) >= 2 * math.pi * K / 2 * float(f[0].norm())
    assert pooled.factors == [1, 2, 4] and plain.factors == [1, 1, 1]


@pytest.mark.parametrize("name", ["haar", "random"])
def test_deformation_bound(name):
    network = feature_extractor(BANKS[name], 64, 2)
    f = picture()
    frequency = torch.fft.fftfreq(64, dtype=torch.float64)
    R = 0.15  # cycles per pixel
    f = torch.fft.ifft2(torch.fft.fft2(f) * (torch.hypot(frequency[:, None], frequency[None]) <= R)).real
    for size in (0.25, 1.0, 2.0):
        tau = random_displacement(64, size, seed=1)
        deformed = deform(f, tau)
        error = deformation_error(network, f, deformed)
        assert torch.all(error <= (deformed - f).flatten(1).norm(dim=1) * (1 + 1e-9))
        assert torch.all(error <= deformation_bound(f, tau))
        spectral = math.sqrt(2) * size * 2 * math.pi * R * f.flatten(1).norm(dim=1)
        assert torch.all(deformation_bound(f, tau) <= spectral * (1 + 1e-9))


def test_deformation_of_a_wave_is_exact_and_small_ones_cost_linearly():
    wave = torch.cos(2 * math.pi * 3 * torch.arange(64, dtype=torch.float64) / 64).expand(1, 1, 64, 64)
    tau = random_displacement(64, 1.5)
    exact = torch.cos(2 * math.pi * 3 * (torch.arange(64) - tau[1]) / 64)
    assert float((deform(wave, tau) - exact).abs().max()) < 1e-3
    network = feature_extractor(haar_bank, 64, 2)
    small, large = (float(deformation_error(network, wave, deform(wave, s * tau / 1.5))) for s in (0.25, 0.5))
    assert large / small == pytest.approx(2, rel=0.1)


def test_displacements_are_smooth_and_refused_where_they_fold():
    tau = random_displacement(64, 2.0)
    assert float(tau.norm(dim=0).max()) == pytest.approx(2)
    assert 0.05 < jacobian_norm(tau) < 0.25
    with pytest.raises(ValueError, match="may fold"):
        deform(picture(), 20 * tau)
    with pytest.raises(ValueError, match="need displacements"):
        deform(picture(32), tau)


def test_average_pooling_keeps_the_lipschitz_constant():
    module = ScatteringModule(haar_bank(8), pooling="avg", factor=2)
    block = torch.zeros(8, 8)
    block[:2, :2] = 1
    assert float(module.pool(block).norm()) == pytest.approx(float(block.norm()))  # the worst case, R = 1
    assert module.pool(torch.full((8, 8), 3.0)).eq(6).all()
    largest = ScatteringModule(haar_bank(4), "tanh", pooling="max", factor=2)
    assert float(largest.pool(torch.tensor([[0.0, -3.0], [1.0, 2.0]]).repeat(2, 2))[0, 0]) == 3


# --- the extractor ----------------------------------------------------------------------------------------------------


def test_layers_paths_and_matrix():
    network = feature_extractor(lambda N: morlet_bank(N, 2, 4), 16, 2, path_filter=frequency_decreasing(4))
    assert [len(paths) for paths in network.paths] == [1, 8, 16]
    every = feature_extractor(lambda N: morlet_bank(N, 2, 4), 16, 2)
    f = torch.cat([signals(16), signals(16, seed=1)], 1)
    some, all_maps = network(f), every(f)
    assert [maps.shape for maps in some] == [(2, 2, 16, 16), (2, 16, 8, 8), (2, 32, 4, 4)]
    index = [every.paths[2].index(path) for path in network.paths[2]]
    assert torch.allclose(some[2], all_maps[2].unflatten(1, (2, -1))[:, :, index].flatten(1, 2))
    assert network.as_matrix(f).shape == (2, 2 + 16 + 32)
    assert network.as_matrix(f, reduce="none").shape == (2, 2 * 256 + 16 * 64 + 32 * 16)
    assert torch.allclose(network.as_matrix(f, log=True), network.as_matrix(f).abs().log1p())
    assert FeatureExtractor(network.layers, max_order=1)(f)[-1].shape == (2, 16, 8, 8)


def test_admissibility_is_reached_by_scaling():
    modules = [ScatteringModule(haar_bank(8).scale(3)), ScatteringModule(haar_bank(8))]
    network = FeatureExtractor(modules)
    assert not network.admissible()
    with pytest.raises(ValueError, match="make_admissible"):
        translation_bound(network, signals(8), 1, 0)
    assert network.make_admissible().admissible()
    steep = ScatteringModule(haar_bank(8), lambda u: 3 * u, lipschitz=3.0)
    assert steep.gain() == pytest.approx(9) and steep.make_admissible().bank.frame_bounds()[1] == pytest.approx(1 / 9)


@pytest.mark.parametrize("bank", [haar_bank, lambda N: morlet_bank(N, 1, 2)])
def test_gradients_precision_complex_signals_and_empty_batches(bank):
    network = feature_extractor(bank, 8, 2, "relu")
    f = signals(8, 1).requires_grad_()
    with torch.inference_mode():
        network(f.detach())
    assert torch.autograd.gradcheck(lambda f: network.as_matrix(f), f)
    single = network(f.detach().float())
    assert all(maps.dtype in (torch.float32, torch.complex64) for maps in single)
    assert all(torch.allclose(a, b.to(a.dtype), atol=1e-5) for a, b in zip(single, network(f.detach()), strict=True))
    turned = network(torch.complex(f.detach(), f.detach()))
    assert torch.allclose(torch.stack([m.abs().sum() for m in turned]).isfinite(), torch.tensor(True))
    shapes = [maps.shape[1:] for maps in single]
    assert [maps.shape for maps in network(torch.zeros(0, 1, 8, 8))] == [(0, *shape) for shape in shapes]


def test_strided_and_channels_last_signals_give_the_same():
    network, scattering = feature_extractor(haar_bank, 16, 2), Scattering2D(2, (16, 16))
    f = torch.randn(2, 3, 16, 16)
    strided = torch.randn(2, 3, 32, 32)[..., ::2, ::2].copy_(f)
    for other in (f.to(memory_format=torch.channels_last), strided):
        for a, b in zip(network(f), network(other), strict=True):
            assert torch.allclose(a, b, atol=1e-6)
        assert torch.allclose(scattering(f), scattering(other), atol=1e-6)


def test_wrong_modules_are_refused():
    with pytest.raises(ValueError, match="does not divide the side 9"):
        ScatteringModule(haar_bank(9), pooling="sub", factor=2)
    with pytest.raises(ValueError, match="cannot be pooled 3 times"):
        feature_extractor(haar_bank, 36, 3)
    with pytest.raises(ValueError, match="not zero at zero"):
        ScatteringModule(haar_bank(8), torch.sigmoid, lipschitz=0.25)
    with pytest.raises(ValueError, match="needs its Lipschitz constant"):
        ScatteringModule(haar_bank(8), torch.tanh)
    with pytest.raises(ValueError, match="unknown non-linearity 'selu'"):
        ScatteringModule(haar_bank(8), "selu")
    with pytest.raises(ValueError, match="unknown pooling"):
        ScatteringModule(haar_bank(8), pooling="median")
    with pytest.raises(ValueError, match="has factor 1"):
        ScatteringModule(haar_bank(8), factor=2)
    with pytest.raises(ValueError, match="leaves maps of side 4"):
        FeatureExtractor([ScatteringModule(haar_bank(8), pooling="sub", factor=2), ScatteringModule(haar_bank(8))])
    with pytest.raises(ValueError, match="order 1 needs 2 modules"):
        FeatureExtractor([ScatteringModule(haar_bank(8))], max_order=1)
    module = ScatteringModule(morlet_bank(8, 1, 2), nn.functional.relu, lipschitz=1.0)
    with pytest.raises(ValueError, match="takes real numbers"):
        FeatureExtractor([module, module])(torch.rand(1, 1, 8, 8))


def test_wrong_banks_are_refused():
    gap = haar_bank(8).filters_hat.clone()
    gap[:, 3, 3] = 0
    assert FilterBank(gap).frame_bounds()[0] == 0
    with pytest.raises(ValueError, match="not a frame"):
        FilterBank(gap).normalise()
    with pytest.raises(ValueError, match=r"2\^J = 16 is larger than the side 8"):
        morlet_bank(8, 4)
    with pytest.raises(ValueError, match="do not fit a grid of 4x4"):
        random_bank(4)
    with pytest.raises(ValueError, match="two filters or more"):
        FilterBank(torch.ones(1, 4, 4))
    with pytest.raises(ValueError, match="not finite"):
        FilterBank(torch.full((2, 4, 4), float("nan")))


@pytest.mark.parametrize("make", [lambda: feature_extractor(haar_bank, 16, 1), lambda: Scattering2D(2, (16, 16))])
def test_wrong_signals_are_refused(make):
    network = make()
    with pytest.raises(ValueError, match=r"made for \(\.\.\., 16, 16\)"):
        network(torch.rand(1, 1, 15, 16))
    with pytest.raises(ValueError, match=r"not torch\.float16"):
        network(torch.rand(1, 1, 16, 16).half())
    with pytest.raises(ValueError, match="not finite"):
        network(torch.full((1, 1, 16, 16), float("nan")))


# --- Scattering2D -----------------------------------------------------------------------------------------------------

# Made by kymatio 0.3.0 (torch front end, BSD-3) from the picture of `peer_picture`, in single precision.
PEER = dict(np.load(Path(__file__).parent / "kymatio_scattering.npz"))


def peer_picture(n):
    i = torch.arange(n, dtype=torch.float64)
    return torch.sin(0.9 * i[:, None] + 0.05 * i[None] ** 2) * torch.cos(0.13 * i[:, None] * i[None] / 4) + 0.3


@pytest.mark.parametrize(("J", "L"), [(1, 8), (2, 8), (3, 4)])
@pytest.mark.parametrize("n", [32, 28])
def test_coefficients_are_those_of_kymatio(J, L, n):
    theirs = torch.from_numpy(PEER[f"J{J}_L{L}_{n}"])
    ours = Scattering2D(J, (n, n), L)(peer_picture(n).float())
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) < 1e-5
    first = Scattering2D(J, (n, n), L, max_order=1)(peer_picture(n))
    assert float((first - theirs[: 1 + J * L]).abs().max()) < 1e-5


@pytest.mark.parametrize(("J", "channels"), [(2, 81), (3, 217)])
def test_channels(J, channels):
    scattering = Scattering2D(J, (32, 32))
    assert scattering.channels == channels
    assert scattering(torch.rand(2, 3, 32, 32)).shape == (2, 3, channels, 32 >> J, 32 >> J)


def test_a_constant_has_its_value_and_nothing_else():
    out = Scattering2D(2, (32, 32))(torch.full((1, 32, 32), 0.7))
    assert torch.allclose(out[:, 0], torch.tensor(0.7), atol=1e-4)  # the Gaussian of kymatio sums to 1.00003
    assert float(out[:, 1:].abs().max()) < 1e-6
    assert not Scattering2D(2, (32, 32))(torch.zeros(1, 32, 32)).any()


@pytest.mark.parametrize("shape", [(33, 30), (4, 5), (8, 21)])
def test_odd_sizes(shape):
    out = Scattering2D(2, shape)(torch.rand(2, *shape))
    assert out.shape == (2, 81, shape[0] // 4, shape[1] // 4) and bool(out.isfinite().all())


def test_gradients_chunks_and_empty_batches():
    scattering = Scattering2D(1, (4, 4), L=2)
    x = torch.rand(1, 4, 4, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        scattering(x.detach())
    assert torch.autograd.gradcheck(scattering, x)
    wide = Scattering2D(2, (32, 32))
    pictures = torch.rand(60, 32, 32)
    assert torch.allclose(wide(pictures)[-1], wide(pictures[-1]), atol=1e-6)
    assert wide(torch.zeros(0, 2, 32, 32)).shape == (0, 2, 81, 8, 8)


def test_non_expansive_for_periodic_pictures():
    """What the padding copies aside, coefficients are no farther apart than pictures."""
    bank = morlet_bank(40, 2)
    assert bank.frame_bounds(real_signals=True)[1] < 1 + 1e-4


def test_wrong_scattering_is_refused():
    with pytest.raises(ValueError, match=r"2\^J = 32 is larger than the side 28; take J <= 4"):
        Scattering2D(5, (28, 40))
    with pytest.raises(ValueError, match="max_order is 1 or 2"):
        Scattering2D(2, (28, 28), max_order=3)
    with pytest.raises(ValueError, match="at least 1"):
        Scattering2D(0, (28, 28))


def test_as_a_step_of_scikit_learn():
    from sklearn.base import clone

    step = clone(ScatteringTransformer(J=1, shape=(8, 8), batch_size=3))
    flat = np.random.default_rng(0).random((7, 64))
    out = step.fit_transform(flat)
    assert out.shape == (7, 9 * 16)
    assert np.allclose(out, step.transform(flat.reshape(7, 8, 8)))
    with pytest.raises(ValueError, match=r"pictures are \(n, 8, 8\) or \(n, 64\)"):
        step.transform(flat[:, :60])
