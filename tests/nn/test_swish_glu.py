import torch

from reprise.nn import GatedMLP, SwishGLU, parameters


def test_value_times_swish_of_the_gate():
    torch.manual_seed(0)
    layer, x = SwishGLU(3, 4), torch.randn(5, 3)
    value, gate = (x @ half.T + bias for half, bias in zip(layer.weight.chunk(2), layer.bias.chunk(2), strict=True))
    torch.testing.assert_close(layer(x), value * gate * gate.sigmoid())


def test_the_perceptron_has_one_bias_and_drops_hidden_units():
    with torch.device("meta"):
        assert parameters(GatedMLP(1024, 4096)) == 12_591_104  # of one published expert of MoDE
    torch.manual_seed(0)
    mlp, x = GatedMLP(8, 512, dropout=0.5), torch.randn(2, 8)
    assert not torch.equal(mlp(x), mlp(x))
    mlp.eval()
    assert torch.equal(mlp(x), mlp[2](mlp[0](x)))
