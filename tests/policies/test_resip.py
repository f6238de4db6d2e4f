import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings, strategies as st

from reprise.data import Normalizer
from reprise.envs import PegInsert
from reprise.nn import parameters
from reprise.policies import BC, ChunkedPolicy, GaussianChunks, ResidualPolicy, RewardScaling, fit_chunks, fit_residual
from reprise.policies.resip import ResidualActorCritic, ResidualEnv
from reprise.rl import Gaussian, gae
from reprise.testing import Countdown, Match

QUICK = {"n_steps": 20, "batch_size": 80, "n_epochs": 4, "seed": 0}


class Ramp:
    """Plans 0.00, 0.01, ... from what was seen when it planned."""

    def __init__(self, horizon=8, action=2):
        self.horizon, self.action, self.calls = horizon, action, []

    def plan(self, observation):
        observation = np.asarray(observation)
        self.calls.append(len(observation))
        ramp = 0.01 * np.arange(self.horizon)[None, :, None] + 0.1 * observation[:, :1, None]
        return np.broadcast_to(ramp, (len(observation), self.horizon, self.action)).copy()


class Short:
    """Does what it sees, but always by 0.3 too little."""

    def plan(self, observation):
        return np.clip(1 + np.asarray(observation)[:, None] - 0.3, 0, 2)


def randomised(policy):
    for parameter in policy.net.actor.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    return policy


# --- sizes and numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seen", "actor", "critic"), [(58, 86_016, 83_713), (44, 82_432, 80_129)])
def test_parameter_counts(seen, actor, critic):
    net = ResidualActorCritic(seen + 10, 10)
    assert (parameters(net.actor), parameters(net.critic)) == (actor, critic)
    assert sum(parameter.numel() for parameter in net.parameters()) == actor + critic + 10


def test_density_and_entropy_at_the_mean():
    distribution, _ = ResidualActorCritic(68, 10)(torch.randn(3, 68))
    np.testing.assert_allclose(distribution.log_prob(distribution.mean).detach(), 0.8106148, rtol=1e-6)
    np.testing.assert_allclose(distribution.entropy(), 4.1893854, rtol=1e-6)


def test_layers_begin_as_published():
    net = ResidualActorCritic(68, 10)
    assert not net.actor[-1].weight.any() and net.actor[-1].bias is None and net.log_std.tolist() == [-1.0] * 10
    assert net.critic[-1].weight.detach().norm() == pytest.approx(0.25, rel=1e-5) and net.critic[-1].bias.item() == 0.25
    assert net.actor[0].weight.detach().std() == pytest.approx(math.sqrt(2 / 68), rel=0.05)
    assert not net.actor[0].bias.any() and not net.log_std.requires_grad


# --- the correction --------------------------------------------------------------------------------------------------


def play(policy, steps=40):
    """Actions in a world, queues dropped where episodes end."""
    env = PegInsert(6)
    observation, _ = env.reset(seed=0)
    policy.reset()
    actions = []
    for _ in range(steps):
        actions.append(policy.act(observation))
        observation, _, terminated, truncated, _ = env.step(np.clip(actions[-1], -1, 1))
        if (done := terminated | truncated).any():
            policy.reset(done)
    return np.stack(actions)


def test_at_first_it_is_the_base_bit_for_bit():
    scales = Normalizer(torch.tensor([0.1, -0.3]), torch.tensor([0.7, 0.31]))
    residual = ResidualPolicy(Ramp(), 6, 2, execute=5, action_normalizer=scales)
    assert np.array_equal(play(residual, 90), play(ChunkedPolicy(Ramp(), 5), 90).astype(np.float32))
    assert not np.array_equal(play(randomised(residual), 40), play(ChunkedPolicy(Ramp(), 5), 40).astype(np.float32))


def test_at_scale_zero_it_is_the_base_whatever_the_weights():
    residual = randomised(ResidualPolicy(Ramp(), 6, 2, scale=0.0))
    assert np.array_equal(play(residual), play(ChunkedPolicy(Ramp(), 8)).astype(np.float32))


