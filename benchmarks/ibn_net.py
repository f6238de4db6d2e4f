"""The IBN layer against PyTorch's two layers one after the other, and a training step of the small IBN-Net-a."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.table import Row, compare
from reprise.nn import IBN, ibn_resnet
from reprise.training import fit

STEPS = 5


class TwoLayers(nn.Module):
    """What the published layer does: copy both halves, normalise each, put them together again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.half = channels // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.half)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x[:, : self.half], x[:, self.half :]
        return torch.cat([self.IN(first.contiguous()), self.BN(second.contiguous())], 1)


def rows() -> Iterator[Row]:
    """One layer in two memory layouts on a large and a small map, then training steps in two layouts."""
    for n, channels, side in ((32, 64, 56), (128, 128, 8)):
        for layout, name in ((torch.contiguous_format, "contiguous"), (torch.channels_last, "channels-last")):
            x = torch.randn(n, channels, side, side).contiguous(memory_format=layout)
            dy = torch.randn_like(x)
            work = f"IBN({channels}), forward and backward, {tuple(x.shape)}, {name}"
            ours = _step(IBN(channels), x, dy)
            yield from compare(work, ours, {"InstanceNorm2d + BatchNorm2d": _step(TwoLayers(channels), x, dy)})
            peer = {"BatchNorm2d alone": _step(nn.BatchNorm2d(channels), x, dy)}
            yield from compare(work, ours, peer, tolerance=None)  # another function
    images, labels = torch.rand(128 * STEPS, 3, 32, 32), torch.randint(10, (128 * STEPS,))
    yield from compare(
        f"small IBN-Net-a, {STEPS} training steps of 128 pictures 3x32x32, channels-last",
        lambda: _train(images, labels, True),
        {"contiguous": lambda: _train(images, labels, False)},
        tolerance=None,  # rounding grows in training
    )


def _step(layer: nn.Module, x: Tensor, dy: Tensor) -> Callable[[], list[Tensor]]:
    x = x.clone().requires_grad_()

    def work() -> list[Tensor]:
        y = layer(x)
        return [y, torch.autograd.grad(y, [x, *layer.parameters()], dy)[0]]

    return work


def _train(images: Tensor, labels: Tensor, channels_last: bool) -> None:
    net = ibn_resnet(block="basic", layers=(1, 1, 1, 1), widths=(32, 64, 128, 128), num_classes=10, small_input=True)
    fit(net, images, labels, steps=STEPS, optimizer="sgd", channels_last=channels_last)
