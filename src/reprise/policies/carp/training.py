"""The loop that both stages of CARP are trained by, and the published courses of their learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reprise.training.fit import Diverged, OnStep
from reprise.training.flat_adamw import FlatAdamW

__all__ = ["cosine", "flat_then_linear", "minimize"]


def minimize(
    loss: Callable[[Tensor], Tensor],
    examples: int,
    optimizer: FlatAdamW,
    *,
    steps: int,
    batch_size: int,
    course: Callable[[float], float],
    clip_norm: float,
    after_step: Callable[[], None] | None = None,
    on_step: OnStep | None = None,
    name: str = "loss",
) -> None:
    """Minimise ``loss(rows)`` by shuffled batches; every batch is full, filled up from the next epoch.

    The learning rate follows ``course``, the weight decay half a cosine down to zero. Afterwards the optimiser's
    parameters have memory of their own again.

    Args:
        loss: mean loss of the examples (batch_size,) of these numbers.
        examples: how many there are.
        optimizer: with the learning rate and weight decay of the beginning.
        steps: of the optimiser.
        batch_size: examples per step; all of them where there are fewer.
        course: factor of the learning rate at a share of the training in [0, 1).
        clip_norm: largest norm of a gradient.
        after_step: called after every step.
        on_step: called about fifty times with (step, steps, {name: mean since the last call}).
        name: of the loss.

    Raises:
        ValueError: no steps, or no examples.
        Diverged: a loss is not finite.
    """
    if steps < 1 or batch_size < 1 or examples < 1:
        raise ValueError(f"{steps} steps of {batch_size} out of {examples} examples are no training")
    rate, decay = optimizer.learning_rate, optimizer.weight_decay
    batch_size, queue = min(batch_size, examples), torch.empty(0, dtype=torch.long)
    every, recent = max(1, steps // 50), list[float]()
    for step in range(1, steps + 1):
        if len(queue) < batch_size:
            queue = torch.cat([queue, torch.randperm(examples)])
        rows, queue = queue[:batch_size], queue[batch_size:]
        done = (step - 1) / steps
        optimizer.learning_rate, optimizer.weight_decay = rate * course(done), decay * cosine(done)
        optimizer.zero_grad()
        value = loss(rows)
        recent.append(float(value.detach()))
        if not math.isfinite(recent[-1]):
            raise Diverged(f"the {name} is not finite at step {step} of {steps}; lower the learning rate")
        value.backward()
        optimizer.step(clip_norm)
        if after_step is not None:
            after_step()
        if on_step is not None and (step % every == 0 or step == steps):
            on_step(step, steps, {name: sum(recent) / len(recent)})
            recent.clear()
    optimizer.release()


def cosine(done: float, end: float = 0.0) -> float:
    """Half a cosine from 1 to ``end``.

    Example:
        >>> cosine(0.0), round(cosine(0.5, end=0.3), 6)
        (1.0, 0.65)
    """
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * done))


def flat_then_linear(done: float, flat: float = 0.05, end: float = 0.1) -> float:
    """1 for the first ``flat`` of the training, then a line down to ``end``.

    Example:
        >>> flat_then_linear(0.05), round(flat_then_linear(0.525), 6)
        (1.0, 0.55)
    """
    return 1.0 if done < flat else end + (1 - end) * (1 - done) / (1 - flat)
