"""The L2-SVM loss and a training step of Agarap's network, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.resources import count_flops
from benchmarks.table import Row, compare
from reprise.nn import AgarapCNN
from reprise.training import L2SVMLoss, fit

STEPS = 10  # a training looks once more at all weights in its end, which two steps would not pay for


def rows() -> Iterator[Row]:
    """Losses at three sizes, then the network as reprise trains it and as plain PyTorch does, for three batches."""
    for n, k in ((128, 10), (1024, 100), (1024, 1000)):
        yield from compare(
            "L2-SVM loss, forward and backward",
            _backward(L2SVMLoss(), n, k),
            {"plain PyTorch, signs scattered": _backward(_scattered, n, k)},
            defaults={"plain PyTorch, signs by one_hot": _backward(_one_hot, n, k)},
            # Other losses, for scale: of pairs of scores, and of softmax.
            limits={
                "torch MultiMarginLoss(p=2)": _backward(nn.MultiMarginLoss(p=2), n, k),
                "torch CrossEntropyLoss": _backward(nn.CrossEntropyLoss(), n, k),
            },
            size=f"{n} examples, {k} classes",
        )
    for batch in (8, 32, 128):
        images, labels = torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,))
        ours = _ours(images, labels)
        yield from compare(
            f"AgarapCNN, {STEPS} training steps on 1x28x28",
            ours,
            {"plain PyTorch, channels-last, fused Adam": _plain(images, labels, True)},
            defaults={"plain PyTorch": _plain(images, labels, False)},
            size=f"batch {batch}",
            tolerance=None,  # dropout
            flops=count_flops(ours),
        )


def _scattered(scores: Tensor, targets: Tensor) -> Tensor:
    y = torch.full_like(scores, -1).scatter_(1, targets[:, None], 1)
    return F.relu(1 - y * scores).square().mean()


def _one_hot(scores: Tensor, targets: Tensor) -> Tensor:
    y = 2 * F.one_hot(targets, scores.shape[1]) - 1
    return F.relu(1 - y * scores).square().mean()


def _backward(loss: Callable[[Tensor, Tensor], Tensor], n: int, k: int) -> Callable[[], list[Tensor | None]]:
    random = torch.Generator().manual_seed(0)  # every loss has the same scores and targets
    scores = torch.randn(n, k, generator=random).requires_grad_()
    targets = torch.randint(k, (n,), generator=random)

    def work() -> list[Tensor | None]:
        scores.grad = None
        value = loss(scores, targets)
        value.backward()
        return [value.detach(), scores.grad]

    return work


def _ours(images: Tensor, labels: Tensor) -> Callable[[], object]:
    model = AgarapCNN(in_channels=images.shape[1], image_size=images.shape[2], init="torch")
    loss = L2SVMLoss(regularize=model.readout)
    return lambda: fit(model, images, labels, loss=loss, steps=STEPS, batch_size=len(images))


def _plain(images: Tensor, labels: Tensor, tuned: bool) -> Callable[[], None]:
    pooled = images.shape[2] // 4
    model = nn.Sequential(
        nn.Conv2d(images.shape[1], 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * pooled * pooled, 1024), nn.ReLU(), nn.Dropout(0.5), nn.Linear(1024, 10),
    )  # fmt: skip
    if tuned:
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)

    def work() -> None:
        optimizer = torch.optim.Adam(model.parameters(), fused=tuned)
        for _ in range(STEPS):
            index = torch.randperm(len(images))
            optimizer.zero_grad()
            F.cross_entropy(model(images[index]), labels[index]).backward()
            optimizer.step()

    return work
