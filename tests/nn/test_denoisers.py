"""The networks that denoise chunks of actions: U-Net, transformer and perceptron."""

import pytest
import torch

from reprise.nn import ConditionalUNet1D, DiffusionMLP, DiffusionTransformer, SinusoidalEmbedding, parameters

NETS = {
    "unet": lambda: ConditionalUNet1D(3, 6, down_dims=(16, 32), step_embed_dim=16),
    "unet, shift only": lambda: ConditionalUNet1D(
        3, 6, down_dims=(16, 32), step_embed_dim=16, cond_predict_scale=False
    ),
    "transformer": lambda: DiffusionTransformer(3, 8, 6, 2, embed_dim=16, n_layers=2, n_heads=2),
    "mlp": lambda: DiffusionMLP(8, 3, 6, width=32, cond_hidden=(8, 6)),
}


def condition(name, rows=2):
    """(B, 6), or (B, 2, 6) for the transformer."""
    return torch.arange(6.0 * rows * (2 if name == "transformer" else 1)).cos().reshape(rows, *NETS_SHAPES[name])


NETS_SHAPES = {"unet": (6,), "unet, shift only": (6,), "transformer": (2, 6), "mlp": (6,)}
CHUNK = torch.arange(48.0).reshape(2, 8, 3).mul(0.37).sin()
STEPS = torch.tensor([3, 77])


def filled(net):
    """A net whose weights are sines, numbered in the order of their names; the same for every implementation."""
    first = isinstance(net, DiffusionTransformer)  # the published one has an empty parameter in front
    for i, (_, weight) in enumerate(sorted(net.named_parameters()), first):
        values = (torch.arange(weight.numel(), dtype=torch.float64) * 0.7 + i).sin()
        scale = 0.3 if weight.ndim == 1 else 1.5 / weight[0].numel() ** 0.5
        weight.data = (values * scale).reshape(weight.shape).float()
    return net.eval()


# --- published sizes --------------------------------------------------------------------------------------------------

SIZES = {
    "unet, one_leg": (lambda: ConditionalUNet1D(10, 58), 66_055_690),
    "unet, lamp": (lambda: ConditionalUNet1D(10, 44), 65_854_986),
    "transformer, pusht": (lambda: DiffusionTransformer(2, 16, 20, 2), 8_965_122),
    "mlp, lift": (lambda: DiffusionMLP(4, 7, 19), 573_516),
    "mlp, can": (lambda: DiffusionMLP(4, 7, 23), 575_564),
    "mlp, square": (
        lambda: DiffusionMLP(4, 7, 23, width=1024, step_embed_dim=32, cond_hidden=(512, 64)),
        2_305_212,
    ),
    "mlp, transport": (lambda: DiffusionMLP(8, 14, 59, width=2048, step_embed_dim=32), 9_044_176),
    "mlp, hopper": (lambda: DiffusionMLP(4, 3, 11, activation="relu"), 553_020),
    "mlp, walker2d": (lambda: DiffusionMLP(4, 6, 17, activation="relu"), 568_392),
}


@pytest.mark.parametrize("name", SIZES)
def test_published_parameters(name):
    make, count = SIZES[name]
    with torch.device("meta"):
        assert parameters(make()) == count


# --- equality with the published code ---------------------------------------------------------------------------------

