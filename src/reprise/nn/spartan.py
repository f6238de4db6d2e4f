"""SpaRTAN: a small convolutional network whose blocks mix space by two receptive fields and channels by waves.

A block holds two mixers. The spatial mixer runs a 3x3 and a 9x9 branch side by side, after what differs from the mean
of the map was reinforced. The channel mixer stands where other networks have an MLP: it multiplies an amplitude and a
phase per channel, adds the product of the strongest channel of the pixel to all, turns and scales channel pairs by
learned complex numbers, and therefore needs little width.

Source: Pay, Baskaran, Loo, Wong and See, SpaRTAN: Spatial Reinforcement Token-based Aggregation Network for Visual
Recognition, IJCNN 2025, and the published code. Where they leave room (the modulation), the code is followed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from reprise.nn.channel_gate import ChannelGate
from reprise.nn.drop_path import DropPath, drop_path_rates
from reprise.nn.layer_scale import LayerScale

__all__ = ["CMixer", "SMixer", "SpaRTAN", "SpaRTANBlock", "WaveModulation", "initialise", "weight_decay_groups"]

EPS = 1e-6  # of every norm
Module = TypeVar("Module", bound=nn.Module)


class SMixer(nn.Module):
    """Spatial mixer: a 3x3 and a 9x9 branch on half of the channels each, after reinforcement.

    Reinforcement adds gain x (map - its spatial mean), the gain learned per channel from 1e-5. The wide branch is two
    dilated 3x3 convolutions. Each branch ends in a channel gate (squeeze-and-excitation).

    Args:
        dim: channels, a multiple of 8.
        depthwise: whether the 3x3 convolutions are depthwise (stages 3 and 4) or dense (stages 1 and 2).

    Raises:
        ValueError: dim is not a multiple of 8; at the call: not a (N, dim, H, W) map of floats, or in training an
            empty batch.

    Example:
        >>> SMixer(32)(torch.randn(2, 32, 7, 9)).shape
        torch.Size([2, 32, 7, 9])
    """

    def __init__(self, dim: int, depthwise: bool = False) -> None:
        super().__init__()
        _check_dim(dim)
        half = dim // 2
        groups = half if depthwise else 1
        self.dim = dim
        self.reduce = nn.Conv2d(dim, half, 1)
        self.gain = nn.Parameter(torch.full((half,), 1e-5))
        self.high = nn.Sequential(*_conv_norm(half, half, groups=groups), nn.GELU(), ChannelGate(half, half // 4))
        self.low = nn.Sequential(
            _conv3x3(half, half, groups, dilation=2),
            *_conv_norm(half, half, groups=groups, dilation=2),
            nn.GELU(),
            ChannelGate(half, half // 4),
        )
        self.project = nn.Conv2d(dim, dim, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) to the same shape."""
        _check_maps(self, x, self.dim)
        z = self.reduce(x)
        gain = self.gain[:, None, None]
        z = torch.addcmul(-gain * z.mean((2, 3), keepdim=True), z, 1 + gain)  # z + gain (z - mean), in one pass
        mixed: Tensor = self.project(torch.cat([self.high(z), self.low(z)], 1))
        return mixed


