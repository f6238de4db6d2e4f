"""Squeeze-and-excitation: channels reweighted by what the whole picture shows."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["SqueezeExcite"]


class SqueezeExcite(nn.Module):
    """Weigh each channel by a gate in 0..1 computed from the spatial means of all channels.

    Source: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018; without biases, as in the SE-ResNets of IBN-Net.

    Args:
        channels: channels of the map.
        reduction: how many times narrower the hidden layer is.

    Raises:
        ValueError: no hidden unit would be left.

    Example:
        >>> SqueezeExcite(32)(torch.randn(2, 32, 8, 8)).shape
        torch.Size([2, 32, 8, 8])
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        if not 1 <= reduction <= channels:
            raise ValueError(
                f"reduction {reduction} leaves no hidden unit of {channels} channels; take 1 to {channels}"
            )
        hidden = channels // reduction
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        gate: Tensor = self.fc(x.mean((2, 3)))
        return x * gate[:, :, None, None]