def test_with_chunks_of_one_it_is_a_closed_loop_policy():
    """What is done depends on what is seen now and on nothing else."""
    policy = randomised(ResidualPolicy(Ramp(1), 6, 2, execute=1))
    x = torch.randn(5, 6)
    first = policy.act(x)
    policy.act(torch.randn(5, 6))
    assert np.array_equal(policy.act(x), first)
    base = torch.as_tensor(Ramp(1).plan(x)[:, 0], dtype=torch.float32)
    with torch.no_grad():
        correction = policy.net.actor(torch.cat([x.clamp(-3, 3), base], 1))
    np.testing.assert_allclose(first, base + 0.1 * correction, rtol=1e-5, atol=1e-6)


def test_it_sees_the_current_observation_and_the_queued_action():
    policy = randomised(ResidualPolicy(Ramp(), 6, 2))
    seen = []
    policy.net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    states = 2 * torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    for state in states:
        policy.act(state)
    assert policy.base.calls == [4]  # one plan for three steps
    for t, state in enumerate(states):
        torch.testing.assert_close(seen[t][:, :6], state.clamp(-3, 3))
        torch.testing.assert_close(seen[t][:, 6], 0.01 * t + 0.1 * states[0, :, 0])
    assert (seen[0].abs() <= 3).all() and (states.abs() > 3).any()


def test_every_environment_has_its_own_queue():
    policy = ResidualPolicy(Ramp(), 6, 2, execute=4)
    zeros = np.zeros((3, 6))
    for _ in range(2):
        policy.act(zeros)
    policy.reset(np.array([False, True, False]))
    assert policy.act(zeros)[:, 0] == pytest.approx([0.02, 0.0, 0.02]) and policy.base.calls == [3, 1]
    for _ in range(2):
        last = policy.act(zeros)[:, 0]
    assert last == pytest.approx([0.0, 0.02, 0.0])


def test_observations_are_scaled_by_the_bases_own_normalizer():
    base = Ramp()
    base.normalizers = {
        "state": Normalizer(torch.ones(6), torch.full((6,), 2.0)),
        "actions": Normalizer(torch.zeros(2), torch.full((2,), 0.5)),
    }
    policy = ResidualPolicy(base, 6, 2)
    features = policy.features(np.full((1, 6), 4.0), np.full((1, 2), 2.0, np.float32))
    assert features[0].tolist() == [1.5] * 6 + [4.0] * 2  # the base action is not held within -3..3
    moved = policy.corrected(np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32))
    np.testing.assert_allclose(moved, 0.1 * 0.5)


# --- learning --------------------------------------------------------------------------------------------------------


def test_it_learns_what_the_base_leaves_undone():
    """The base is off by 0.3; its weights stay, its episodes get better."""
    base, policy = Short(), ResidualPolicy(Short(), 1, 1, execute=1, scale=1.0, hidden=(32, 32), log_std=-1.5)
    curves = fit_residual(
        Match(32), policy, 32 * 600, n_steps=20, batch_size=160, n_epochs=8, actor_rate=3e-3, gamma=0.5, seed=0
    )
    assert len(curves) == 30 and curves[-1]["episode_return"] > curves[0]["episode_return"] + 0.4
    x = np.linspace(-0.6, 0.6, 7)[:, None]
    off = np.abs(policy.act(x) - 1 - x).mean()
    assert off < 0.12 < np.abs(base.plan(x)[:, 0] - 1 - x).mean()


def test_the_base_neither_changes_nor_gets_a_gradient():
    net = torch.nn.Linear(6, 16)

    class Net:
        def plan(self, observation):
            return net(torch.as_tensor(observation)).tanh().unflatten(1, (8, 2)).detach()

    before = [parameter.detach().clone() for parameter in net.parameters()]
    policy = ResidualPolicy(Net(), 6, 2, hidden=(16, 16))
    fit_residual(PegInsert(4), policy, 320, **QUICK)
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, net.parameters(), strict=True))


