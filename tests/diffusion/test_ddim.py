import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings, strategies as st

from reprise.diffusion import DDIM, ForwardProcess, alpha_bar_to_sigma, ddpm, sample

F64 = torch.float64
START = torch.tensor([[-1.5, -0.2, 0.4, 2.0]])


def sine(x, t):
    """A stand-in for a network."""
    return torch.sin(2 * x + 0.03 * t.reshape(-1, *(1,) * (x.ndim - 1)))


def fixed_noises(steps):
    return torch.stack([torch.cos(torch.arange(1, 5) * (i + 1.0))[None] for i in range(steps)])


# diffusers 0.42.1, DDIMScheduler(100, "squaredcos_cap_v2"), 16 steps of `sine` from START with `fixed_noises`:
# (prediction, clip_sample, eta, use_clipped_model_output).
DDIM_OF_DIFFUSERS = {
    ("epsilon", False, 0.0, False): [-9.0676889, -3.3364012, 3.6756723, 12.6262083],
    ("epsilon", False, 0.5, True): [-7.7322793, -3.5581183, 3.2607045, 10.1353683],
    ("epsilon", True, 0.0, False): [-0.2834798, -0.282857, 0.1364726, 0.3521011],
    ("epsilon", True, 0.0, True): [-1.0, -0.5044529, 0.8414499, 1.0],
    ("epsilon", True, 0.5, False): [-0.1341749, -0.2744738, -0.2576365, -0.276301],
    ("epsilon", True, 0.5, True): [-0.8249108, -0.4943258, -0.3669044, 0.9875954],
    ("sample", False, 0.0, False): [-0.9409314, 0.9581885, 0.9584455, 0.9592345],
    ("sample", True, 0.5, False): [-0.9161456, 0.949792, 0.9512261, 0.97327],
    ("v", False, 0.0, False): [-0.4793148, -0.3643591, -0.1181091, 2.5991361],
    ("v", False, 0.5, False): [-0.3375442, -0.3448593, -0.2777849, 2.4257226],
    ("v", True, 0.0, False): [-0.4793148, -0.3578465, -0.1181091, 0.8108597],
    ("v", True, 0.5, True): [-0.3375442, -0.3441188, -0.2777849, 0.9834647],
}
# DDPMScheduler of the same, 100 steps.
DDPM_OF_DIFFUSERS = {
    ("epsilon", False): [-2929.5176, -1509.5869, 1938.5149, 2713.8403],
    ("epsilon", True): [-0.2883881, -0.2739287, -0.2664347, -0.2601878],
    ("sample", True): [0.9504509, 0.9631903, 0.952817, 0.937843],
    ("v", False): [-0.2196065, -0.2061069, -0.1990527, -0.1927163],
    ("v", True): [-0.2194707, -0.2060105, -0.1989345, -0.1926014],
}


@pytest.mark.parametrize("case", DDIM_OF_DIFFUSERS, ids=str)
def test_ddim_is_that_of_diffusers(case):
    prediction, clip, eta, recompute = case
    process = ForwardProcess("squared_cosine", 100, prediction=prediction)
    sampler = DDIM(process, 16, eta=eta, clip=1.0 if clip else None, recompute_epsilon=recompute)
    x = sampler.sample(sine, START, noises=fixed_noises(16))
    assert x[0].tolist() == pytest.approx(DDIM_OF_DIFFUSERS[case], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("case", DDPM_OF_DIFFUSERS, ids=str)
def test_ddpm_is_that_of_diffusers(case):
    prediction, clip = case
    sampler = ddpm(ForwardProcess("squared_cosine", 100, prediction=prediction), clip=1.0 if clip else None)
    x = sampler.sample(sine, START, noises=fixed_noises(100))
    assert x[0].tolist() == pytest.approx(DDPM_OF_DIFFUSERS[case], rel=1e-4, abs=1e-5)


def test_the_sampler_of_stable_diffusion():
    """DDIMScheduler(1000, "scaled_linear", 0.00085..0.012, set_alpha_to_one=False, steps_offset=1), 20 steps, eta 1."""
    process = ForwardProcess(stable_diffusion_betas())
    sampler = DDIM(process, 20, eta=1.0, ends_at_data=False, offset=1)
    x = sampler.sample(sine, START, noises=fixed_noises(20))
    assert x[0].tolist() == pytest.approx([-17.9508686, -7.7534757, 5.759551, 15.0813322], rel=1e-4)
    assert sampler.timesteps.tolist() == list(range(951, 0, -50)) and bool((sampler.stds > 0).all())


def stable_diffusion_betas():
    return torch.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000, dtype=F64).square()


# --- closed forms -----------------------------------------------------------------------------------------------------


