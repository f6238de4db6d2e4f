import pytest
import torch
from torch.distributions import Categorical as TorchCategorical, Normal, TransformedDistribution, kl_divergence
from torch.distributions.transforms import TanhTransform

from reprise.rl import Categorical, Gaussian
from reprise.rl.distributions import squashed_log_prob


def pairs():
    torch.manual_seed(0)
    logits = torch.randn(2, 50, 3, dtype=torch.float64, requires_grad=True)
    mean, log_std = torch.randn(2, 50, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    ours = [Categorical(x) for x in logits], [Gaussian(m, s) for m, s in zip(mean, log_std, strict=True)]
    theirs = (
        [TorchCategorical(logits=x) for x in logits],
        [
            torch.distributions.Independent(Normal(m, s.exp().expand_as(m)), 1)
            for m, s in zip(mean, log_std, strict=True)
        ],
    )
    return list(zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", [0, 1])
def test_equal_to_torch_distributions(kind):
    (ours, other), (theirs, their_other) = pairs()[kind]
    action = theirs.sample()
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.kl(other), kl_divergence(theirs, their_other))


@pytest.mark.parametrize("kind", [0, 1])
def test_gradient_is_that_of_automatic_differentiation(kind):
    (dist, old), (theirs, _) = pairs()[kind]
    fields = ("mean", "log_std") if kind else ("logits",)
    leaves = [getattr(dist, field).detach().requires_grad_() for field in fields]
    dist = type(dist)(*leaves)
    action, weights = theirs.sample(), torch.randn(50, dtype=torch.float64)
    loss = (weights * dist.log_prob(action)).sum() + 0.3 * dist.entropy().sum() + 0.7 * old.detach().kl(dist).sum()
    expected = torch.autograd.grad(loss, leaves)
    with torch.no_grad():
        torch.testing.assert_close(dist.gradient(action, weights, 0.3, old.detach(), 0.7), expected)


def test_samples_follow_the_distribution():
    generator = torch.Generator().manual_seed(0)
    dist = Categorical(torch.tensor([[0.1, 0.2, 0.7]]).log())
    draws = dist.sample(dist.noise(20_000, generator=generator))
    torch.testing.assert_close(draws.flatten().bincount() / 20_000, torch.tensor([0.1, 0.2, 0.7]), atol=0.01, rtol=0)
    dist = Gaussian(torch.tensor([[1.0, -2.0]]), torch.tensor([0.0, 1.0]))
    draws = dist.sample(dist.noise(20_000, generator=generator))[:, 0]
    torch.testing.assert_close(draws.mean(0), torch.tensor([1.0, -2.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(draws.std(0), torch.tensor([1.0, torch.e]), atol=0.05, rtol=0)


def test_squashed_log_prob_is_that_of_the_transformed_distribution():
    torch.manual_seed(0)
    mean, log_std, noise = torch.randn(3, 200, 2, dtype=torch.float64)
    action, log_prob = squashed_log_prob(mean, log_std, noise)
    peer = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1))
    u = mean + log_std.exp() * noise
    expected = Normal(mean, log_std.exp()).log_prob(u) - torch.log1p(-u.tanh().square())
    near = u.abs().amax(-1) < 5  # beyond, the naive formula itself is inexact
    torch.testing.assert_close(action, u.tanh())
    torch.testing.assert_close(log_prob[near], expected.sum(-1)[near])
    torch.testing.assert_close(log_prob[near], peer.log_prob(action).sum(-1)[near])


def test_squashed_log_prob_stays_finite_far_out():
    mean = torch.tensor([[-50.0], [50.0]], requires_grad=True)
    action, log_prob = squashed_log_prob(mean, torch.zeros(2, 1), torch.zeros(2, 1))
    log_prob.sum().backward()
    assert action[:, 0].tolist() == [-1, 1]
    assert log_prob.isfinite().all() and mean.grad.isfinite().all()
    assert log_prob.tolist() == pytest.approx([-0.919 - 2 * (0.6931 - 50)] * 2, abs=0.01)
