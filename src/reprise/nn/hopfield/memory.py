"""The memory of a modern Hopfield network: energy, update and retrieval.

Stored patterns X = (x_1 .. x_N), a state ξ and an inverse temperature β define the energy (equation 2)

    E(ξ) = -lse(β, Xᵀξ) + ½ ξᵀξ + β⁻¹ log N + ½ M²,   lse(β, z) = β⁻¹ log Σ exp(β z_i),   M = max ‖x_i‖,

which the update ξ ← X softmax(β Xᵀξ) (equation 3) never raises (theorem 1).

Source: Ramsauer et al., Hopfield Networks is All You Need, ICLR 2021, sections 2 and A.1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.data.finite import all_finite

__all__ = [
    "AssociativeMemory",
    "Retrieval",
    "energy",
    "retrieve",
    "update",
]

LARGE = 2**23  # associations: so many are not held, as they would leave the processor's cache
MOST_UPDATES = 10_000  # of a retrieval that runs until it has converged


class Retrieval(NamedTuple):
    """What a retrieval went through.

    Attributes:
        state: (..., L, d), the last state.
        association: (..., L, N), the softmax that made it; each row sums to 1.
        energies: (T + 1, ..., L), before the first and after every update.
        steps: (..., L) integers, the updates that each state took before it stopped.
    """

    state: Tensor
    association: Tensor
    energies: Tensor
    steps: Tensor


def energy(xi: Tensor, X: Tensor, beta: float, mask: Tensor | None = None) -> Tensor:
    """The energy of states (equation 2): between 0 and 2M² for every state in the convex hull of the patterns.

    Args:
        xi: (..., L, d) states.
        X: (..., N, d) stored patterns.
        beta: inverse temperature, above 0.
        mask: (..., N) booleans, True at patterns to ignore.

    Returns:
        (..., L); half precision comes back in float32, which the squares need.

    Raises:
        ValueError: beta is not positive, sizes differ, or every pattern is masked.

    Example:
        >>> X = torch.eye(4)
        >>> energy(X[:1], X, beta=10.0) < energy(X.mean(0, keepdim=True), X, beta=10.0)
        tensor([True])
    """
    check(xi, X, beta, mask)
    xi, X = precise(xi), precise(X)
    squares = X.square().sum(-1)
    count = torch.tensor(float(X.shape[-2]), device=X.device)
    if mask is not None:
        squares = squares.masked_fill(mask, 0)
        count = (~mask).sum(-1, keepdim=True).to(X.dtype)
    lse = torch.logsumexp(_logits(xi, X, beta, mask), -1) / beta
    largest = squares.amax(-1, keepdim=True)
    return -lse + 0.5 * xi.square().sum(-1) + count.log() / beta + 0.5 * largest


def update(xi: Tensor, X: Tensor, beta: float, mask: Tensor | None = None) -> Tensor:
    """One update, ξ ← X softmax(β Xᵀξ) (equation 3), which is ξ - ∇E(ξ).

    Args:
        xi: (..., L, d) states.
        X: (..., N, d) stored patterns.
        beta: inverse temperature, above 0.
        mask: (..., N) booleans, True at patterns to ignore.

    Returns:
        (..., L, d), in the dtype of ``xi``.

    Raises:
        ValueError: as :func:`energy`.

    Example:
        >>> update(torch.tensor([[0.9, 0.2]]), torch.eye(2), beta=100.0).round()
        tensor([[1., 0.]])
    """
    found = retrieve(xi, X, beta, mask=mask)
    assert isinstance(found, Tensor)
    return found


def retrieve(
    xi: Tensor,
    X: Tensor,
    beta: float,
    steps: int | None = 1,
    eps: float = 1e-4,
    *,
    mask: Tensor | None = None,
    stop_on: str = "association",
    return_trace: bool = False,
) -> Tensor | Retrieval:
    """Update states ``steps`` times, or until each of them has settled.

    Every state stops for itself, so what else is in the batch changes nothing.

    Args:
        xi: (..., L, d) states.
        X: (..., N, d) stored patterns.
        beta: inverse temperature, above 0.
        steps: updates; None goes on until a state moves by ``eps`` or less.
        eps: above 0.
        mask: (..., N) booleans, True at patterns to ignore.
        stop_on: what is compared with ``eps`` in the 2-norm from one update to the next, with ``steps=None``: the
            "association" (the paper's library) or the "state".
        return_trace: return a :class:`Retrieval` instead of the states.

    Returns:
        (..., L, d), in the dtype of ``xi``; computed in float32 at least.

    Raises:
        ValueError: as :func:`energy`; steps below 1, eps not above 0, or an unknown ``stop_on``.
        RuntimeError: not settled after 10,000 updates.

    Example:
        >>> X = torch.randn(100, 64)
        >>> torch.allclose(retrieve(X + 0.1 * torch.randn_like(X), X, beta=2.0), X, atol=1e-3)
        True
    """
    check(xi, X, beta, mask)
    if steps is not None and steps < 1:
        raise ValueError(f"steps is at least 1, or None for until settled; it is {steps}")
    if not eps > 0:
        raise ValueError(f"eps must be above 0, not {eps}")
    if stop_on not in ("association", "state"):
        raise ValueError(f'stop_on is "association" or "state", not {stop_on!r}')
    dtype, xi, X = xi.dtype, precise(xi), precise(X)
    if steps is not None and not return_trace and xi.ndim == X.ndim == 2 and len(xi) * len(X) > LARGE:
        return _retrieve_in_pieces(xi, X, beta, steps, mask).to(dtype)
    energies = [energy(xi, X, beta, mask)] if return_trace else []
    active = torch.ones((), dtype=torch.bool, device=xi.device)  # widens to (..., L, 1) once states begin to stop
    taken = torch.zeros((), dtype=torch.long, device=xi.device)
    old: Tensor | None = None
    for step in range(1, (MOST_UPDATES if steps is None else steps) + 1):
        p = torch.softmax(_logits(xi, X, beta, mask), -1)
        new = p @ X
        taken = taken + active
        moved = new - xi if stop_on == "state" else (p - old if old is not None else None)
        xi, old = torch.where(active, new, xi) if step > 1 else new, p
        if return_trace:
            energies.append(energy(xi, X, beta, mask))
        if steps is None and moved is not None:
            active = active & (moved.norm(dim=-1, keepdim=True) > eps)
            if not active.any():
                break
    else:
        if steps is None:
            raise RuntimeError(f"a state still moved by more than {eps} after {MOST_UPDATES} updates; raise eps")
    if not return_trace:
        return xi.to(dtype)
    counts = taken.expand(*xi.shape[:-1], 1).squeeze(-1) if taken.ndim else taken.expand(xi.shape[:-1])
    return Retrieval(xi.to(dtype), p, torch.stack(energies), counts)


def _retrieve_in_pieces(xi: Tensor, X: Tensor, beta: float, steps: int, mask: Tensor | None) -> Tensor:
    """The same without ever holding all associations: attention with the patterns as keys and as values."""
    xi, X = xi[None, None], X[None, None]
    kept = None if mask is None else ~mask[None]
    for _ in range(steps):
        xi = F.scaled_dot_product_attention(beta * xi, X, X, kept, scale=1.0)
    return xi[0, 0]


class AssociativeMemory(nn.Module):
    """Patterns to be retrieved from noisy or partial ones: no projection, no normalisation, nothing to train.

    Args:
        patterns: (N, d) floats, or (..., N, d) for one memory per batch element.
        beta: inverse temperature, above 0; None for 8 / √d, which suits patterns of unit variance.
        steps: updates, at least 1; None for until settled.
        eps: see :func:`retrieve`.

    Raises:
        ValueError: as :func:`retrieve`, or patterns that are not finite.

    Example:
        >>> patterns = torch.randn(1000, 64)
        >>> noisy = patterns + 0.3 * torch.randn_like(patterns)
        >>> AssociativeMemory(patterns).nearest(noisy).equal(torch.arange(1000))
        True
    """

    patterns: Tensor

    def __init__(self, patterns: Tensor, beta: float | None = None, steps: int | None = 1, eps: float = 1e-4) -> None:
        super().__init__()
        self.beta = 8 / math.sqrt(patterns.shape[-1]) if beta is None else beta
        self.steps, self.eps = steps, eps
        check(patterns, patterns, self.beta, None)
        if not all_finite(patterns):
            raise ValueError("patterns hold NaN or infinite values; clean them before they are stored")
        self.register_buffer("patterns", patterns)

    def forward(self, xi: Tensor, mask: Tensor | None = None) -> Tensor:
        """(..., L, d) states to the patterns they retrieve, same shape; ``mask`` (..., N) is True at what to ignore."""
        found = retrieve(xi, self.patterns, self.beta, self.steps, self.eps, mask=mask)
        assert isinstance(found, Tensor)
        return found

    def energy(self, xi: Tensor) -> Tensor:
        """(..., L) energies of (..., L, d) states."""
        return energy(xi, self.patterns, self.beta)

    def association(self, xi: Tensor, mask: Tensor | None = None) -> Tensor:
        """(..., L, N) shares of the patterns in what the last update retrieves."""
        trace = retrieve(xi, self.patterns, self.beta, self.steps, self.eps, mask=mask, return_trace=True)
        assert isinstance(trace, Retrieval)
        return trace.association

    def nearest(self, xi: Tensor) -> Tensor:
        """(..., L) indices of the patterns with the largest shares."""
        return self.association(xi).argmax(-1)


# Helpers --------------------------------------------------------------------------------------------------------------


def _logits(xi: Tensor, X: Tensor, beta: float, mask: Tensor | None) -> Tensor:
    logits = (beta * xi) @ X.mT
    return logits if mask is None else logits.masked_fill(mask[..., None, :], -math.inf)


def precise(x: Tensor) -> Tensor:
    """Squares and exponentials leave the range of half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def check(xi: Tensor, X: Tensor, beta: float, mask: Tensor | None) -> None:
    if not (beta > 0 and math.isfinite(beta)):
        raise ValueError(f"beta is an inverse temperature above 0, not {beta}")
    if xi.ndim < 2 or X.ndim < 2 or xi.shape[-1] != X.shape[-1]:
        raise ValueError(f"states are (..., L, d) and patterns (..., N, d), not {tuple(xi.shape)} and {tuple(X.shape)}")
    if not (xi.is_floating_point() and X.is_floating_point()):
        raise ValueError(f"states and patterns are floats, not {xi.dtype} and {X.dtype}; call .float() on them")
    if X.shape[-2] == 0:
        raise ValueError("there are no stored patterns: N must be at least 1")
    if mask is not None:
        if mask.dtype != torch.bool or mask.shape[-1:] != X.shape[-2:-1]:
            raise ValueError(
                f"the mask is (..., {X.shape[-2]}) booleans, True = ignore, not {tuple(mask.shape)} {mask.dtype}"
            )
        if mask.all(-1).any():
            raise ValueError("a set has all its patterns masked: nothing is stored; leave it out of the batch")
