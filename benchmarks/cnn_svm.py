"""The L2-SVM loss and a training step of Agarap's network, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.table import Row, compare
from reprise.nn import AgarapCNN
from reprise.training import L2SVMLoss, fit

STEPS = 5


def rows() -> Iterator[Row]:
    """Losses on two sizes, then the network as reprise trains it and as plain PyTorch does."""
    for n, k in ((128, 10), (1024, 1000)):
        yield from compare(
            f"L2-SVM loss, forward and backward, ({n}, {k})",
            _backward(L2SVMLoss(), n, k),
            {
                "torch MultiMarginLoss(p=2)": _backward(nn.MultiMarginLoss(p=2), n, k),
                "torch CrossEntropyLoss": _backward(nn.CrossEntropyLoss(), n, k),
            },
            tolerance=None,  # other losses, other values
        )
    for channels, size in ((1, 28), (3, 32)):
        images, labels = torch.rand(128 * STEPS, channels, size, size), torch.randint(10, (128 * STEPS,))
        yield from compare(
            f"AgarapCNN, {STEPS} training steps of 128 pictures {channels}x{size}x{size}",
            lambda images=images, labels=labels: _ours(images, labels),
            {
                "plain PyTorch, its defaults": lambda images=images, labels=labels: _plain(images, labels, False),
                "plain PyTorch, channels-last, fused Adam": lambda i=images, l=labels: _plain(i, l, True),
            },
            tolerance=None,  # dropout
        )


def _backward(loss: Callable[[Tensor, Tensor], Tensor], n: int, k: int) -> Callable[[], None]:
    scores, targets = torch.randn(n, k, requires_grad=True), torch.randint(k, (n,))

    def work() -> None:
        scores.grad = None
        loss(scores, targets).backward()

    return work


def _ours(images: Tensor, labels: Tensor) -> None:
    model = AgarapCNN(in_channels=images.shape[1], image_size=images.shape[2], init="torch")
    fit(model, images, labels, loss=L2SVMLoss(regularize=model.readout), steps=STEPS)


def _plain(images: Tensor, labels: Tensor, tuned: bool) -> None:
    pooled = images.shape[2] // 4
    model = nn.Sequential(
        nn.Conv2d(images.shape[1], 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * pooled * pooled, 1024), nn.ReLU(), nn.Dropout(0.5), nn.Linear(1024, 10),
    )  # fmt: skip
    if tuned:
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), fused=tuned)
    order = torch.randperm(len(images))
    for index in order.split(128):
        optimizer.zero_grad()
        F.cross_entropy(model(images[index]), labels[index]).backward()
        optimizer.step()
