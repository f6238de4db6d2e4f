import pytest
import torch
from torch import nn

from reprise.nn import StackedMLP


@pytest.mark.parametrize("rows", [5, 512])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(("name", "activation"), [("relu", nn.ReLU), ("tanh", nn.Tanh), ("gelu", nn.GELU)])
def test_equals_networks_one_by_one(layer_norm, name, activation, rows):
    stacked = StackedMLP(3, 4, (8, 6), 2, activation=name, layer_norm=layer_norm)
    x = torch.randn(rows, 4)
    together, apart = stacked(x), stacked(torch.stack([x, 2 * x, 3 * x]))
    for k in range(3):
        layers = []
        for width_in, width_out in ((4, 8), (8, 6), (6, 2)):
            layers += [nn.Linear(width_in, width_out)]
            if width_out != 2:
                layers += [*([nn.LayerNorm(width_out)] if layer_norm else []), activation()]
        net = nn.Sequential(*layers)
        for mine, theirs in zip(stacked.parameters(), net.parameters(), strict=True):
            theirs.data.copy_(mine.data[k].T if theirs.ndim == 2 else mine.data[k, 0])
        torch.testing.assert_close(together[k], net(x))
        torch.testing.assert_close(apart[k], net((k + 1) * x))


def test_starts_as_linear_layers_do():
    torch.manual_seed(0)
    weight = StackedMLP(100, 25, (), 10).layers[0].weight.detach()
    assert weight.abs().max() <= 0.2 and weight.std().item() == pytest.approx(0.2 / 3**0.5, rel=0.02)
