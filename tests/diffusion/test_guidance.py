import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from reprise.diffusion import (
    DDIM,
    Churn,
    ForwardProcess,
    classifier_free,
    drop_condition,
    policy_guidance,
    policy_guidance_weights,
    sample,
    sigma_schedule,
)

SIGMAS = sigma_schedule("karras", 8, 0.02, 2.0)

# --- classifier-free --------------------------------------------------------------------------------------------------


def net(x, t, goal, *states):
    return torch.tanh(x * (1 + goal) + t[:, None]) + goal.square() + sum(states, torch.zeros(()))


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(-2, 8), batch=st.integers(1, 4), shared=st.booleans())
def test_guidance_is_what_two_calls_would_say(scale, batch, shared):
    x, t, goal, state = (torch.randn(batch, n, dtype=torch.float64) for n in (3, 1, 3, 3))
    t, states = t[:, 0], (state,) if shared else ()
    conditional, unconditional = net(x, t, goal, *states), net(x, t, torch.zeros_like(goal), *states)
    guided = classifier_free(net, goal, scale, null=0.0, shared=states)(x, t)
    torch.testing.assert_close(guided, unconditional + scale * (conditional - unconditional))


@pytest.mark.parametrize(("scale", "sizes"), [(0.0, [2]), (1.0, [2]), (1.5, [4])])
def test_one_call_is_enough(scale, sizes):
    calls = []
    x, t, goal = torch.randn(2, 3), torch.ones(2), torch.randn(2, 3)
    guided = classifier_free(lambda x, t, g: calls.append(len(x)) or net(x, t, g), goal, scale, null=0.0)(x, t)
    assert calls == sizes
    if scale != 1.5:
        assert torch.equal(guided, net(x, t, goal * scale))


def test_without_a_null_condition_only_the_conditional_network_is_there():
    x, t, goal = torch.randn(2, 3), torch.ones(2), torch.randn(2, 3)
    assert torch.equal(classifier_free(net, goal, 1.0)(x, t), net(x, t, goal))


def test_captions_by_number_and_a_null_caption():
    table = torch.randn(17, 3)
    captions, x, t = torch.tensor([2, 5]), torch.randn(2, 3), torch.ones(2)
    guided = classifier_free(lambda x, t, c: x + table[c], captions, 3.0, null=16)(x, t)
    torch.testing.assert_close(guided, x + table[16] + 3 * (table[captions] - table[16]))


def test_guided_denoisers_go_through_both_kinds_of_samplers_and_carry_gradients():
    goal = torch.randn(2, 3, requires_grad=True)
    denoiser = classifier_free(net, goal, 2.0, null=0.0)
    for run in (
        lambda: DDIM(ForwardProcess("linear", 10), 5).sample(denoiser, torch.randn(2, 3)),
        lambda: sample(denoiser, torch.randn(2, 3), SIGMAS),
    ):
        assert run().shape == (2, 3)
    denoiser(torch.randn(2, 3), torch.ones(2)).sum().backward()
    assert bool((goal.grad != 0).all())


def test_guidance_of_two_gaussians_moves_the_samples():
    """Conditional N(1, 1), unconditional N(0, 1): guided by w the density is N(w, 1)."""
    denoiser = classifier_free(lambda x, s, c: c + (x - c) / (1 + s[:, None] ** 2), torch.ones(1, 1), 3.0, null=0.0)
    x = sample(denoiser, torch.zeros(1, 1), sigma_schedule("karras", 100, 0.002, 80), "heun")
    assert float(x) == pytest.approx(3.0 - 3.0 / math.sqrt(1 + 80**2), abs=1e-3)


@pytest.mark.parametrize("mode", ["example", "element"])
def test_the_share_of_dropped_conditions(mode):
    condition = torch.ones(20_000, 4)
    kept = drop_condition(condition, 0.1, mode=mode)
    assert float(kept.mean()) == pytest.approx(0.9, abs=0.01)
    whole = (kept == 0).all(1).float().mean()
    assert float(whole) == pytest.approx(0.1 if mode == "example" else 1e-4, abs=0.01)
    assert bool((condition == 1).all())


def test_limits_of_dropping_and_a_learned_null():
    condition, null = torch.randn(5, 2), torch.randn(2, requires_grad=True)
    assert torch.equal(drop_condition(condition, 0.0, null=null), condition)
    dropped = drop_condition(condition, 1.0, null=null)
    assert torch.equal(dropped, null.expand(5, 2))
    dropped.sum().backward()
    assert null.grad.tolist() == [5, 5]


# --- by a policy ------------------------------------------------------------------------------------------------------


def test_published_weights():
    weights = policy_guidance_weights(8)
    assert weights == pytest.approx([1.114805, 1.087132, 1.027164, 0.925, 0.777164, 0.587132, 0.364805, 0], abs=5e-7)
    assert policy_guidance_weights(8, 2.0, delay=3) == [0, 0, 0, *(2 * weight for weight in weights[3:])]


def towards(goal):
    """A policy whose actions (channels 1 and 2) are normal around ``goal`` times the state (channel 0)."""
    return lambda x: -0.5 * (x[..., 1:3] - goal * x[..., :1]).square().sum(-1)