class CMixer(nn.Module):
    """Channel mixer: amplitude times phase, the strongest channel broadcast, and a modulation by complex numbers.

    The strongest channel k of a pixel is the largest of the input; a tie takes the lowest. It is looked up among the
    first dim of the expanded channels, as in the published code, and no gradient flows through the choice.

    Args:
        dim: channels, a multiple of 8.
        expand_ratio: how many times wider the inside is, an integer of at least 2.
        grouped: whether the 3x3 convolution has dim groups (stages 3 and 4) or is depthwise (stages 1 and 2).

    Raises:
        ValueError: dim is not a multiple of 8; the ratio is not an integer of at least 2; at the call: not a
            (N, dim, H, W) map of floats, or in training an empty batch.

    Example:
        >>> CMixer(32, expand_ratio=4)(torch.randn(2, 32, 7, 9)).shape
        torch.Size([2, 32, 7, 9])
    """

    def __init__(self, dim: int, expand_ratio: int = 4, grouped: bool = False) -> None:
        super().__init__()
        _check_dim(dim)
        if expand_ratio < 2 or expand_ratio != int(expand_ratio):
            raise ValueError(f"expand_ratio is an integer of at least 2, not {expand_ratio}")
        width = dim * int(expand_ratio)
        self.dim = dim
        self.phase = nn.Sequential(nn.Conv2d(dim, width, 1), nn.GELU())
        self.amplitude = nn.Conv2d(dim, width, 1)
        self.modulation = WaveModulation(width)
        self.conv = nn.Sequential(*_conv_norm(width, width, groups=dim if grouped else width), nn.GELU())
        self.gate = ChannelGate(width, dim // 4)
        self.project = nn.Conv2d(width, dim, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) to the same shape."""
        mixed: Tensor = self.project(self.gate(self.conv(self.modulation(self.aggregate(x)))))
        return mixed

    def aggregate(self, x: Tensor) -> Tensor:
        """The first half of the mixer: amplitude x phase, plus that product at the strongest channel of the pixel.

        Args:
            x: (N, dim, H, W).

        Returns:
            (N, dim x expand_ratio, H, W).
        """
        _check_maps(self, x, self.dim)
        strongest = x.detach().max(1, keepdim=True).indices
        product: Tensor = self.amplitude(x) * self.phase(x)
        return product + product.gather(1, strongest)


class WaveModulation(nn.Module):
    """Multiply neighbouring channels, read as real and imaginary parts, by one learned complex number per pair.

    Computed in float32 (float64 for such maps), whatever the precision of the map. The result lies channels-last in
    memory, where a pair is a complex number as it stands.

    Args:
        channels: an even number.

    Raises:
        ValueError: channels is odd; at the call: not a (N, channels, H, W) map of floats.

    Example:
        >>> wave = WaveModulation(2)
        >>> wave.weight.data[:] = torch.tensor([0.0, 1.0])  # times i
        >>> wave(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)).flatten().tolist()
        [-4.0, 3.0]
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(f"channels are taken in pairs: give an even number, not {channels}")
        self.weight = nn.Parameter(torch.randn(channels // 2, 2))  # real, imaginary

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        _check_maps(self, x, 2 * len(self.weight))
        precision = torch.promote_types(x.dtype, torch.float32)
        pairs = x.movedim(1, -1).to(precision).contiguous().unflatten(-1, (-1, 2))
        turned = torch.view_as_complex(pairs) * torch.view_as_complex(self.weight.to(precision))
        return torch.view_as_real(turned).flatten(-2).to(x.dtype).movedim(-1, 1)


class SpaRTANBlock(nn.Module):
    """Two residual branches: norm, spatial mixer; norm, channel mixer; each with layer scale and drop path.

    The norm is a group norm with a single group, over channels and pixels.

    Args:
        dim: channels, a multiple of 8.
        expand_ratio: of the channel mixer.
        depthwise: the spatial mixer's convolutions are depthwise.
        grouped: the channel mixer's convolution has dim groups.
        drop_path: probability that a picture skips a branch while training.
        layer_scale: what each branch is multiplied by at first.

    Example:
        >>> x = torch.randn(2, 32, 8, 8)
        >>> torch.equal(SpaRTANBlock(32, layer_scale=0)(x), x)
        True
    """

    def __init__(
        self,
        dim: int,
        expand_ratio: int = 4,
        *,
        depthwise: bool = False,
        grouped: bool = False,
        drop_path: float = 0.0,
        layer_scale: float = 1e-5,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.norm1 = nn.GroupNorm(1, dim, EPS)
        self.spatial = SMixer(dim, depthwise)
        self.scale1 = LayerScale(dim, layer_scale)
        self.norm2 = nn.GroupNorm(1, dim, EPS)
        self.channel = CMixer(dim, expand_ratio, grouped)
        self.scale2 = LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) to the same shape."""
        _check_maps(self, x, self.dim)
        x = x + self.drop_path(self.scale1(self.spatial(self.norm1(x))))
        return x + self.drop_path(self.scale2(self.channel(self.norm2(x))))


class SpaRTAN(nn.Module):
    """The network: a stem of two convolutions with stride 2, stages of blocks, and a linear head on pooled features.

    In the first half of the stages the spatial mixers are dense and the channel mixers depthwise; in the second half
    the spatial mixers are depthwise and the channel mixers have as many groups as channels. The drop-path rate grows
    with depth. The defaults are the published network. Everything runs channels-last.

    Args:
        num_classes: outputs of the head; 0 leaves the pooled features.
        depths: blocks of each stage.
        dims: channels of each stage, multiples of 8.
        expand: of each stage's channel mixers.
        drop_path: end of the line of drop-path rates; the last block stays one step below.
        in_chans: channels of the pictures.
        layer_scale: what branches are multiplied by at first. 1e-5 is for hundreds of epochs; short trainings need
            more, say 0.1.
        small_input: stride 1 in the first convolution, for pictures of about 32x32.

    Raises:
        ValueError: depths, dims and expand of different length, a dim that is no multiple of 8, an expansion below 2;
            at the call: not (N, in_chans, H, W) floats, pictures too small for the strides (below 29x29 with four
            stages, 15x15 with small_input), or in training an empty batch.

    Source: 3,820,296 parameters; 77.7 % of ImageNet at 256x256.

    Example:
        >>> net = SpaRTAN(num_classes=10, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))
        >>> x = torch.randn(2, 3, 64, 64)
        >>> net(x).shape
        torch.Size([2, 10])
        >>> [tuple(maps.shape[1:]) for maps in net.forward_features(x)]
        [(8, 16, 16), (16, 8, 8), (24, 4, 4), (32, 2, 2)]
    """

    def __init__(
        self,
        num_classes: int = 1000,
        depths: Sequence[int] = (3, 3, 12, 2),
        dims: Sequence[int] = (32, 64, 128, 256),
        expand: Sequence[int] = (4, 4, 2, 2),
        drop_path: float = 0.1,
        in_chans: int = 3,
        *,
        layer_scale: float = 1e-5,
        small_input: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < len(depths) == len(dims) == len(expand):
            raise ValueError(
                f"depths, dims and expand have {len(depths)}, {len(dims)} and {len(expand)} entries; "
                "give one of each per stage"
            )
        for dim in dims:
            _check_dim(dim)
        self.in_chans = in_chans
        self.stem = nn.Sequential(
            *_conv_norm(in_chans, dims[0] // 2, stride=1 if small_input else 2),
            nn.GELU(),
            *_conv_norm(dims[0] // 2, dims[0], stride=2),
            nn.GELU(),
        )
        # A stage needs 2x2 pixels of the one before; the stem's 3x3 convolutions round up.
        self.min_size = 2 ** len(dims) - 1 if small_input else 2 ** (len(dims) + 1) - 3
        self.downsamplers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, dim, 2, 2, bias=False), nn.BatchNorm2d(dim, EPS), nn.SiLU())
            for before, dim in pairwise(dims)
        )
        rates = iter(drop_path_rates(drop_path, sum(depths)))
        self.stages = nn.ModuleList()
        for stage, (depth, dim, ratio) in enumerate(zip(depths, dims, expand, strict=True)):
            late = stage >= len(dims) // 2
            blocks = (
                SpaRTANBlock(dim, ratio, depthwise=late, grouped=late, drop_path=next(rates), layer_scale=layer_scale)
                for _ in range(depth)
            )
            self.stages.append(nn.Sequential(*blocks))
        self.head = nn.Linear(dims[-1], num_classes) if num_classes else nn.Identity()
        initialise(self)

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """The map that each stage ends with, for detection and segmentation.

        Args:
            x: (N, in_chans, H, W).

        Returns:
            One (N, dims[i], H', W') map per stage, with strides 4, 8, 16, 32 (half of that with small_input). Where a
            map has an odd side, the next stage leaves its last row or column out.
        """
        _check_maps(self, x, self.in_chans)
        if min(x.shape[2:]) < self.min_size:
            raise ValueError(
                f"pictures of {x.shape[2]}x{x.shape[3]} are too small for these strides; "
                f"resize them to at least {self.min_size}x{self.min_size}, or take fewer stages or small_input=True"
            )
        x = self.stem(x.to(memory_format=torch.channels_last))
        maps = []
        for i, stage in enumerate(self.stages):
            if i:
                x = self.downsamplers[i - 1](x)
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, in_chans, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.head(self.forward_features(x)[-1].mean((2, 3)))
        return logits


def initialise(module: Module) -> Module:
    """Give the published initial values to every convolution and linear layer of a module; biases become zero.

    Convolutions: normal with variance 2 / fan-out, the fan-out being kernel height x width x outputs / groups. Linear
    layers: normal with standard deviation 0.02, cut at 2.

    Example:
        >>> conv = initialise(nn.Conv2d(64, 128, 3, groups=64))
        >>> abs(conv.weight.std() - (2 / 18) ** 0.5) < 0.02
        tensor(True)
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return module


def weight_decay_groups(model: nn.Module, weight_decay: float = 0.03) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser, decayed as published.

    Weights of convolutions and linear layers, modulations and layer scales are decayed; biases, norms and the gains of
    the spatial mixers are not.

    Args:
        model: holds the parameters.
        weight_decay: of those that are decayed.

    Example:
        >>> optimizer = torch.optim.AdamW(weight_decay_groups(SMixer(8)), lr=2.5e-3)
        >>> [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups]
        [(9, 0.03), (11, 0.0)]
    """
    scales = {id(layer.scale) for layer in model.modules() if isinstance(layer, LayerScale)}
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        groups[parameter.ndim > 1 or id(parameter) in scales].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]


def _conv_norm(
    channels: int, out: int, *, stride: int = 1, groups: int = 1, dilation: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return _conv3x3(channels, out, groups, stride, dilation), nn.BatchNorm2d(out, EPS)


def _conv3x3(channels: int, out: int, groups: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride, dilation, dilation, groups, bias=False)


def _check_dim(dim: int) -> None:
    if dim < 8 or dim % 8:
        raise ValueError(f"dim is a multiple of 8 (halves of it, gated by quarters), not {dim}")


def _check_maps(module: nn.Module, x: Tensor, channels: int) -> None:
    name = type(module).__name__
    if x.ndim != 4 or x.shape[1] != channels or not x.is_floating_point():
        raise ValueError(f"this {name} takes floats of shape (N, {channels}, H, W), not {x.dtype} of {tuple(x.shape)}")
    if module.training and len(x) == 0:
        raise ValueError("an empty batch has no statistics; leave it out, or call eval() first")