def test_densities_are_those_of_the_unscaled_correction():
    from reprise.rl import TargetKLPPO

    policy = ResidualPolicy(Ramp(), 6, 2, scale=0.05)
    world = ResidualEnv(PegInsert(4), policy)
    ppo = TargetKLPPO(world, policy.net, n_steps=8, batch_size=32, seed=0)
    executed = []
    real = world.env.step
    world.env.step = lambda actions: executed.append(actions) or real(actions)
    batch = ppo.collect()
    expected = Gaussian(torch.zeros(32, 2), torch.full((2,), -1.0)).log_prob(batch["action"])
    torch.testing.assert_close(batch["log_prob"], expected)
    base = batch["observation"][:, 6:]
    np.testing.assert_allclose(np.concatenate(executed), base + 0.05 * batch["action"], atol=1e-6)


def test_the_actor_alone_is_what_acts():
    net = ResidualActorCritic(8, 2, log_std=-0.5)
    torch.nn.init.normal_(net.actor[-1].weight)
    x = torch.randn(32, 8)
    alone, (both, _) = net.behaviour(x), net(x)
    assert torch.equal(alone.mean, both.mean) and torch.equal(alone.log_std, both.log_std) and alone.mean.std() > 0


def test_advantages_are_the_recursion_and_in_the_limit_returns_minus_values():
    generator = np.random.default_rng(0)
    reward, value = generator.normal(size=(2, 12, 3))
    following = np.concatenate([value[1:], generator.normal(size=(1, 3))])
    ends, no = generator.random((12, 3)) < 0.2, np.zeros((12, 3), bool)
    ours = gae(reward, value, following, ends, no, gamma=0.999, gae_lambda=0.95)
    carried = np.zeros(3)
    for t in reversed(range(12)):
        carried = reward[t] + 0.999 * following[t] * ~ends[t] - value[t] + 0.999 * 0.95 * ~ends[t] * carried
        np.testing.assert_allclose(ours[t], carried)
    to_go = reward[::-1].cumsum(0)[::-1] + following[-1]
    np.testing.assert_allclose(gae(reward, value, following, no, no, gamma=1.0, gae_lambda=1.0), to_go - value)


def test_a_time_limit_is_an_end():
    env = Countdown([3, 3], [True, True], Box(-1, 1, (1,)))
    world = ResidualEnv(env, ResidualPolicy(Ramp(action=1), 1, 1, observation_normalizer=None), scale_rewards=False)
    world.policy.base.plan = lambda observation: np.zeros((len(observation), 8, 1))
    world.reset()
    ends = [world.step(np.zeros((2, 1)))[2:4] for _ in range(3)]
    assert ends[2][0].all() and not ends[2][1].any() and not ends[1][0].any()
    assert world.policy.queue.left.tolist() == [7, 7]  # a new plan began


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=3, max_size=3), min_size=1, max_size=8))
def test_scaled_rewards_keep_their_signs_and_zeros(steps):
    scaling = RewardScaling()
    seen = []
    for rewards in steps:
        seen += rewards
        scaled = scaling(np.array(rewards))
        assert (np.sign(scaled) == np.sign(rewards)).all() and np.abs(scaled).max() <= 5
    # the initial variance of 1 has the weight of 1e-4 rewards
    assert scaling.variance == pytest.approx(np.var(seen), rel=1e-2, abs=1e-2 + 1e-4 * np.mean(seen) ** 2)


def test_rewards_of_zero_stay_zero():
    scaling = RewardScaling()
    for _ in range(50):
        assert not scaling(np.zeros(4)).any()


def test_same_seed_same_weights():
    def weights():
        torch.manual_seed(0)
        policy = ResidualPolicy(Ramp(), 6, 2, hidden=(16, 16))
        fit_residual(PegInsert(4), policy, 240, **QUICK)
        return torch.cat([p.detach().flatten() for p in policy.net.parameters()])

    assert torch.equal(weights(), weights())


