import pytest
import torch

from reprise.nn import DenseNet, densenet, parameters
from reprise.nn.resnet import batch_norm


@pytest.mark.parametrize(
    ("depth", "count"), [(121, 7_978_856), (161, 28_681_000), (169, 14_149_480), (201, 20_013_928)]
)
def test_parameter_counts_of_the_published_depths(depth, count):
    with torch.device("meta"):
        assert parameters(densenet(depth)) == count


def test_keys_are_those_of_public_checkpoints():
    with torch.device("meta"):
        keys = set(densenet(121).state_dict())
    assert {
        "features.conv0.weight", "features.norm0.running_mean", "features.denseblock1.denselayer1.norm1.weight",
        "features.denseblock4.denselayer16.conv2.weight", "features.transition3.conv.weight",
        "features.transition1.norm.bias", "features.norm5.weight", "classifier.weight",
    } <= keys  # fmt: skip
    assert len(keys) == 727  # as torchvision's DenseNet-121


def test_a_layer_keeps_its_input_in_front():
    layer = DenseNet(4, (1,), stem_width=6, num_classes=2).features.denseblock1.denselayer1
    x = torch.randn(2, 6, 5, 5)
    y = layer(x)
    assert y.shape == (2, 10, 5, 5)
    torch.testing.assert_close(y[:, :6], x)


def test_the_hook_sees_every_place():
    places = []
    DenseNet(4, (2, 1), stem_width=8, num_classes=2, norm=lambda p: places.append(p) or batch_norm(p))
    assert [(p.where, p.channels, p.stage, p.block) for p in places] == [
        ("stem", 8, 0, 0), ("norm1", 8, 1, 0), ("norm2", 16, 1, 0), ("norm1", 12, 1, 1), ("norm2", 16, 1, 1),
        ("transition", 16, 1, 0), ("norm1", 8, 2, 0), ("norm2", 16, 2, 0), ("final", 12, 2, 0),
    ]  # fmt: skip


def test_wrong_input():
    with pytest.raises(ValueError, match="there is no DenseNet-100"):
        densenet(100)
    with pytest.raises(ValueError, match="gave no norm"):
        DenseNet(4, (1,), norm=lambda place: None)
