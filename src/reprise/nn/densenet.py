"""DenseNet-BC whose norm layers are chosen by one function; state-dict keys are those of torchvision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.nn.resnet import NormHook, NormPlace, batch_norm, norm_at

__all__ = ["DenseNet", "densenet"]

# depth: growth rate, layers, stem features
CONFIGURATIONS = {
    121: (32, (6, 12, 24, 16), 64),
    161: (48, (6, 12, 36, 24), 96),
    169: (32, (6, 12, 32, 32), 64),
    201: (32, (6, 12, 48, 32), 64),
}


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1, norm, ReLU, 3x3; the result is appended to the input's channels."""

    def __init__(self, channels: int, growth: int, bottleneck: int, norm: NormHook, place: NormPlace) -> None:
        super().__init__()
        hidden = bottleneck * growth
        self.norm1 = norm_at(norm, place._replace(where="norm1", channels=channels))
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.norm2 = norm_at(norm, place._replace(where="norm2", channels=hidden))
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(hidden, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C + growth, H, W)."""
        y = self.conv1(self.relu1(self.norm1(x)))
        return torch.cat([x, self.conv2(self.relu2(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    """A densely connected network with bottlenecks and compression by half.

    Source: Huang et al., Densely Connected Convolutional Networks, CVPR 2017. Weights start as PyTorch's layers do.

    Args:
        growth: channels that a layer adds.
        layers: dense layers in each block.
        stem_width: channels of the stem.
        bottleneck: width of the 1x1 convolutions in units of ``growth``.
        num_classes: outputs.
        in_channels: channels of the pictures.
        small_input: a 3x3 stem without pooling, instead of 7x7 with stride 2 and 3x3 max pooling with stride 2.
        norm: which norm goes where.

    Example:
        >>> net = DenseNet(8, (2, 2), stem_width=16, num_classes=10, small_input=True)
        >>> net(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        growth: int = 32,
        layers: Sequence[int] = (6, 12, 24, 16),
        *,
        stem_width: int = 64,
        bottleneck: int = 4,
        num_classes: int = 1000,
        in_channels: int = 3,
        small_input: bool = False,
        norm: NormHook = batch_norm,
    ) -> None:
        super().__init__()
        kernel, stride = (3, 1) if small_input else (7, 2)
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(in_channels, stem_width, kernel, stride, kernel // 2, bias=False))
        self.features.add_module("norm0", norm_at(norm, NormPlace("stem", stem_width)))
        self.features.add_module("relu0", nn.ReLU(inplace=True))
        self.features.add_module("pool0", nn.Identity() if small_input else nn.MaxPool2d(3, 2, 1))
        channels = stem_width
        for stage, depth in enumerate(layers, start=1):
            block = nn.Sequential()
            for i in range(depth):
                place = NormPlace("", channels, stage, i, i == depth - 1)
                block.add_module(f"denselayer{i + 1}", DenseLayer(channels, growth, bottleneck, norm, place))
                channels += growth
            self.features.add_module(f"denseblock{stage}", block)
            if stage < len(layers):
                transition = nn.Sequential()
                transition.add_module("norm", norm_at(norm, NormPlace("transition", channels, stage)))
                transition.add_module("relu", nn.ReLU(inplace=True))
                transition.add_module("conv", nn.Conv2d(channels, channels // 2, 1, bias=False))
                transition.add_module("pool", nn.AvgPool2d(2))
                self.features.add_module(f"transition{stage}", transition)
                channels //= 2
        self.features.add_module(f"norm{len(layers) + 1}", norm_at(norm, NormPlace("final", channels, len(layers))))
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.classifier(F.relu(self.features(x)).mean((2, 3)))
        return logits


def densenet(depth: int, **options: object) -> DenseNet:
    """A published depth.

    Args:
        depth: 121, 161, 169 or 201.
        **options: of :class:`DenseNet`.

    Raises:
        ValueError: another depth.

    Example:
        >>> sum(p.numel() for p in densenet(121).parameters())
        7978856
    """
    if depth not in CONFIGURATIONS:
        raise ValueError(f"there is no DenseNet-{depth}; there are {', '.join(map(str, CONFIGURATIONS))}")
    growth, layers, stem_width = CONFIGURATIONS[depth]
    return DenseNet(growth, layers, stem_width=stem_width, **options)  # type: ignore[arg-type]
