import pytest
import torch
from torch.nn import functional as F

from reprise.nn import LayerNorm2d, PreNormResidual, SameAvgPool2d, SameConv2d
from reprise.nn.maps import check_map

SIZES = [(1, 1), (2, 5), (7, 8), (9, 6)]


def padding(size, kernel, stride):
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (2, 2), (5, 3), (1, 2)])
@pytest.mark.parametrize("size", SIZES)
def test_convolution_is_that_of_the_padded_map(size, kernel, stride, layout):
    conv, x = SameConv2d(4, 6, kernel, stride, groups=2), torch.randn(2, 4, *size).to(memory_format=layout)
    pads = [side for i in (1, 0) for side in padding(size[i], kernel, stride)]
    expected = F.conv2d(F.pad(x, pads), conv.weight, conv.bias, stride, groups=2)
    torch.testing.assert_close(conv(x), expected)
    assert conv(x).shape[-2:] == tuple(-(-side // stride) for side in size)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (2, 4), (3, 3)])
@pytest.mark.parametrize("size", SIZES)
def test_pooling_leaves_padding_out_of_the_mean(size, kernel, stride):
    x = torch.randn(2, 3, *size)
    pads = [side for i in (1, 0) for side in padding(size[i], kernel, stride)]
    weight = torch.ones(3, 1, kernel, kernel)
    total, count = (F.conv2d(F.pad(part, pads), weight, stride=stride, groups=3) for part in (x, torch.ones_like(x)))
    torch.testing.assert_close(SameAvgPool2d(kernel, stride)(x), total / count)


def test_layer_norm_is_over_channels_and_gives_tokens_without_a_copy():
    norm, x = LayerNorm2d(6), torch.randn(2, 6, 5, 4)
    torch.nn.init.normal_(norm.weight)
    expected = F.layer_norm(x.movedim(1, -1), (6,), norm.weight, norm.bias, 1e-5).movedim(-1, 1)
    torch.testing.assert_close(norm(x), expected)
    assert norm(x).permute(0, 2, 3, 1).is_contiguous()


def test_residual_branch():
    branch = torch.nn.Conv2d(4, 4, 1)
    layer, x = PreNormResidual(4, branch, 0.5), torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(layer.eval()(x), x + branch(LayerNorm2d(4)(x)))
    dropped = (layer.train()(x.expand(64, 3, 4, 5, 5).flatten(0, 1)) == x.repeat(64, 1, 1, 1)).flatten(1).all(1)
    assert 0.3 < dropped.float().mean() < 0.7


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 8, 8), (2, 3, 0, 8)])
def test_what_is_no_map_is_refused(shape):
    with pytest.raises(ValueError, match=r"the stem takes maps \(N, 3, H, W\) of at least one pixel"):
        check_map(torch.zeros(shape), 3, "the stem")
