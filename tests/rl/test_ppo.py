import json

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary
from hypothesis import given, settings, strategies as st
from torch import nn

from reprise.rl import PPO, ActorCritic, Gaussian
from reprise.rl.ppo_gradient import accumulate_gradient, has_closed_form
from reprise.testing import Countdown, Match
from reprise.training import Diverged

SMALL = {"n_steps": 16, "batch_size": 32, "n_epochs": 2, "hidden": (8, 8), "seed": 0}


def gradient(ppo, minibatch, old, closed):
    ppo.adam.zero_grad()
    if closed:
        accumulate_gradient(ppo, minibatch, old)
    else:
        ppo.loss(minibatch, old).backward()
    return ppo.adam.gradient.clone()


@settings(max_examples=20, deadline=None)
@given(
    discrete=st.booleans(), dictionary=st.booleans(), ent_coef=st.sampled_from([0.0, 0.1]),
    kl_coef=st.sampled_from([0.0, 0.5]), error_clip=st.sampled_from([None, 0.05]),
    hidden=st.sampled_from([(8,), (8, 4), (4, 8, 8)]),
)  # fmt: skip
def test_written_out_gradient_is_that_of_the_loss(discrete, dictionary, ent_coef, kl_coef, error_clip, hidden):
    env = Match(discrete=discrete, dictionary=dictionary)
    ppo = PPO(env, **SMALL | {"hidden": hidden}, ent_coef=ent_coef, kl_coef=kl_coef, value_error_clip=error_clip)
    batch = ppo.collect()
    with torch.no_grad():
        old = ppo.policy(batch["observation"])[0].detach()
        ppo.adam.vector += 0.3 * torch.randn_like(ppo.adam.vector)  # so that ratios leave the clipping range
    assert has_closed_form(ppo.policy)
    torch.testing.assert_close(
        gradient(ppo, batch, old, True), gradient(ppo, batch, old, False), rtol=1e-4, atol=1e-5
    )  # fmt: skip


def test_clipped_loss_by_hand():
    """Two transitions of ratio e: the good one gains no more than 1.2, the bad one loses all of e."""
    ppo = PPO(Match(discrete=True), **SMALL, vf_coef=1.0, clip_range=0.2)
    batch = {key: value[:2] for key, value in ppo.collect().items()}
    with torch.no_grad():
        distribution, value = ppo.policy(batch["observation"])
        batch["log_prob"] = distribution.log_prob(batch["action"]) - 1
    batch["advantage"], batch["return"] = torch.tensor([2.0, -3.0]), value + torch.tensor([1.0, 2.0])
    assert ppo.loss(batch).item() == pytest.approx((-2 * 1.2 + 3 * np.e) / 2 + (1 + 4) / 2, rel=1e-5)
    ppo.value_error_clip = 3.0
    assert ppo.loss(batch).item() == pytest.approx((-2 * 1.2 + 3 * np.e) / 2 + (1 + 3) / 2, rel=1e-5)


@pytest.mark.parametrize("discrete", [True, False])
def test_updates_equal_those_of_stable_baselines3(discrete):
    """The same weights and the same batch: the same weights after three epochs."""
    sb3 = pytest.importorskip("stable_baselines3")
    name = "CartPole-v1" if discrete else "Pendulum-v1"
    envs = [lambda: gymnasium.make(name)] * 4
    peer_env = sb3.common.vec_env.DummyVecEnv(envs)
    peer = sb3.PPO("MlpPolicy", peer_env, n_steps=16, batch_size=64, n_epochs=3, ent_coef=0.01, seed=0, device="cpu")
    peer._setup_learn(64)
    env = gymnasium.vector.SyncVectorEnv(envs, autoreset_mode="SameStep")
    ours = PPO(env, n_steps=16, batch_size=64, n_epochs=3, ent_coef=0.01, seed=0)
    copy_weights(ours.policy, peer.policy)
    batch = ours.collect()

    def rows(tensor):
        return tensor.view(16, 4, *tensor.shape[1:]).numpy()

    buffer = peer.rollout_buffer
    buffer.reset()
    buffer.observations[:], buffer.actions[:] = rows(batch["observation"]), rows(batch["action"].view(64, -1))
    buffer.log_probs[:], buffer.values[:] = rows(batch["log_prob"]), rows(batch["value"])
    buffer.advantages[:], buffer.returns[:] = rows(batch["advantage"]), rows(batch["return"])
    buffer.full = True
    peer.train()
    before = ours.adam.vector.clone()
    ours.update(batch)
    assert (ours.adam.vector - before).abs().max() > 5e-4
    for mine, theirs in pairs(ours.policy, peer.policy):
        torch.testing.assert_close(mine, theirs.detach(), rtol=0, atol=2e-6)