# Outputs of the classes of real-stanford/diffusion_policy (5ba07ac) and, for the perceptron, irom-princeton/dppo with
# the weights of `filled`: mean square, and the last action of the second chunk.
PUBLISHED = {
    "unet": (0.217394, [-0.662913, -0.269129, 0.229472]),
    "unet, shift only": (0.218544, [-0.669007, -0.278347, 0.231824]),
    "transformer": (1.471649, [-1.281558, 0.325717, 1.635499]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_outputs_are_those_of_the_published_code(name):
    square, last = PUBLISHED[name]
    with torch.no_grad():
        output = filled(NETS[name]())(CHUNK, STEPS, condition(name))
    assert output.square().mean().item() == pytest.approx(square, abs=2e-6)
    assert output[1, -1].tolist() == pytest.approx(last, abs=2e-6)


def test_the_perceptron_is_that_of_dppo():
    net = filled(DiffusionMLP(4, 3, 5, width=32, step_embed_dim=16, cond_hidden=(8, 6)))
    chunk, seen = torch.arange(24.0).reshape(2, 4, 3).mul(0.37).sin(), torch.arange(10.0).reshape(2, 5).cos()
    with torch.no_grad():
        output = net(chunk, STEPS, seen)
    assert output.square().mean().item() == pytest.approx(2.697963, abs=2e-5)
    assert output[1, -1].tolist() == pytest.approx([-2.502927, 1.673178, -1.538101], abs=1e-5)


def test_published_weights_can_be_loaded():
    names = set(NETS["unet"]().state_dict())
    assert {"diffusion_step_encoder.1.weight", "down_modules.0.0.cond_encoder.1.bias", "final_conv.0.block.1.weight",
            "mid_modules.1.blocks.0.block.0.weight", "down_modules.0.2.conv.weight", "final_conv.1.bias",
            "up_modules.0.0.residual_conv.weight", "up_modules.0.2.conv.weight"} <= names  # fmt: skip
    names = set(NETS["transformer"]().state_dict())
    assert {"pos_emb", "cond_pos_emb", "cond_obs_emb.weight", "encoder.2.bias", "mask", "memory_mask",
            "decoder.layers.1.multihead_attn.in_proj_weight", "decoder.layers.0.self_attn.out_proj.bias",
            "decoder.layers.0.norm3.weight", "ln_f.bias", "head.weight"} <= names  # fmt: skip


def test_embedding_of_steps():
    t = torch.tensor([0.0, 7.0])
    angles = t[:, None] * torch.tensor([1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3), 1e-4])
    assert torch.allclose(SinusoidalEmbedding(8)(t), torch.cat([angles.sin(), angles.cos()], 1), atol=1e-6)
    assert SinusoidalEmbedding(8)(torch.tensor([[3], [4]])).shape == (2, 1, 8)


# --- what they have in common -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_contexts_of_many_steps_are_those_of_each(name):
    net, seen = filled(NETS[name]()), condition(name)
    with torch.no_grad():
        contexts = net.contexts(torch.tensor([[3], [77], [5]]), seen)
        for i, t in enumerate((3, 77, 5)):
            output = net.denoise(CHUNK, [context[i] for context in contexts])
            assert torch.allclose(output, net(CHUNK, torch.tensor([t, t]), seen), atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_examples_of_a_batch_do_not_mix_and_every_parameter_learns(name):
    torch.manual_seed(0)
    net, seen = NETS[name]().eval(), condition(name)
    output = net(CHUNK, STEPS, seen)
    for i in range(2):
        assert torch.allclose(output[i], net(CHUNK[i : i + 1], STEPS[i : i + 1], seen[i : i + 1])[0], atol=1e-6)
    output.square().sum().backward()
    for weight_name, weight in net.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, weight_name
    for changed in ((CHUNK + 1, STEPS, seen), (CHUNK, STEPS + 9, seen), (CHUNK, STEPS, seen + 1)):
        assert (net(*changed) - output).abs().amax((1, 2)).min() > 1e-6


def test_the_transformer_looks_only_back():
    """Action j sees actions up to j and the first j + 1 observations."""
    net = filled(DiffusionTransformer(3, 8, 6, 3, embed_dim=16, n_layers=2, n_heads=2))
    seen = torch.randn(2, 3, 6)
    output = net(CHUNK, STEPS, seen)
    later = CHUNK.clone()
    later[:, 5:] += 1
    same = net(later, STEPS, seen)
    assert torch.equal(same[:, :5], output[:, :5]) and not torch.allclose(same[:, 5], output[:, 5])
    later = seen.clone()
    later[:, 2:] += 1
    same = net(CHUNK, STEPS, later)
    assert torch.equal(same[:, :2], output[:, :2]) and not torch.allclose(same[:, 2], output[:, 2])
    free = DiffusionTransformer(3, 8, 6, 3, embed_dim=16, n_layers=1, n_heads=2, causal=False).eval()
    assert not torch.allclose(free(CHUNK, STEPS, later)[:, 0], free(CHUNK, STEPS, seen)[:, 0])


def test_only_matrices_decay_in_the_transformer():
    net = NETS["transformer"]()
    decayed = {id(weight) for weight in net.decayed()}
    kept = {name for name, weight in net.named_parameters() if id(weight) not in decayed}
    assert {"pos_emb", "cond_pos_emb", "ln_f.weight", "decoder.layers.0.self_attn.in_proj_bias"} <= kept
    assert all(
        name.endswith("bias") or "norm" in name or name in ("pos_emb", "cond_pos_emb", "ln_f.weight") for name in kept
    )


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_refusals():
    with pytest.raises(ValueError, match="8 groups do not divide 20 channels"):
        ConditionalUNet1D(2, 4, down_dims=(16, 20))
    with pytest.raises(ValueError, match="is odd, not 4"):
        ConditionalUNet1D(2, 4, down_dims=(16, 32), kernel_size=4)
    with pytest.raises(ValueError, match="5 heads do not divide an embedding of 16"):
        DiffusionTransformer(2, 4, 6, embed_dim=16, n_heads=5)
    with pytest.raises(ValueError, match="unknown activation 'sin'"):
        DiffusionMLP(4, 3, 5, activation="sin")
    with pytest.raises(ValueError, match="even number of at least 4"):
        SinusoidalEmbedding(3)
    with pytest.raises(ValueError, match=r"H a multiple of 2, not \(2, 7, 3\)"):
        NETS["unet"]()(CHUNK[:, :7], STEPS, condition("unet"))
    for name in NETS:
        with pytest.raises(ValueError, match="the condition is"):
            NETS[name]()(CHUNK, STEPS, condition(name)[..., :4])
    with pytest.raises(ValueError, match="chunks are"):
        NETS["mlp"]()(CHUNK[..., :2], STEPS, condition("mlp"))
    with pytest.raises(ValueError, match="chunks are"):
        NETS["transformer"]()(CHUNK[:, :4], STEPS, condition("transformer"))
