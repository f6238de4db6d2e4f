"""SpaRTAN against the sum of its parts, and its block and modulation against the layout of the published code."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.resources import count_flops
from benchmarks.table import Row, compare
from reprise.nn import CMixer, SMixer, SpaRTAN, SpaRTANBlock, WaveModulation
from reprise.nn.layer_scale import LayerScale

PARTS = (SMixer, CMixer, LayerScale, nn.GroupNorm)


class PublishedModulation(nn.Module):
    """Channels to the end, complex product, channels back."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.permute(0, 2, 3, 1).contiguous().unflatten(-1, (-1, 2)))
        turned = torch.view_as_real(pairs * torch.view_as_complex(self.weight))
        return turned.flatten(-2).permute(0, 3, 1, 2).contiguous()


def rows() -> Iterator[Row]:
    """The whole network; a block; the modulation alone; each for three batches."""
    net = SpaRTAN().eval().to(memory_format=torch.channels_last)
    for batch in (1, 2, 4):
        x = torch.randn(batch, 3, 224, 224)
        ours = partial(_forward, net, x)
        parts = {"its parts one by one, nothing between them": _parts(net, x)}
        work = "SpaRTAN forward, pictures 3x224x224"
        yield from compare(work, ours, limits=parts, size=f"batch {batch}", flops=count_flops(ours))
    block, work = SpaRTANBlock(64, 4, layer_scale=1.0), "SpaRTANBlock(64), forward and backward, maps 28x28"
    published = copy.deepcopy(block)
    published.channel.modulation = PublishedModulation(published.channel.modulation.weight)
    for batch in (1, 4, 16):
        yield from _both_layouts(work, block, published, torch.randn(batch, 64, 28, 28))
    wave, work = WaveModulation(256), "WaveModulation(256), forward and backward, maps 28x28"
    for batch in (1, 4, 16):
        yield from _both_layouts(work, wave, PublishedModulation(wave.weight), torch.randn(batch, 256, 28, 28))


def _both_layouts(work: str, ours: nn.Module, published: nn.Module, x: Tensor) -> Iterator[Row]:
    """Ours channels-last; the published way in the layout that it comes in, and channels-last, too."""
    last, size = x.contiguous(memory_format=torch.channels_last), f"batch {len(x)}"
    tuned = copy.deepcopy(published).to(memory_format=torch.channels_last)
    yield from compare(
        work,
        _step(copy.deepcopy(ours).to(memory_format=torch.channels_last), last),
        {"permuted for the modulation and back, channels-last": _step(tuned, last)},
        defaults={"permuted for the modulation and back, contiguous": _step(published, x)},
        size=size,
        tolerance=1e-2,  # of gradients summed over batch and pixels
    )


@torch.inference_mode()
def _forward(net: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = net(x)
    return y


def _parts(net: SpaRTAN, x: Tensor) -> Callable[[], None]:
    """Calls every part on the input that it has within the network."""
    parts = [m for m in net.modules() if isinstance(m, PARTS)] + [net.stem, *net.downsamplers, net.head]
    calls: list[tuple[nn.Module, Tensor]] = []
    hooks = [part.register_forward_pre_hook(lambda part, inputs: calls.append((part, inputs[0]))) for part in parts]
    _forward(net, x)
    for hook in hooks:
        hook.remove()

    @torch.inference_mode()
    def work() -> None:
        for part, inputs in calls:
            part(inputs)

    return work


def _step(layer: nn.Module, x: Tensor) -> Callable[[], list[Tensor]]:
    x = x.clone().requires_grad_()  # keeps the layout

    def work() -> list[Tensor]:
        y = layer(x)
        return [y, *torch.autograd.grad(y.square().mean(), [x, *layer.parameters()])]

    return work
