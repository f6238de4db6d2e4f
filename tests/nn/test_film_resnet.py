import pytest
import torch
from torch import nn

from reprise.nn import FiLMResNet, parameters, resnet

SMALL = {"depth": None, "block": "basic", "layers": (2, 1), "widths": (4, 8), "small_input": True}


def test_published_parameters():
    with torch.device("meta"):
        eighteen = FiLMResNet(512, 18, where="block", out_features=512)
        fifty = FiLMResNet(512, 50, where="stage")
    assert parameters(eighteen) == 13_409_088 and eighteen.features == 512
    assert fifty.features == 2048
    assert parameters(fifty) == 25_557_032 - 2_049_000 + 513 * 2 * (256 + 512 + 1024 + 2048)


@pytest.mark.parametrize("depth", [18, 50])
def test_film_after_stages_begins_as_the_plain_network_with_its_weights(depth):
    torch.manual_seed(0)
    plain, film = resnet(depth, num_classes=0).eval(), FiLMResNet(6, depth).eval()
    film.resnet.load_state_dict(plain.state_dict())
    pictures, condition = torch.randn(2, 3, 32, 32), torch.randn(2, 6)
    assert torch.equal(film(pictures, condition), plain(pictures))
    nn.init.normal_(film.film[1].linear.weight, std=0.1)
    assert not torch.allclose(film(pictures, condition), plain(pictures))
    assert not torch.allclose(film(pictures, condition), film(pictures, -condition))


def test_film_inside_blocks_scales_and_shifts_after_the_second_norm_before_the_shortcut():
    torch.manual_seed(0)
    net = FiLMResNet(6, where="block", **SMALL).eval()
    pictures, condition = torch.randn(2, 3, 8, 8), torch.randn(2, 6)
    inner = net.resnet
    x = torch.relu(inner.bn1(inner.conv1(pictures)))
    for stage, film, count in zip((inner.layer1, inner.layer2), net.film, (2, 1), strict=True):
        parts = film(nn.functional.silu(condition)).chunk(2 * count, 1)
        for i, block in enumerate(stage):
            gamma, beta = (part[..., None, None] for part in parts[2 * i : 2 * i + 2])
            y = gamma * block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x))))) + beta
            x = torch.relu(y + (block.downsample(x) if block.downsample else x))
    torch.testing.assert_close(net(pictures, condition), x.mean((2, 3)))


def test_wrong_input():
    with pytest.raises(ValueError, match="where is"):
        FiLMResNet(6, where="everywhere", **SMALL)
    with pytest.raises(ValueError, match="needs basic blocks"):
        FiLMResNet(6, 50, where="block")
