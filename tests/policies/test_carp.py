"""CARP: the published counts, the tokenizer against plain PyTorch layers, masks, caches, and the policy."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprise.data import Episodes
from reprise.policies import CARPPolicy, ChunkedPolicy, PerStepPolicy
from reprise.policies.carp.adaln import AdaLNTransformer, undecayed
from reprise.policies.carp.layers import StackedConv, StackedNorm, StackedResBlock
from reprise.policies.carp.per_step import ActionBins, PerStepTransformer
from reprise.policies.carp.tokenizer import ActionTokenizer
from reprise.policies.carp.transformer import CoarseToFineTransformer, pick
from reprise.testing import check_policy
from reprise.training import Diverged, FlatAdamW


def chunks(n=6, dims=2, horizon=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(horizon)[:, None]
    phase, speed, height = torch.rand(3, n, 1, dims, generator=generator)
    return (0.2 + 0.7 * height) * torch.sin(6 * phase + (0.1 + 0.4 * speed) * time)


def shaken(model, size=0.3):
    """Weights that leave nothing near zero, so that no path through the network is closed."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return model.eval()


def tokenizer_of(dims=2, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return shaken(ActionTokenizer(dims, **options))


def transformer_of(obs=5, dims=2, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return shaken(CoarseToFineTransformer(obs, dims, **{"embed_dim": 16, "depth": 2} | options), 0.1)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# --- the published sizes ----------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_tokenizer():
    tokenizer = ActionTokenizer(10)
    parts = {name: count(child) / 10 for name, child in tokenizer.named_children()}
    assert parts == {
        "encoder": 1_500, "quant_conv": 584, "quantizer": 6_432, "post_quant_conv": 584, "decoder": 1_301
    }  # fmt: skip
    assert count(tokenizer) == 104_010
    assert count(ActionTokenizer(1)) == 10_401


@pytest.mark.parametrize(
    ("obs", "dims", "options", "parameters"),
    [
        (2 * 19, 10, {}, 649_024),  # robomimic lift
        (2 * 23, 10, {}, 649_536),  # can, square
        (2 * 20, 2, {}, 643_520),  # Push-T
        (2 * 60, 9, {"embed_dim": 160}, 3_875_616),  # kitchen
        (2 * 60, 9, {}, 653_568),
        (137, 10, {"embed_dim": 160, "depth": 16}, 7_584_608),  # pictures, without their encoder
    ],
)
def test_parameter_counts_of_the_transformer(obs, dims, options, parameters):
    assert count(CoarseToFineTransformer(obs, dims, **options)) == parameters


def test_parameter_count_of_the_transformer_for_many_tasks():
    transformer = CoarseToFineTransformer(140, 10, vocab=1024, embed_dim=160, depth=32)
    assert count(transformer) == pytest.approx(15.08e6, abs=0.005e6)


# --- the tokenizer against plain layers -------------------------------------------------------------------------------


class PlainBlock(nn.Module):
    def __init__(self, narrow, wide):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, narrow, 1e-6), nn.GroupNorm(1, wide, 1e-6)
        self.conv1, self.conv2 = plain_conv(narrow, wide), plain_conv(wide, wide)
        self.shortcut = nn.Identity() if narrow == wide else nn.Conv2d(narrow, wide, 1)

    def forward(self, x):
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class PlainDown(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (3, 1), (2, 1))

    def forward(self, x):
        return self.conv(F.pad(x, (0, 0, 0, 1)))


def plain_conv(narrow, wide, columns=1):
    return nn.Conv2d(narrow, wide, (3, columns), padding=(1, columns // 2))


def plain_up(channels):
    return nn.ConvTranspose2d(channels, channels, (3, 1), (2, 1), (1, 0), (1, 0))


class PlainTokenizer(nn.Module):
    """One dimension's autoencoder out of PyTorch's own layers, with the weights of row d of a stack."""

    def __init__(self, stack, d):
        super().__init__()
        self.scales, self.cosine = stack.scales, stack.quantizer.cosine
        self.encoder = nn.Sequential(
            plain_conv(1, 2), PlainBlock(2, 4), PlainDown(4), PlainBlock(4, 4), PlainBlock(4, 8), PlainDown(8),
            PlainBlock(8, 8), nn.GroupNorm(1, 8, 1e-6), nn.SiLU(), plain_conv(8, 8),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.GroupNorm(1, 8, 1e-6), nn.SiLU(), plain_conv(8, 8), PlainBlock(8, 8), plain_up(8), PlainBlock(8, 4),
            PlainBlock(4, 4), plain_up(4), PlainBlock(4, 2), plain_conv(2, 1),
        )  # fmt: skip
        self.quant_conv, self.post_quant_conv = plain_conv(8, 8, 3), plain_conv(8, 8, 3)
        self.phi = nn.ModuleList(plain_conv(8, 8, 3) for _ in self.scales)
        self.codebook = nn.Parameter(stack.quantizer.codebook[d].detach().clone())
        pairs = [
            (stack.encoder, self.encoder), (stack.decoder, self.decoder), (stack.quant_conv, self.quant_conv),
            (stack.post_quant_conv, self.post_quant_conv), (stack.quantizer.phi, self.phi),
        ]  # fmt: skip
        for ours, plain in pairs:
            copy_row(ours, plain, d)

    def quantize(self, f):
        rest, total, loss, indices = f.detach(), torch.zeros_like(f), 0.0, []
        last = len(self.scales) - 1
        for k, scale in enumerate(self.scales):
            r = rest if k == last else F.interpolate(rest, (scale, 1), mode="area")
            rows = r.permute(0, 2, 3, 1).reshape(-1, 8)
            if self.cosine:
                index = (F.normalize(rows, dim=1) @ F.normalize(self.codebook, dim=1).T).argmax(1)
            else:
                index = torch.cdist(rows, self.codebook).argmin(1)
            h = self.codebook[index].view(len(f), scale, 1, 8).permute(0, 3, 1, 2)
            if k != last:
                h = F.interpolate(h, (self.scales[-1], 1), mode="bicubic")
            h = 0.5 * h + 0.5 * self.phi[k](h)
            total, rest = total + h, rest - h.detach()
            loss = loss + 0.25 * F.mse_loss(total.detach(), f) + F.mse_loss(total, f.detach())
            indices.append(index.view(len(f), scale))
        return total, loss / len(self.scales), indices

    def forward(self, x):
        f = self.quant_conv(self.encoder(x[:, None, :, None]))
        total, loss, indices = self.quantize(f)
        return self.decoder(self.post_quant_conv(f + (total - f).detach()))[:, 0, :, 0], loss, indices


@torch.no_grad()
def copy_row(ours, plain, d):
    if isinstance(ours, StackedConv):
        weight = ours.weight[d]
        if isinstance(plain, nn.ConvTranspose2d):
            weight = weight.transpose(0, 1)
        plain.weight.copy_(weight)
        plain.bias.copy_(ours.bias[d].flatten())
    elif isinstance(ours, StackedNorm):
        plain.weight.copy_(ours.weight[d].flatten())
        plain.bias.copy_(ours.bias[d].flatten())
    elif isinstance(ours, StackedResBlock):
        for name in ("norm1", "conv1", "norm2", "conv2", "shortcut"):
            copy_row(getattr(ours, name), getattr(plain, name), d)
    elif not isinstance(ours, (nn.SiLU, nn.Identity)):
        for a, b in zip(ours, plain, strict=True):
            copy_row(a, b.conv if isinstance(b, PlainDown) else b, d)


@pytest.mark.parametrize("cosine", [True, False])
def test_the_stack_is_one_plain_autoencoder_per_dimension(cosine):
    stack, x = tokenizer_of(3, cosine=cosine), chunks(dims=3)
    reconstruction, losses, indices = stack(x)
    stack.loss(x).sum().backward()
    for d in range(3):
        plain = PlainTokenizer(stack, d)
        assert count(plain) == 10_401
        expected, loss, found = plain(x[..., d])
        torch.testing.assert_close(reconstruction[..., d], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(losses[d], loss, rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(indices, found, strict=True):
            assert torch.equal(ours[:, d::3], theirs)
        (F.mse_loss(expected, x[..., d]) + loss).backward()
        for ours, theirs in (
            (stack.quantizer.codebook.grad[d], plain.codebook.grad),
            (stack.quantizer.phi[1].weight.grad[d], plain.phi[1].weight.grad),
            (stack.encoder[0].weight.grad[d], plain.encoder[0].weight.grad),
            (stack.decoder[-1].weight.grad[d], plain.decoder[-1].weight.grad),
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_decoding_the_codes_is_the_reconstruction_with_all_scales():
    tokenizer, x = tokenizer_of(), chunks()
    decoded = tokenizer.decode(tokenizer.encode(x))
    torch.testing.assert_close(decoded, tokenizer(x)[0].detach(), rtol=1e-5, atol=1e-5)
    assert torch.equal(decoded, tokenizer.reconstruct(x)) and torch.equal(decoded, tokenizer.reconstruct(x, 4))
    assert not torch.allclose(decoded, tokenizer.reconstruct(x, 3), atol=1e-3)


def test_partial_sums_are_what_the_transformer_is_fed():
    tokenizer, x = tokenizer_of(), chunks()
    indices = tokenizer.encode(x)
    sums, inputs = tokenizer.latents(indices), tokenizer.inputs(indices)
    total = tokenizer.quantizer(tokenizer._latent(x))[0]
    torch.testing.assert_close(sums[-1], total.detach(), rtol=1e-5, atol=1e-5)
    start = 0
    for k, scale in enumerate(tokenizer.scales[1:]):
        for d in range(2):
            latent = sums[k][d].transpose(1, 2)[..., None]  # (B, 8, 4, 1)
            expected = F.interpolate(latent, (scale, 1), mode="area")[..., 0].transpose(1, 2)
            torch.testing.assert_close(inputs[:, start + d : start + 2 * scale : 2], expected)
        start += 2 * scale
    assert inputs.shape == (6, start, 8)


def test_phi_without_its_convolution_is_the_identity():
    tokenizer = tokenizer_of(1, residual=0.0)
    index = torch.arange(4)[None, None]
    assert torch.equal(tokenizer.quantizer.expand(index, 3), tokenizer.quantizer.codebook[:, None, :4])


def test_a_single_scale_is_a_plain_vq_vae_and_one_parallel_prediction():
    tokenizer, x = tokenizer_of(2, scales=(4,)), chunks()
    f = tokenizer._latent(x).detach()
    codes = []
    for d in range(2):
        book = tokenizer.quantizer.codebook[d]
        index = (F.normalize(f[d], dim=-1) @ F.normalize(book, dim=-1).T).argmax(-1)
        codes.append(book[index])
    h = torch.stack(codes)
    expected = 0.5 * h + 0.5 * tokenizer.quantizer.phi[0](h)
    torch.testing.assert_close(tokenizer.quantizer(f)[0], expected)
    transformer = transformer_of(scales=(4,))
    passes = []
    hook = transformer.trunk.head.register_forward_hook(lambda *_: passes.append(1))
    assert transformer.generate(torch.randn(3, 5), tokenizer)[0].shape == (3, 16, 2)
    hook.remove()
    assert len(passes) == 1 and tokenizer.inputs(tokenizer.encode(x)).shape == (6, 0, 8)


def test_the_cosine_search_ignores_lengths():
    quantizer = tokenizer_of().quantizer
    vectors = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(quantizer.nearest(vectors), quantizer.nearest(vectors * torch.rand(2, 50, 1).add(0.01)))
    quantizer.cosine = False
    assert not torch.equal(quantizer.nearest(vectors), quantizer.nearest(10 * vectors))


def test_the_gradient_goes_straight_through():
    tokenizer, x = tokenizer_of(), chunks()
    f = tokenizer._latent(x).detach().requires_grad_()
    quantized = tokenizer.quantizer(f)[0]
    through = tokenizer._reconstruct(f + (quantized - f).detach())
    (ours,) = torch.autograd.grad((through - x).square().sum(), f)
    decoded = quantized.detach().requires_grad_()
    (expected,) = torch.autograd.grad((tokenizer._reconstruct(decoded) - x).square().sum(), decoded)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_no_dimension_uses_the_codebook_of_another():
    tokenizer = tokenizer_of(3)
    before = tokenizer.encode(chunks(dims=3))
    actions = tokenizer.decode(before)
    with torch.no_grad():
        tokenizer.quantizer.codebook[1] = tokenizer.quantizer.codebook[1].flip(0)
    after, decoded = tokenizer.encode(chunks(dims=3)), tokenizer.decode(before)
    for old, new in zip(before, after, strict=True):
        dims = torch.arange(old.shape[1]) % 3
        assert torch.equal(old[:, dims != 1], new[:, dims != 1])
        assert torch.equal(old[:, dims == 1], 511 - new[:, dims == 1])
    assert torch.equal(actions[..., [0, 2]], decoded[..., [0, 2]])
    assert not torch.allclose(actions[..., 1], decoded[..., 1], atol=1e-3)


def test_dimensions_train_together_as_they_would_alone():
    together, x = tokenizer_of(2), chunks(32) * torch.tensor([1.0, 0.1])
    alone = ActionTokenizer(1)
    alone.load_state_dict({key: value[1:] for key, value in together.state_dict().items()})
    with torch.random.fork_rng():
        for tokenizer, data in ((together, x), (alone, x[..., 1:])):
            torch.manual_seed(3)
            tokenizer.fit(data, steps=5, batch_size=16, learning_rate=1e-2, clip_norm=0.1)
    ours, expected = together.state_dict(), alone.state_dict()
    for key, value in expected.items():
        torch.testing.assert_close(ours[key][1:], value, rtol=1e-3, atol=1e-4)


# --- the transformer --------------------------------------------------------------------------------------------------


def test_a_scale_sees_itself_and_coarser_ones():
    transformer = transformer_of()
    cond, inputs = torch.randn(1, 5), torch.randn(1, 18, 8)
    logits = transformer(cond, inputs)
    scale = torch.arange(4).repeat_interleave(torch.tensor([2, 4, 6, 8]))
    for position in range(18):
        changed = inputs.clone()
        changed[:, position] += 1
        moved = (transformer(cond, changed) - logits).abs().amax((0, 2)) > 1e-6
        assert torch.equal(moved, scale >= scale[position + 2])


@pytest.mark.parametrize("top_k", [1, 5])
def test_cached_passes_give_the_logits_of_teacher_forcing(top_k):
    transformer, tokenizer = transformer_of(depth=3, heads=2), tokenizer_of()
    passes, cond = [], torch.randn(4, 5)
    hook = transformer.trunk.head.register_forward_hook(lambda module, inputs, output: passes.append(output))
    actions, indices = transformer.generate(cond, tokenizer, top_k=top_k)
    hook.remove()
    assert [part.shape[1] for part in passes] == [2, 4, 6, 8]
    forced = transformer(cond, tokenizer.inputs(indices))
    torch.testing.assert_close(torch.cat(passes, 1), forced, rtol=0, atol=1e-4)
    assert torch.equal(torch.cat(indices, 1), forced.argmax(2)) == (top_k == 1)
    torch.testing.assert_close(actions, tokenizer.decode(indices))


def test_the_per_step_baseline_is_causal_and_its_cache_exact():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = shaken(PerStepTransformer(5, 2, 4, bins=16, embed_dim=16, depth=2), 0.1)
    passes, cond = [], torch.randn(3, 5)
    hook = transformer.trunk.head.register_forward_hook(lambda module, inputs, output: passes.append(output))
    indices = transformer.generate(cond)
    hook.remove()
    forced = transformer(cond, indices)
    torch.testing.assert_close(torch.cat(passes, 1), forced, rtol=0, atol=1e-4)
    assert len(passes) == 8 and torch.equal(indices, forced.argmax(2))
    other = indices.clone()
    other[:, 3] = (other[:, 3] + 1) % 16
    moved = (transformer(cond, other) - forced).abs().amax((0, 2)) > 1e-6
    assert moved.tolist() == [False] * 4 + [True] * 4


def test_bins_are_equal_and_their_middles_come_back():
    bins, x = ActionBins(256), torch.linspace(-1, 1, 1000)
    assert (bins.decode(bins.encode(x)) - x).abs().max() <= 1 / 256 + 1e-6
    assert bins.encode(x).bincount().diff().abs().max() <= 1
    assert torch.equal(bins.encode(bins.decode(torch.arange(256))), torch.arange(256))


def test_initial_weights():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = CoarseToFineTransformer(40, 2)
    trunk, spread = transformer.trunk, (1 / (3 * 64)) ** 0.5
    block = trunk.blocks[3]
    gates, shifts = block.adaln.weight[:128].std(), block.adaln.weight[128:].std()
    expected = {
        "qkv": (block.qkv.weight.std(), 1), "gates": (gates, 1e-3), "scales and shifts": (shifts, 0.5),
        "proj": (block.proj.weight.std(), 0.25), "fc2": (block.fc2.weight.std(), 0.25),
        "fc1": (block.fc1.weight.std(), 1),
        "head": (trunk.head.weight.std(), 0.02), "head_adaln": (trunk.head_adaln.weight.std(), 0.5),
        "pos": (transformer.pos.std(), 1),
    }  # fmt: skip
    for name, (value, factor) in expected.items():
        assert value.item() == pytest.approx(spread * factor, rel=0.1), name
    assert block.log_scale.exp().mean().item() == pytest.approx(4) and not block.q_bias.any()
    rates = [b.drop_path.rate for b in AdaLNTransformer(16, 4, 4, 8).blocks]
    assert rates == pytest.approx([0, 0.1 / 18, 0.2 / 18, 0.1 / 6])


def test_queries_and_keys_are_unit_vectors_and_their_scale_is_bounded():
    block = transformer_of().trunk.blocks[0]
    x, modulation = torch.randn(2, 5, 16), block.modulation(torch.zeros(2, 16))
    with torch.no_grad():
        before = block(x, modulation)
        block.qkv.weight[16:32] *= 7  # keys have no bias
        torch.testing.assert_close(block(x, modulation), before)
        block.log_scale.fill_(5.0)
        bounded = block(x, modulation)
        block.log_scale.fill_(9.0)
    assert torch.equal(block(x, modulation), bounded)


def test_what_does_not_decay():
    transformer = CoarseToFineTransformer(40, 2, depth=2)
    spared = {id(parameter) for parameter in undecayed(transformer)}
    names = {name for name, parameter in transformer.named_parameters() if id(parameter) not in spared}
    kinds = {".".join(part for part in name.split(".") if not part.isdigit()) for name in names}
    layers = ("adaln", "qkv", "proj", "fc1", "fc2")
    expected = {"obs_embed.weight", "word_embed.weight", "trunk.head_adaln.weight", "trunk.head.weight"}
    assert kinds == expected | {f"trunk.blocks.{layer}.weight" for layer in layers}


def test_picking_among_the_likeliest():
    logits = torch.tensor([1.0, 3.0, 2.0, -9.0]).expand(10_000, 4)
    uniform = torch.rand(10_000, generator=torch.Generator().manual_seed(0))
    shares = pick(logits, 2, uniform).bincount(minlength=4) / 10_000
    expected = torch.tensor([3.0, 2.0]).softmax(0)
    torch.testing.assert_close(shares, torch.tensor([0, *expected, 0]), rtol=0, atol=0.02)
    assert torch.equal(pick(logits, 1), torch.ones(10_000, dtype=torch.long))
    assert pick(logits, 9, uniform).bincount(minlength=4)[0] > 0  # more than there are: all


# --- the optimiser ----------------------------------------------------------------------------------------------------


def test_flat_adamw_is_adamw_with_clipping():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = [nn.Linear(3, 2) for _ in range(2)]
        nets[1].load_state_dict(nets[0].state_dict())
        flat = FlatAdamW(nets[0].parameters(), 0.1, weight_decay=0.3, undecayed=[nets[0].bias], betas=(0.5, 0.9))
        groups = [{"params": [nets[1].weight], "weight_decay": 0.3}, {"params": [nets[1].bias], "weight_decay": 0.0}]
        peer = torch.optim.AdamW(groups, lr=0.1, betas=(0.5, 0.9))
        for _ in range(5):
            x = torch.randn(8, 3)
            for net, optimizer in zip(nets, (flat, peer), strict=True):
                optimizer.zero_grad()
                net(x).pow(4).sum().backward()
            nn.utils.clip_grad_norm_(nets[1].parameters(), 0.5)
            flat.step(0.5)
            peer.step()
    torch.testing.assert_close(list(nets[0].parameters()), list(nets[1].parameters()), rtol=1e-4, atol=1e-5)


# --- the policy -------------------------------------------------------------------------------------------------------


def walks(*lengths, dims=2, seed=0):
    """Each action is the mean of the state's first numbers a step later, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    parts = []
    for length in lengths:
        time = np.arange(length)[:, None]
        state = np.sin(rng.uniform(0, 6, (1, 3)) + rng.uniform(0.1, 0.4, (1, 3)) * time)
        parts.append({"observations": {"state": state}, "actions": 5 + 3 * np.roll(state[:, :dims], -1, 0)})
    return Episodes.of(parts)


@cache
def trained(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        extra = {"tokenizer": {"steps": 20, "learning_rate": 1e-2}} if kind is CARPPolicy else {}
        policy = kind(depth=2, embed_dim=16)
        return policy.fit(walks(30, 40), steps=20, batch_size=16, learning_rate=1e-2, **extra)


def policy_of(kind=CARPPolicy):
    return deepcopy(trained(kind))


def test_windows_begin_one_step_before_an_episode_and_reach_seven_beyond_it():
    policy = CARPPolicy(depth=2, embed_dim=16)
    demonstrations, _ = policy.prepare(walks(20, 9))
    starts = [list(range(-1, 20 - 16 + 7 + 1)), list(range(-1, 9 - 16 + 7 + 1))]  # of the chunk, in its episode
    batch = demonstrations.gather(demonstrations.steps)
    assert [(batch["step"][batch["episode"] == e] - 1).tolist() for e in (0, 1)] == starts
    first, last = batch["actions"][0], batch["actions"][len(starts[0]) - 1]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])
    assert torch.equal(last[8:], last[8].expand(8, 2)) and not torch.equal(last[7], last[8])
    episode = demonstrations.windows.episodes  # a chunk begins beside the older of its two observations
    assert np.array_equal(batch["observations"]["state"][4], episode.observations["state"][3:5])
    assert np.array_equal(batch["actions"][4], episode.actions[3:19])


@pytest.mark.parametrize("kind", [CARPPolicy, PerStepPolicy])
def test_a_policy_learns_plans_and_comes_back_from_disk(kind, tmp_path):
    policy, seen = policy_of(kind), walks(10, seed=1).observations["state"]
    losses = [loss for _, loss in policy.trained.losses]
    assert losses[-1] < 0.95 * losses[0]
    greedy = policy.plan(seen)
    assert greedy.shape == (10, 16, 2) and 1 < float(greedy.mean()) < 9 and not policy.noisy
    policy.top_k = 5
    noise = torch.randn(10, 16, 2, generator=torch.Generator().manual_seed(0))
    policy.reset()
    drawn = policy.plan(seen, noise)
    policy.save(tmp_path)
    policy.reset()
    assert torch.equal(drawn, policy.plan(seen, noise)) and not torch.equal(drawn, greedy)
    policy.reset()
    assert not torch.equal(drawn, policy.plan(seen, -noise))
    loaded = kind.load(tmp_path)
    assert torch.equal(greedy, loaded.plan(seen))


@pytest.mark.parametrize("kind", [CARPPolicy, PerStepPolicy])
def test_it_keeps_what_policies_promise(kind):
    policy, seen = policy_of(kind), walks(3, seed=1).observations["state"]
    check_policy(policy, seen)
    policy.top_k = 5
    policy.settings["top_k"] = 5
    check_policy(policy, seen)


def test_it_sees_pictures():
    episodes = walks(20)
    pictures = np.random.default_rng(0).integers(0, 255, (20, 16, 16, 3), dtype=np.uint8)
    both = Episodes({**episodes.observations, "image": pictures}, episodes.actions, episodes.ends)
    options = {"history": 1, "observations": ("state", "image"), "encoder": {"widths": (16, 16), "features": 8}}
    policy = CARPPolicy(depth=2, embed_dim=16, **options).fit(both, steps=2, batch_size=8, tokenizer={"steps": 2})
    assert policy.module.transformer.cond_dim == 11
    seen = {"observation.state": both.observations["state"][:4], "observation.image": pictures[:4]}
    assert policy.plan(seen).shape == (4, 16, 2)
    check_policy(policy, {"state": both.observations["state"][:4], "image": pictures[:4]})


def test_a_chunk_is_executed_from_the_present_on():
    policy = policy_of()
    chunked, seen = ChunkedPolicy(policy, execute=8), walks(3, seed=2).observations["state"]
    actions = [chunked.act(seen) for _ in range(9)]
    policy.reset()
    plan = policy.plan(seen).numpy()
    assert all(np.array_equal(actions[i], plan[:, 1 + i]) for i in range(8))


def test_a_second_training_keeps_the_tokenizer_and_moves_the_rest():
    policy = policy_of()
    before = {key: value.clone() for key, value in policy.module.state_dict().items()}
    policy.fit(walks(30, 40), steps=2, batch_size=16)
    after = policy.module.state_dict()
    same = {key for key, value in before.items() if torch.equal(value, after[key])}
    assert {key for key in before if key.startswith("tokenizer")} <= same
    assert not any(key.startswith("transformer.trunk.head") for key in same)


def test_what_acts_is_the_average_of_the_weights():
    policy = CARPPolicy(depth=2, embed_dim=16)
    weights, average = [], None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy.prepare(walks(40))
        layer = policy.module.transformer.obs_embed
        hook = layer.register_forward_hook(lambda *_: weights.append(layer.weight.detach().clone()))
        policy.fit(walks(40), steps=4, batch_size=8, learning_rate=1e-2, tokenizer={"steps": 1})
        hook.remove()
    final = layer.weight.detach()
    for t, weight in enumerate(weights[1:]):  # after the first update, the second, the third; the fourth follows
        decay = 0.0 if t == 0 else 1 - (1 + t) ** -0.75
        average = weight if average is None else decay * average + (1 - decay) * weight
    share = 1 - (1 - 4**-0.75)
    last = (final - (1 - share) * average) / share
    assert not torch.allclose(final, last, atol=1e-5)
    assert float((last - weights[-1]).abs().max()) < 0.011  # one step of Adam


def test_constant_dimensions_do_no_harm():
    still = walks(30)
    still.actions[:, 1] = 4.0
    policy = CARPPolicy(depth=2, embed_dim=16).fit(still, steps=3, batch_size=8, tokenizer={"steps": 3})
    assert bool(policy.plan(np.zeros((2, 3))).isfinite().all())


def test_divergence_is_told_at_once():
    with pytest.raises(Diverged, match=r"not finite at step [2-9] of 50; lower the learning rate"):
        CARPPolicy(depth=2, embed_dim=16).fit(walks(30), steps=1, tokenizer={"steps": 50, "learning_rate": 1e30})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ActionTokenizer(2, horizon=18), "must divide by 4, not 18"),
        (lambda: ActionTokenizer(2, scales=(1, 2, 3)), r"latent's length horizon / 4 = 4, unlike \(1, 2, 3\)"),
        (lambda: ActionTokenizer(2, horizon=32), "= 8, unlike"),
        (lambda: ActionTokenizer(2, scales=(2, 1, 4)), "scales rise"),
        (lambda: ActionTokenizer(0), "must not be empty"),
        (lambda: ActionTokenizer(2).encode(torch.zeros(3, 16, 1)), r"chunks are \(B, 16, 2\), not \(3, 16, 1\)"),
        (lambda: ActionTokenizer(2).encode(torch.full((3, 16, 2), torch.nan)), "not finite; look for NaN"),
        (lambda: ActionTokenizer(2).decode([]), "1 to 4 scales are needed"),
        (lambda: ActionTokenizer(2).decode([torch.full((1, 3), 0)]), r"scale 0 are \(B, 2\), not \(1, 3\)"),
        (lambda: ActionTokenizer(2).decode([torch.full((1, 2), 512)]), "leave the codebook of 512"),
        (lambda: ActionTokenizer(2).reconstruct(torch.zeros(1, 16, 2), 5), "between 1 and 4"),
        (lambda: ActionTokenizer(2).fit(torch.zeros(3, 16, 2), steps=0), "are no training"),
        (lambda: CoarseToFineTransformer(40, 2, depth=6), "6 heads do not divide a width of 64"),
        (lambda: transformer_of()(torch.zeros(1, 39), torch.zeros(1, 18, 8)), r"\(B, 5\), not \(1, 39\)"),
        (lambda: transformer_of()(torch.zeros(1, 5), torch.zeros(1, 20, 8)), r"\(B, 18, 8\), not \(1, 20, 8\)"),
        (lambda: pick(torch.zeros(4), 0), "top_k is at least 1"),
        (lambda: pick(torch.zeros(4), 2), "takes uniform numbers"),
        (lambda: CARPPolicy(depth=2).fit(walks(30), steps=1), "the tokenizer has learned nothing yet"),
        (lambda: CARPPolicy(depth=2).fit(walks(7), steps=1), "the longest episode has 7"),
        (lambda: CARPPolicy(scales=(1, 2, 3, 4, 8), mult=(2,), top_k=2), "16 actions cannot decide 18 draws"),
        (lambda: CARPPolicy(depth=3).fit(walks(30), steps=1), "3 heads do not divide a width of 64"),
        (lambda: policy_of().plan(np.zeros((2, 3)), torch.zeros(2, 16, 2)), "plans without noise"),
        (lambda: policy_of().fit(walks(30, dims=1), steps=1), "the policy was built for"),
        (lambda: FlatAdamW(nn.Linear(3, 2).parameters(), 0.1, networks=3), "3 stacked networks have as many rows"),
    ],
)  # fmt: skip
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_actions_beyond_the_range_give_a_warning():
    with pytest.warns(UserWarning, match=r"lie in \[-1, 1\] and reach 1.5"):
        ActionTokenizer(2).encode(torch.full((1, 16, 2), 1.5))


def test_a_loss_in_pieces_is_the_loss(monkeypatch):
    tokenizer, chunks = ActionTokenizer(2), torch.rand(7, 16, 2)
    whole = tokenizer.loss(chunks)
    (gradient,) = torch.autograd.grad(whole.sum(), [tokenizer.quantizer.codebook])
    monkeypatch.setattr("reprise.policies.carp.tokenizer.ROWS", 6)
    pieces = tokenizer.loss(chunks)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(torch.autograd.grad(pieces.sum(), [tokenizer.quantizer.codebook])[0], gradient)
