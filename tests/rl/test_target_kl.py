import math

import numpy as np
import pytest
import torch

from reprise.policies.resip import ResidualActorCritic
from reprise.rl import TargetKLPPO
from reprise.testing import Match

SMALL = {"n_steps": 16, "batch_size": 128, "seed": 0}


def make(**settings):
    torch.manual_seed(0)
    return TargetKLPPO(Match(), ResidualActorCritic(1, 1, hidden=(16,)), **SMALL | settings)


def weights(part):
    return torch.cat([parameter.detach().flatten() for parameter in part.parameters()]).clone()


def test_in_the_first_iteration_only_the_critic_learns():
    ppo = make()
    actor, critic = weights(ppo.policy.actor), weights(ppo.policy.critic)
    ppo.learn(128)
    assert torch.equal(weights(ppo.policy.actor), actor) and not torch.equal(weights(ppo.policy.critic), critic)
    ppo = make(warm_up=0)
    ppo.learn(128)
    assert not torch.equal(weights(ppo.policy.actor), actor)


def test_rates_follow_the_cosine_and_the_actors_rises():
    ppo = make(actor_rate=1.0, critic_rate=10.0)
    ppo.iterations = 20
    told = []
    for iteration in range(20):
        ppo.iteration = iteration
        told.append(ppo.rates())
    cosine = 0.5 * (1 + np.cos(np.pi * np.arange(20) / 20))
    np.testing.assert_allclose([critic for _, critic in told], 10 * cosine)
    np.testing.assert_allclose([actor for actor, _ in told], cosine * np.minimum(1, np.arange(20) / 5))
    ppo.decay = False
    assert ppo.rates() == [1.0, 10.0]
    assert make().learn(300).iterations == math.ceil(300 / 128) and make().learn(300).iteration == 3


def test_epochs_stop_after_the_update_that_found_the_policy_too_far():
    ppo = make(actor_rate=3e-2, warm_up=0, target_kl=0.01, n_epochs=50)
    batch = ppo.collect()
    moved = []
    real = ppo._moved
    ppo._moved = lambda: moved.append(real()) or moved[-1]
    values = ppo.update(batch)
    assert values["epochs"] == len(moved) == ppo.adam.steps < 50  # one full batch an epoch
    assert moved[-1] > 0.01 >= max(moved[:-1]) and moved[0] == pytest.approx(0, abs=1e-6)
    assert make(target_kl=1e9, n_epochs=7).learn(128).epochs == 7


def test_the_divergence_is_the_mean_of_ratio_minus_one_minus_log_ratio():
    ppo = make()
    batch = ppo.collect()
    with torch.no_grad():
        ppo.policy.actor[-1].weight.add_(0.3)
        log_ratio = ppo.policy(batch["observation"])[0].log_prob(batch["action"]) - batch["log_prob"]
    expected = float((log_ratio.exp() - 1 - log_ratio).mean())
    ppo.loss(batch)
    assert ppo._moved() == pytest.approx(expected) and expected > 0


def test_settings_are_checked():
    with pytest.raises(ValueError, match="target_kl is above 0"):
        make(target_kl=0.0)
