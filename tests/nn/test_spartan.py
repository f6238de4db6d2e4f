import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from reprise.nn import CMixer, SMixer, SpaRTAN, SpaRTANBlock, WaveModulation, multiply_adds, parameters
from reprise.nn.spartan import initialise, weight_decay_groups

MICRO = {"num_classes": 10, "depths": (1, 1, 2, 1), "dims": (16, 32, 64, 128), "drop_path": 0.0, "small_input": True}
TINY = {"num_classes": 5, "depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}
MIXERS = [
    lambda: SMixer(16), lambda: SMixer(16, depthwise=True), lambda: CMixer(16, 4), lambda: CMixer(16, 2, grouped=True),
    lambda: CMixer(16, 3, grouped=True), lambda: SpaRTANBlock(16, 2, depthwise=True, grouped=True, layer_scale=0.5),
]  # fmt: skip


def maps(channels=16, height=6, width=7, n=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, channels, height, width, generator=generator, dtype=dtype)


def shuffled(module):
    """Every parameter and running statistic away from its initial value, in evaluation mode."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return module.eval()


# --- the published network --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def default():
    with torch.device("meta"):
        return SpaRTAN()


def test_parameters_of_the_published_network(default):
    assert parameters(default) == 3_820_296
    assert parameters(default.stem) == 5_136
    for stage, count in zip(default.stages, (25_360, 96_800, 152_832, 592_384), strict=True):
        assert [parameters(block) for block in stage] == [count] * len(stage)
    assert [len(stage) for stage in default.stages] == [3, 3, 12, 2]
    assert [parameters(layer) for layer in default.downsamplers] == [8_320, 33_024, 131_584]
    assert parameters(default.head) == 257_000


def test_multiply_adds_of_the_published_network(default):
    """1.07 G and 0.82 G are published with activations counted; its convolutions have 1.044 G and 0.799 G."""
    assert multiply_adds(default, (1, 3, 256, 256)) == pytest.approx(1.044e9, rel=5e-4)
    assert multiply_adds(default, (1, 3, 224, 224)) == pytest.approx(0.799e9, rel=8e-4)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: SMixer(32), 8_872), (lambda: CMixer(32, 4), 16_296),
        (lambda: SMixer(128, depthwise=True), 31_072), (lambda: CMixer(128, 2, grouped=True), 120_992),
        (lambda: SMixer(16), 2_260), (lambda: CMixer(16, 4), 4_564),
        (lambda: SMixer(64, depthwise=True), 8_368), (lambda: CMixer(64, 2, grouped=True), 31_824),
        (lambda: SpaRTAN(**MICRO), 312_426),
    ],
)  # fmt: skip
def test_parameters_of_the_parts(make, count):
    with torch.device("meta"):
        assert parameters(make()) == count


def test_multiply_adds_of_the_small_network():
    with torch.device("meta"):
        assert multiply_adds(SpaRTAN(**MICRO), (1, 3, 32, 32)) == pytest.approx(5.42e6, rel=1e-3)


def test_which_convolutions_are_grouped(default):
    for stage, (dim, ratio) in enumerate(zip((32, 64, 128, 256), (4, 4, 2, 2), strict=True)):
        block, late = default.stages[stage][0], stage >= 2
        spatial = [m.groups for m in block.spatial.modules() if getattr(m, "kernel_size", 0) == (3, 3)]
        assert spatial == [dim // 2 if late else 1] * 3
        assert block.channel.conv[0].groups == (dim if late else dim * ratio)


def test_drop_path_grows_to_one_step_below_its_end(default):
    rates = [block.drop_path.rate for stage in default.stages for block in stage]
    assert rates == pytest.approx([0.1 * k / 20 for k in range(20)])


def test_norms_and_activations(default):
    norms = [m for m in default.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    assert {norm.eps for norm in norms} == {1e-6}
    assert {norm.num_groups for norm in norms if isinstance(norm, nn.GroupNorm)} == {1}
    assert {norm.momentum for norm in norms if isinstance(norm, nn.BatchNorm2d)} == {0.1}
    gelu = [m for m in default.modules() if isinstance(m, nn.GELU)]
    assert {m.approximate for m in gelu} == {"none"} and len(gelu) == 2 + 20 * 4
    silu = [name for name, m in default.named_modules() if isinstance(m, nn.SiLU)]
    assert silu == ["downsamplers.0.2", "downsamplers.1.2", "downsamplers.2.2"]


def test_initial_values():
    torch.manual_seed(0)
    net = SpaRTAN(10, depths=(1, 1), dims=(64, 128), expand=(4, 2), in_chans=1)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "scale" in name or name.endswith("gain"):
            assert (parameter == 1e-5).all(), name
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 1000]
    for conv in convs:
        fan_out = conv.weight[0, 0].numel() * conv.out_channels / conv.groups
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    waves = torch.cat([m.weight for m in net.modules() if isinstance(m, WaveModulation)])
    assert waves.std().item() == pytest.approx(1, abs=0.1) and waves.mean().abs() < 0.1
    linear = initialise(nn.Linear(300, 300))
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05) and not linear.bias.any()


def test_weight_decay(default):
    names = {id(parameter): name for name, parameter in default.named_parameters()}
    decayed, kept = ([names[id(p)] for p in group["params"]] for group in weight_decay_groups(default))
    assert len(decayed) + len(kept) == len(names)
    assert all(name.endswith(("weight", "scale")) for name in decayed)
    assert "stages.0.0.scale1.scale" in decayed and "stages.0.0.channel.modulation.weight" in decayed
    assert "stages.0.0.spatial.gain" in kept and "stages.0.0.norm1.weight" in kept and "stem.1.weight" in kept
    assert sum(name.endswith("scale") for name in decayed) == 40 and "head.bias" in kept


# --- the mixers -------------------------------------------------------------------------------------------------------


def norm(layer, x):
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=1e-6)


def gate(layer, x):
    hidden = F.relu(layer.reduce(x.mean((2, 3), keepdim=True)))
    return x * torch.sigmoid(layer.expand(hidden))


@pytest.mark.parametrize("depthwise", [False, True])
def test_the_spatial_mixer_is_its_formula(depthwise):
    mixer, x = shuffled(SMixer(16, depthwise)), maps()
    groups = 8 if depthwise else 1
    z = mixer.reduce(x)
    z = z + mixer.gain[:, None, None] * (z - z.mean((2, 3), keepdim=True))
    high, low = mixer.high, mixer.low
    h = gate(high[3], F.gelu(norm(high[1], F.conv2d(z, high[0].weight, padding=1, groups=groups))))
    dilated = {"padding": 2, "dilation": 2, "groups": groups}
    y = F.conv2d(F.conv2d(z, low[0].weight, **dilated), low[1].weight, **dilated)
    expected = mixer.project(torch.cat([h, gate(low[4], F.gelu(norm(low[2], y)))], 1))
    torch.testing.assert_close(mixer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("ratio", "grouped"), [(4, False), (2, True), (3, True)])
def test_the_channel_mixer_is_its_formula(ratio, grouped):
    mixer, x = shuffled(CMixer(16, ratio, grouped)), maps()
    k = x.argmax(1)
    phase, amplitude = F.gelu(mixer.phase[0](x)), mixer.amplitude(x)
    n, i, j = torch.meshgrid(torch.arange(2), torch.arange(6), torch.arange(7), indexing="ij")
    f = amplitude * phase + (amplitude[n, k, i, j] * phase[n, k, i, j])[:, None]
    u, v = mixer.modulation.weight.T[:, :, None, None]
    real, imaginary = f[:, 0::2] * u - f[:, 1::2] * v, f[:, 0::2] * v + f[:, 1::2] * u
    f = torch.stack([real, imaginary], 2).flatten(1, 2)
    f = F.conv2d(f, mixer.conv[0].weight, padding=1, groups=16 if grouped else 16 * ratio)
    expected = mixer.project(gate(mixer.gate, F.gelu(norm(mixer.conv[1], f))))
    torch.testing.assert_close(mixer(x), expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_right():
    for mixer in (SMixer(8), CMixer(8, 2, grouped=True)):
        mixer = shuffled(mixer).double()
        assert torch.autograd.gradcheck(mixer, maps(8, 3, 2, 1, torch.float64).requires_grad_())
        mixer(maps(8, dtype=torch.float64)).sum().backward()
        assert all(p.grad.isfinite().all() for p in mixer.parameters())


def test_layer_scale_zero_is_the_identity():
    block = shuffled(SpaRTANBlock(16)).train()
    nn.init.zeros_(block.scale1.scale)
    nn.init.zeros_(block.scale2.scale)
    assert torch.equal(block(maps()), maps())


def test_a_block_is_two_residual_branches():
    block, x = shuffled(SpaRTANBlock(16, 2, drop_path=0.5)), maps()
    y = x + block.scale1.scale[:, None, None] * block.spatial(F.group_norm(x, 1, block.norm1.weight, block.norm1.bias))
    y = y + block.scale2.scale[:, None, None] * block.channel(F.group_norm(y, 1, block.norm2.weight, block.norm2.bias))
    torch.testing.assert_close(block(x), y, rtol=1e-3, atol=1e-4)


def test_drop_path_leaves_a_branch_out_per_picture():
    block, x = SpaRTANBlock(8, 2, drop_path=0.5, layer_scale=1.0), maps(8, n=64)
    kept = (block(x) != x).flatten(1).any(1).float().mean()
    assert 0.5 < kept < 0.95  # 3 in 4 keep at least one branch


def test_without_gain_nothing_is_reinforced():
    mixer, x = shuffled(SMixer(16)), maps()
    nn.init.zeros_(mixer.gain)
    z = mixer.reduce(x)
    assert torch.equal(mixer(x), mixer.project(torch.cat([mixer.high(z), mixer.low(z)], 1)))


def test_modulation_by_one_is_the_identity_and_by_unit_numbers_keeps_norms():
    wave, x = WaveModulation(16), maps()
    wave.weight.data[:] = torch.tensor([1.0, 0.0])
    assert torch.equal(wave(x), x)
    angle = torch.rand(8) * 6.28
    wave.weight.data = torch.stack([angle.cos(), angle.sin()], 1)
    torch.testing.assert_close(wave(x).unflatten(1, (8, 2)).norm(dim=2), x.unflatten(1, (8, 2)).norm(dim=2))


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.01, 100), offset=st.floats(-100, 100), channel=st.integers(0, 7))
def test_the_strongest_channel_is_aggregated(scale, offset, channel):
    mixer = CMixer(8, 2)
    x = maps(8)
    x[:, channel] = x.amax(1) + 0.5
    for y in (x, scale * x, x + offset):  # the choice stays
        product = mixer.amplitude(y) * mixer.phase(y)
        torch.testing.assert_close(mixer.aggregate(y), product + product[:, channel : channel + 1])


def test_ties_take_the_lowest_channel():
    mixer, x = CMixer(16, 2), torch.ones(1, 16, 3, 3)
    x[:, 0] = 0
    product = mixer.amplitude(x) * mixer.phase(x)
    torch.testing.assert_close(mixer.aggregate(x), product + product[:, 1:2])


def test_gates_without_weights_halve():
    for layer in (SMixer(16).high[3], CMixer(16).gate):
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
        x = maps(layer.reduce.in_channels)
        assert torch.equal(layer(x), 0.5 * x)


@pytest.mark.parametrize(("branch", "size"), [("high", 3), ("low", 9)])
def test_receptive_fields(branch, size):
    mixer = shuffled(SMixer(8))
    nn.init.zeros_(mixer.gain)
    for parameter in mixer.get_submodule(branch)[-1].parameters():
        nn.init.zeros_(parameter)
    z = maps(4, 15, 15, 1).requires_grad_()
    mixer.get_submodule(branch)(z)[0, :, 7, 7].sum().backward()
    rows, columns = z.grad.abs().sum((0, 1)).nonzero().T
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (size, size)


# --- use --------------------------------------------------------------------------------------------------------------


def test_strides_of_the_feature_maps():
    net = SpaRTAN(**TINY).eval()
    found = net.forward_features(torch.randn(1, 3, 64, 96))
    assert [tuple(f.shape) for f in found] == [(1, 8, 16, 24), (1, 16, 8, 12), (1, 24, 4, 6), (1, 32, 2, 3)]
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(net(x), net.head(net.forward_features(x)[-1].mean((2, 3))))
    assert SpaRTAN(**TINY | {"num_classes": 0}).eval()(x).shape == (2, 32)


@settings(max_examples=8, deadline=None)
@given(
    height=st.integers(1, 70), width=st.integers(1, 70), channels=st.integers(1, 4), small=st.booleans(),
    stages=st.integers(1, 4),
)  # fmt: skip
def test_any_size_works_or_is_refused(height, width, channels, small, stages):
    net = SpaRTAN(5, (1,) * stages, (8, 16, 24, 32)[:stages], (2,) * stages, 0, channels, small_input=small).eval()
    x = torch.randn(1, channels, height, width)
    if min(height, width) < net.min_size:
        with pytest.raises(ValueError, match=f"{height}x{width} are too small"):
            net(x)
        return
    assert net(x).isfinite().all() and net(x).shape == (1, 5)
    assert net.forward_features(x)[-1].shape[2] >= 1


@pytest.mark.parametrize(("small", "smallest"), [(False, 29), (True, 15)])
def test_the_smallest_picture_has_one_pixel_left(small, smallest):
    net = SpaRTAN(**TINY, small_input=small).eval()
    assert net.min_size == smallest
    assert net.forward_features(torch.randn(1, 3, smallest, smallest))[-1].shape[2:] == (1, 1)


@pytest.mark.parametrize("make", MIXERS)
def test_memory_layout_does_not_matter(make):
    part, x = shuffled(make()), maps(16, 5, 6)
    expected = part(x)
    torch.testing.assert_close(part(x.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(part(x.mT.contiguous().mT), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(part(x.repeat(1, 2, 1, 1)[:, ::1][:, :16]), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(part(x[:, :, :1, :1]), part(x[:, :, :1, :1].clone()))  # below the receptive field


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("make", MIXERS)
def test_other_precisions(make, dtype):
    torch.manual_seed(0)
    part = make().eval()
    x = maps().to(dtype)
    expected = part(x.float())
    found = part.to(dtype)(x)
    assert found.dtype == dtype and found.isfinite().all()
    assert (found.float() - expected).norm() < 0.1 * expected.norm()  # rounding may change the strongest channel


def test_modulation_of_half_precision_is_computed_in_single():
    wave = WaveModulation(2)
    wave.weight.data[:] = torch.tensor([2049.0, 2048.0])  # half precision rounds the first to 2048
    assert wave(torch.ones(1, 2, 1, 1, dtype=torch.float16))[0, 0] == 1


def test_the_network_in_half_precision():
    net = SpaRTAN(10, layer_scale=0.1).half().eval()
    assert net(torch.randn(1, 3, 64, 64).half()).isfinite().all()


def test_automatic_mixed_precision():
    net, x = SpaRTAN(**TINY).eval(), torch.randn(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        found = net(x)
    assert (found.float() - net(x)).norm() < 0.05 * net(x).norm() + 1e-3


def test_nan_stays_in_its_picture():
    net, x = SpaRTAN(**TINY).eval(), torch.randn(2, 3, 32, 32)
    x[0, 0, 0, 0] = torch.nan
    assert net(x).isnan().all(1).tolist() == [True, False]


def test_a_constant_picture_is_finite():
    assert SpaRTAN(**TINY, layer_scale=1.0)(torch.zeros(2, 3, 64, 64)).isfinite().all()


def test_an_empty_batch():
    net = SpaRTAN(**TINY)
    with pytest.raises(ValueError, match="empty batch has no statistics"):
        net(torch.empty(0, 3, 32, 32))
    assert net.eval()(torch.empty(0, 3, 32, 32)).shape == (0, 5)
    for make in MIXERS:
        with pytest.raises(ValueError, match="empty batch has no statistics"):
            make()(maps()[:0])
        assert make().eval()(maps()[:0]).shape == (0, 16, 6, 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SMixer(12), "dim is a multiple of 8 .* not 12"),
        (lambda: CMixer(20), "dim is a multiple of 8 .* not 20"),
        (lambda: CMixer(0), "not 0"),
        (lambda: CMixer(16, 1), "expand_ratio is an integer of at least 2, not 1"),
        (lambda: CMixer(16, 2.5), "expand_ratio is an integer of at least 2, not 2.5"),
        (lambda: WaveModulation(7), "give an even number, not 7"),
        (lambda: SpaRTAN(depths=(1, 1)), "depths, dims and expand have 2, 4 and 4 entries"),
        (lambda: SpaRTAN(depths=(), dims=(), expand=()), "have 0, 0 and 0 entries"),
        (lambda: SpaRTAN(5, (1,), (10,), (2,)), "multiple of 8"),
        (lambda: SpaRTAN(5, (1, 1), (8, 8), (2, 2), drop_path=2.5), r"in \[0, 1\), not 1.25"),
        (lambda: SpaRTANBlock(8, drop_path=-0.1), "not -0.1"),
        (
            lambda: SMixer(16)(maps(8)),
            r"SMixer takes floats of shape \(N, 16, H, W\), not torch.float32 of \(2, 8",
        ),
        (lambda: CMixer(16)(maps()[0]), r"of \(16, 6, 7\)"),
        (lambda: WaveModulation(16)(maps(8)), "this WaveModulation takes"),
        (lambda: SpaRTANBlock(16)(maps(8)), r"\(N, 16, H, W\)"),
        (lambda: SpaRTAN(**TINY)(torch.zeros(1, 1, 64, 64)), "this SpaRTAN takes floats"),
        (lambda: SpaRTAN(**TINY)(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)), "not torch.uint8"),
        (lambda: SpaRTAN(**TINY)(torch.zeros(1, 3, 64, 28)), "64x28 are too small .* at least 29x29"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_it_learns_and_is_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    net = SpaRTAN(**MICRO, layer_scale=0.1)
    x, labels = torch.randn(16, 3, 24, 24), torch.arange(16) % 10
    optimizer = torch.optim.AdamW(net.parameters(), lr=2.5e-3)
    losses = []
    for _ in range(15):
        losses.append(F.cross_entropy(net(x), labels))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    other = SpaRTAN(**MICRO)
    other.load_state_dict(load_file(tmp_path / "net.safetensors"))
    assert torch.equal(net.eval()(x), other.eval()(x))
