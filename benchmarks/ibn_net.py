"""The IBN layer against PyTorch's two layers one after the other, and a training step of the small IBN-Net-a."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.resources import count_flops
from benchmarks.table import Row, compare
from reprise.nn import IBN, ibn_resnet
from reprise.training import fit

STEPS = 2


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
    """One layer in two memory layouts for three batches, then training steps in two layouts."""
    channels, side = 64, 32
    for layout, name in ((torch.contiguous_format, "contiguous"), (torch.channels_last, "channels-last")):
        for batch in (4, 32, 128):
            x = torch.randn(batch, channels, side, side).contiguous(memory_format=layout)
            dy = torch.randn_like(x)
            yield from compare(
                f"IBN({channels}), forward and backward, maps {side}x{side}, {name}",
                _step(IBN(channels), x, dy),
                {"InstanceNorm2d + BatchNorm2d": _step(TwoLayers(channels), x, dy)},
                limits={"BatchNorm2d alone": _step(nn.BatchNorm2d(channels), x, dy)},  # another function, for scale
                size=f"batch {batch}",
                # Moments and values each read x, and their derivatives x and dy: six maps; y and dx are written.
                traffic=8 * x.nbytes,
            )
    for batch in (4, 16, 64):
        images, labels = torch.rand(batch * STEPS, 3, 32, 32), torch.randint(10, (batch * STEPS,))
        ours = _train(images, labels, batch, True)
        yield from compare(
            f"small IBN-Net-a, {STEPS} training steps on 3x32x32, channels-last",
            ours,
            defaults={"the same, contiguous": _train(images, labels, batch, False)},
            size=f"batch {batch}",
            tolerance=None,  # rounding grows in training
            flops=count_flops(ours),
        )


def _step(layer: nn.Module, x: Tensor, dy: Tensor) -> Callable[[], list[Tensor]]:
    x = x.clone().requires_grad_()

    def work() -> list[Tensor]:
        y = layer(x)
        return [y, torch.autograd.grad(y, [x, *layer.parameters()], dy)[0]]

    return work


def _train(images: Tensor, labels: Tensor, batch: int, channels_last: bool) -> Callable[[], object]:
    net = ibn_resnet(block="basic", layers=(1, 1, 1, 1), widths=(32, 64, 128, 128), num_classes=10, small_input=True)
    return lambda: fit(net, images, labels, steps=STEPS, batch_size=batch, optimizer="sgd", channels_last=channels_last)
