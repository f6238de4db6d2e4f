"""IBN-Net: instance normalisation beside batch normalisation in the shallow layers of a convolutional network.

Appearance (colour, contrast, style) lives in the means and variances of shallow channels; content lives deep. Instance
normalisation (IN) takes the former away, batch normalisation (BN) keeps the latter. Form *a* normalises half of the
channels after the first convolution of every block by IN; form *b* puts an IN after the residual addition that ends
a stage, and in the stem. Neither touches the last stage.

Source: Pan, Luo, Shi and Tang, Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net, ECCV 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reprise.nn.densenet import DenseNet, densenet
from reprise.nn.hooks import evaluating
from reprise.nn.image_batch_norm import image_batch_norm
from reprise.nn.resnet import NormHook, NormPlace, ResidualBlock, ResNet, batch_norm, resnet

__all__ = [
    "IBN",
    "InstanceNorm",
    "convert_to_ibn",
    "feature_divergence",
    "ibn_densenet",
    "ibn_norm",
    "ibn_resnet",
    "ibn_resnext",
    "ibn_se_resnet",
]

Variant = str | Sequence[str | None] | None


class InstanceNorm(nn.InstanceNorm2d):
    """``nn.InstanceNorm2d(channels, affine=True)`` that refuses 1x1 maps, in training and in evaluation.

    Over a single pixel every channel becomes its bias, whatever the picture shows.

    Raises:
        ValueError: the map has one pixel.

    Example:
        >>> InstanceNorm(4)(torch.randn(2, 4, 8, 8)).mean((2, 3)).abs().max() < 1e-6
        tensor(True)
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        _refuse_single_pixel(x)
        return super().forward(x) if len(x) else x  # PyTorch's fails on an empty batch


class IBN(nn.Module):
    """Instance normalisation for a share of the channels, batch normalisation for the others.

    State-dict keys are the published ones: ``IN.weight``, ``IN.bias``, ``BN.weight``, ``BN.running_mean``, ...

    On the CPU both halves come from one pass over the moments of every picture and channel, since the moments of the
    batch follow from those. That is faster than the two layers one after the other and equal to them within rounding.
    Hooks on ``IN`` and ``BN`` are then not called, and a derivative can be taken once.

    Args:
        channels: of the map.
        ratio: share of instance normalisation; 0 is ``nn.BatchNorm2d``, 1 is ``nn.InstanceNorm2d(affine=True)``.
        order: "in_first" gives the first int(ratio * channels) channels to instance normalisation (ResNet, ResNeXt,
            SE-ResNet); "bn_first" gives the first int((1 - ratio) * channels) to batch normalisation (DenseNet).
        eps: added to variances.
        momentum: of the running statistics of the batch half; None averages over all batches.
        fused: False calls the two layers one after the other, which can be differentiated twice.

    Raises:
        ValueError: ratio outside 0..1, unknown order; at the call: not a (N, channels, H, W) map, a 1x1 map, an empty
            batch in training.

    Source: section 3.2 of the paper; ratio 0.5 in ResNets, 0.4 in DenseNets.

    Example:
        >>> layer = IBN(7, ratio=0.5)
        >>> layer(torch.randn(2, 7, 8, 8)).shape, len(layer.IN.weight), len(layer.BN.weight)
        (torch.Size([2, 7, 8, 8]), 3, 4)
    """

    def __init__(
        self,
        channels: int,
        ratio: float = 0.5,
        order: str = "in_first",
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= ratio <= 1:
            raise ValueError(f"ratio is the share of instance normalisation in 0..1, not {ratio}")
        if order not in ("in_first", "bn_first"):
            raise ValueError(f'order is "in_first" or "bn_first", not {order!r}')
        instance = int(ratio * channels) if order == "in_first" else channels - int((1 - ratio) * channels)
        self.channels, self.order, self.fused = channels, order, fused
        self.IN = InstanceNorm(instance, eps)
        self.BN = nn.BatchNorm2d(channels - instance, eps, momentum)

    def extra_repr(self) -> str:
        return f"{self.channels}, order={self.order!r}"

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"IBN({self.channels}) takes maps (N, {self.channels}, H, W), not {tuple(x.shape)}")
        if self.BN.training and len(x) == 0:
            raise ValueError("an empty batch has no statistics; leave it out, or call eval() first")
        instance = self.IN.num_features
        if instance == 0:
            return self.BN(x)
        _refuse_single_pixel(x)
        if instance == self.channels:
            return self.IN(x)
        if self._can_fuse(x):
            return self._fuse(x)
        norms = (self.IN, self.BN) if self.order == "in_first" else (self.BN, self.IN)
        parts = x.split([norm.num_features for norm in norms], 1)
        return torch.cat([norm(part) for norm, part in zip(norms, parts, strict=True)], 1)

    def _can_fuse(self, x: Tensor) -> bool:
        """Other devices and low precision are left to the two layers, and so is a batch half made a SyncBatchNorm."""
        exact = x.dtype in (torch.float32, torch.float64) and x.dtype == self.BN.weight.dtype
        return self.fused and exact and x.device.type == "cpu" and type(self.BN) is nn.BatchNorm2d

    def _fuse(self, x: Tensor) -> Tensor:
        norms = (self.IN, self.BN) if self.order == "in_first" else (self.BN, self.IN)
        gamma, beta = torch.cat([norm.weight for norm in norms]), torch.cat([norm.bias for norm in norms])
        first = norms[0].num_features
        batch = slice(first, None) if self.order == "in_first" else slice(first)
        return image_batch_norm(x, gamma, beta, self.BN, batch)


