"""What the files of this room share: checks, broadcasting and the reduction of losses."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from reprise.data.finite import all_finite

__all__ = ["Denoiser", "check_finite", "check_noises", "check_same", "column", "reduce"]

# (B, ...) noisy data, and (B,) steps or noise levels, to a (B, ...) prediction; a closure holds what else it takes.
Denoiser = Callable[[Tensor, Tensor], Tensor]


def check_same(x: Tensor, other: Tensor, name: str) -> None:
    """Refuse what broadcasting would let pass in silence."""
    if x.shape != other.shape:
        raise ValueError(f"{name} has shape {tuple(other.shape)}, the data {tuple(x.shape)}; they must be the same")


def check_noises(noises: Tensor | None, steps: int, x: Tensor) -> None:
    """Noise given for every step: (steps, B, ...)."""
    if noises is not None and noises.shape != (steps, *x.shape):
        raise ValueError(f"noises are {(steps, *x.shape)}, one like x for each step, not {tuple(noises.shape)}")


def check_finite(x: Tensor) -> Tensor:
    """The sample as it is, if it is one."""
    if not all_finite(x):
        raise FloatingPointError(
            "the sample is not finite: the network or the noise it started from returned NaN or infinity; look at "
            "denoiser(x, t) for the first step"
        )
    return x


def column(values: Tensor, like: Tensor) -> Tensor:
    """(B,) or () values, shaped to be multiplied with ``like`` (B, ...), in its type and on its device."""
    return values.to(like).reshape((-1, *(1,) * (like.ndim - 1)) if values.ndim else ())


def reduce(errors: Tensor, reduction: str) -> Tensor:
    """A (B, ...) loss as its "mean", by "example" (B,), or as it is ("none")."""
    if reduction not in ("mean", "example", "none"):
        raise ValueError(f'reduction is "mean", "example" or "none", not {reduction!r}')
    if reduction == "none":
        return errors
    return errors.mean() if reduction == "mean" else errors[:, None].flatten(1).mean(1)
