"""A chunk by CARP against diffusion policies; its stacked tokenizers against grouped convolutions and one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.resources import count_flops
from benchmarks.table import Row, compare
from reprise.policies import ActionTokenizer, CARPPolicy, DiffusionPolicy, ImitationPolicy, PerStepPolicy, Shapes
from reprise.policies.carp.layers import StackedConv, StackedNorm
from reprise.training import FlatAdamW

SHAPES, COUNT = Shapes({"state": (20,)}, action=2), 10  # Push-T in the paper; networks side by side


def rows() -> Iterator[Row]:
    """Plans at published and laptop sizes for one and many environments; a layer; a training step of ten dimensions."""
    published, laptop = ("published", 8, [256, 512, 1024]), ("laptop", 4, [64, 128])
    for (size, depth, widths), batches in ((laptop, (1, 16, 50)), (published, (1,))):
        carp, alone = _ready(CARPPolicy(depth=depth)), _ready(PerStepPolicy(depth=depth))
        diffusion = DiffusionPolicy(network_options={"down_dims": widths})
        _ready(diffusion)
        for batch in batches:
            for policy in (carp, alone, diffusion):
                policy.reset()  # other environments
            seen, quick = torch.randn(batch, 20), size == "laptop" and batch < 50  # others would take seconds
            ours = _planning(carp, seen)
            yield from compare(
                f"plan 16 actions, depth {depth} against U-Net {tuple(widths)} ({size})",
                ours,
                {
                    "Diffusion Policy, DDIM-10": _planning(diffusion.sampled(inference_steps=10), seen),
                    "one number at a time": _planning(alone, seen),
                },
                defaults={"Diffusion Policy, DDPM-100": _planning(diffusion, seen)} if quick else None,
                size=f"{batch} environments",
                tolerance=None,  # other policies
                flops=count_flops(ours),
            )
    for batch in (64, 256, 1024):
        yield from _layers(batch)
        chunks = 2 * torch.rand(batch, 16, COUNT) - 1
        together, alone = ActionTokenizer(COUNT), [ActionTokenizer(1) for _ in range(COUNT)]
        yield from compare(
            f"training step of the tokenizers of {COUNT} dimensions",
            _training([together], [chunks]),
            {"one dimension after the other": _training(alone, list(chunks.split(1, 2)))},
            size=f"{batch} chunks",
            tolerance=None,  # other weights
        )


def _layers(batch: int) -> Iterator[Row]:
    x = torch.randn(COUNT, batch, 16, 4)
    conv, norm = StackedConv(COUNT, 4, 4, 16), StackedNorm(COUNT, 4)
    grouped = nn.Conv1d(4 * COUNT, 4 * COUNT, 3, padding=1, groups=COUNT)
    groups = nn.GroupNorm(COUNT, 4 * COUNT, 1e-6)
    with torch.no_grad():
        grouped.weight.copy_(conv.weight[..., 0].flatten(0, 1))
        grouped.bias.zero_()
    channels = x.permute(1, 0, 3, 2).reshape(batch, 4 * COUNT, 16)

    def view(y: Tensor) -> Tensor:
        return y.view(batch, COUNT, 4, 16).permute(1, 0, 3, 2)

    yield from compare(
        f"norm and convolution of {COUNT} networks of 4 channels, chunks of 16, forward and backward",
        _step([norm, conv], x, lambda y: y),
        {"GroupNorm and grouped Conv1d": _step([groups, grouped], channels, view)},
        size=f"{batch} chunks",
        tolerance=1e-4,
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