def gaussian(process, mean, std):
    """What a perfect network says of data N(mean, std^2), in the process's prediction."""

    def net(x, t):
        kept = process.alpha_bars[t].reshape(-1, 1)
        x0 = mean + kept.sqrt() * std**2 / (kept * std**2 + 1 - kept) * (x - kept.sqrt() * mean)
        return process.target(x0, (x - kept.sqrt() * x0) / (1 - kept).sqrt(), t)

    return net


def mean_and_std(sampler, mean, std):
    """Of the samples, exactly: everything is linear, so one run with a unit in each noise in turn says it all."""
    n = len(sampler)
    start, noises = torch.zeros(n + 2, 1, dtype=F64), torch.zeros(n, n + 2, 1, dtype=F64)
    start[1] = 1
    noises[range(n), range(2, n + 2)] = 1
    ends = sampler.sample(gaussian(sampler.process, mean, std), start, noises=noises)
    return float(ends[0]), float((ends[1:] - ends[0]).square().sum().sqrt())


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_samples_of_gaussian_data_converge_with_order_one(prediction, eta):
    errors = []
    for steps in (25, 50, 100, 200):
        sampler = DDIM(ForwardProcess("linear", 1000, prediction=prediction), steps, eta=eta)
        mean, std = mean_and_std(sampler, 0.7, 0.5)
        assert mean == pytest.approx(0.7, abs=0.02)
        errors.append(abs(std - 0.5))
    assert errors[-1] < 0.02
    assert all(1.6 < a / b < 2.6 for a, b in pairwise(errors)), errors


def test_ddpm_over_a_long_chain_gives_the_data():
    mean, std = mean_and_std(ddpm(ForwardProcess("squared_cosine", 1000)), -0.3, 1.5)
    assert (mean, std) == pytest.approx((-0.3, 1.5), abs=0.01)


def test_ddpm_has_the_posterior_of_the_chain():
    """Ho et al., equation 7, at one step."""
    process, x, x0 = ForwardProcess("linear", 10, prediction="sample"), torch.tensor([[2.0]]), torch.tensor([[0.4]])
    kept = process.alpha_bars
    t = 6
    beta = 1 - kept[t] / kept[t - 1]
    mean = (kept[t - 1].sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - kept[t - 1]) * x) / (1 - kept[t])
    ours, std = ddpm(process).moments(x0, x, 10 - 1 - t)
    torch.testing.assert_close(ours, mean.float())
    assert std**2 == pytest.approx(float((1 - kept[t - 1]) / (1 - kept[t]) * beta))


def test_a_mixture_comes_out_as_a_mixture():
    """Modes at -1 (30 %) and 1 (70 %) of width 0.1."""
    process = ForwardProcess("squared_cosine", 100, prediction="sample")
    centres, weights = torch.tensor([-1.0, 1.0]), torch.tensor([0.3, 0.7])

    def net(x, t):
        kept = process.alpha_bars[t].float()[:, None]
        variance = kept * 0.01 + 1 - kept
        distance = x - kept.sqrt() * centres
        share = (weights.log() - distance.square() / (2 * variance)).softmax(1)
        return (share * (centres + kept.sqrt() * 0.01 / variance * distance)).sum(1, keepdim=True)

    for sampler in (ddpm(process), DDIM(process, 50)):
        x = sampler.sample(net, torch.randn(4000, 1))
        right = x[x > 0]
        assert len(right) / 4000 == pytest.approx(0.7, abs=0.03)
        assert float(right.mean()) == pytest.approx(1, abs=0.01)
        assert float(right.std()) == pytest.approx(0.1, abs=0.02)


def test_ddim_is_the_continuous_sampler_in_another_scale():
    process = ForwardProcess("squared_cosine", 100)
    sampler = DDIM(process, 10)
    kept = process.alpha_bars[sampler.timesteps]
    levels = torch.cat([alpha_bar_to_sigma(kept), torch.zeros(1)])
    of_level = dict(zip(levels.tolist(), zip(sampler.timesteps, kept, strict=True), strict=False))

    def denoiser(x, sigma):
        t, a = of_level[float(sigma[0])]
        return x - sigma[:, None] * sine(a.sqrt() * x, t.expand(len(x)))

    x = START.double()
    expected = sampler.sample(sine, x)
    torch.testing.assert_close(sample(denoiser, x / kept[0].sqrt(), levels), expected)


# --- the probability of a step ----------------------------------------------------------------------------------------

