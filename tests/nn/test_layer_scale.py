import pytest
import torch

from reprise.nn import LayerScale


@pytest.mark.parametrize(("shape", "dim"), [((2, 3, 4, 5), 1), ((2, 4, 3), -1), ((2, 3), 1), ((2, 4, 5, 3), 3)])
def test_every_channel_has_its_factor(shape, dim):
    layer, x = LayerScale(3, dim=dim), torch.randn(shape)
    torch.testing.assert_close(layer(x), 1e-5 * x)
    layer.scale.data = torch.tensor([1.0, 2.0, 3.0])
    y = layer(x)
    for channel in range(3):
        torch.testing.assert_close(y.select(dim, channel), (channel + 1) * x.select(dim, channel))


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="is not the 3 channels"):
        LayerScale(3)(torch.ones(2, 1, 4, 4))