def test_only_actions_move_and_by_the_gradient_with_states_held():
    x = torch.randn(4, 6, 5)
    moved = policy_guidance(towards(0.7), slice(1, 3), [0.5], normalise=False)(0, x, 1.0)
    torch.testing.assert_close(moved[..., 1:3], x[..., 1:3] + 0.5 * (0.7 * x[..., :1] - x[..., 1:3]))
    assert torch.equal(moved[..., [0, 3, 4]], x[..., [0, 3, 4]])


def test_a_normalised_gradient_has_norm_one_in_each_trajectory():
    x = torch.randn(4, 6, 5) * torch.tensor([1e-3, 1.0, 1e3, 1e-6])[:, None, None]
    moved = policy_guidance(towards(0.7), slice(1, 3), [1.0])(0, x.double(), 1.0) - x
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.ones(4, dtype=torch.float64))


def test_a_policy_without_preference_moves_nothing():
    x = torch.randn(2, 3, 5)
    assert torch.equal(policy_guidance(lambda x: 0 * x.sum((1, 2)), slice(1, 3), [1.0])(0, x, 1.0), x)


def test_the_gradient_may_be_taken_at_the_estimate_of_the_data():
    x = torch.randn(2, 3, 5)
    guide = policy_guidance(
        towards(0.7), slice(1, 3), [0.5], normalise=False, denoiser=lambda x, s: x / s[:, None, None]
    )
    clean = x / 4
    moved = guide(0, x, 4.0)
    torch.testing.assert_close(moved[..., 1:3], x[..., 1:3] + 0.5 * (0.7 * clean[..., :1] - clean[..., 1:3]))


def denoiser(x, s):
    return x / (1 + s[:, None, None] ** 2)


def test_guided_samples_are_likelier_under_the_policy_the_more_they_are_guided():
    """Independent unit Gaussian channels; the churned Heun sampler of the paper."""
    start, log_prob, likelihood = 2 * torch.randn(64, 6, 5), towards(1.0), []
    for strength in (0.0, 0.25, 0.5, 1.0):
        guide = policy_guidance(log_prob, slice(1, 3), policy_guidance_weights(8, strength), normalise=False)
        generator = torch.Generator().manual_seed(0)
        churn = Churn(2.5, 0.05, 50, 1.003)
        x = sample(denoiser, start, SIGMAS, "heun", churn=churn, before_step=guide, generator=generator)
        likelihood.append(float(log_prob(x).mean()))
        if strength == 0:
            plain = sample(denoiser, start, SIGMAS, "heun", churn=churn, generator=generator.manual_seed(0))
            assert torch.equal(x, plain)
        assert torch.equal(x[..., [0, 3, 4]], plain[..., [0, 3, 4]])
    assert likelihood == sorted(likelihood) and likelihood[-1] > likelihood[0] + 0.3


def test_a_policy_network_is_not_trained_by_guiding():
    policy = torch.nn.Linear(1, 2)
    guide = policy_guidance(lambda x: -(x[..., 1:3] - policy(x[..., :1])).square().sum(-1), slice(1, 3), [1.0] * 8)
    sample(denoiser, torch.randn(2, 3, 5), SIGMAS, before_step=guide)
    assert policy.weight.grad is None


X = torch.zeros(2, 3, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: classifier_free(net, X, 2.0), "guidance by 2 compares .* train with drop_condition, and give null="),
        (lambda: classifier_free(net, X, 0.0), "guidance by 0 compares"),
        (lambda: classifier_free(net, X, math.nan, null=0.0), "a finite number, not nan"),
        (lambda: classifier_free(net, X, 2.0, null=0.0)(X[:1], X[:1]), "conditions for 2 examples and was given 1"),
        (lambda: drop_condition(X, 1.1), "lies in 0..1, not at 1.1"),
        (lambda: drop_condition(X, mode="batch"), 'mode is "example" or "element"'),
        (lambda: policy_guidance_weights(0), "steps >= 1"),
        (lambda: policy_guidance_weights(8, math.inf), "a finite strength"),
        (lambda: policy_guidance_weights(8, delay=-1), "delay >= 0"),
        (lambda: policy_guidance(towards(1), slice(1, 3), [math.nan]), "weights of guidance are finite"),
        (lambda: policy_guidance(towards(1), slice(1, 3), [1.0])(1, X, 1.0), "weights for 1 steps"),
        (lambda: policy_guidance(lambda x: x.detach().sum(), slice(1, 3), [1.0])(0, X, 1.0), "a detach or no_grad"),
        (
            lambda: policy_guidance(lambda x: torch.ones(2, requires_grad=True), slice(1, 3), [1.0])(0, X, 1.0),
            "log_prob does not depend on x",
        ),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_gradient_that_is_not_finite_is_refused():
    with pytest.raises(FloatingPointError, match="the gradient of log_prob is not finite"):
        policy_guidance(lambda x: x.sqrt().sum(), slice(1, 3), [1.0])(0, X, 1.0)
