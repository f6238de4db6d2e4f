"""Linear interpreters against PyTorch's ways to a Jacobian, and against plain forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.table import Row, compare
from reprise.explain import LinearScope, linear_interpreter


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


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {  # network, input, columns
    "4-conv net, 1x28x28": (four_convolutions, (1, 28, 28), 64),
    "VGG-like, 3x32x32": (vgg, (3, 32, 32), 1000),
    "EDSR-like x2, 1x16x16": (SuperResolution, (1, 16, 16), 64),
}


def rows() -> Iterator[Row]:
    """Columns and rows of F, then one product against forward passes of the same batch."""
    torch.manual_seed(0)
    for name, (make, shape, count) in NETWORKS.items():
        net, x = make().eval(), torch.randn(1, *shape)
        n, outputs = x.numel(), net(x).numel()
        interpreter, columns = linear_interpreter(net, x), torch.randperm(n)[:count]
        peers: dict[str, Callable[[], Tensor]] = {}
        for chunk in (None, 64, 16):
            told = "whole" if chunk is None else f"chunks of {chunk}"
            peers[f"torch.func.jacrev, {told}"] = lambda net=net, x=x, chunk=chunk, shape=(outputs, n): (
                torch.func.jacrev(net, chunk_size=chunk)(x).detach().view(shape)
            )
        forward = {
            f"torch.func.jvp under vmap, {told}": chunk for told, chunk in (("whole", None), ("chunks of 16", 16))
        }

        work = f"{count} columns of F: {name}"
        take = {peer: lambda f=f, columns=columns: f()[:, columns].T for peer, f in peers.items()}
        push = {peer: _jvp(net, x, columns, chunk) for peer, chunk in forward.items()}
        yield from compare(work, lambda i=interpreter, c=columns: i.columns(c).flatten(1), take | push, tolerance=1e-4)
        work = f"10 rows of F: {name}"
        if outputs == 10:
            yield from compare(work, lambda i=interpreter: i.rows(range(10)).flatten(1), peers, tolerance=1e-4)
    for layout, told in ((torch.contiguous_format, "contiguous"), (torch.channels_last, "channels-last")):
        for name, (make, shape, _) in NETWORKS.items():
            net = make().eval()
            x = torch.randn(32, *shape).contiguous(memory_format=layout)
            scope = LinearScope(net)
            yield from compare(
                f"F x for 32 pictures: {name}, {told}",
                lambda scope=scope, x=x: scope(x, x, constants=False),
                {"one forward pass (bar: ratio above 0.4)": _forward(net, x)},
                tolerance=None,
            )


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
