"""Grad-CAM against captum and pytorch-grad-cam, beside a plain forward pass of the same network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.table import Row, absent, compare
from reprise.explain import GradCAM

CLASSES = 10


def small_cnn() -> nn.Sequential:
    """Two convolutions for 28x28 pictures; the layer is the second one's ReLU."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, CLASSES),
    ).eval()  # fmt: skip


class Block(nn.Module):
    """The basic block of ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Body plus skip."""
        return self.relu(self.body(x) + self.skip(x))


def resnet18() -> nn.Sequential:
    """ResNet-18; the layer is the last block."""
    stages = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
    stages += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Sequential(*[Block(*stage) for stage in stages]),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES),
    ).eval()  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Sequential], int, tuple[int, ...]]] = {  # network, layer, picture
    "2-conv CNN, 28x28": (small_cnn, 4, (1, 28, 28)),
    "ResNet-18, 64x64": (resnet18, 4, (3, 64, 64)),
}
BATCHES = {"2-conv CNN, 28x28": (16, 64, 256), "ResNet-18, 64x64": (2, 8, 32)}
TEN = {"2-conv CNN, 28x28": (16, 64), "ResNet-18, 64x64": (2, 8)}  # ten calls of a peer take ten times as long


def rows() -> Iterator[Row]:
    """One class and ten of each picture, which for the peers takes ten calls; and what a forward pass takes."""
    for name, (_, layer, shape) in NETWORKS.items():
        net, fast_net = twins(name)
        for batch in BATCHES[name]:
            images, one = torch.randn(batch, *shape), torch.randint(CLASSES, (batch, 1))
            ten = torch.arange(CLASSES).expand(batch, -1)
            for count, targets in (("one class", one), ("ten classes", ten)):
                if count == "one class" or batch in TEN[name]:
                    yield from _rows(name, count, net, fast_net, layer, images, targets)


def _rows(
    name: str, count: str, net: nn.Sequential, fast_net: nn.Sequential, layer: int, images: Tensor, targets: Tensor
) -> Iterator[Row]:
    size = f"batch {len(images)}"
    work = f"Grad-CAM of {count}: {name}"
    ours, fast = (partial(GradCAM(model, str(layer), upsample=None), images, targets) for model in (net, fast_net))
    limits = {"a forward pass, channels last, chunks of 32": forward(fast_net, images, 32)}
    try:
        best = {"captum, channels last, chunks of 32": partial(captum(fast_net, fast_net[layer], images, 32), targets)}
        defaults = {"captum": partial(captum(net, net[layer], images, None), targets)}
    except ImportError:
        yield from absent(work, "captum", "not installed", size)
        best = defaults = {}
    yield from compare(work, fast, best, limits=limits if count == "one class" else None, size=size)
    yield from compare(work, ours, defaults=defaults, size=size)

    work = f"Grad-CAM of {count}, scaled to 0..1 and up-sampled: {name}"
    try:
        peer = {"pytorch-grad-cam": partial(pytorch_grad_cam(net, net[layer], images), targets)}
    except ImportError as error:
        yield from absent(work, "pytorch-grad-cam", str(error), size)
        return
    scaled = GradCAM(net, str(layer), normalize=True)
    yield from compare(work, partial(scaled, images, targets), peer, size=size, tolerance=1e-3)


def twins(name: str) -> tuple[nn.Sequential, nn.Sequential]:
    """A network as it comes, and the same laid out channels last."""
    torch.manual_seed(0)
    make = NETWORKS[name][0]
    net, fast_net = make(), make()
    fast_net.load_state_dict(net.state_dict())
    fast_net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net, fast_net


def forward(net: nn.Module, images: Tensor, size: int) -> Callable[[], Tensor]:
    """A plain pass in inference mode."""
    images = channels_last(images)

    @torch.inference_mode()
    def run() -> Tensor:
        return torch.cat([net(chunk) for chunk in images.split(size)])

    return run


def captum(net: nn.Module, layer: nn.Module, images: Tensor, at_once: int | None) -> Callable[[Tensor], Tensor]:
    """Captum's Grad-CAM, called once per column of (N, T) targets; in chunks, pictures come channels last."""
    from captum.attr import LayerGradCam

    method = LayerGradCam(net, layer)
    images, size = (images, len(images)) if at_once is None else (channels_last(images), at_once)

    def run(targets: Tensor) -> Tensor:
        maps = [
            torch.cat(
                [
                    method.attribute(chunk, target, relu_attributions=True).detach()
                    for chunk, target in zip(images.split(size), column.split(size), strict=True)
                ]
            )
            for column in targets.unbind(1)
        ]
        return torch.cat(maps, 1)

    return run


def channels_last(images: Tensor) -> Tensor:
    """The pictures laid out channels last, with one channel too."""
    return torch.empty_like(images, memory_format=torch.channels_last).copy_(images)


def pytorch_grad_cam(net: nn.Module, layer: nn.Module, images: Tensor) -> Callable[[Tensor], np.ndarray]:
    """The maps of pytorch-grad-cam, called once per column of (N, T) targets."""
    for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # torchvision, which the peer imports, misses them beside a CPU torch
            torch.library.define(f"torchvision::{operator}", "(Tensor boxes, Tensor scores, float iou) -> Tensor")
    from pytorch_grad_cam import GradCAM as Peer
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def run(targets: Tensor) -> np.ndarray:
        with Peer(model=net, target_layers=[layer]) as method:
            columns = [[ClassifierOutputTarget(target) for target in column] for column in targets.T.tolist()]
            return np.stack([method(images, column) for column in columns], 1)

    return run
