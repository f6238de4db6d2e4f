"""SpaRTAN against the sum of its parts, and its block and modulation against the layout of the published code."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

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
    """The whole network; one block; the modulation alone."""
    net = SpaRTAN().eval().to(memory_format=torch.channels_last)
    for side in (224, 256):
        x = torch.randn(4, 3, side, side)
        yield from compare(
            f"SpaRTAN forward, {tuple(x.shape)}",
            lambda x=x: _forward(net, x),
            {"its parts one by one, nothing between them": _parts(net, x)},
            tolerance=None,  # the parts' outputs are thrown away
        )
    for dim, side, late in ((64, 28, False), (128, 14, True)):
        block = SpaRTANBlock(dim, 2 if late else 4, depthwise=late, grouped=late, layer_scale=1.0)
        published = copy.deepcopy(block)
        published.channel.modulation = PublishedModulation(published.channel.modulation.weight)
        x = torch.randn(32, dim, side, side)
        yield from compare(
            f"SpaRTANBlock({dim}), forward and backward, {tuple(x.shape)}",
            _step(block.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)),
            {"contiguous, permuted for the modulation and back": _step(published, x)},
            tolerance=1e-2,  # of gradients summed over batch and pixels
        )
    wave, x = WaveModulation(256), torch.randn(32, 256, 28, 28)
    yield from compare(
        f"WaveModulation(256), forward and backward, {tuple(x.shape)}",
        _step(wave, x.to(memory_format=torch.channels_last)),
        {"contiguous, permuted and back": _step(PublishedModulation(wave.weight), x)},
        tolerance=1e-2,
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