def ibn_norm(variant: Variant, stages: int = 4, ratio: float = 0.5) -> NormHook:
    """The norm hook that makes a :class:`~reprise.nn.resnet.ResNet` an IBN-Net.

    Args:
        variant: "a" (all stages but the last), "b" (stem and the first two stages, never the last), None (batch norm
            everywhere), or one of them for each stage; the stem goes with stage 1.
        stages: of the network.
        ratio: of the IBN layers of form a.

    Raises:
        ValueError: unknown variant, or not one per stage.

    Source: section 3.3 of the paper; positions as in the published code.

    Example:
        >>> ibn_norm("a")(NormPlace("norm1", 64, stage=1)).IN.num_features
        32
    """
    kinds = _kinds(variant, stages)

    def norm(place: NormPlace) -> nn.Module | None:
        kind = kinds[max(place.stage, 1) - 1]
        if kind == "a" and place.where == "norm1":
            return IBN(place.channels, ratio)
        if kind == "b" and (place.where == "stem" or (place.where == "after_sum" and place.last)):
            return InstanceNorm(place.channels)
        return batch_norm(place)

    return norm


def ibn_resnet(depth: int | None = None, variant: Variant = "a", *, ratio: float = 0.5, **options: Any) -> ResNet:
    """A ResNet as an IBN-Net; published weights load by their own keys.

    Args:
        depth: 18, 34, 50, 101 or 152; None for a network given by ``block``, ``layers`` and ``widths``.
        variant: as in :func:`ibn_norm`.
        ratio: share of instance normalisation of form a.
        **options: of :class:`~reprise.nn.resnet.ResNet` (num_classes, in_channels, small_input, ...).

    Raises:
        ValueError: unknown depth or variant.

    Example:
        >>> net = ibn_resnet(18, "b", num_classes=10)
        >>> net(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """
    norm = ibn_norm(variant, len(options.get("layers", range(4))), ratio)
    return ResNet(norm=norm, **options) if depth is None else resnet(depth, norm=norm, **options)


def ibn_resnext(depth: int | None = None, variant: Variant = "a", **options: Any) -> ResNet:
    """A ResNeXt 32x4d as an IBN-Net; arguments as in :func:`ibn_resnet`."""
    return ibn_resnet(depth, variant, **{"groups": 32, "base_width": 4} | options)


