import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprise.nn import AgarapCNN


def test_parameters():
    with torch.device("meta"):
        model = AgarapCNN()
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in model.named_children()}
    assert counts == {"conv1": 832, "conv2": 51_264, "dense": 3_212_288, "dropout": 0, "readout": 10_250}
    with torch.device("meta"):
        cifar = AgarapCNN(in_channels=3, image_size=32)
    assert sum(p.numel() for p in model.parameters()) == 3_274_634
    assert sum(p.numel() for p in cifar.parameters()) == 4_259_274


def test_equals_the_table_layer_by_layer():
    model = AgarapCNN(init="torch").eval()
    x = torch.rand(3, 1, 28, 28)
    maps = F.max_pool2d(F.relu(model.conv1(x)), 2)
    maps = F.max_pool2d(F.relu(model.conv2(maps)), 2)
    assert maps.shape == (3, 64, 7, 7)
    features = F.relu(model.dense(maps.permute(0, 2, 3, 1).reshape(3, -1)))
    torch.testing.assert_close(model.features(x), features)
    torch.testing.assert_close(model(x), model.readout(features))


@pytest.mark.parametrize("size", [1, 5, 7, 29, (9, 14)])
def test_same_padding_of_odd_sides(size):
    """TensorFlow's SAME pools n to ceil(n / 2) and pads at the end, where no padding ever wins the maximum."""
    model = AgarapCNN(num_classes=3, image_size=size, init="torch").eval()
    height, width = (size, size) if isinstance(size, int) else size
    x = torch.randn(2, 1, height, width)

    def same_pool(maps):
        padded = F.pad(maps, (0, maps.shape[3] % 2, 0, maps.shape[2] % 2), value=-torch.inf)
        return F.max_pool2d(padded, 2)

    maps = same_pool(F.relu(model.conv2(same_pool(F.relu(model.conv1(x))))))
    assert maps.shape[2:] == ((height + 3) // 4, (width + 3) // 4)
    torch.testing.assert_close(model.features(x), F.relu(model.dense(maps.permute(0, 2, 3, 1).flatten(1))))


def test_paper_initialisation():
    torch.manual_seed(0)
    model = AgarapCNN()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0.1).all()
        else:
            assert parameter.abs().max() <= 0.2
    weight = model.dense.weight.detach()
    assert float(weight.std()) == pytest.approx(0.0880, abs=5e-4)  # of a normal cut at two deviations
    assert abs(float(weight.mean())) < 5e-4


def test_torch_initialisation():
    torch.manual_seed(0)
    ours = AgarapCNN(init="torch").conv1.weight
    torch.manual_seed(0)
    assert torch.equal(ours, nn.Conv2d(1, 32, 5).weight)


def test_dropout_in_training_only():
    model, x = AgarapCNN(image_size=8), torch.rand(4, 1, 8, 8)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_channels_last_gives_the_same_scores():
    model, x = AgarapCNN(in_channels=3, image_size=10, init="torch").eval(), torch.rand(4, 3, 10, 10)
    scores = model(x)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), scores)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "at least 1"),
        ({"image_size": (0, 3)}, "at least 1"),
        ({"dropout": 1.0}, "dropout"),
        ({"init": "he"}, "init"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        AgarapCNN(**arguments)


@pytest.mark.parametrize(
    "images",
    [torch.rand(2, 1, 32, 32), torch.rand(2, 3, 28, 28), torch.rand(1, 28, 28), torch.zeros(2, 1, 28, 28).byte()],
)
def test_bad_images(images):
    with pytest.raises(ValueError, match=r"floats of shape \(N, 1, 28, 28\)"):
        AgarapCNN(init="torch")(images)
