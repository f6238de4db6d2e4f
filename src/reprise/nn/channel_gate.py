"""Squeeze-and-excitation with biases and a hidden layer of any width, as in mobile convolutions."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["ChannelGate"]


class ChannelGate(nn.Module):
    """Weigh each channel by a gate in 0..1 computed from the spatial means of all channels.

    :class:`SqueezeExcite` is the same without biases, its hidden layer given by a reduction. Here the two layers are
    1x1 convolutions ``reduce`` and ``expand`` with biases.

    Source: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018.

    Args:
        channels: of the map.
        hidden: channels of the hidden layer.
        activation: makes the activation of the hidden layer.

    Raises:
        ValueError: no hidden channel.

    Example:
        >>> ChannelGate(32, 8, nn.SiLU)(torch.randn(2, 32, 8, 8)).shape
        torch.Size([2, 32, 8, 8])
    """

    def __init__(self, channels: int, hidden: int, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"a gate needs at least one hidden channel, not {hidden}")
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        gate: Tensor = self.expand(self.activation(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()