def pairs(ours, peer):
    """Weights of an ActorCritic and of Stable-Baselines3's policy that mean the same."""
    first, _, second, _ = ours.bodies.layers
    for k, net in enumerate((peer.mlp_extractor.policy_net, peer.mlp_extractor.value_net)):
        for layer, linear in ((first, net[0]), (second, net[2])):
            yield layer.weight.data[k].T, linear.weight
            yield layer.bias.data[k, 0], linear.bias
    for head, linear in ((ours.action_head, peer.action_net), (ours.value_head, peer.value_net)):
        yield head.weight.data, linear.weight
        yield head.bias.data, linear.bias
    if not ours.discrete:
        yield ours.log_std.data, peer.log_std


def copy_weights(ours, peer):
    for mine, theirs in pairs(ours, peer):
        mine.copy_(theirs)


def test_truncation_bootstraps_and_termination_does_not():
    """The value is made linear in the observation, so that every target can be written down."""
    env = Countdown(lengths=[3, 3], cut=[False, True])
    ppo = PPO(env, **SMALL | {"n_steps": 4, "batch_size": 4}, gamma=0.5, gae_lambda=0.0)
    ppo.policy = ValueIsObservation()
    targets = ppo.collect()["return"].view(4, 2)
    # One-step targets 1 + value of the next observation / 2; in the third step the episodes end at observation 0.3.
    assert targets[:, 0].tolist() == pytest.approx([1.05, 1.1, 1.0, 1.05])
    assert targets[:, 1].tolist() == pytest.approx([1 + 50.05, 1 + 50.1, 1 + 50.15, 1 + 50.05])
    assert ppo.episodes.summary() == {"episode_return": 3, "episode_length": 3}


