"""What all attributions share: which score of which picture is explained, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor, nn

from reprise.data.finite import all_finite

__all__ = [
    "Attribution", "Targets", "batches", "class_index", "gradients", "join", "likes_channels_last", "select_scores",
]  # fmt: skip

Targets = None | int | Tensor | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Attribution:
    """What an explanation found. Targets of shape (N, T) put a T behind the N of map, weights and gradient.

    Attributes:
        map: (N, H, W) how much each position speaks for the target.
        logits: what the network returned.
        weights: (N, K) weight of each feature map; a list with one entry per layer where several are explained.
        gradient: (N, C, H, W) signed gradient of the score by the picture.
    """

    map: Tensor
    logits: Tensor
    weights: Tensor | list[Tensor] | None = None
    gradient: Tensor | None = None


def batches(model: nn.Module, images: Tensor, targets: Targets, batch_size: int) -> Iterator[tuple[Tensor, Targets]]:
    """Check pictures and targets, and cut them into chunks that a CPU's cache can hold.

    Pictures on the CPU come channels-last where that is faster. Where ``targets`` is a function everything is one
    chunk, for the function may know more about the batch than it is given.

    Args:
        model: what will see them.
        images: (N, C, H, W) floats.
        targets: as :func:`select_scores` takes them, for all N pictures.
        batch_size: pictures per chunk.

    Raises:
        ValueError: no floats, no pictures, not four dimensions, NaN or infinite; targets that do not fit.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images must be a tensor (N, C, H, W) with N > 0, not {_describe(images)}")
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; give floats, scaled as the network was trained")
    if not all_finite(images):
        raise ValueError("images hold NaN or infinite values; clean them first")
    if isinstance(targets, Tensor):
        if targets.dtype != torch.long or targets.ndim not in (1, 2) or len(targets) != len(images):
            raise ValueError(
                f"targets must be a class number, a LongTensor (N,) or (N, T) with N = {len(images)}, "
                f"or a function of the output, not {_describe(targets)}"
            )
    elif not (
        targets is None or callable(targets) or (isinstance(targets, Integral) and not isinstance(targets, bool))
    ):
        raise ValueError(f"targets must be None, an int, a LongTensor or a function, not {_describe(targets)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    size = len(images) if callable(targets) else batch_size
    rearrange = images.device.type == "cpu" and likes_channels_last(model, images[:size])
    for start in range(0, len(images), size):
        chunk = images[start : start + size].detach()
        if rearrange:
            # Not .contiguous(): with one channel that returns the tensor as it is, and the convolutions stay slow.
            chunk = torch.empty_like(chunk, memory_format=torch.channels_last).copy_(chunk)
        yield chunk, targets[start : start + size] if isinstance(targets, Tensor) else targets


def likes_channels_last(model: nn.Module, images: Tensor, passes: int = 1) -> bool:
    """Most networks are up to twice as fast that way; but every pass copies weights that are laid out otherwise."""
    weights = [p for p in model.parameters() if p.ndim == 4]
    copied = sum(p.numel() for p in weights if not p.is_contiguous(memory_format=torch.channels_last))
    return passes * copied <= 16 * images.numel()


def select_scores(output: Tensor, targets: Targets) -> Tensor:
    """The scores to explain, before any softmax.

    Args:
        output: what the network returned, for class targets the logits (N, classes).
        targets: None for the class with the highest logit, one class for all pictures, (N,) one class each,
            (N, T) T classes each, or a function from the output to (N,) scores (the log-probability of a caption, a
            Q-value, the logit of a pixel).

    Returns:
        (N, T) scores; T is 1 unless targets are (N, T).

    Raises:
        ValueError: the output is not (N, classes), a class is out of range, a function returns no (N,) scores.

    Example:
        >>> select_scores(torch.tensor([[1.0, 3.0], [5.0, 2.0]]), None)
        tensor([[3.],
                [5.]])
    """
    if callable(targets):
        scores = targets(output)
        count = len(output) if isinstance(output, Tensor) else None
        if not isinstance(scores, Tensor) or scores.ndim != 1 or count not in (None, len(scores)):
            raise ValueError(
                f"the target function must return one score per picture, (N,), not {_describe(scores)}; "
                f"sum or index what is left over"
            )
        return scores[:, None]
    return output.gather(1, class_index(output, targets))


def class_index(output: Tensor, targets: int | Tensor | None) -> Tensor:
    """The classes to explain, (N, T), checked against the logits (N, classes)."""
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise ValueError(
            f"class targets need a network that returns logits (N, classes), not {_describe(output)}; "
            f"give a function from the output to (N,) scores"
        )
    if targets is None:
        return output.argmax(1, keepdim=True)
    index = torch.as_tensor(targets, device=output.device)
    if index.min() < 0 or index.max() >= output.shape[1]:
        wrong = int(index.min()) if index.min() < 0 else int(index.max())
        raise ValueError(f"target {wrong} is out of range: the network has classes 0 to {output.shape[1] - 1}")
    return index.expand(len(output), 1) if index.ndim == 0 else index.view(len(output), -1)


def join(parts: list[Tensor], targets: Targets) -> Tensor:
    """Put the (n, T, ...) results of the chunks together; without several targets per picture the T goes."""
    whole = torch.cat(parts)
    return whole if isinstance(targets, Tensor) and targets.ndim == 2 else whole.squeeze(1)


def gradients(scores: Tensor, inputs: list[Tensor], why: str) -> Iterator[list[Tensor | None]]:
    """The gradient of each column of (N, T) scores by the inputs: T passes over the graph, the fastest way measured.

    Parameters get no gradient: only what leads to the inputs is differentiated. None stands for an input that a score
    does not depend on.

    Raises:
        ValueError: a score depends on none of the inputs; ``why`` is the message.
    """
    columns = scores.sum(0).unbind() if scores.requires_grad else ()
    for left, column in zip(reversed(range(len(columns))), columns, strict=True):
        found = torch.autograd.grad(column, inputs, retain_graph=left > 0, allow_unused=True)
        if all(gradient is None for gradient in found):
            raise ValueError(why)
        yield list(found)
    if not columns:
        raise ValueError(why)


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor {tuple(value.shape)}"
    return f"a {type(value).__name__}"
