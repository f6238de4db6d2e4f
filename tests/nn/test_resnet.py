import pytest
import torch
from torch import nn

from reprise.nn import ResNet, parameters, resnet
from reprise.nn.resnet import batch_norm


@pytest.mark.parametrize(
    ("depth", "count"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)]
)
def test_parameter_counts_of_the_published_depths(depth, count):
    with torch.device("meta"):
        assert parameters(resnet(depth)) == count


def test_keys_are_those_of_public_checkpoints():
    with torch.device("meta"):
        keys = set(resnet(50).state_dict())
    assert {
        "conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer1.0.bn3.bias", "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.num_batches_tracked", "layer4.2.conv3.weight", "fc.weight", "fc.bias",
    } <= keys  # fmt: skip
    assert len(keys) == 320  # as torchvision's ResNet-50


def test_stride_of_a_bottleneck_is_on_the_3x3():
    with torch.device("meta"):
        block = resnet(50).layer2[0]
    assert [block.conv1.stride, block.conv2.stride, block.conv3.stride] == [(1, 1), (2, 2), (1, 1)]


def test_a_block_is_its_formula():
    block = ResNet("basic", (1,), widths=(4,), small_input=True, num_classes=2).layer1[0].eval()
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(block(x), torch.relu(block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x))))) + x))


def test_convolutions_start_with_the_published_variance():
    conv = resnet(50, groups=32, base_width=4).layer4[0].conv2  # grouped: not divided by the groups
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 1024)) ** 0.5, rel=0.01)


@pytest.mark.parametrize(("small", "stride", "side"), [(False, None, 8), (True, None, 32), (True, 2, 16)])
def test_stem(small, stride, side):
    net = ResNet("basic", (1, 1), widths=(4, 8), small_input=small, stem_stride=stride, num_classes=0, in_channels=1)
    x = torch.randn(2, 1, 32, 32)
    assert [tuple(maps.shape[1:]) for maps in net.stages(x)[1:]] == [(4, side, side), (8, side // 2, side // 2)]
    assert net(x).shape == (2, 8)


def test_the_hook_sees_every_place():
    places = []
    ResNet("bottleneck", (2, 1), widths=(4, 8), num_classes=2, norm=lambda p: places.append(p) or batch_norm(p))
    assert places[0] == ("stem", 4, 0, 0, False)
    assert [p.where for p in places[1:6]] == ["norm1", "norm2", "norm3", "downsample", "after_sum"]
    assert [(p.where, p.channels) for p in places if p.stage == 2] == [
        ("norm1", 8), ("norm2", 8), ("norm3", 32), ("downsample", 32), ("after_sum", 32)
    ]  # fmt: skip
    assert [(p.stage, p.block, p.last) for p in places if p.where == "after_sum"] == [
        (1, 0, False), (1, 1, True), (2, 0, True)
    ]  # fmt: skip


def test_the_norms_of_the_hook_are_used():
    net = ResNet("basic", (1,), widths=(4,), num_classes=2, norm=lambda p: nn.GroupNorm(2, p.channels))
    assert {type(m) for m in net.modules() if "Norm" in type(m).__name__} == {nn.GroupNorm}
    assert isinstance(net.layer1[0].IN, nn.GroupNorm)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resnet(20), "there is no ResNet-20"),
        (lambda: ResNet("fancy"), "unknown block 'fancy'"),
        (lambda: ResNet("basic", (1, 1)), "2 stages of layers came with 4 widths"),
        (lambda: ResNet("basic", (1,), widths=(4,), groups=2), "basic blocks have neither groups"),
        (lambda: ResNet("basic", (1,), widths=(4,), norm=lambda place: None), "gave no norm"),
        (lambda: ResNet("bottleneck", (1,), widths=(4,), se_reduction=32), "leaves no hidden unit"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
