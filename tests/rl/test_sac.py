import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings, strategies as st

from reprise.nn import StackedMLP
from reprise.rl import SAC, ReplayBuffer
from reprise.rl.vector import Actions
from reprise.testing import Countdown, Match
from reprise.training import Diverged

SMALL = {"hidden": (16, 16), "batch_size": 32, "learning_starts": 32, "buffer_size": 1000, "seed": 0}


def batch_of(sac, size=32):
    x, a = torch.randn(2, size, 1)
    return {"observation": x, "action": a.tanh(), "reward": torch.randn(size), "next_observation": x + 0.1,
            "discount": torch.full((size,), 0.9)}  # fmt: skip


def test_losses_and_steps_equal_those_of_stable_baselines3(monkeypatch):
    """Three updates from the same weights, batch and noise."""
    sb3 = pytest.importorskip("stable_baselines3")
    env = gymnasium.make_vec("Pendulum-v1", 1, "sync", {"autoreset_mode": "SameStep"})
    ours = SAC(env, hidden=(16, 16), batch_size=64, learning_starts=64, seed=0).learn(64)
    peer = sb3.SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [16, 16]}, seed=0, device="cpu")
    peer._setup_learn(64)
    for mine, theirs in pairs(ours, peer):
        theirs.data.copy_(mine)
    peer.critic_target.load_state_dict(peer.critic.state_dict())
    batch = ours.buffer.sample(64)
    noise = torch.randn(6, 64, 1)
    samples = iter(noise)
    monkeypatch.setattr(ours, "_noise", lambda size: next(samples))
    theirs_noise = iter(noise[[1, 0, 3, 2, 5, 4]])  # they take the actor's first
    monkeypatch.setattr(
        torch.distributions.Normal, "rsample", lambda self, shape=(): self.loc + self.scale * next(theirs_noise)
    )
    data = sb3.common.buffers.ReplayBufferSamples(
        batch["observation"], batch["action"], batch["next_observation"], (batch["discount"] == 0).float()[:, None],
        batch["reward"][:, None], None
    )  # fmt: skip
    monkeypatch.setattr(peer.replay_buffer, "sample", lambda *args, **kwargs: data)
    for _ in range(3):
        losses = ours.update(batch)
        peer.train(1, 64)
        told = peer.logger.name_to_value
        assert losses["critic_loss"].item() == pytest.approx(told["train/critic_loss"], rel=1e-4)
        assert losses["actor_loss"].item() == pytest.approx(told["train/actor_loss"], rel=1e-3)
        peer.logger.name_to_value.clear()
    assert ours.log_temperature.item() == pytest.approx(peer.log_ent_coef.item(), rel=1e-3)
    for mine, theirs in pairs(ours, peer):  # Adam's first steps are as large for tiny gradients: compare the bulk
        assert (mine - theirs).abs().median() < 1e-5
    slow, theirs = ours.target.body.layers[0].weight[0].T, peer.critic_target.qf0[0].weight
    torch.testing.assert_close(slow, theirs, rtol=0, atol=1e-5)


def pairs(ours, peer):
    """Weights that mean the same."""
    first, _, second, _, last = ours.actor.body.layers
    for layer, linear in ((first, peer.actor.latent_pi[0]), (second, peer.actor.latent_pi[2])):
        yield layer.weight.data[0].T, linear.weight
        yield layer.bias.data[0, 0], linear.bias
    for column, linear in enumerate((peer.actor.mu, peer.actor.log_std)):
        yield last.weight.data[0, :, column : column + 1].T, linear.weight
        yield last.bias.data[0, 0, column : column + 1], linear.bias
    for k, net in enumerate((peer.critic.qf0, peer.critic.qf1)):
        for layer, linear in zip(ours.critics.body.layers[::2], net[::2], strict=True):
            yield layer.weight.data[k].T, linear.weight
            yield layer.bias.data[k, 0], linear.bias


