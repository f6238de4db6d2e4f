"""MOAT: mobile convolution and self-attention, one after the other in every block.

A Transformer block mixes pixels by attention and then channels by an MLP. MOAT puts an inverted-residual convolution in
the MLP's place and moves it before the attention: the depthwise convolution mixes neighbours, crosses the borders of
attention windows, and down-samples where a stage begins.

Source: Yang, Qiao, Yu, Yuan, Zhu, Yuille, Adam and Chen, MOAT: Alternating Mobile Convolution and Attention Brings
Strong Vision Models, ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from reprise.nn.drop_path import drop_path_rates
from reprise.nn.maps import PreNormResidual, SameConv2d, check_map
from reprise.nn.mbconv import MBConv, PooledShortcut
from reprise.nn.relative_attention import RelPosAttention2d, Window

__all__ = ["MOAT", "MOATBlock", "MOATConfig", "TransformerBlock2d", "init_weights"]

T = TypeVar("T")


def _per_stage(values: Sequence[T], count: int, name: str) -> Sequence[T]:
    if len(values) != count:
        raise ValueError(f"{name} has one entry per stage, {count} here, not {values!r}")
    return values


class MOATBlock(nn.Sequential):
    """An :class:`MBConv` without gate, then y + DropPath(attention(LayerNorm(y))).

    Source: figure 1 (d) and section 2.2 of the paper.

    Args:
        in_channels: of the input.
        out_channels: of the output; heads = out_channels / head_size.
        stride: of the mobile convolution; attention sees the smaller map.
        expansion: hidden channels of the mobile convolution per output channel.
        pool_size: side of the pooling window of the shortcut.
        drop_path: rate; both branches draw for themselves.
        head_size, window, rel_pos_size, pad_windows: as in :class:`RelPosAttention2d`.

    Raises:
        ValueError: as in :class:`RelPosAttention2d`.

    Example:
        >>> MOATBlock(32, 64, stride=2, window=(4, 2))(torch.randn(2, 32, 16, 8)).shape
        torch.Size([2, 64, 8, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        head_size: int = 32,
        window: Window = None,
        rel_pos_size: int | None = 14,
        pad_windows: bool = False,
        expansion: float = 4,
        pool_size: int = 2,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.mbconv = MBConv(
            in_channels,
            out_channels,
            stride,
            expansion=expansion,
            se_ratio=None,
            pool_size=pool_size,
            drop_path=drop_path,
        )
        attention = RelPosAttention2d(
            out_channels, head_size=head_size, window=window, rel_pos_size=rel_pos_size, pad_windows=pad_windows
        )
        self.attention = PreNormResidual(out_channels, attention, drop_path)


class TransformerBlock2d(nn.Sequential):
    """The block that MOAT starts from: attention, then an MLP over channels, each behind a layer norm.

    Where stride or channels change, the map is pooled and projected first (:class:`PooledShortcut`).

    Args:
        in_channels: of the input.
        out_channels: of the output; heads = out_channels / head_size.
        stride: of the pooling.
        mlp_ratio: hidden channels of the MLP per channel.
        drop_path: rate of both branches.
        head_size, window, rel_pos_size, pad_windows: as in :class:`RelPosAttention2d`.

    Example:
        >>> TransformerBlock2d(32, 64, stride=2)(torch.randn(2, 32, 8, 8)).shape
        torch.Size([2, 64, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        head_size: int = 32,
        window: Window = None,
        rel_pos_size: int | None = 14,
        pad_windows: bool = False,
        mlp_ratio: float = 4,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.shortcut = PooledShortcut(in_channels, out_channels, stride)
        attention = RelPosAttention2d(
            out_channels, head_size=head_size, window=window, rel_pos_size=rel_pos_size, pad_windows=pad_windows
        )
        self.attention = PreNormResidual(out_channels, attention, drop_path)
        hidden = int(mlp_ratio * out_channels)
        mlp = nn.Sequential(nn.Conv2d(out_channels, hidden, 1), nn.GELU(), nn.Conv2d(hidden, out_channels, 1))
        self.mlp = PreNormResidual(out_channels, mlp, drop_path)


@dataclass(frozen=True)
class MOATConfig:
    """A MOAT's size.

    Attributes:
        stem: channels of the stem.
        channels: of each stage.
        blocks: of each stage.
        survival: 1 - the drop-path rate towards which blocks rise.
        kinds: "mbconv" or "moat" for each stage.
        rel_pos_sizes: side P of the position tables of each stage, None where there are none.

    Raises:
        ValueError: not one entry per stage, or an unknown kind.
    """

    stem: int
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    survival: float = 1.0
    kinds: tuple[str, ...] = ("mbconv", "mbconv", "moat", "moat")
    rel_pos_sizes: tuple[int | None, ...] = (None, None, 14, 7)

    def __post_init__(self) -> None:
        for name in ("blocks", "kinds", "rel_pos_sizes"):
            _per_stage(getattr(self, name), len(self.channels), name)
        if not set(self.kinds) <= {"mbconv", "moat"}:
            raise ValueError(f'a stage is of kind "mbconv" or "moat", not {self.kinds}')


def _published(stem: int, width: int, blocks: tuple[int, ...], survival: float) -> MOATConfig:
    return MOATConfig(stem, (width, 2 * width, 4 * width, 8 * width), blocks, survival)


CONFIGS = {  # table 1 of the paper, and its tiny models
    "moat-0": _published(64, 96, (2, 3, 7, 2), 0.8),
    "moat-1": _published(64, 96, (2, 6, 14, 2), 0.7),
    "moat-2": _published(128, 128, (2, 6, 14, 2), 0.7),
    "moat-3": _published(160, 160, (2, 12, 28, 2), 0.4),
    "moat-4": _published(256, 256, (2, 12, 28, 2), 0.3),
    "tiny-moat-0": _published(32, 32, (2, 3, 7, 2), 1.0),
    "tiny-moat-1": _published(40, 40, (2, 3, 7, 2), 1.0),
    "tiny-moat-2": _published(56, 56, (2, 3, 7, 2), 1.0),
    "tiny-moat-3": _published(80, 80, (2, 3, 7, 2), 0.9),
}


class MOAT(nn.Module):
    """A MOAT of any size: classifier, or backbone with a map per stage.

    Inputs may have any size, and another one than in training: position tables are resized to the map or window.
    Running statistics of the batch norms take hundreds of steps to settle at the published momentum of 0.01: raise it
    for short trainings, else evaluation goes wrong.

    Source: section 2.3 and table 1 of the paper. Weights start from normal(0, 0.02), biases from zero.

    Args:
        config: "moat-0" to "moat-4", "tiny-moat-0" to "tiny-moat-3", or a :class:`MOATConfig`.
        num_classes: of the classifier.
        in_channels: of the pictures.
        drop_path: rate towards which blocks rise; None takes 1 - survival of the configuration.
        windows: one per stage: side, (height, width), or None for attention over the whole map, which is what the
            published classifiers do. One value for all stages otherwise.
        pad_windows: pad maps that windows do not divide; otherwise they are refused.
        global_last: attention over the whole map in the last block of every stage, whatever the windows.
        stage_strides: of each stage's first block; the stem halves the picture before.
        position_bias: False leaves the relative position bias out, as in the paper's models for other resolutions.
        pool_size: side of the pooling window in the shortcuts: 2, or 3 for dense predictions.

    Raises:
        ValueError: unknown name; not one entry per stage; channels that are no multiple of 32 in a "moat" stage; at the
            call: other channels, an empty batch in training, maps that windows do not divide.

    Example:
        >>> config = MOATConfig(8, (16, 32), (1, 1), kinds=("mbconv", "moat"), rel_pos_sizes=(None, 4))
        >>> net = MOAT(config, num_classes=5)
        >>> net(torch.randn(2, 3, 32, 48)).shape
        torch.Size([2, 5])
        >>> [tuple(stage.shape[1:]) for stage in net.forward_features(torch.randn(2, 3, 32, 48))]
        [(8, 16, 24), (16, 8, 12), (32, 4, 6)]
    """

    def __init__(
        self,
        config: MOATConfig | str = "moat-0",
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        drop_path: float | None = None,
        windows: Window | Sequence[Window] = None,
        pad_windows: bool = False,
        global_last: bool = False,
        stage_strides: Sequence[int] | None = None,
        position_bias: bool = True,
        pool_size: int = 2,
    ) -> None:
        super().__init__()
        if isinstance(config, str):
            if config not in CONFIGS:
                raise ValueError(f"no MOAT is called {config!r}; there are {', '.join(CONFIGS)}, or give a MOATConfig")
            config = CONFIGS[config]
        self.config, self.in_channels = config, in_channels
        count = len(config.channels)
        strides = [2] * count if stage_strides is None else _per_stage(stage_strides, count, "stage_strides")
        per_stage = [windows] * count if windows is None or isinstance(windows, int) else windows
        cuts: Sequence[Window] = _per_stage(per_stage, count, "windows")

        self.stem = nn.Sequential(
            SameConv2d(in_channels, config.stem, 3, 2),
            nn.BatchNorm2d(config.stem, eps=1e-3, momentum=0.01),
            nn.GELU(),
            nn.Conv2d(config.stem, config.stem, 3, padding=1),
        )
        rates = iter(drop_path_rates(1 - config.survival if drop_path is None else drop_path, sum(config.blocks)))
        self.stages, channels = nn.ModuleList(), config.stem
        for stage, (width, blocks) in enumerate(zip(config.channels, config.blocks, strict=True)):
            layers: list[nn.Module] = []
            for block in range(blocks):
                stride = strides[stage] if block == 0 else 1
                if config.kinds[stage] == "mbconv":
                    layer: nn.Module = MBConv(channels, width, stride, pool_size=pool_size, drop_path=next(rates))
                else:
                    layer = MOATBlock(
                        channels,
                        width,
                        stride,
                        window=None if global_last and block == blocks - 1 else cuts[stage],
                        rel_pos_size=config.rel_pos_sizes[stage] if position_bias else None,
                        pad_windows=pad_windows,
                        pool_size=pool_size,
                        drop_path=next(rates),
                    )
                layers.append(layer)
                channels = width
            self.stages.append(nn.Sequential(*layers))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, num_classes)
        self.apply(init_weights)

    def forward_features(self, x: Tensor, activated: bool = False) -> list[Tensor]:
        """The maps after the stem and after every stage.

        Args:
            x: pictures (N, in_channels, H, W).
            activated: give the GELU of the maps, which is what the paper's decoders take.

        Returns:
            (N, C, ceil(H / s), ceil(W / s)) each, s = 2, 4, 8, 16, 32 with the published strides.
        """
        check_map(x, self.in_channels, "MOAT")
        if self.training and len(x) == 0:
            raise ValueError("an empty batch has no statistics; leave it out, or call eval() first")
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [F.gelu(stage) for stage in maps] if activated else maps

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.head(self.norm(self.forward_features(x)[-1].mean((2, 3))))
        return logits


def init_weights(module: nn.Module) -> None:
    """Kernels and matrices of one module from normal(0, 0.02), biases zero: for ``net.apply``.

    Example:
        >>> block = MOATBlock(32, 32).apply(init_weights)
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
