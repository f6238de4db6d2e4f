"""Residual networks (ResNet, ResNeXt, SE-ResNet) whose norm layers are chosen by one function.

State-dict keys are those of torchvision (``conv1``, ``bn1``, ``layer1.0.conv1``, ``layer2.0.downsample.0``, ``fc``), so
that public weights load. The stride of a bottleneck sits on its 3x3 convolution (v1.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reprise.nn.squeeze_excite import SqueezeExcite

__all__ = ["NormHook", "NormPlace", "ResNet", "ResidualBlock", "batch_norm", "resnet"]

EXPANSION = {"basic": 1, "bottleneck": 4}
LAYERS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


class NormPlace(NamedTuple):
    """Where in a network a norm layer stands.

    Attributes:
        where: "stem", "norm1", "norm2", "norm3", "downsample" or "after_sum" (after the residual addition, before its
            ReLU) in a ResNet; "stem", "norm1", "norm2", "transition" or "final" in a DenseNet.
        channels: of the map.
        stage: 1, 2, ...; 0 for the stem.
        block: index of the block in its stage, from 0.
        last: whether it is the last block of its stage.
    """

    where: str
    channels: int
    stage: int = 0
    block: int = 0
    last: bool = False


NormHook = Callable[[NormPlace], nn.Module | None]


def batch_norm(place: NormPlace) -> nn.Module | None:
    """The usual choice: batch normalisation everywhere, nothing after the residual addition."""
    return None if place.where == "after_sum" else nn.BatchNorm2d(place.channels)


def norm_at(norm: NormHook, place: NormPlace) -> nn.Module:
    """What the hook gives at a place that cannot go without a norm."""
    module = norm(place)
    if module is None:
        raise ValueError(
            f"the norm hook gave no norm at {place}; only after_sum may stay empty (nn.Identity is a norm)"
        )
    return module


class ResidualBlock(nn.Module):
    """Convolution, norm, ReLU two or three times; the shortcut is added before the last ReLU.

    Args:
        convs: two (basic) or three (bottleneck) convolutions, named ``conv1``, ``conv2``, ... in the state dict.
        norms: one per convolution, named ``bn1``, ``bn2``, ...
        downsample: brings the input to the shape of the output; None adds it as it is.
        se: applied to the branch before the addition.
        after_sum: norm between the addition and the last ReLU; ``IN`` in the state dict, as in IBN-Net's weights.
    """

    def __init__(
        self,
        convs: Sequence[nn.Module],
        norms: Sequence[nn.Module],
        *,
        downsample: nn.Module | None = None,
        se: nn.Module | None = None,
        after_sum: nn.Module | None = None,
    ) -> None:
        super().__init__()
        for i, (conv, norm) in enumerate(zip(convs, norms, strict=True), start=1):
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", norm)
        self.depth = len(convs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.se = se
        self.IN = after_sum

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        y = x
        for i in range(1, self.depth + 1):
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            if i < self.depth:
                y = self.relu(y)
        if self.se is not None:
            y = self.se(y)
        y = y + (x if self.downsample is None else self.downsample(x))
        if self.IN is not None:
            y = self.IN(y)
        activated: Tensor = self.relu(y)
        return activated


class ResNet(nn.Module):
    """A residual network.

    Source: He et al., Deep Residual Learning, CVPR 2016; ResNeXt: Xie et al., CVPR 2017 (block type C). Convolutions
    start from a normal distribution of variance 2 / (k k out), also the grouped ones.

    Args:
        block: "basic" (two 3x3) or "bottleneck" (1x1, 3x3, 1x1 with four times the width).
        layers: blocks in each stage.
        widths: width of each stage; the stem has the first.
        num_classes: outputs of ``fc``; 0 leaves the pooled features.
        in_channels: channels of the pictures.
        small_input: a 3x3 stem without pooling, instead of 7x7 with stride 2 and 3x3 max pooling with stride 2.
        stem_stride: stride of the stem; by default 1 for small inputs, 2 otherwise.
        groups: of the 3x3 of a bottleneck (the cardinality of a ResNeXt).
        base_width: width per group where the stage is 64 wide.
        se_reduction: adds squeeze-and-excitation with this reduction.
        norm: which norm goes where; gives None for no norm, which is possible only after the sum.

    Raises:
        ValueError: unknown block; widths and layers of different length; a choice that basic blocks do not have.

    Example:
        >>> net = ResNet("basic", (1, 1, 1, 1), widths=(8, 16, 16, 16), num_classes=10, small_input=True)
        >>> net(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> [tuple(map.shape[1:]) for map in net.stages(torch.randn(2, 3, 32, 32))][-1]
        (16, 4, 4)
    """

    def __init__(
        self,
        block: str = "bottleneck",
        layers: Sequence[int] = (3, 4, 6, 3),
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        num_classes: int = 1000,
        in_channels: int = 3,
        small_input: bool = False,
        stem_stride: int | None = None,
        groups: int = 1,
        base_width: int = 64,
        se_reduction: int | None = None,
        norm: NormHook = batch_norm,
    ) -> None:
        super().__init__()
        if block not in EXPANSION:
            raise ValueError(f'unknown block {block!r}; there are "basic" and "bottleneck"')
        if len(layers) != len(widths):
            raise ValueError(f"{len(layers)} stages of layers came with {len(widths)} widths; give one width per stage")
        if block == "basic" and (groups, base_width) != (1, 64):
            raise ValueError("basic blocks have neither groups nor a base width; take bottlenecks")
        kernel, stride = (3, stem_stride or 1) if small_input else (7, stem_stride or 2)
        self.conv1 = nn.Conv2d(in_channels, widths[0], kernel, stride, kernel // 2, bias=False)
        self.bn1 = norm_at(norm, NormPlace("stem", widths[0]))
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_input else nn.MaxPool2d(3, 2, 1)
        channels = widths[0]
        for stage, (depth, width) in enumerate(zip(layers, widths, strict=True), start=1):
            inner = width if block == "basic" else width * base_width // 64 * groups
            blocks = []
            for i in range(depth):
                out = width * EXPANSION[block]
                stride = 2 if stage > 1 and i == 0 else 1
                place = NormPlace("", out, stage, i, i == depth - 1)
                blocks.append(_block(block, channels, inner, out, stride, groups, se_reduction, norm, place))
                channels = out
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.num_stages = len(layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def stages(self, x: Tensor) -> list[Tensor]:
        """The maps after the stem (before pooling) and after every stage, each after its ReLU."""
        x = self.relu(self.bn1(self.conv1(x)))
        maps = [x]
        x = self.maxpool(x)
        for stage in range(1, self.num_stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.fc(torch.flatten(self.avgpool(self.stages(x)[-1]), 1))
        return logits


def resnet(depth: int, **options: object) -> ResNet:
    """A published depth.

    Args:
        depth: 18 and 34 (basic blocks), 50, 101 and 152 (bottlenecks).
        **options: of :class:`ResNet`.

    Raises:
        ValueError: another depth.

    Example:
        >>> sum(p.numel() for p in resnet(18, num_classes=1000).parameters())
        11689512
    """
    if depth not in LAYERS:
        raise ValueError(
            f"there is no ResNet-{depth}; there are {', '.join(map(str, LAYERS))}, or give block and layers"
        )
    block, layers = LAYERS[depth]
    return ResNet(block, layers, **options)  # type: ignore[arg-type]


def _block(
    kind: str,
    channels: int,
    width: int,
    out: int,
    stride: int,
    groups: int,
    se_reduction: int | None,
    norm: NormHook,
    place: NormPlace,
) -> ResidualBlock:
    if kind == "basic":
        convs = [_conv(channels, out, 3, stride), _conv(out, out, 3)]
    else:
        convs = [_conv(channels, width, 1), _conv(width, width, 3, stride, groups), _conv(width, out, 1)]
    norms = [
        norm_at(norm, place._replace(where=f"norm{i}", channels=conv.out_channels))
        for i, conv in enumerate(convs, start=1)
    ]
    downsample = None
    if stride != 1 or channels != out:
        downsample = nn.Sequential(_conv(channels, out, 1, stride), norm_at(norm, place._replace(where="downsample")))
    return ResidualBlock(
        convs,
        norms,
        downsample=downsample,
        se=SqueezeExcite(out, se_reduction) if se_reduction else None,
        after_sum=norm(place._replace(where="after_sum")),
    )


def _conv(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
