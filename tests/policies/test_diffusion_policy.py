import numpy as np
import pytest
import torch
from torch import nn

from reprise.data import Episodes
from reprise.policies import BC, DiffusionPolicy

SMALL = {
    "unet": {"down_dims": (16, 32), "step_embed_dim": 16},
    "transformer": {"embed_dim": 16, "n_layers": 2, "n_heads": 2},
    "mlp": {"width": 32},
}


def episodes(lengths=(20, 24), seed=0):
    rng = np.random.default_rng(seed)
    T = sum(lengths)
    return Episodes(
        {"state": rng.normal(0, 1, (T, 3))}, rng.uniform(-2, 8, (T, 2)).astype(np.float32), np.cumsum(lengths)
    )


def fitted(network="mlp", steps=2, **settings):
    torch.manual_seed(0)
    policy = DiffusionPolicy(network=network, network_options=SMALL[network], **settings)
    return policy.fit(episodes(), steps=steps, batch_size=8)


class Known(nn.Module):
    """A denoiser whose samples are known."""

    def contexts(self, t, condition):
        return [(t / 100.0).expand(-1, len(condition))]

    def denoise(self, x, contexts):
        return torch.tanh(x * 0.7 + contexts[0][:, None, None])


# --- the sampler ------------------------------------------------------------------------------------------------------

# diffusers 0.42.1, DDIMScheduler(100, "squaredcos_cap_v2", clip_sample=True), 10 steps of `Known`, without and with
# use_clipped_model_output.
DIFFUSERS = {
    False: [-0.2506976, 1.0, 1.0, -0.2380231, -0.3670823, -0.3870359, -0.2869085, 0.2304704],
    True: [-0.6854060, 1.0, 1.0, -0.5808584, -1.0, -1.0, -0.8751869, 0.2304704],
}


@pytest.mark.parametrize("recompute", DIFFUSERS)
def test_ddim_is_that_of_diffusers(recompute):
    policy = fitted(horizon=4, inference_steps=10, recompute_epsilon=recompute, action_scaling="none")
    policy.module["net"] = Known()
    noise = torch.arange(8.0).reshape(1, 4, 2).sin() * 1.3
    chunk = policy.plan(np.zeros((1, 3)), noise)
    assert chunk.flatten().tolist() == pytest.approx(DIFFUSERS[recompute], abs=1e-6)


@pytest.mark.parametrize("network", SMALL)
def test_it_plans_what_a_plain_loop_over_the_network_samples(network):
    policy = fitted(network, inference_steps=7)
    observation, noise = np.random.default_rng(1).normal(size=(3, 3)), torch.randn(3, 16, 2)
    chunk = policy.plan(observation, noise)
    state = policy.normalizers["state"](torch.from_numpy(observation).float())
    seen = policy.module["encoder"]({"observations": {"state": state[:, None].expand(-1, 2, -1)}})
    with torch.no_grad():
        plain = policy.sampler.sample(lambda x, t: policy.module["net"](x, t, seen), noise)
    assert torch.allclose(policy.normalizers["actions"](chunk), plain, atol=1e-5)


