"""Where in a picture something is: the mean place of each channel of a map, under a softmax over its pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SpatialSoftmax"]


class SpatialSoftmax(nn.Module):
    """Maps to the mean coordinates of ``keypoints`` channels, made by a 1x1 convolution.

    Args:
        channels: of the maps.
        keypoints: K.

    Source: Levine, Finn, Darrell and Abbeel, End-to-End Training of Deep Visuomotor Policies, JMLR 2016; with the
    convolution in front as in Diffusion Policy (Chi et al., RSS 2023).

    Example:
        >>> SpatialSoftmax(16, keypoints=8)(torch.randn(2, 16, 5, 7)).shape
        torch.Size([2, 16])
    """

    def __init__(self, channels: int, keypoints: int = 32) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, 2 K): x and y of each keypoint, from -1 (left, top) to 1."""
        H, W = x.shape[-2:]
        share = self.conv(x).flatten(2).softmax(-1).unflatten(2, (H, W))
        places = torch.linspace(-1, 1, W, device=x.device), torch.linspace(-1, 1, H, device=x.device)
        return torch.stack([share.sum(2) @ places[0], share.sum(3) @ places[1]], -1).flatten(1)