class ValueIsObservation(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_std = nn.Parameter(torch.zeros(1))

    def forward(self, observation):
        return Gaussian(0 * observation, self.log_std), observation[:, 0]


@pytest.mark.parametrize("discrete", [True, False])
def test_learns_to_do_what_it_sees(discrete):
    env = Match(discrete=discrete, dictionary=True)
    ppo = PPO(env, n_steps=32, batch_size=64, learning_rate=3e-3, hidden=(16,), normalize_actions=not discrete, seed=0)
    told = []
    ppo.learn(8_000, on_step=lambda step, total, values: told.append((step, total, values)))
    assert told[-1][2]["episode_return"] > (9 if discrete else -1.0)
    assert told[0][2]["episode_return"] < (6 if discrete else -5.0)
    assert told[-1][0] == ppo.steps >= told[-1][1] == 8_000
    x = np.array([[-0.5], [0.5]], np.float32)
    actions = ppo.act({"x": x, "idle": 0 * x})
    np.testing.assert_allclose(actions, [0, 1] if discrete else 1 + x, atol=0 if discrete else 0.3)


def test_same_seed_same_weights_other_seed_others():
    def weights(seed):
        return PPO(Match(), **SMALL | {"seed": seed}).learn(256).adam.vector

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_saved_and_loaded_it_acts_alike_and_learns_on(tmp_path):
    ppo = PPO(Match(), **SMALL, kl_coef=0.2).learn(512)
    ppo.save(tmp_path / "ppo")
    other = PPO.load(tmp_path / "ppo", Match())
    x = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    assert np.array_equal(ppo.act(x), other.act(x))
    assert (other.steps, other.adam.steps, other.kl_coef) == (ppo.steps, ppo.adam.steps, ppo.kl_coef)
    batch = ppo.collect()
    for algorithm in (ppo, other):
        algorithm.generator.manual_seed(1)
        algorithm.update(batch)
    assert torch.equal(ppo.adam.vector, other.adam.vector)
    with pytest.raises(ValueError, match="this environment and network need"):
        PPO.load(tmp_path / "ppo", Match(discrete=True))
    (tmp_path / "ppo.json").write_text(json.dumps({"algorithm": "SAC"}))
    with pytest.raises(ValueError, match="holds SAC, not PPO"):
        PPO.load(tmp_path / "ppo", Match())


def test_any_module_can_be_the_policy():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.log_std = nn.Linear(1, 2), nn.Parameter(torch.zeros(1))

        def forward(self, observation):
            mean, value = self.both(observation).split(1, -1)
            return Gaussian(mean, self.log_std), value[:, 0]

    ppo = PPO(Match(), n_steps=32, batch_size=64, policy=Linear(), normalize_actions=True, learning_rate=1e-2, seed=0)
    assert not has_closed_form(ppo.policy)
    assert abs(float(ppo.learn(8_000).policy.both.weight[0, 0].detach()) - 1) < 0.2


def test_divergence_penalty_adapts():
    ppo = PPO(Match(), **SMALL, kl_coef=0.2, kl_target=1e-9)
    ppo.learn(1)
    assert ppo.kl_coef == pytest.approx(0.3)
    ppo.kl_target = 1e9
    ppo.learn(1)
    assert ppo.kl_coef == pytest.approx(0.15)


def test_divergence_is_from_the_policy_that_acted():
    ppo = PPO(Match(), **SMALL, kl_coef=0.2)
    batch = ppo.collect()
    before = batch["distribution"].log_std.clone()
    told = ppo.update(batch)
    assert not torch.equal(ppo.policy.log_std, before) and torch.equal(batch["distribution"].log_std, before)
    acted, learned = Gaussian(batch["distribution"].mean, before), ppo.policy(batch["observation"])[0].detach()
    assert told["kl"] == pytest.approx(float(acted.kl(learned).mean()))


def test_standard_deviation_starts_where_it_is_told():
    assert ActorCritic(1, 2, discrete=False, log_std_init=-1.0).log_std.tolist() == [-1, -1]


def test_diverging_is_told():
    ppo = PPO(Match(), **SMALL, learning_rate=1e30)
    with pytest.raises(Diverged, match="lower the learning rate"):
        ppo.learn(1_000)


next_step = gymnasium.make_vec("CartPole-v1", 2, "sync")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PPO(gymnasium.make("CartPole-v1")), TypeError, r"VectorEnv is needed, not TimeLimit; wrap it"),
        (lambda: PPO(next_step), ValueError, "must start again in the same step"),
        (lambda: PPO(Match(), n_steps=2, batch_size=32), ValueError, "between 2 and 16"),
        (lambda: PPO(Match(), **SMALL, normalize_advantage="all"), ValueError, "normalize_advantage is"),
        (lambda: PPO(Countdown([2, 2], [0, 0], MultiBinary(2)), **SMALL), ValueError, "are a Box or Discrete, not"),
        (lambda: PPO(Countdown([2, 2], [0, 0], Box(-np.inf, 1, (1,))), **SMALL, normalize_actions=True), ValueError,
         "which has no bounds"),
        (lambda: PPO(Countdown([9, 9], [0, 0], spoil="reward"), **SMALL).learn(1), ValueError,
         "environment 1 gave a NaN or infinite reward at step 2"),
        (lambda: PPO(Countdown([9, 9], [0, 0], spoil="observation"), **SMALL).learn(1), ValueError,
         "environment 1 gave a NaN or infinite observation at step 3"),
    ],
)  # fmt: skip
def test_wrong_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_discrete_observations_are_refused():
    env = Countdown([2, 2], [0, 0])
    env.single_observation_space = Discrete(3)
    with pytest.raises(ValueError, match="a Box or a Dict of Boxes, not Discrete"):
        PPO(env, **SMALL)
