"""What theory says of modern Hopfield memories: separation, errors, capacity, and the kinds of fixed points.

Source: Ramsauer et al., Hopfield Networks is All You Need, ICLR 2021, sections 2 and A.1.
"""

from __future__ import annotations

import math

import torch
from scipy.special import lambertw
from torch import Tensor

from reprise.nn.hopfield.memory import check, precise

__all__ = [
    "capacity_bound",
    "capacity_constant",
    "classify_fixed_point",
    "classify_heads",
    "retrieval_error_bound",
    "separation",
    "well_separated",
]


def separation(X: Tensor) -> Tensor:
    """Δ_i = min over j ≠ i of x_iᵀx_i - x_iᵀx_j (definition 2): how far each pattern stands out from the others.

    Args:
        X: (..., N, d).

    Returns:
        (..., N); infinite where N = 1.

    Example:
        >>> separation(2 * torch.eye(3))
        tensor([4., 4., 4.])
    """
    X = precise(X)
    products = X @ X.mT
    own = products.diagonal(dim1=-2, dim2=-1)
    itself = torch.eye(X.shape[-2], dtype=torch.bool, device=X.device)
    return (own[..., None] - products).masked_fill(itself, math.inf).amin(-1)


def well_separated(X: Tensor, beta: float) -> Tensor:
    """Whether each pattern has a fixed point of its own near it (the condition of theorem 4, assumption A3).

    Then f is a contraction on the ball of radius 1 / (β N M) around the pattern.

    Args:
        X: (..., N, d).
        beta: inverse temperature, above 0.

    Returns:
        (..., N) booleans.

    Example:
        >>> well_separated(4 * torch.eye(3), beta=1.0)
        tensor([True, True, True])
    """
    check(X, X, beta, None)
    N = X.shape[-2]
    if N == 1:  # the only pattern is found from everywhere
        return torch.ones(X.shape[:-1], dtype=torch.bool, device=X.device)
    largest = precise(X).norm(dim=-1).amax(-1, keepdim=True)
    needed = 2 / (beta * N) + (2 * (N - 1) * N * beta * largest.square()).log() / beta
    return separation(X) >= needed


def retrieval_error_bound(X: Tensor, beta: float, distance: Tensor | float) -> Tensor:
    """How far one update may land from x_i (theorem 4): 2 (N - 1) exp(-β (Δ_i - 2 r M)) M.

    Args:
        X: (..., N, d) patterns.
        beta: inverse temperature, above 0.
        distance: r = ‖ξ - x_i‖ of the state that is updated, (..., N) or one number for all i.

    Returns:
        (..., N), the largest ‖f(ξ) - x_i‖.

    Example:
        >>> bool((retrieval_error_bound(8 * torch.eye(3), 1.0, 0.5) < 1e-20).all())
        True
    """
    check(X, X, beta, None)
    N, M = X.shape[-2], precise(X).norm(dim=-1).amax(-1, keepdim=True)
    return 2 * (N - 1) * torch.exp(-beta * (separation(X) - 2 * distance * M)) * M


def capacity_constant(d: int, K: float, beta: float, p: float) -> float:
    """The base c of the capacity that is guaranteed for random patterns (theorem 3).

    Args:
        d: dimension, at least 2.
        K: the patterns lie on the sphere of radius K √(d - 1).
        beta: inverse temperature, above 0.
        p: probability that the guarantee does not hold, in (0, 1].

    Raises:
        ValueError: an argument is out of range, or the theorem gives nothing here (c below (2 / √p)^(4 / (d - 1))).

    Example:
        >>> round(capacity_constant(d=20, K=3, beta=1, p=0.001), 3), round(capacity_constant(75, 1, 1, 0.001), 3)
        (3.155, 1.372)
    """
    if d < 2 or not K > 0 or not beta > 0 or not 0 < p <= 1:
        raise ValueError(f"d >= 2, K > 0, beta > 0 and 0 < p <= 1 are needed, not d={d}, K={K}, beta={beta}, p={p}")
    argument = 2 * beta * K**2 * p * (d - 1)
    a = 2 / (d - 1) * (1 + math.log(argument))
    b = 2 * K**2 * beta / 5
    c = b / float(lambertw(math.exp(a + math.log(b))).real)
    least = (2 / math.sqrt(p)) ** (4 / (d - 1))
    if c < least:
        raise ValueError(f"the theorem needs c >= {least:.4g}, but c is {c:.4g}; take a larger d, K or beta")
    return c


def capacity_bound(d: int, K: float, beta: float, p: float) -> float:
    """How many random patterns can be stored for sure: √p c^((d - 1) / 4) (theorem 3), exponential in d.

    Arguments and errors are those of :func:`capacity_constant`.

    Example:
        >>> round(capacity_bound(d=20, K=3, beta=1, p=0.001), 2)
        7.41
    """
    return math.sqrt(p) * capacity_constant(d, K, beta, p) ** ((d - 1) / 4)


def classify_fixed_point(p: Tensor, threshold: float = 0.9) -> Tensor:
    """The size k of the metastable state that an association belongs to: the fewest patterns that hold the mass.

    1 means one pattern is retrieved, N that nearly all of them are averaged.

    Args:
        p: (..., N) shares that sum to 1.
        threshold: the mass, in (0, 1].

    Returns:
        (...) integers in 1..N.

    Raises:
        ValueError: the threshold is out of range.

    Example:
        >>> classify_fixed_point(torch.tensor([[0.95, 0.05, 0.0], [0.4, 0.3, 0.3]]))
        tensor([1, 3])
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is a mass in (0, 1], not {threshold}")
    mass = precise(p).sort(-1, descending=True).values.cumsum(-1)
    return 1 + (mass[..., :-1] < threshold - 1e-6).sum(-1)  # the slack is for the rounding of the sum


def classify_heads(association: Tensor, threshold: float = 0.9) -> list[str]:
    """What each head does, by the median metastable size k over its queries (figure 2 of the paper).

    Args:
        association: (B, H, L, N).
        threshold: see :func:`classify_fixed_point`.

    Returns:
        H classes: "I" averages globally (k > N/2), "II" and "III" are large and medium metastable states (k > N/8,
        k > N/32), "IV" retrieves few patterns. The limits are ours, in the spirit of the paper's for N = 512.

    Example:
        >>> classify_heads(torch.stack([torch.full((5, 40), 1 / 40), torch.eye(40)[:5]])[None])
        ['I', 'IV']
    """
    if association.ndim != 4 or 0 in association.shape:
        raise ValueError(f"the association is (B, H, L, N) and not empty; it is {tuple(association.shape)}")
    N = association.shape[-1]
    medians = classify_fixed_point(association, threshold).transpose(0, 1).flatten(1).float().median(1).values
    return ["I" if k > N / 2 else "II" if k > N / 8 else "III" if k > N / 32 else "IV" for k in medians.tolist()]
