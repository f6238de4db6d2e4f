import pytest
import torch
from torch import nn

from reprise.nn import ChannelGate


def test_gate_follows_its_formula():
    gate, x = ChannelGate(6, 2, nn.SiLU), torch.randn(3, 6, 5, 4)
    (w1, b1), (w2, b2) = ((layer.weight[:, :, 0, 0], layer.bias) for layer in (gate.reduce, gate.expand))
    weights = torch.sigmoid(nn.functional.silu(x.mean((2, 3)) @ w1.T + b1) @ w2.T + b2)
    torch.testing.assert_close(gate(x), x * weights[:, :, None, None])


def test_zero_weights_halve():
    gate, x = ChannelGate(6, 2), torch.randn(3, 6, 5, 4)
    for parameter in gate.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(gate(x), 0.5 * x)


def test_a_hidden_channel_is_needed():
    with pytest.raises(ValueError, match="at least one hidden channel"):
        ChannelGate(2, 0)