def test_saved_and_loaded_it_acts_alike(tmp_path):
    scales = Normalizer(torch.tensor([0.1, -0.3]), torch.tensor([0.7, 0.31]))
    policy = randomised(ResidualPolicy(Ramp(), 6, 2, hidden=(16,), execute=3, action_normalizer=scales))
    policy.save(tmp_path / "residual")
    again = ResidualPolicy.load(tmp_path / "residual", Ramp())
    assert np.array_equal(play(policy, 10), play(again, 10))


# --- PPO on the chunks themselves ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cloned():
    from reprise.envs import peg_demonstrations

    torch.manual_seed(0)
    return BC(horizon=4, width=32, blocks=1).fit(peg_demonstrations("one_slot", 5, seed=0), steps=30, batch_size=32)


def test_the_cloned_network_is_the_published_one():
    from reprise.policies import Shapes

    with torch.device("meta"):
        net = BC(horizon=8).build(Shapes({"state": (58,)}, action=10))
    assert parameters(net) == 10_638_416


def test_chunks_begin_as_the_clone_and_the_penalty_is_a_likelihood(cloned):
    policy = GaussianChunks(cloned, 4, log_std=-2.0)
    x = np.random.default_rng(0).uniform(-1, 1, (5, 6)).astype(np.float32)
    np.testing.assert_allclose(policy.plan(x), cloned.plan(x), atol=1e-5)
    noise = torch.randn(5, 8)
    penalty = policy.likelihood_penalty(torch.as_tensor(x), noise)
    scale = policy.actions.scale.log().mean() - 2
    assert penalty.item() == pytest.approx(
        float(0.5 * noise.square().mean() + scale + 0.5 * math.log(2 * math.pi)), rel=1e-4
    )


def test_chunk_ppo_moves_the_mean_and_counts_what_is_played(cloned):
    policy = GaussianChunks(cloned, 4, log_std=-2.0)
    before = policy.plan(np.zeros((1, 6)))
    kept = [parameter.clone() for parameter in policy.cloned.parameters()]
    env = fit_chunks(PegInsert(8), policy, 640, n_steps=40, learning_rate=1e-3, seed=0)
    assert env.played == 640 and not np.array_equal(policy.plan(np.zeros((1, 6))), before)
    assert all(torch.equal(a, b) for a, b in zip(kept, policy.cloned.parameters(), strict=True))
    assert not policy.mean.training
    with pytest.raises(ValueError, match="cannot be executed"):
        GaussianChunks(cloned, 5)


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"scale must not be negative, not -0\.1"):
        ResidualPolicy(Ramp(), 6, 2, scale=-0.1)
    with pytest.raises(ValueError, match=r"have \(2,\) numbers, not action_dim 3"):
        ResidualPolicy(Ramp(), 6, 3).act(np.zeros((1, 6)))
    with pytest.raises(ValueError, match="at least 9"):
        ResidualPolicy(Ramp(), 6, 2, execute=9).act(np.zeros((1, 6)))
    with pytest.raises(ValueError, match="normalizer of observations is for 3 numbers, not 6"):
        ResidualPolicy(Ramp(), 6, 2, observation_normalizer=Normalizer(torch.zeros(3), torch.ones(3)))
    with pytest.raises(ValueError, match="made for obs_dim 5"):
        fit_residual(PegInsert(2), ResidualPolicy(Ramp(), 5, 2), 10)
    with pytest.raises(TypeError, match="VectorEnv"):
        fit_residual(object(), ResidualPolicy(Ramp(), 6, 2), 10)
    with pytest.raises(ValueError, match="continuous actions"):
        fit_residual(Match(discrete=True), ResidualPolicy(Ramp(), 1, 1), 10)

    class Loud(Ramp):
        def plan(self, observation):
            return 100 * np.ones((len(observation), 8, 2))

    with pytest.raises(ValueError, match="in other units"):
        fit_residual(PegInsert(2), ResidualPolicy(Loud(), 6, 2), 80, n_steps=20, n_epochs=1)
