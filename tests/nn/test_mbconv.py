import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprise.nn import MBConv, PooledShortcut, parameters


def stirred(block):
    """With running statistics and scales as after some training, in evaluation mode."""
    for norm in (module for module in block.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return block.eval()


@pytest.mark.parametrize("se_ratio", [None, 0.25])
@pytest.mark.parametrize(("stride", "out"), [(1, 8), (1, 12), (2, 12), (2, 8)])
def test_steps_of_the_block(stride, out, se_ratio):
    """As section "block in steps": written out with a padded depthwise convolution on an even map."""
    block, x = stirred(MBConv(8, out, stride, se_ratio=se_ratio)), torch.randn(2, 8, 6, 10)

    def norm(layer, u):
        scale = layer.weight / (layer.running_var + 1e-3).sqrt()
        return (u - layer.running_mean[:, None, None]) * scale[:, None, None] + layer.bias[:, None, None]

    u = torch.einsum("oi,nihw->nohw", block.expand.weight[:, :, 0, 0], norm(block.norm1, x))
    u = F.pad(F.gelu(norm(block.norm2, u)), (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))
    u = F.gelu(norm(block.norm3, F.conv2d(u, block.depthwise.weight, stride=stride, groups=4 * out)))
    if se_ratio:
        hidden = F.silu(block.gate.reduce(u.mean((2, 3), keepdim=True)))
        assert hidden.shape[1] == out // 4
        u = u * torch.sigmoid(block.gate.expand(hidden))
    s = F.avg_pool2d(x, 2) if stride == 2 else x
    s = block.shortcut.project(s) if out != 8 else s
    torch.testing.assert_close(block(x), s + block.shrink(u))


def test_widths_are_relative_to_the_output():
    block = MBConv(8, 40, se_ratio=0.25)
    assert block.expand.out_channels == 160
    assert block.gate.reduce.out_channels == 10
    assert MBConv(8, 3).gate.reduce.out_channels == 1  # int(0.75) would leave none
    assert not any(isinstance(module, nn.BatchNorm2d) for module in block.shortcut.modules())
    assert [name for name, p in block.named_parameters() if "bias" in name and "norm" not in name] == [
        "shortcut.project.bias", "gate.reduce.bias", "gate.expand.bias", "shrink.bias",
    ]  # fmt: skip
    assert {(norm.eps, norm.momentum) for norm in (block.norm1, block.norm2, block.norm3)} == {(1e-3, 0.01)}


def test_without_its_branch_a_block_is_its_shortcut():
    block, x = MBConv(8, 8), torch.randn(2, 8, 5, 5)
    nn.init.zeros_(block.shrink.weight)
    nn.init.zeros_(block.shrink.bias)
    assert torch.equal(block(x), x)
    assert parameters(PooledShortcut(8, 8, 2)) == 0


@pytest.mark.parametrize("pool_size", [2, 3])
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (7, 3)])
def test_any_size(size, pool_size):
    y = MBConv(4, 6, 2, pool_size=pool_size).eval()(torch.randn(2, 4, *size))
    assert y.shape == (2, 6, (size[0] + 1) // 2, (size[1] + 1) // 2)


def test_drop_path_drops_the_branch_of_whole_pictures():
    block, x = MBConv(4, 4, drop_path=0.5), torch.randn(64, 4, 4, 4)
    same = (block(x) == x).flatten(1).all(1)
    assert 0.2 < same.float().mean() < 0.8


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"MBConv takes maps \(N, 4, H, W\)"):
        MBConv(4, 8)(torch.zeros(1, 3, 8, 8))
