import torch

from reprise.nn import SqueezeExcite


def test_gates_depend_on_spatial_means_alone_and_scale_channels():
    layer, x = SqueezeExcite(8, 4), torch.randn(2, 8, 5, 5)
    gate = torch.sigmoid(layer.fc[2].weight @ torch.relu(layer.fc[0].weight @ x.mean((2, 3)).T)).T
    torch.testing.assert_close(layer(x), x * gate[:, :, None, None])
    assert [tuple(p.shape) for p in layer.parameters()] == [(2, 8), (8, 2)]