POLICY = DDIM(ForwardProcess("squared_cosine", 200), 20, eta=1.0, ends_at_data=False, offset=1)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_log_probability_is_that_of_the_normal_distribution(reduce):
    output, x, following = torch.randn(3, 5, 3, 4, 4, dtype=F64)
    i = torch.tensor([0, 5, 5, 18, 19])
    ours = POLICY.log_prob(output, x, i, following, reduce=reduce)
    for k in range(5):
        mean, std = POLICY.moments(output[[k]], x[[k]], int(i[k]))
        expected = torch.distributions.Normal(mean, std).log_prob(following[[k]])
        torch.testing.assert_close(ours[k], getattr(expected, reduce)())
        one = POLICY.log_prob(output[[k]], x[[k]], int(i[k]), following[[k]], reduce=reduce)
        torch.testing.assert_close(ours[[k]], one)


def test_gradients_flow_to_the_network_and_not_to_what_was_sampled():
    output = torch.randn(2, 4, requires_grad=True)
    x = torch.randn(2, 4)
    following = POLICY.step(output, x, 3)
    assert following.requires_grad
    (gradient,) = torch.autograd.grad(POLICY.log_prob(output, x, 3, following).sum(), output)
    mean, std = POLICY.moments(output, x, 3)
    (slope,) = torch.autograd.grad(mean.sum(), output)
    torch.testing.assert_close(gradient, slope * (following - mean).detach() / std**2 / 4)


def test_recomputed_log_probabilities_are_the_stored_ones():
    trajectory = POLICY.rollout(sine, torch.randn(3, 2, 4), begin=6)
    latents, log_probs, timesteps = trajectory
    assert latents.shape == (3, 15, 2, 4) and log_probs.shape == (3, 14)
    assert torch.equal(timesteps, POLICY.timesteps[6:])
    # Steps shuffled within each example, as in training.
    order = torch.stack([torch.randperm(14) for _ in range(3)])
    rows = torch.arange(3)
    for k in order.T:
        x, following = latents[rows, k], latents[rows, k + 1]
        again = POLICY.log_prob(sine(x, timesteps[k]), x, k + 6, following)
        torch.testing.assert_close(again, log_probs[rows, k], rtol=0, atol=1e-5)


def test_a_rollout_ends_where_a_sample_does():
    noise, noises = torch.randn(3, 4), torch.randn(20, 3, 4)
    trajectory = POLICY.rollout(sine, noise, noises=noises)
    assert torch.equal(trajectory.latents[:, 0], noise)
    assert torch.equal(trajectory.latents[:, -1], POLICY.sample(sine, noise, noises=noises))


def test_branches_share_what_came_before():
    generator = torch.Generator().manual_seed(0)
    trunk = POLICY.rollout(sine, torch.randn(2, 4, generator=generator), end=6, generator=generator)
    starts = trunk.latents[:, -1].repeat_interleave(3, 0)
    branches = POLICY.rollout(sine, starts, begin=6, generator=generator).latents.unflatten(0, (2, 3))
    assert torch.equal(branches[:, 0, 0], branches[:, 2, 0])
    assert bool((branches[:, 0, 1] != branches[:, 1, 1]).all())


def test_probabilities_of_shorter_and_longer_ways_of_one_step():
    """The mean keeps its size when an example has more dimensions; the sum grows with them."""
    x = torch.randn(2, 4)
    wide = x.repeat(1, 10)
    short = [POLICY.log_prob(x, x, 3, 2 * x, reduce=reduce) for reduce in ("mean", "sum")]
    long = [POLICY.log_prob(wide, wide, 3, 2 * wide, reduce=reduce) for reduce in ("mean", "sum")]
    torch.testing.assert_close(long[0], short[0])
    torch.testing.assert_close(long[1], 10 * short[1])


# --- the loop ---------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    prediction=st.sampled_from(["epsilon", "sample", "v"]), steps=st.integers(1, 20), data=st.data(),
    eta=st.sampled_from([0.0, 0.3, 1.0]), clip=st.sampled_from([None, 0.7]), recompute=st.booleans(),
    returns_x=st.booleans(),
)  # fmt: skip
def test_the_loop_is_its_steps(prediction, steps, eta, clip, recompute, data, returns_x):
    process = ForwardProcess("linear", 20, prediction=prediction)
    sampler = DDIM(process, steps, eta=eta, clip=clip, recompute_epsilon=recompute)
    begin = data.draw(st.integers(0, steps))
    end = data.draw(st.integers(begin, steps))
    net = (lambda x, t: x) if returns_x else sine  # the loop must not overwrite what the network returned
    start, noises = torch.randn(2, 3, 2, dtype=F64), torch.randn(end - begin, 2, 3, 2, dtype=F64)
    before, x = start.clone(), start
    for k, i in enumerate(range(begin, end)):
        t = sampler.timesteps[i].expand(2)
        one = sampler.step(net(x, t), x, i, noises[k])
        torch.testing.assert_close(sampler.step(net(x, t), x, torch.tensor([i, i]), noises[k]), one)
        x = one
    torch.testing.assert_close(sampler.sample(net, start, begin=begin, end=end, noises=noises), x)
    assert torch.equal(start, before)


