"""Linear interpreters against PyTorch's ways to a Jacobian, and against plain forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.table import Row, compare
from reprise.explain import LinearScope, linear_interpreter

CHUNKS = {"whole": None, "chunks of 16": 16}


class SuperResolution(nn.Module):
    """Like EDSR, 16 features and 4 blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)) for _ in range(4)
        )
        self.up, self.tail = nn.Conv2d(16, 64, 3, padding=1), nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) to (N, 1, 2 H, 2 W)."""
        h = head = self.head(x)
        for block in self.blocks:
            h = h + block(h)
        return self.tail(F.pixel_shuffle(self.up(head + self.body(h)), 2))


def four_convolutions() -> nn.Sequential:
    """Picture to picture, 16 channels."""
    layers = [layer for inputs in (1, 16, 16) for layer in (nn.Conv2d(inputs, 16, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers, nn.Conv2d(16, 1, 3, padding=1))


def vgg() -> nn.Sequential:
    """Four convolutions and two linear layers, for 3x32x32."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(True), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(True), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(4096, 128), nn.ReLU(True), nn.Linear(128, 10),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {  # network, input, columns
    "4-conv net, 1x28x28": (four_convolutions, (1, 28, 28), (16, 64, 256)),
    "VGG-like, 3x32x32": (vgg, (3, 32, 32), (4, 64, 1000)),
    "EDSR-like x2, 1x16x16": (SuperResolution, (1, 16, 16), (16, 64, 256)),
}


def rows() -> Iterator[Row]:
    """Columns and rows of F from nothing but network and input, rows once that is at hand, and products beside passes.

    An interpreter keeps what it needs for the next product; a peer that starts anew with every call is compared with
    one that is made anew, and one that is kept with what a user could keep of PyTorch's.
    """
    for name, (make, shape, counts) in NETWORKS.items():
        torch.manual_seed(0)
        net, x = make().eval(), torch.randn(1, *shape)
        outputs, order = net(x).numel(), torch.randperm(x.numel())
        for count in counts:
            yield from _columns(name, net, x, order[:count], outputs)
        for count in (1, 4, 10) if outputs == 10 else ():
            yield from _rows(name, net, x, count)
        scope = LinearScope(net)
        for batch in (8, 32, 128):
            images = torch.randn(batch, *shape).contiguous(memory_format=torch.channels_last)
            yield from compare(
                f"F x: {name}, channels last",
                lambda scope=scope, x=images: scope(x, x, constants=False),
                limits={"a forward pass": _forward(net, images)},
                size=f"batch {batch}",
            )


def _columns(name: str, net: nn.Module, x: Tensor, columns: Tensor, outputs: int) -> Iterator[Row]:
    """Forward mode takes a pass per column, backward mode one per output: the dearer way is left out."""
    best = {f"torch.func.jvp under vmap, {told}": _jvp(net, x, columns, chunk) for told, chunk in CHUNKS.items()}
    whole = {f"torch.func.jacrev, {told}": _jacrev(net, x, outputs, chunk) for told, chunk in CHUNKS.items()}
    if outputs < len(columns):
        best = {peer: lambda f=f: f()[:, columns].T for peer, f in whole.items()}
    yield from compare(
        f"columns of F, interpreter made anew: {name}",
        lambda: linear_interpreter(net, x, batch_size=64).columns(columns).flatten(1),
        best,
        size=f"{len(columns)} columns",
        tolerance=1e-4,
    )


def _rows(name: str, net: nn.Module, x: Tensor, count: int) -> Iterator[Row]:
    size = "1 row" if count == 1 else f"{count} rows"
    yield from compare(
        f"rows of F, interpreter made anew: {name}",
        lambda: linear_interpreter(net, x).rows(range(count)).flatten(1),
        {"torch.func.jacrev of these outputs": _jacrev(net, x, count, None)},
        size=size,
        tolerance=1e-4,
    )
    kept = linear_interpreter(net, x)
    back, units = torch.func.vjp(net, x)[1], torch.eye(net(x).numel())[:count, None]
    yield from compare(
        f"rows of F, interpreter kept: {name}",
        lambda: kept.rows(range(count)).flatten(1),
        {"torch.func.vjp, kept, under vmap": lambda: torch.vmap(back)(units)[0].detach().flatten(1)},
        size=size,
        tolerance=1e-4,
    )


def _jacrev(net: nn.Module, x: Tensor, outputs: int, chunk: int | None) -> Callable[[], Tensor]:
    jacobian = torch.func.jacrev(lambda x: net(x).flatten()[:outputs], chunk_size=chunk)
    return lambda: jacobian(x).detach().view(outputs, -1)


def _jvp(net: nn.Module, x: Tensor, columns: Tensor, chunk: int | None) -> Callable[[], Tensor]:
    @torch.no_grad()
    def run() -> Tensor:
        units = torch.eye(x.numel())[columns].view(-1, *x.shape)
        product = torch.vmap(lambda t: torch.func.jvp(net, (x,), (t,))[1], chunk_size=chunk)
        return product(units).flatten(1)

    return run


def _forward(net: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    @torch.inference_mode()
    def run() -> Tensor:
        return net(x)

    return run
