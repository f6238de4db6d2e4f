"""What stands in place of SpaRTAN's blocks and mixers in the other arms, at equal parameters."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from reprise.nn import LayerScale, SpaRTAN, SpaRTANBlock, parameters
from reprise.nn.spartan import EPS, initialise

CONVNEXT_BLOCKS = (2, 3, 1, 1)  # in place of one block, by stage; so many that their hidden layers are of usual width


class ConvNeXtBlock(nn.Module):
    """7x7 depthwise convolution, norm, MLP of 1x1 convolutions, layer scale (Liu et al., A ConvNet for the 2020s).

    The norm is SpaRTAN's, over channels and pixels.
    """

    def __init__(self, dim: int, hidden: int, layer_scale: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(dim, dim, 7, padding=3, groups=dim),
            nn.GroupNorm(1, dim, EPS),
            mlp(dim, hidden),
            LayerScale(dim, layer_scale),
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) to the same shape."""
        y: Tensor = x + self.branch(x)
        return y


def mlp(dim: int, hidden: int) -> nn.Sequential:
    """The usual channel mixer: 1x1 convolution, GELU, 1x1 convolution."""
    return initialise(nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.GELU(), nn.Conv2d(hidden, dim, 1)))


def plain_space(dim: int) -> nn.Sequential:
    """The usual light spatial mixer: 3x3 depthwise convolution, batch norm, GELU, 1x1 convolution."""
    depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
    return initialise(nn.Sequential(depthwise, nn.BatchNorm2d(dim, EPS), nn.GELU(), nn.Conv2d(dim, dim, 1)))


def exchange(model: SpaRTAN, block: str, layer_scale: float) -> SpaRTAN:
    """Put other blocks or mixers into a network; stem, downsamplers and head stay as they are.

    Args:
        model: changed in place.
        block: "spartan" changes nothing; "convnext" puts ConvNeXt blocks in place of each block; "mlp" an MLP in place
            of each channel mixer, both of as many parameters as what they replace; "plain_space" a plain depthwise
            convolution in place of each spatial mixer, which has fewer.
        layer_scale: of ConvNeXt blocks.
    """
    if block not in ("spartan", "convnext", "mlp", "plain_space"):
        raise ValueError(f"unknown block {block!r}")
    for i, stage in enumerate(model.stages):
        new: list[nn.Module] = []
        for old in (layer for layer in stage.children() if isinstance(layer, SpaRTANBlock)):
            dim = old.dim
            if block == "convnext":
                share = parameters(old) / CONVNEXT_BLOCKS[i]
                hidden = _hidden(lambda h, d=dim: ConvNeXtBlock(d, h, layer_scale), share)  # type: ignore[misc]
                new += [ConvNeXtBlock(dim, hidden, layer_scale) for _ in range(CONVNEXT_BLOCKS[i])]
            else:
                new.append(_exchange_mixer(old, dim, block))
        model.stages[i] = nn.Sequential(*new)
    return model


def _exchange_mixer(old: SpaRTANBlock, dim: int, block: str) -> SpaRTANBlock:
    if block == "mlp":
        hidden = _hidden(lambda h: mlp(dim, h), parameters(old.channel))
        old.channel = mlp(dim, hidden)  # type: ignore[assignment]
    elif block == "plain_space":
        old.spatial = plain_space(dim)  # type: ignore[assignment]
    return old


def _hidden(make: Callable[[int], nn.Module], target: float) -> int:
    """The hidden width whose parameters come closest to the target; they grow linearly with it."""
    one, two = (parameters(make(hidden)) for hidden in (1, 2))
    return 1 + round((target - one) / (two - one))