def test_target_by_hand():
    """Constant critics 1 and 3 and an actor that is certain: the target is r + discount (min q - temperature log p)."""
    sac = SAC(Match(), **SMALL, temperature=0.5)
    for layer in sac.target.body.layers[::2]:
        torch.nn.init.zeros_(layer.weight)
    with torch.no_grad():
        sac.target.body.layers[-1].bias[:, 0, 0] = torch.tensor([1.0, 3.0])
        sac.critics.load_state_dict(sac.target.state_dict())
    batch = batch_of(sac)
    state = sac.generator.get_state()
    losses = sac.update(batch)
    sac.generator.set_state(state)
    fresh = SAC(Match(), **SMALL, temperature=0.5)
    log_prob = fresh.actor(batch["next_observation"], sac._noise(32))[1].detach()
    target = batch["reward"] + 0.9 * (1 - 0.5 * log_prob)
    expected = 0.5 * sum((q - target).square().mean() for q in (1.0, 3.0))
    assert losses["critic_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    sac.combine = "mean"
    assert sac._join(torch.tensor([[1.0], [3.0]])).tolist() == [2]


@settings(max_examples=10, deadline=None)
@given(
    n_critics=st.integers(1, 4), combine=st.sampled_from(["min", "mean"]), layer_norm=st.booleans(),
    n_step=st.integers(1, 3), utd=st.sampled_from([0.25, 1.0, 2.0]), dictionary=st.booleans(),
)  # fmt: skip
def test_every_option_runs_and_counts_its_updates(n_critics, combine, layer_norm, n_step, utd, dictionary):
    sac = SAC(
        Match(dictionary=dictionary), **SMALL, n_critics=n_critics, combine=combine, layer_norm=layer_norm,
        n_step=n_step, utd=utd,
    )  # fmt: skip
    critics = sac.critics(torch.zeros(3, 2 if dictionary else 1), torch.zeros(3, 1))
    assert critics.shape == (n_critics, 3)
    sac.learn(80)
    assert sac.steps == 80 and sac.updates == round(utd * 48)
    assert sac.critic_adam.steps == sac.actor_adam.steps == sac.updates


def test_learns_to_do_what_it_sees():
    sac = SAC(Match(), **SMALL, learning_rate=3e-3, gamma=0.5, utd=0.25)
    told = []
    sac.learn(3_000, on_step=lambda step, total, values: told.append((step, values)))
    assert 40 <= len(told) <= 52 and told[-1][0] == 3_000
    assert told[-1][1]["episode_return"] > -2.0 > -3.0 > told[2][1]["episode_return"]
    x = np.array([[-0.5], [0.5]], np.float32)
    np.testing.assert_allclose(sac.act(x), 1 + x, atol=0.25)


def test_slow_copy_is_the_moving_average():
    sac = SAC(Match(), **SMALL, tau=0.25)
    before = sac.slow.clone()
    assert torch.equal(before, sac.critic_adam.vector)
    sac.update(batch_of(sac))
    torch.testing.assert_close(sac.slow, 0.75 * before + 0.25 * sac.critic_adam.vector)
    assert sac.target.body.layers[0].weight.data_ptr() == sac.slow.data_ptr()


def test_temperature_falls_where_there_is_more_entropy_than_wanted():
    for target, sign in ((-100.0, -1), (100.0, 1)):
        sac = SAC(Match(), **SMALL, target_entropy=target)
        sac.update(batch_of(sac))
        assert np.sign(sac.log_temperature.item()) == sign
    sac = SAC(Match(), **SMALL, temperature=0.2)
    sac.update(batch_of(sac))
    assert sac.log_temperature.exp().item() == pytest.approx(0.2)


def test_a_filled_buffer_is_learned_from():
    buffer = ReplayBuffer(100, seed=0)
    sac = SAC(Match(), **SMALL, buffer=buffer)
    buffer.add(*(np.zeros((40, 1)), np.zeros((40, 1)), np.ones(40), np.zeros((40, 1)), np.ones(40, bool)))
    for _ in range(3):
        assert sac.update(sac.buffer.sample(32))["critic_loss"] > 0


def test_truncation_keeps_the_value_of_the_last_observation():
    sac = SAC(Countdown([2, 2], [False, True], Box(-1, 1, (1,))), **SMALL | {"batch_size": 4, "learning_starts": 4})
    sac.learn(4)
    rows = sac.buffer.chain(torch.arange(4))
    assert rows["discount"].tolist() == pytest.approx([0.99, 0.99, 0, 0.99])
    np.testing.assert_allclose(rows["next_observation"][:, 0], [0.1, 100.1, 0.2, 100.2], rtol=1e-6)


def test_same_seed_same_weights_other_seed_others():
    def weights(seed):
        return SAC(Match(), **SMALL | {"seed": seed}).learn(64).actor_adam.vector

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_saved_and_loaded_it_acts_alike_and_updates_alike(tmp_path):
    sac = SAC(Match(), **SMALL).learn(80)
    sac.save(tmp_path / "sac")
    other = SAC.load(tmp_path / "sac", Match())
    x = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    assert np.array_equal(sac.act(x), other.act(x))
    assert (other.steps, other.updates) == (sac.steps, sac.updates)
    batch = sac.buffer.sample(32)
    for algorithm in (sac, other):
        algorithm.generator.manual_seed(1)
        algorithm.update(batch)
    torch.testing.assert_close(sac.actor_adam.vector, other.actor_adam.vector, rtol=0, atol=1e-7)
    assert torch.equal(sac.slow, other.slow)
    with pytest.raises(ValueError, match="this environment and network need"):
        SAC.load(tmp_path / "sac", Match(dictionary=True))


def test_diverging_is_told():
    with pytest.raises(Diverged, match="lower the learning rate"):
        SAC(Match(), **SMALL, learning_rate=1e30).learn(200)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SAC(Match(discrete=True)), "SAC acts by continuous numbers, not Discrete"),
        (lambda: SAC(Countdown([2], [0], Box(-np.inf, 1, (1,)))), "which has no bounds"),
        (lambda: SAC(Match(), buffer_size=100), "smaller than a batch of 256"),
        (lambda: SAC(Match(), combine="max"), 'combine is "min" or "mean"'),
        (lambda: SAC(Match(), utd=0), "number of updates above 0"),
        (lambda: SAC(Countdown([9, 9], [0, 0], Box(-1, 1, (1,)), "reward"), **SMALL).learn(20), "infinite reward"),
        (lambda: SAC(Countdown([9, 9], [0, 0], Box(-1, 1, (1,)), "observation"), **SMALL).learn(20),
         "infinite next_observation"),
        (lambda: Actions(Box(-np.inf, np.inf, (1,)), normalize=True), "no bounds"),
        (lambda: StackedMLP(2, 3, (4,), activation="sine"), "unknown activation 'sine'"),
        (lambda: StackedMLP(2, 3, ()), "needs out_features"),
    ],
)  # fmt: skip
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
