"""Occlusion maps against captum's, the same windows in the same places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.grad_cam import CLASSES, NETWORKS, channels_last, twins
from benchmarks.resources import count_flops
from benchmarks.table import Row, absent, compare
from reprise.explain import occlusion_map

# Side of the window, stride, batch sizes, covered pictures at once: the quickest for either side.
WINDOWS = {"2-conv CNN, 28x28": (4, 2, (2, 8, 32), 32), "ResNet-18, 64x64": (8, 8, (1, 2, 4), 64)}


def rows() -> Iterator[Row]:
    """Two networks at three batch sizes; black windows, as captum's are."""
    for name, (_, _, shape) in NETWORKS.items():
        net, fast_net = twins(name)
        patch, stride, batches, at_once = WINDOWS[name]
        for batch in batches:
            images, targets = torch.randn(batch, *shape), torch.randint(CLASSES, (batch,))
            work, size = f"occlusion, windows of {patch}, stride {stride}: {name}", f"batch {batch}"
            ours = _ours(net, images, targets, patch, stride, at_once)
            positions = at_once // batch
            try:
                best = {
                    f"captum, channels last, {at_once} at once": captum(
                        fast_net, channels_last(images), targets, patch, stride, positions
                    ),
                    f"captum, {at_once} at once": captum(net, images, targets, patch, stride, positions),
                }
                defaults = {"captum": captum(net, images, targets, patch, stride, 1)}
            except ImportError:
                yield from absent(work, "captum", "not installed", size)
                continue
            yield from compare(work, ours, best, defaults=defaults, size=size, tolerance=1e-4, flops=count_flops(ours))


def _ours(
    net: nn.Module, images: Tensor, targets: Tensor, patch: int, stride: int, at_once: int
) -> Callable[[], Tensor]:
    find = partial(occlusion_map, net, patch=patch, stride=stride, value=0.0, batch_size=at_once)
    return lambda: spread(find(images, targets), patch, stride)


def spread(maps: Tensor, patch: int, stride: int) -> Tensor:
    """Each pixel's mean over the windows that cover it, as captum gives it, from one drop per window (N, h, w)."""
    window = torch.ones(1, 1, patch, patch)
    drops, counts = (
        F.conv_transpose2d(part, window, stride=stride) for part in (maps[:, None], torch.ones_like(maps[:1, None]))
    )
    return drops / counts


def captum(
    net: nn.Module, images: Tensor, targets: Tensor, patch: int, stride: int, positions: int
) -> Callable[[], Tensor]:
    """Captum's method, so many windows of each picture at once."""
    from captum.attr import Occlusion

    method, channels = Occlusion(net), images.shape[1]
    window, strides = (channels, patch, patch), (channels, stride, stride)
    return lambda: method.attribute(images, window, strides=strides, target=targets, perturbations_per_eval=positions)[
        :, :1
    ]  # the same in every channel