def test_given_steps_are_visited():
    process = ForwardProcess("linear", 100)
    seen = []
    sampler = DDIM(process, [99, 60, 7])
    sampler.sample(lambda x, t: seen.append(t.tolist()) or x, torch.randn(2, 3))
    assert seen == [[99, 99], [60, 60], [7, 7]]
    torch.testing.assert_close(
        DDIM(process, torch.tensor([75, 50, 25, 0])).sample(sine, START),
        DDIM(process, 4).sample(sine, START),
        rtol=0,
        atol=0,
    )


def test_without_eta_the_sample_is_a_function_of_the_noise():
    sampler = DDIM(ForwardProcess("squared_cosine", 100), 10, clip=1.0)
    noise = torch.randn(5, 4)
    first = sampler.sample(sine, noise)
    assert torch.equal(first, sampler.sample(sine, noise))
    torch.testing.assert_close(first[2:3], sampler.sample(sine, noise[2:3]))
    assert float(first.abs().max()) <= 1


def test_the_generator_decides_the_noise():
    sampler = ddpm(ForwardProcess("squared_cosine", 10, prediction="sample"))
    ends = [sampler.sample(sine, START, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def test_the_network_runs_without_gradients_and_the_sample_can_be_trained_on():
    net = torch.nn.Linear(4, 4)
    modes = []

    def denoiser(x, t):
        modes.append(torch.is_inference_mode_enabled())
        return net(x)

    x = DDIM(ForwardProcess("linear", 10), 3).sample(denoiser, START.clone().requires_grad_())
    assert modes == [True] * 3 and not x.requires_grad
    net(x).sum().backward()
    assert net.weight.grad is not None


def test_a_network_in_half_precision():
    sampler = DDIM(ForwardProcess("squared_cosine", 100), 10, clip=1.0)
    x = sampler.sample(lambda x, t: sine(x, t).bfloat16(), START)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, sampler.sample(sine, START), rtol=0, atol=0.05)


PROCESS = ForwardProcess("linear", 100)
SAMPLER = DDIM(PROCESS, 10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DDIM(PROCESS, 10, eta=1.5), "eta lies in 0"),
        (lambda: DDIM(PROCESS, 10, eta=math.nan), "not at nan"),
        (lambda: DDIM(PROCESS, 10, clip=0.0), "clip must be above 0"),
        (lambda: DDIM(PROCESS, 0), "visits 1 to 100 of them, not 0"),
        (lambda: DDIM(PROCESS, [0, 50]), r"steps fall, within 0..99, unlike \[0, 50\]"),
        (lambda: DDIM(PROCESS, [100, 50]), "steps fall"),
        (lambda: DDIM(PROCESS, []), "steps fall"),
        (lambda: DDIM(PROCESS, 10, ends_at_data=False), "would lead to itself; give offset=1"),
        (lambda: SAMPLER.step(START[:, :1], START, 0), r"the network's output has shape \(1, 1\)"),
        (lambda: SAMPLER.step(START, START, 10), "has no steps 10 to before 11"),
        (lambda: SAMPLER.step(START, START, -1), "has no steps -1"),
        (lambda: SAMPLER.step(START, START, torch.tensor([10])), "steps lie in 0..9"),
        (lambda: SAMPLER.step(START, START, 0, START[:, :1]), "noise has shape"),
        (lambda: SAMPLER.log_prob(START, START, 0, START), "a step without noise has no log-probability"),
        (lambda: DDIM(PROCESS, 10, eta=1.0).log_prob(START, START, 9, START), "ends_at_data=False with offset=1"),
        (lambda: POLICY.log_prob(START, START, 0, START[:, :1]), "following has shape"),
        (lambda: POLICY.log_prob(START, START, 0, START, reduce="max"), 'reduce is "mean" or "sum"'),
        (lambda: SAMPLER.rollout(sine, START), "a step without noise"),
        (lambda: SAMPLER.sample(sine, START, begin=5, end=3), "has no steps 5 to before 3"),
        (lambda: SAMPLER.sample(sine, START, end=11), "has no steps 0 to before 11"),
        (lambda: SAMPLER.sample(sine, START, noises=torch.zeros(9, 1, 4)), r"noises are \(10, 1, 4\)"),
        (lambda: SAMPLER.sample(lambda x, t: x[:, :1], START), "the network's output has shape"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_sample_that_is_not_finite_is_refused():
    for call in (SAMPLER.sample, POLICY.rollout):
        with pytest.raises(FloatingPointError, match="the network or the noise it started from returned NaN"):
            call(lambda x, t: x / 0, START)
