"""A chunk by CARP against diffusion policies; its stacked tokenizers against grouped convolutions and one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.table import Row, compare
from reprise.policies import ActionTokenizer, CARPPolicy, DiffusionPolicy, ImitationPolicy, PerStepPolicy, Shapes
from reprise.policies.carp.layers import StackedConv, StackedNorm
from reprise.training import FlatAdamW

SHAPES = Shapes({"state": (20,)}, action=2)  # Push-T in the paper


def rows() -> Iterator[Row]:
    """Plans at published and laptop sizes for one and many environments; a layer; a training step of ten dimensions."""
    published, laptop = ("published", 8, [256, 512, 1024]), ("laptop", 4, [64, 128])
    for (size, depth, widths), batch in ((published, 1), (laptop, 1), (laptop, 50)):
        carp, seen = _ready(CARPPolicy(depth=depth)), torch.randn(batch, 20)
        diffusion = DiffusionPolicy(network_options={"down_dims": widths})
        _ready(diffusion)
        peers = {
            "Diffusion Policy, DDIM-10": _planning(diffusion.sampled(inference_steps=10), seen),
            "Diffusion Policy, DDPM-100 (its default)": _planning(diffusion, seen),
            "one number at a time": _planning(_ready(PerStepPolicy(depth=depth)), seen),
        }
        work = f"plan 16 actions for {batch}, depth {depth} against U-Net {tuple(widths)} ({size})"
        yield from compare(work, _planning(carp, seen), peers, tolerance=None)  # other policies

    count, x = 10, torch.randn(10, 256, 16, 4)
    conv, norm = StackedConv(count, 4, 4, 16), StackedNorm(count, 4)
    grouped = nn.Conv1d(4 * count, 4 * count, 3, padding=1, groups=count)
    groups = nn.GroupNorm(count, 4 * count, 1e-6)
    with torch.no_grad():
        grouped.weight.copy_(conv.weight[..., 0].flatten(0, 1))
        grouped.bias.zero_()
    channels = x.permute(1, 0, 3, 2).reshape(256, 4 * count, 16)
    yield from compare(
        "norm and convolution of 10 networks of 4 channels, 256 chunks of 16, forward and backward",
        _step([norm, conv], x, lambda y: y),
        {
            "GroupNorm and grouped Conv1d": _step(
                [groups, grouped], channels, lambda y: y.view(256, count, 4, 16).permute(1, 0, 3, 2)
            )
        },
        tolerance=1e-4,
    )

    chunks = 2 * torch.rand(256, 16, 10) - 1
    together, alone = ActionTokenizer(10), [ActionTokenizer(1) for _ in range(10)]
    yield from compare(
        "training step of the tokenizers of 10 dimensions, 256 chunks",
        _training([together], [chunks]),
        {"one dimension after the other": _training(alone, list(chunks.split(1, 2)))},
        tolerance=None,  # other weights
    )


def _ready(policy: ImitationPolicy) -> ImitationPolicy:
    policy.setup(SHAPES)
    return policy


def _planning(policy: ImitationPolicy, seen: Tensor) -> Callable[[], Tensor]:
    return lambda: policy.plan(seen)


def _step(layers: list[nn.Module], x: Tensor, view: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
    x = x.clone().requires_grad_()

    def work() -> Tensor:
        y = layers[1](layers[0](x))
        torch.autograd.grad(y.sum(), [x, *(p for layer in layers for p in layer.parameters())])
        return view(y)

    return work


def _training(tokenizers: list[ActionTokenizer], data: list[Tensor]) -> Callable[[], None]:
    optimizers = [FlatAdamW(t.parameters(), 3e-4, networks=t.action_dim, betas=(0.5, 0.9)) for t in tokenizers]

    def work() -> None:
        for tokenizer, optimizer, chunks in zip(tokenizers, optimizers, data, strict=True):
            optimizer.zero_grad()
            tokenizer.loss(chunks).sum().backward()
            optimizer.step(10.0)

    return work
