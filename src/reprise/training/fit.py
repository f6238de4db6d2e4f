"""Train a network on arrays in memory: the one supervised loop of the library."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Diverged", "History", "fit", "predict"]

OnStep = Callable[[int, int, dict[str, float]], None]


class Diverged(FloatingPointError):
    """A loss was not a finite number."""


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
        optimizer: "adam", "adamw", "sgd", or an optimiser made by the caller (then its own settings count).
        learning_rate: peak learning rate.
        momentum: of "sgd".
        weight_decay: of the named optimisers.
        schedule: "constant" or "cosine" (to zero at the last step).
        warmup: share of the steps over which the learning rate rises linearly to its peak.
        transform: turns a batch of inputs into what the model takes (scaling, augmentation).
        channels_last: lay four-dimensional batches and the model's convolutions out channels-last, which is two to
            three times as fast for small nets on a CPU.
        on_step: called about fifty times with (step, steps in all, {"loss": mean since the last call}).
        diverged: what to do when a loss is not finite: "raise" :class:`Diverged`, or "stop" training there.

    Returns:
        History: steps taken, mean losses and where training diverged, if it did.

    Raises:
        ValueError: neither or both of ``epochs`` and ``steps``; sizes that do not fit; unknown names.
        Diverged: a loss was NaN or infinite.

    Example:
        >>> net = torch.nn.Linear(2, 2)
        >>> x = torch.randn(64, 2)
        >>> fit(net, x, (x[:, 0] > 0).long(), steps=20, batch_size=32).steps
        20
    """
    count = len(inputs)
    if (epochs is None) == (steps is None):
        raise ValueError("give either epochs or steps")
    if len(targets) != count:
        raise ValueError(f"{count} inputs came with {len(targets)} targets")
    if not 0 < batch_size <= count:
        raise ValueError(f"batch_size {batch_size} does not fit {count} examples; it must be between 1 and {count}")
    if diverged not in ("raise", "stop"):
        raise ValueError(f'diverged is "raise" or "stop", not {diverged!r}')
    total = steps if steps is not None else max(1, round(epochs * count / batch_size))  # type: ignore[operator]
    device = next(model.parameters()).device
    was_training = model.training
    model.train()
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if isinstance(optimizer, str):
        optimizer = _optimizer(model, optimizer, learning_rate, momentum, weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(schedule, total, warmup))

    history, every, recent = History(), max(1, total // 50), []
    queue = torch.empty(0, dtype=torch.long)
    try:
        for step in range(1, total + 1):
            if len(queue) < batch_size:
                queue = torch.cat([queue, torch.randperm(count)])
            index, queue = queue[:batch_size], queue[batch_size:]
            batch, target = inputs[index].to(device), targets[index].to(device)
            if transform is not None:
                batch = transform(batch)
            if channels_last and batch.ndim == 4:
                batch = batch.contiguous(memory_format=torch.channels_last)
            value = loss(model(batch), target)
            recent.append(float(value.detach()))
            if not math.isfinite(recent[-1]):
                history.diverged_at = step
                if diverged == "raise":
                    raise Diverged(f"the loss is {recent[-1]} at step {step} of {total}; lower the learning rate")
                break
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            scheduler.step()
            history.steps = step
            if step % every == 0 or step == total:
                mean = sum(recent) / len(recent)
                recent.clear()
                history.losses.append((step, mean))
                if on_step is not None:
                    on_step(step, total, {"loss": mean})
    finally:
        model.train(was_training)
    return history


@torch.inference_mode()
def predict(
    model: nn.Module,
    inputs: Tensor,
    *,
    transform: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 256,
) -> Tensor:
    """The model's outputs for all inputs, computed in evaluation mode and in batches, on the CPU.

    Example:
        >>> predict(torch.nn.Linear(2, 3), torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    outputs = []
    try:
        for batch in inputs.split(batch_size):
            batch = batch.to(device)
            batch = batch if transform is None else transform(batch)
            if batch.ndim == 4:
                batch = batch.contiguous(memory_format=torch.channels_last)
            outputs.append(model(batch).cpu())
    finally:
        model.train(was_training)
    return torch.cat(outputs)


def _optimizer(model: nn.Module, name: str, lr: float, momentum: float, weight_decay: float) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)
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
