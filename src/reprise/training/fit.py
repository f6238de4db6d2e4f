"""Train a network on arrays in memory: the one supervised loop of the library."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.data.finite import all_finite

__all__ = ["Diverged", "History", "fit", "predict"]

OnStep = Callable[[int, int, dict[str, float]], None]


class Diverged(FloatingPointError):
    """A loss or a weight is not a finite number."""


@dataclass
class History:
    """What a training left behind: the optimiser steps taken, mean losses by step, and where it diverged, if it did."""

    steps: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    diverged_at: int | None = None


def fit(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int = 128,
    optimizer: str | torch.optim.Optimizer = "adam",
    learning_rate: float = 1e-3,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    schedule: str = "constant",
    warmup: float = 0.0,
    transform: Callable[[Tensor], Tensor] | None = None,
    channels_last: bool = True,
    on_step: OnStep | None = None,
    diverged: str = "raise",
) -> History:
    """Minimise ``loss(model(transform(batch)), targets)`` by mini-batches.

    Batches run through a shuffled epoch and fill up from the next one, so every batch is full. Shuffling, dropout and
    augmentation draw from PyTorch's global generator: seed it, and the same call gives the same weights.

    Args:
        model: trained in place, on the device its parameters are on; left in the mode (train or eval) it came in.
        inputs: (N, ...) tensor of any dtype; a batch of it goes through ``transform`` first.
        targets: (N, ...) tensor.
        loss: mean loss of a batch from outputs and targets.
        epochs: passes over the data; give either this or ``steps``.
        steps: optimiser steps.
        batch_size: examples per step, at most N.
        optimizer: "adam", "adamw", "sgd", or an optimiser made by the caller (then its own learning rate, momentum and
            weight decay count). Such a one can carry hooks, say ``register_step_post_hook`` for a moving average.
        learning_rate: peak learning rate.
        momentum: of "sgd".
        weight_decay: of the named optimisers.
        clip_norm: largest norm of the gradient of all that is trained; a longer gradient is scaled down to it.
        schedule: "constant" or "cosine" (half a wave, which would be zero one step after the last).
        warmup: share of the steps over which the learning rate rises linearly to its peak.
        transform: turns a batch of inputs into what the model takes (scaling, augmentation).
        channels_last: lay four-dimensional batches and the model's convolutions out channels-last, which is two to
            three times as fast for small nets on a CPU.
        on_step: called about fifty times with (step, steps in all, {"loss": mean since the last call}).
        diverged: what to do when a loss or a weight is not finite: "raise" :class:`Diverged`, or "stop" there.

    Returns:
        History: steps taken, mean losses and where training diverged, if it did.

    Raises:
        ValueError: neither or both of ``epochs`` and ``steps``; sizes that do not fit; unknown names; nothing to train.
        Diverged: a loss or a weight is NaN or infinite.

    Example:
        >>> net = torch.nn.Linear(2, 2)
        >>> x = torch.randn(64, 2)
        >>> fit(net, x, (x[:, 0] > 0).long(), steps=20, batch_size=32).steps
        20
    """
    count = len(inputs)
    if len(targets) != count:
        raise ValueError(f"{count} inputs came with {len(targets)} targets")
    if not 0 < batch_size <= count:
        raise ValueError(f"batch_size {batch_size} does not fit {count} examples; it must be between 1 and {count}")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm must be above 0, or None for gradients as they are; it is {clip_norm}")
    if diverged not in ("raise", "stop"):
        raise ValueError(f'diverged is "raise" or "stop", not {diverged!r}')
    total = _steps(epochs, steps, count / batch_size)
    device = _device(model)
    factor = _schedule(schedule, total, warmup)
    if isinstance(optimizer, str):
        optimizer = _optimizer(model, optimizer, learning_rate, momentum, weight_decay)
    # An optimiser that has already stepped keeps its averages in the old layout, and a fused one would mix them up.
    if channels_last and not optimizer.state:
        _lay_channels_last(model)
    peaks = [group["lr"] for group in optimizer.param_groups]
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    history, every, recent = History(), max(1, total // 50), []
    queue = torch.empty(0, dtype=torch.long)
    with _mode(model, training=True):
        for step in range(1, total + 1):
            if len(queue) < batch_size:
                queue = torch.cat([queue, torch.randperm(count)])
            index, queue = queue[:batch_size], queue[batch_size:]
            batch = _prepare(inputs[index].to(device), transform, channels_last)
            value = loss(model(batch), targets[index].to(device))
            recent.append(float(value.detach()))
            if not math.isfinite(recent[-1]):
                history.diverged_at = step
                break
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, clip_norm)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor(step - 1)
            optimizer.step()
            history.steps = step
            if step % every == 0 or step == total:
                mean = sum(recent) / len(recent)
                recent.clear()
                history.losses.append((step, mean))
                if on_step is not None:
                    on_step(step, total, {"loss": mean})
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["lr"] = peak
    if history.diverged_at is None and not all(map(all_finite, model.parameters())):
        history.diverged_at = total  # the last update broke the weights, and no loss followed that would show it
    if history.diverged_at is not None and diverged == "raise":
        raise Diverged(
            f"training diverged at step {history.diverged_at} of {total} (a loss or a weight is not finite); lower the "
            "learning rate"
        )
    return history


def predict(
    model: nn.Module,
    inputs: Tensor,
    *,
    transform: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 64,
) -> Tensor:
    """The model's outputs for all inputs, computed in evaluation mode and in batches, on the CPU.

    Args:
        model: called on batches; left in the mode it came in.
        inputs: (N, ...) tensor, N at least 1.
        transform: turns a batch of inputs into what the model takes.
        batch_size: inputs per call. Small ones stay in a CPU's cache.

    Returns:
        (N, ...) tensor without gradients.

    Example:
        >>> predict(torch.nn.Linear(2, 3), torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """
    if len(inputs) == 0:
        raise ValueError("there are no inputs to predict from")
    device = _device(model)
    with _mode(model, training=False), torch.inference_mode():
        outputs = [model(_prepare(batch.to(device), transform)).cpu() for batch in inputs.split(batch_size)]
    return torch.cat(outputs)  # outside inference mode, so that the result may enter another training


def _prepare(batch: Tensor, transform: Callable[[Tensor], Tensor] | None, channels_last: bool = True) -> Tensor:
    if transform is not None:
        batch = transform(batch)
    if batch.ndim == 4 and batch.dtype == torch.uint8:
        raise ValueError("the pictures are bytes; give floats, or transform=lambda batch: batch.float() / 255")
    if channels_last and batch.ndim == 4:
        batch = batch.to(memory_format=torch.channels_last)  # unlike contiguous(), right for one channel, too
    return batch


def _lay_channels_last(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Put a model into training or evaluation mode; afterwards each of its modules is as it was."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def _device(model: nn.Module) -> torch.device:
    for parameter in model.parameters():
        return parameter.device
    raise ValueError(f"{type(model).__name__} has no parameters")


def _steps(epochs: float | None, steps: int | None, steps_per_epoch: float) -> int:
    if (epochs is None) == (steps is None):
        raise ValueError("give either epochs or steps")
    if not (steps or epochs or 0) > 0:
        raise ValueError(f"epochs and steps must be above 0; they are {epochs} and {steps}")
    return steps if steps is not None else max(1, round(epochs * steps_per_epoch))  # type: ignore[operator]


def _optimizer(model: nn.Module, name: str, lr: float, momentum: float, weight_decay: float) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(f"every parameter of {type(model).__name__} is frozen: there is nothing to train")
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)
    if name in ("adam", "adamw"):
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        return kind(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    raise ValueError(f'unknown optimizer {name!r}; there are "adam", "adamw" and "sgd"')


def _schedule(name: str, total: int, warmup: float) -> Callable[[int], float]:
    if name not in ("constant", "cosine"):
        raise ValueError(f'unknown schedule {name!r}; there are "constant" and "cosine"')
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is a share of the steps in [0, 1), not {warmup}")
    rising = round(warmup * total)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        if name == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))

    return factor