def ibn_se_resnet(depth: int | None = None, variant: Variant = "a", **options: Any) -> ResNet:
    """A ResNet with squeeze-and-excitation (reduction 16) as an IBN-Net; arguments as in :func:`ibn_resnet`."""
    return ibn_resnet(depth, variant, **{"se_reduction": 16} | options)


def ibn_densenet(depth: int | None = None, *, ratio: float = 0.4, **options: Any) -> DenseNet:
    """A DenseNet as an IBN-Net of form a.

    Every third layer of each dense block but the last begins with an IBN layer, batch half first.

    Args:
        depth: 121, 161, 169 or 201; None for a network given by ``growth`` and ``layers``.
        ratio: share of instance normalisation.
        **options: of :class:`~reprise.nn.densenet.DenseNet`.

    Example:
        >>> ibn_densenet(growth=8, layers=(3, 3), num_classes=10)(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """
    last = len(options.get("layers", range(4)))

    def norm(place: NormPlace) -> nn.Module | None:
        if place.where == "norm1" and place.stage < last and place.block % 3 == 0:
            return IBN(place.channels, ratio, "bn_first")
        return batch_norm(place)

    return DenseNet(norm=norm, **options) if depth is None else densenet(depth, norm=norm, **options)


def convert_to_ibn(model: nn.Module, variant: Variant = "a", *, ratio: float = 0.5) -> nn.Module:
    """Make an IBN-Net of any ResNet built like torchvision's or timm's, in place.

    Scales, offsets and running statistics are kept in every channel that stays with batch normalisation; channels that
    go over to instance normalisation keep scale and offset. The network has to be trained on afterwards.

    Args:
        model: has ``bn1`` and ``layer1``, ``layer2``, ... whose blocks have ``bn1``.
        variant: as in :func:`ibn_norm`; a tuple chooses stage by stage.
        ratio: share of instance normalisation of form a.

    Returns:
        The same model.

    Raises:
        TypeError: the model is not built so; nothing has been changed then.
        ValueError: unknown variant.

    Example:
        >>> net = convert_to_ibn(resnet(18, num_classes=10), ("a", "a", None, None))
        >>> type(net.layer1[0].bn1).__name__
        'IBN'
    """
    stages: list[nn.Sequential] = []
    while isinstance(stage := getattr(model, f"layer{len(stages) + 1}", None), nn.Sequential):
        stages.append(stage)
    blocks = [block for stage in stages for block in stage]
    firsts = [getattr(module, "bn1", None) for module in (model, *blocks)]
    if not blocks or not all(type(norm) is nn.BatchNorm2d and norm.affine for norm in firsts):
        raise TypeError(
            f"{type(model).__name__} is not a ResNet as torchvision and timm build it: layer1, layer2, ... of blocks "
            "with an affine BatchNorm2d bn1, and one in the stem; build it with ibn_resnet instead"
        )
    kinds = _kinds(variant, len(stages))
    ends = [
        _with_norm_after_sum(stage[-1]) if kind == "b" else stage[-1] for stage, kind in zip(stages, kinds, strict=True)
    ]
    for stage, kind, end in zip(stages, kinds, ends, strict=True):
        stage[-1] = end
        if kind == "a":
            for block in stage:
                block.bn1 = _split(block.bn1, ratio)
    if kinds[0] == "b":
        model.bn1 = _split(firsts[0], 1.0).IN
    return model