def test_ddim_is_a_function_of_the_noise_and_ddpm_of_all_its_noises():
    policy = fitted(inference_steps=5)
    noise = torch.randn(2, 16, 2)
    twice = [policy.plan(np.zeros((2, 3)), noise) for _ in range(2)]
    assert torch.equal(*twice)
    random = policy.sampled(inference_steps=None)
    assert len(random.sampler) == 100 and random.module is policy.module
    seeds = [random.plan(np.zeros((2, 3)), noise, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(seeds[0], seeds[1]) and not torch.equal(seeds[0], seeds[2])
    assert not torch.equal(policy.sampled(inference_steps=5, eta=1.0).plan(np.zeros((2, 3)), noise), twice[0])


def test_many_worlds_are_told_step_by_step_what_a_few_are_told_at_once(monkeypatch):
    policy = fitted("unet", inference_steps=7)
    noise, observation = torch.randn(3, 16, 2), np.random.default_rng(0).normal(size=(3, 3))
    once = policy.plan(observation, noise)
    policy.reset()
    monkeypatch.setattr("reprise.policies.diffusion_policy.ROWS", 6)
    assert torch.allclose(policy.plan(observation, noise), once, atol=1e-3)


def test_the_chunk_begins_beside_the_first_observation():
    policy = fitted(history=3)
    assert policy.first_action == -2
    assert fitted(history=3, first_action=0).first_action == 0
    noise = torch.zeros(1, 16, 2)
    chunk = policy.sampled(inference_steps=2).plan(np.zeros((1, 3)), noise)
    assert np.array_equal(policy.sampled(inference_steps=2).act(np.zeros((1, 3)), noise), chunk[:, 2])


# --- warm start -------------------------------------------------------------------------------------------------------


def test_warm_starts_begin_from_the_last_chunk_moved_on():
    policy = fitted(inference_steps=4, warm_start=3, history=1)
    cold = policy.sampled(inference_steps=4)
    cold.warm_start = None
    kept = float(policy.process.alpha_bars[50])
    observation, noise = np.zeros((2, 3)), torch.randn(2, 16, 2)
    last = torch.zeros(2, 16, 2)

    def expected(rows=slice(None)):
        chunk = cold.plan(observation[rows], kept**0.5 * last[rows] + (1 - kept) ** 0.5 * noise[rows])
        last[rows] = 0
        last[rows, :13] = cold.normalizers["actions"](chunk)[:, 3:]
        return chunk

    assert torch.allclose(policy.plan(observation, noise), expected(), atol=1e-5)
    assert torch.allclose(policy.plan(observation, noise), expected(), atol=1e-5)
    only_second = np.array([False, True])
    assert torch.allclose(policy.plan(observation, noise[1:], environments=only_second), expected([1]), atol=1e-5)
    policy.reset(np.array([True, False]))
    last[0] = 0
    assert torch.allclose(policy.plan(observation, noise), expected(), atol=1e-5)
    policy.reset()
    last[:] = 0
    assert torch.allclose(policy.plan(observation, noise), expected(), atol=1e-5)


# --- learning ---------------------------------------------------------------------------------------------------------


def test_it_samples_both_ways_where_regression_takes_the_middle():
    """Half of the demonstrations go left, half go right, from the same place."""
    actions = np.repeat(np.tile([-1.0, 1.0], 20), 4)[:, None].astype(np.float32)
    data = Episodes({"state": np.zeros((160, 1))}, actions, np.arange(4, 161, 4))
    torch.manual_seed(0)
    training = {"steps": 400, "batch_size": 64, "learning_rate": 1e-2}
    sizes = {"horizon": 4, "history": 1}
    policy = DiffusionPolicy(network="mlp", network_options={"width": 128}, inference_steps=10, **sizes)
    policy.fit(data, **training)
    ways = policy.plan(np.zeros((200, 1)))
    assert (ways.abs() > 0.6).float().mean() > 0.9
    assert 0.3 < (ways[:, 0, 0] > 0).float().mean() < 0.7
    regression = BC(width=16, blocks=1, **sizes).fit(data, **training)
    assert regression.plan(np.zeros((1, 1))).abs().max() < 0.2


def test_loss_is_that_of_the_noise_and_counts_padding_unless_told_otherwise():
    for mask_padding in (False, True):
        policy = fitted(mask_padding=mask_padding, pad_end=None)
        policy.module["net"] = nn.Identity()
        policy.module["net"].forward = lambda x, t, seen: torch.zeros_like(x)
        demonstrations = policy.prepare(episodes())[0]
        batch = demonstrations.some(44, 0)
        batch["padding"][1:] = True  # only the first chunk is whole
        torch.manual_seed(3)
        loss = policy.loss(batch)
        torch.manual_seed(3)
        torch.randint(100, (44,))
        noise = torch.randn(44, 16, 2).square()
        kept = noise[~batch["padding"]] if mask_padding else noise
        assert loss.item() == pytest.approx(kept.mean().item(), rel=1e-5)


def test_defaults_of_the_training_are_the_published_ones(monkeypatch):
    seen = {}
    monkeypatch.setattr(DiffusionPolicy, "train", lambda self, *args, **training: seen.update(training))
    DiffusionPolicy().fit(episodes(), steps=3)
    assert seen == {"steps": 3, "learning_rate": 1e-4, "weight_decay": 1e-6, "betas": (0.95, 0.999)}
    DiffusionPolicy(network="transformer", network_options=SMALL["transformer"]).fit(episodes(), steps=3, betas=(0, 0))
    assert seen["weight_decay"] == 1e-3 and seen["betas"] == (0, 0)
    policy = fitted("transformer")
    decayed, rest = policy.parameter_groups(policy.module, 0.5)
    assert decayed["weight_decay"] == 0.5 and rest["weight_decay"] == 0
    assert len(decayed["params"]) + len(rest["params"]) == len(list(policy.module.parameters()))


def test_windows_are_padded_as_published():
    """By at most 7 repeated actions at the end, and by the older observation at the start."""
    assert len(fitted().prepare(episodes((20, 24)))[0]) == (20 - 7) + (24 - 7)


# --- files and refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", SMALL)
def test_saved_and_loaded_it_plans_the_same(network, tmp_path):
    policy = fitted(network).sampled(inference_steps=3)
    policy.save(tmp_path)
    again = DiffusionPolicy.load(tmp_path)
    noise = torch.randn(2, 16, 2)
    assert len(again.sampler) == 3
    assert torch.equal(policy.plan(np.ones((2, 3)), noise), again.plan(np.ones((2, 3)), noise))


def test_refusals():
    with pytest.raises(ValueError, match="unknown network 'cnn'"):
        DiffusionPolicy(network="cnn")
    with pytest.raises(ValueError, match="visits 1 to 100"):
        DiffusionPolicy(inference_steps=101)
    with pytest.raises(ValueError, match="1 to 16 are executed, not 17"):
        DiffusionPolicy(warm_start=17)
    with pytest.raises(ValueError, match="unknown schedule"):
        DiffusionPolicy(betas="steep")
    with pytest.raises(ValueError, match="multiple of 2, not"):
        fitted("unet", horizon=15)
