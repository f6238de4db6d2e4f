"""Integrated gradients against captum's, the same 50 points of the same rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.grad_cam import CLASSES, NETWORKS, channels_last, twins
from benchmarks.resources import count_flops
from benchmarks.table import Row, absent, compare
from reprise.explain import IntegratedGradients

BATCHES = {"2-conv CNN, 28x28": (1, 4, 16), "ResNet-18, 64x64": (1, 2, 4)}
AT_ONCE = {"2-conv CNN, 28x28": 32, "ResNet-18, 64x64": 64}  # interpolated pictures: the quickest for either side


def rows() -> Iterator[Row]:
    """Two networks at three batch sizes."""
    for name, (_, _, shape) in NETWORKS.items():
        net, fast_net = twins(name)
        for batch in BATCHES[name]:
            images, targets, at_once = torch.randn(batch, *shape), torch.randint(CLASSES, (batch,)), AT_ONCE[name]
            work, size = f"integrated gradients, 50 steps: {name}", f"batch {batch}"
            try:
                best = {
                    f"captum, channels last, {at_once} at once": captum(
                        fast_net, channels_last(images), targets, at_once
                    ),
                    f"captum, {at_once} at once": captum(net, images, targets, at_once),
                }
                defaults = {"captum": captum(net, images, targets, None)}
            except ImportError:
                yield from absent(work, "captum", "not installed", size)
                continue
            yield from compare(
                work,
                _ours(net, images, targets, at_once),
                best,
                defaults=defaults,
                size=size,
                tolerance=1e-3,  # where rounding decides a maximum or a sign, gradients jump
                flops=_flops(net, images),
            )


@torch.no_grad()
def _flops(net: nn.Sequential, images: Tensor) -> int:
    """Of 50 passes there and back, which take the same, but for the first convolution: that runs at both ends only."""
    first = count_flops(lambda: net[0](images))
    return 2 * 50 * (count_flops(lambda: net(images)) - first) + 4 * first


def _ours(net: nn.Module, images: Tensor, targets: Tensor, at_once: int) -> Callable[[], Tensor | None]:
    return lambda: IntegratedGradients(net, batch_size=at_once).details(images, targets).gradient


def captum(net: nn.Module, images: Tensor, targets: Tensor, at_once: int | None) -> Callable[[], Tensor]:
    """Captum's method, so many interpolated pictures at once, or all."""
    from captum.attr import IntegratedGradients as Peer

    method = Peer(net)
    return lambda: method.attribute(images, target=targets, internal_batch_size=at_once).detach()