@torch.no_grad()
def feature_divergence(a: Tensor, b: Tensor, reduce: str = "mean") -> float:
    """How far apart two domains are in one layer: symmetric Kullback-Leibler divergence, averaged over channels.

    Each channel of either domain is described by a normal distribution; D = KL(A||B) + KL(B||A), and 1e-5 is added to
    the variances. Measure after a ReLU: right after an instance norm the spatial means are constant.

    Args:
        a: (N, C, H, W) features of one domain.
        b: (M, C, H', W') features of the other.
        reduce: "mean" describes the spatial mean of every picture, "pixels" every pixel.

    Returns:
        0 for equal domains, and symmetric in them.

    Raises:
        ValueError: other shapes, no pictures, unknown ``reduce``.

    Source: section 3.1 and figure 4 of the paper.

    Example:
        >>> x = torch.randn(16, 4, 8, 8)
        >>> feature_divergence(x, x), feature_divergence(x, x + 1) > 1
        (0.0, True)
    """
    if reduce not in ("mean", "pixels"):
        raise ValueError(f'reduce is "mean" or "pixels", not {reduce!r}')
    if a.ndim != 4 or b.ndim != 4 or a.shape[1] != b.shape[1] or not (a.numel() and b.numel()):
        raise ValueError(f"features are (N, C, H, W) with the same C, not {tuple(a.shape)} and {tuple(b.shape)}")
    moments = []
    for features in (a.double(), b.double()):
        samples = features.mean((2, 3)) if reduce == "mean" else features.movedim(1, -1).flatten(0, -2)
        moments.append((samples.mean(0), samples.var(0, correction=0) + 1e-5))
    (mean_a, var_a), (mean_b, var_b) = moments
    # The logarithms of the two directions cancel.
    distance = (mean_a - mean_b).square()
    both = (var_a + distance) / (2 * var_b) + (var_b + distance) / (2 * var_a) - 1
    return float(both.mean())


def _refuse_single_pixel(x: Tensor) -> None:
    if x.shape[-2:] == (1, 1):
        raise ValueError(
            "instance normalisation of a 1x1 map gives the bias whatever the picture shows; use larger inputs, or "
            "batch normalisation in this stage"
        )


def _kinds(variant: Variant, stages: int) -> list[str | None]:
    if variant is None:
        return [None] * stages
    if isinstance(variant, str):
        if variant not in ("a", "b"):
            raise ValueError(f'unknown variant {variant!r}; there are "a", "b", None, or one of them per stage')
        with_norm = stages - 1 if variant == "a" else min(2, stages - 1)
        return [variant if i < with_norm else None for i in range(stages)]
    kinds = list(variant)
    if len(kinds) != stages or not set(kinds) <= {"a", "b", None}:
        raise ValueError(f'{tuple(kinds)} does not give "a", "b" or None for each of {stages} stages')
    return kinds


def _split(bn: Any, ratio: float) -> IBN:
    """An IBN layer with the weights of a batch norm."""
    layer = IBN(bn.num_features, ratio, eps=bn.eps, momentum=bn.momentum).to(bn.weight)
    instance = layer.IN.num_features
    state = {f"BN.{key}": value[instance:] if value.ndim else value for key, value in bn.state_dict().items()}
    state |= {"IN.weight": bn.weight[:instance], "IN.bias": bn.bias[:instance]}
    layer.load_state_dict(state)
    return layer.train(bn.training)


def _with_norm_after_sum(block: nn.Module) -> ResidualBlock:
    """The same block with an instance norm before its last ReLU."""
    children = dict(block.named_children())
    depth = 3 if "conv3" in children else 2
    names = [f"{kind}{i}" for i in range(1, depth + 1) for kind in ("conv", "bn")]
    last = children.get(f"bn{depth}")
    if set(names) <= set(children) and isinstance(last, nn.BatchNorm2d):
        parts = [children[name] for name in names]
        rebuilt = ResidualBlock(parts[::2], parts[1::2], downsample=children.get("downsample"), se=children.get("se"))
        if _same_function(block, rebuilt):
            rebuilt.IN = InstanceNorm(last.num_features, last.eps).to(last.weight)
            return rebuilt.train(block.training)
    raise TypeError(
        f"no place between the addition and the last ReLU was found in {type(block).__name__}; form b needs blocks of "
        "conv1, bn1, conv2, bn2, ... and downsample, as torchvision's"
    )


def _same_function(block: nn.Module, rebuilt: ResidualBlock) -> bool:
    """Whether two blocks that share their layers agree on a random map."""
    conv: Any = rebuilt.conv1
    x = torch.randn(1, conv.in_channels, 8, 8).to(conv.weight)
    with evaluating(block), evaluating(rebuilt), torch.no_grad():
        return torch.equal(block(x), rebuilt(x))
