from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from reprise.nn import (
    IBN,
    DenseNet,
    InstanceNorm,
    convert_to_ibn,
    feature_divergence,
    ibn_densenet,
    ibn_resnet,
    ibn_resnext,
    ibn_se_resnet,
    parameters,
    resnet,
)

SMALL = {"block": "basic", "layers": (1, 1, 1, 1), "widths": (4, 8, 8, 8), "num_classes": 3, "small_input": True}


def images(channels=3, side=16, n=4, **kw):
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(0), **kw)


# --- the networks -----------------------------------------------------------------------------------------------------

PUBLISHED = {
    "ResNet-18-a": (lambda: ibn_resnet(18), 11_689_512, 6),
    "ResNet-18-b": (lambda: ibn_resnet(18, "b"), 11_689_896, 3),
    "ResNet-34-a": (lambda: ibn_resnet(34), 21_797_672, 13),
    "ResNet-50": (lambda: ibn_resnet(50, None), 25_557_032, 0),
    "ResNet-50-a": (lambda: ibn_resnet(50), 25_557_032, 13),
    "ResNet-50-b": (lambda: ibn_resnet(50, "b"), 25_558_568, 3),
    "ResNet-101-a": (lambda: ibn_resnet(101), 44_549_160, 30),
    "ResNeXt-50-a": (lambda: ibn_resnext(50), 25_028_904, 13),
    "ResNeXt-101-a": (lambda: ibn_resnext(101), 44_177_704, 30),
    "SE-ResNet-50-a": (lambda: ibn_se_resnet(50), 28_071_976, 13),
    "SE-ResNet-101-a": (lambda: ibn_se_resnet(101), 49_292_328, 30),
    "DenseNet-121-a": (lambda: ibn_densenet(121), 7_978_856, 14),
    "DenseNet-169-a": (lambda: ibn_densenet(169), 14_149_480, 17),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_number_of_instance_norms(name):
    make, count, instance_norms = PUBLISHED[name]
    with torch.device("meta"):
        net = make()
    assert parameters(net) == count
    assert sum(isinstance(module, nn.InstanceNorm2d) for module in net.modules()) == instance_norms


@pytest.mark.parametrize(("variant", "count"), [(None, 620_714), ("a", 620_714), ("b", 620_906)])
def test_parameters_of_the_small_net(variant, count):
    options = {**SMALL, "widths": (32, 64, 128, 128), "num_classes": 10, "stem_stride": 2}
    assert parameters(ibn_resnet(variant=variant, **options)) == count


@pytest.mark.parametrize(
    ("variant", "present", "absent"),
    [
        ("a", ["layer3.5.bn1.IN.weight", "layer1.0.bn1.BN.running_mean"], ["layer4.0.bn1.IN.weight", "bn1.IN.weight"]),
        (
            "b",
            ["layer1.2.IN.weight", "layer2.3.IN.bias"],
            ["layer1.1.IN.weight", "layer3.5.IN.bias", "bn1.running_mean"],
        ),
        ((None, "a", None, "a"), ["layer2.0.bn1.IN.bias", "layer4.2.bn1.BN.bias"], ["layer1.0.bn1.IN.bias"]),
    ],
)
def test_keys_are_the_published_ones(variant, present, absent):
    with torch.device("meta"):
        keys = set(ibn_resnet(50, variant).state_dict())
    assert set(present) <= keys and not set(absent) & keys


def test_keys_of_the_other_families():
    with torch.device("meta"):
        se, dense = set(ibn_se_resnet(50).state_dict()), ibn_densenet(121)
    assert {"layer1.0.se.fc.0.weight", "layer4.2.se.fc.2.weight", "layer1.0.bn1.IN.weight"} <= se
    keys = [key for key in dense.state_dict() if key.endswith("norm1.IN.weight")]
    layers = {1: (1, 4), 2: (1, 4, 7, 10), 3: (1, 4, 7, 10, 13, 16, 19, 22)}
    assert keys == [f"features.denseblock{b}.denselayer{i}.norm1.IN.weight" for b in layers for i in layers[b]]


@pytest.mark.parametrize("make", [lambda: ibn_resnet(**SMALL), lambda: ibn_resnet(variant="b", **SMALL),
                                  lambda: ibn_resnext(**SMALL | {"block": "bottleneck"}, groups=2, base_width=32),
                                  lambda: ibn_se_resnet(**SMALL, se_reduction=4),
                                  lambda: ibn_densenet(growth=4, layers=(3, 2), num_classes=3)])  # fmt: skip
def test_every_family_learns_and_is_saved_and_loaded(make, tmp_path):
    net = make()
    net(images()).logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    other = make()
    other.load_state_dict(load_file(tmp_path / "net.safetensors"))
    assert torch.equal(net.eval()(images()), other.eval()(images()))


def test_stem_of_b_ignores_contrast_and_brightness():
    net = ibn_resnet(variant="b", **SMALL | {"small_input": False}).double()
    net.bn1.eps = 0.0
    x, factor = images(side=32, dtype=torch.float64), torch.rand(4, 1, 1, 1, dtype=torch.float64) + 0.5
    y, offset = net.conv1(x), torch.randn(4, 4, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(net.bn1(factor * y + offset), net.bn1(y))
    # The whole picture: the zero padding would see a change of brightness, so there is none here.
    net.conv1.padding = (0, 0)
    torch.testing.assert_close(net.stages(factor * x + 3)[0], net.stages(x)[0])
    net.bn1 = nn.BatchNorm2d(4).double()
    assert (net.stages(factor * x + 3)[0] - net.stages(x)[0]).abs().max() > 0.1


# --- the layer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "batch"), [(64, 38), (160, 96), (128, 76), (224, 134), (416, 249), (928, 556)])
def test_splits_of_densenets(channels, batch):
    layer = IBN(channels, 0.4, "bn_first")
    assert (layer.BN.num_features, layer.IN.num_features) == (batch, channels - batch)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_limits_are_the_two_layers(train, layout):
    x = images(6).contiguous(memory_format=layout)
    for ratio, peer in ((0, nn.BatchNorm2d(6)), (1, nn.InstanceNorm2d(6, affine=True))):
        layer = IBN(6, ratio).train(train)
        nn.init.normal_((layer.IN if ratio else layer.BN).weight)
        peer.train(train).load_state_dict((layer.IN if ratio else layer.BN).state_dict())
        assert torch.equal(layer(x), peer(x))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 4), channels=st.integers(1, 7), height=st.integers(1, 6), ratio=st.floats(0, 1),
    order=st.sampled_from(["in_first", "bn_first"]), train=st.booleans(), momentum=st.sampled_from([0.1, None]),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]), offset=st.sampled_from([0.0, 30.0]),
)  # fmt: skip
def test_equals_the_two_layers_called_one_after_the_other(
    n, channels, height, ratio, order, train, momentum, layout, offset
):
    layers = [IBN(channels, ratio, order, momentum=momentum, fused=fused).double() for fused in (True, False)]
    for parameter in layers[0].parameters():
        nn.init.normal_(parameter)
    layers[1].load_state_dict(layers[0].state_dict())
    x = (torch.randn(n, channels, height, 3, dtype=torch.float64) + offset).contiguous(memory_format=layout)
    weights = torch.randn_like(x)
    results = []
    for layer in layers:
        layer(x + 1)  # running statistics that are no longer 0 and 1
        layer.train(train)
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        grads = torch.autograd.grad((y * weights).sum(), [leaf, *layer.parameters()], allow_unused=True)
        # A half without channels has no gradient in one way and an empty one in the other.
        results.append([y, *layer.buffers(), *(g for g in grads if g is not None and g.numel())])
    torch.testing.assert_close(*results, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_single_precision(layout):
    x = (3 * images(8) + 20).contiguous(memory_format=layout)
    fused, composed = IBN(8), IBN(8, fused=False)
    y = fused(x)
    assert y.is_contiguous(memory_format=layout)
    torch.testing.assert_close(y, composed(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(list(fused.buffers()), list(composed.buffers()))


def test_instance_half_is_the_same_in_training_and_evaluation():
    layer, x = IBN(6), images(6)
    train, test = layer(x), layer.eval()(x)
    assert torch.equal(train[:, :3], test[:, :3])
    assert not torch.allclose(train[:, 3:], test[:, 3:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    layer, x = IBN(6), images(6)
    expected = layer(x)
    y = IBN(6).to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=0.05)


def test_nan_stays():
    layer, x = IBN(4), images(4)
    x[0, 0, 0, 0] = x[0, 2, 0, 0] = torch.nan
    broken = layer(x).isnan().any(3).any(2)
    assert broken.tolist() == [[True, False, True, False]] + [[False, False, True, False]] * 3


def test_second_derivative_is_refused_when_fused_and_given_when_not():
    x = images(4).requires_grad_()
    (gradient,) = torch.autograd.grad(IBN(4, fused=False)(x).pow(3).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    (gradient,) = torch.autograd.grad(IBN(4)(x).pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def test_synchronised_batch_norm_is_respected():
    layer = nn.SyncBatchNorm.convert_sync_batchnorm(IBN(4)).eval()
    assert isinstance(layer.BN, nn.SyncBatchNorm)
    torch.testing.assert_close(layer(images(4)), IBN(4).eval()(images(4)))


def test_an_empty_batch():
    layer = IBN(4)
    with pytest.raises(ValueError, match="empty batch has no statistics"):
        layer(images(4)[:0])
    assert layer.eval()(images(4)[:0]).shape == (0, 4, 16, 16)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("make", [lambda: IBN(4), lambda: IBN(4, 1.0), lambda: InstanceNorm(4)])
def test_a_single_pixel_is_refused(make, train):
    with pytest.raises(ValueError, match="of a 1x1 map gives the bias"):
        make().train(train)(images(4, side=1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: IBN(4, 1.5), "share of instance normalisation in 0..1, not 1.5"),
        (lambda: IBN(4, float("nan")), "not nan"),
        (lambda: IBN(4, order="last"), "order is"),
        (lambda: IBN(4)(torch.zeros(4, 8, 8)), r"takes maps \(N, 4, H, W\), not \(4, 8, 8\)"),
        (lambda: IBN(4)(images(3)), r"not \(4, 3, 16, 16\)"),
        (lambda: ibn_resnet(50, "x"), "unknown variant 'x'"),
        (lambda: ibn_resnet(50, ("a", "b")), "for each of 4 stages"),
        (lambda: ibn_resnet(20), "no ResNet-20"),
        (lambda: feature_divergence(images(), images(), reduce="max"), "reduce is"),
        (lambda: feature_divergence(images(), images(4)), "with the same C"),
        (lambda: feature_divergence(images()[:0], images()), "with the same C"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- conversion -------------------------------------------------------------------------------------------------------


class ForeignBlock(nn.Module):
    """As in torchvision: one ReLU used twice."""

    def __init__(self, channels, width, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class TimmLikeBlock(ForeignBlock):
    """As in timm: a ReLU each, and places for what is not there."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        del self.relu
        self.drop_block, self.aa, self.act1, self.act2 = nn.Identity(), nn.Identity(), nn.ReLU(), nn.ReLU()
        self.se = self.drop_path = None

    def forward(self, x):
        y = self.bn2(self.conv2(self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))))
        return self.act2(y + (x if self.downsample is None else self.downsample(x)))


class PreActivationBlock(ForeignBlock):
    """The same names in another order."""

    def forward(self, x):
        return x + self.conv2(self.relu(self.bn2(self.conv1(self.relu(self.bn1(x))))))


def foreign(block=ForeignBlock):
    net = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 6, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(6), relu=nn.ReLU(),
            layer1=nn.Sequential(block(6, 6), block(6, 6)), layer2=nn.Sequential(block(6, 10, 2), block(10, 10)),
            layer3=nn.Sequential(block(10, 10)), layer4=nn.Sequential(block(10, 10)),
        )
    )  # fmt: skip
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
    return net.eval()


@pytest.mark.parametrize("block", [ForeignBlock, TimmLikeBlock])
def test_conversion_to_a_keeps_the_weights(block):
    net = foreign(block)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert convert_to_ibn(net, "a") is net
    after = net.state_dict()
    assert sum(isinstance(module, IBN) for module in net.modules()) == 5
    for name, value in before.items():
        stage = name.split(".")[0]
        if stage in ("layer1", "layer2", "layer3") and ".bn1." in name and value.ndim:
            prefix, _, key = name.rpartition(".")
            half = len(value) // 2
            assert torch.equal(after[f"{prefix}.BN.{key}"], value[half:])
            if key in ("weight", "bias"):
                assert torch.equal(after[f"{prefix}.IN.{key}"], value[:half])
        elif ".bn1." not in name or stage == "layer4":
            assert torch.equal(after[name], value)
    assert not net.layer1[0].bn1.training


@pytest.mark.parametrize("block", [ForeignBlock, TimmLikeBlock])
def test_conversion_to_b_puts_the_norm_before_the_last_relu(block):
    net, x = foreign(block), images()
    end = net.layer1[-1]
    convert_to_ibn(net, "b")
    assert isinstance(net.bn1, InstanceNorm)
    assert [isinstance(stage[-1].IN, InstanceNorm) for stage in (net.layer1, net.layer2)] == [True, True]
    h = net.layer1[0](net.relu(net.bn1(net.conv1(x))))
    y = end.bn2(end.conv2(torch.relu(end.bn1(end.conv1(h))))) + h
    torch.testing.assert_close(net.layer1(net.relu(net.bn1(net.conv1(x)))), torch.relu(nn.InstanceNorm2d(6)(y)))


@pytest.mark.parametrize("variant", [None, "a", "b", ("b", "a", None, "a")])
def test_conversion_of_our_resnet_gives_our_ibn_net(variant):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        converted = convert_to_ibn(ibn_resnet(variant=None, **SMALL), variant)
        torch.manual_seed(0)
        built = ibn_resnet(variant=variant, **SMALL)
    assert list(converted.state_dict()) == list(built.state_dict())
    assert torch.equal(converted.eval()(images()), built.eval()(images()))


def test_weights_of_a_plain_resnet_load_into_the_plain_variant():
    plain, other = resnet(18, num_classes=3), ibn_resnet(18, None, num_classes=3)
    other.load_state_dict(plain.state_dict())
    assert torch.equal(plain.eval()(images(side=32)), other.eval()(images(side=32)))


@pytest.mark.parametrize(
    ("model", "variant", "message"),
    [
        (nn.Linear(2, 2), "a", "Linear is not a ResNet"),
        (DenseNet(4, (1,), stem_width=4), "a", "DenseNet is not a ResNet"),
        (ibn_resnet(**SMALL), "a", "is not a ResNet as torchvision"),
        (foreign(PreActivationBlock), "b", "found in PreActivationBlock"),
    ],
)
def test_conversion_of_anything_else_is_refused_and_changes_nothing(model, variant, message):
    before = str(model)
    with pytest.raises(TypeError, match=message):
        convert_to_ibn(model, variant)
    assert str(model) == before


# --- the divergence of features ---------------------------------------------------------------------------------------


def test_divergence_of_two_normal_distributions():
    """Against the closed form, on one channel whose spatial means are given."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 50), rng.normal(2, 3, 40)
    maps = [torch.tensor(values)[:, None, None, None] + torch.tensor([-1.0, 1.0]).double() for values in (a, b)]

    def kl(m1, v1, m2, v2):
        return np.log(np.sqrt(v2 / v1)) + (v1 + (m1 - m2) ** 2) / (2 * v2) - 0.5

    def expected(spread):
        va, vb = a.var() + spread + 1e-5, b.var() + spread + 1e-5
        return kl(a.mean(), va, b.mean(), vb) + kl(b.mean(), vb, a.mean(), va)

    assert feature_divergence(*maps) == pytest.approx(expected(0))
    assert feature_divergence(*maps, reduce="pixels") == pytest.approx(expected(1))  # every pixel is one off its mean


@pytest.mark.parametrize("reduce", ["mean", "pixels"])
def test_divergence_is_zero_for_equal_domains_and_symmetric(reduce):
    a, b = images(), images(side=8) + 1
    assert feature_divergence(a, a, reduce) == 0
    assert feature_divergence(a, b, reduce) == feature_divergence(b, a, reduce) > 0
