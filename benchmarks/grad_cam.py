"""Grad-CAM against captum, pytorch-grad-cam and a plain forward pass of the same network."""

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


NETWORKS: dict[str, tuple[Callable[[], nn.Sequential], int, tuple[int, ...]]] = {
    "2-conv CNN, 256 of 28x28": (small_cnn, 4, (256, 1, 28, 28)),
    "ResNet-18, 32 of 64x64": (resnet18, 4, (32, 3, 64, 64)),
}


def rows() -> Iterator[Row]:
    """One class against a plain pass and against the peers, ten classes against ten calls of the peers."""
    for name, (make, layer, shape) in NETWORKS.items():
        torch.manual_seed(0)
        net, images = make(), torch.randn(shape)
        fast_net = make()
        fast_net.load_state_dict(net.state_dict())
        fast_net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        one, ten = torch.randint(CLASSES, (len(images),)), torch.arange(CLASSES).expand(len(images), -1)
        ours = GradCAM(net, str(layer), upsample=None)

        forwards = {
            "forward pass, channels last, chunks of 32": forward(fast_net, images, 32),
            "forward pass as it comes": forward(net, images, len(images)),
        }
        work = f"Grad-CAM of one class: {name}"
        yield from compare(work, partial(ours, images, one), forwards, tolerance=None)

        peers = {
            "captum, channels last, chunks of 32": captum(fast_net, fast_net[layer], images, 32),
            "captum as it comes": captum(net, net[layer], images, len(images)),
        }
        for title, targets in ((work, one[:, None]), (f"Grad-CAM of ten classes: {name}", ten)):
            theirs = {peer: partial(maps, targets) for peer, maps in peers.items()}
            yield from compare(title, partial(ours, images, targets), theirs)

        scaled = GradCAM(net, str(layer), normalize=True)
        for count, targets in (("one class", one[:, None]), ("ten classes", ten)):
            work = f"Grad-CAM of {count}, scaled to 0..1 and up-sampled: {name}"
            try:
                peer = {"pytorch-grad-cam": partial(pytorch_grad_cam(net, net[layer], images), targets)}
                yield from compare(work, partial(scaled, images, targets), peer, tolerance=1e-3)
            except ImportError as error:
                yield from absent(work, "pytorch-grad-cam", str(error))


def forward(net: nn.Module, images: Tensor, size: int) -> Callable[[], Tensor]:
    """A plain pass in inference mode."""
    if size < len(images):
        images = channels_last(images)

    @torch.inference_mode()
    def run() -> Tensor:
        return torch.cat([net(chunk) for chunk in images.split(size)])

    return run


def captum(net: nn.Module, layer: nn.Module, images: Tensor, size: int) -> Callable[[Tensor], Tensor]:
    """Captum's Grad-CAM, called once per column of (N, T) targets."""
    from captum.attr import LayerGradCam

    method = LayerGradCam(net, layer)
    images = channels_last(images) if size < len(images) else images

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
