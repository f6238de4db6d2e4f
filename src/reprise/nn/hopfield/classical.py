"""The memories that came before: Hebb's rule of 1982, and dense memories with polynomial or exponential energies.

All store patterns of -1 and +1 and update them bit by bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["DenseMemory", "HebbianMemory"]


class HebbianMemory(nn.Module):
    """The classical Hopfield network: W = X Xᵀ / d with zero diagonal, ξ ← sign(W ξ); about 0.138 d patterns fit.

    Source: Hopfield, Neural networks and physical systems with emergent collective computational abilities, 1982.

    Args:
        patterns: (N, d) of -1 and +1.

    Raises:
        ValueError: other entries or shapes.

    Example:
        >>> patterns = torch.randn(3, 64).sign()
        >>> noisy = torch.where(torch.arange(64) < 6, -patterns, patterns)
        >>> HebbianMemory(patterns)(noisy).equal(patterns)
        True
    """

    weight: Tensor

    def __init__(self, patterns: Tensor) -> None:
        super().__init__()
        X = _signs(patterns, "patterns")
        self.register_buffer("weight", (X.T @ X / X.shape[1]).fill_diagonal_(0))

    def forward(self, xi: Tensor, steps: int = 20, order: str = "synchronous") -> Tensor:
        """Update states until they are stable.

        Args:
            xi: (L, d) of -1 and +1.
            steps: most passes over the bits.
            order: "synchronous" (all bits at once) or "random" (one after the other, in an order of its own per pass).

        Returns:
            (L, d) of -1 and +1; a bit whose field is 0 stays.
        """
        _check_order(order)
        state = _signs(xi, "states").to(self.weight)
        for _ in range(steps):
            new = state.clone()
            if order == "synchronous":
                new = _sign(state @ self.weight, state)
            else:
                for j in torch.randperm(state.shape[1]).tolist():
                    new[:, j] = _sign(new @ self.weight[j], new[:, j])
            if new.equal(state):
                break
            state = new
        return state.to(xi.dtype)

    def energy(self, xi: Tensor) -> Tensor:
        """-½ ξᵀWξ of (L, d) states."""
        xi = xi.to(self.weight)
        return -0.5 * (xi @ self.weight * xi).sum(-1)


class DenseMemory(nn.Module):
    """Dense associative memory: energy -Σ F(x_iᵀξ), F(z) = zⁿ or exp(z).

    A bit takes the sign of the difference that it makes to the energy. About d^(n-1) patterns fit with zⁿ, 2^(d/2) with
    exp. Neither the difference needs a loop over bits nor a tensor of N x d: for bits ±1, (z - 2ξx)ⁿ is a sum of powers
    of z times 1 or x, and exp(z + x) - exp(z - x) = 2 x sinh(1) exp(z): matrix products.

    Source: Krotov and Hopfield, Dense associative memory for pattern recognition, 2016; Demircigil et al., On a model
    of associative memory with huge storage capacity, 2017.

    Args:
        patterns: (N, d) of -1 and +1.
        degree: n, at least 2; None for exp.

    Raises:
        ValueError: other entries or shapes, or a degree below 2.

    Example:
        >>> patterns = torch.randn(100, 64).sign()
        >>> noisy = torch.where(torch.arange(64) < 6, -patterns, patterns)
        >>> DenseMemory(patterns)(noisy).equal(patterns)
        True
    """

    patterns: Tensor

    def __init__(self, patterns: Tensor, degree: int | None = None) -> None:
        super().__init__()
        if degree is not None and degree < 2:
            raise ValueError(f"degree is a power of at least 2, or None for exp; it is {degree}")
        self.degree = degree
        self.register_buffer("patterns", _signs(patterns, "patterns"))

    def forward(self, xi: Tensor, steps: int = 1, order: str = "synchronous") -> Tensor:
        """Update states.

        Args:
            xi: (L, d) of -1 and +1.
            steps: passes over the bits; stops where nothing changes.
            order: "synchronous" (all bits at once) or "random" (one after the other, which never raises the energy).

        Returns:
            (L, d) of -1 and +1; a bit that makes no difference stays.
        """
        _check_order(order)
        X = self.patterns
        state = _signs(xi, "states")
        for _ in range(steps):
            new = state.clone()
            overlaps = state @ X.T
            if order == "synchronous":
                new = _sign(self._gain(overlaps, state, X), state)
            else:
                for j in torch.randperm(X.shape[1]).tolist():
                    bit = _sign(self._gain(overlaps, new[:, [j]], X[:, [j]]), new[:, [j]])
                    overlaps += (bit - new[:, [j]]) * X[:, j]
                    new[:, [j]] = bit
            if new.equal(state):
                break
            state = new
        return state.to(xi.dtype)

    def energy(self, xi: Tensor) -> Tensor:
        """-Σ F(x_iᵀξ) of (L, d) states."""
        overlaps = xi.to(self.patterns) @ self.patterns.T
        return -(overlaps.exp() if self.degree is None else overlaps**self.degree).sum(-1)

    def _gain(self, overlaps: Tensor, bits: Tensor, X: Tensor) -> Tensor:
        """(L, bits): Σ F(z with the bit +1) - F(z with it -1), times a positive factor."""
        if self.degree is None:  # the largest overlap is taken out of the exponentials
            weights = torch.softmax(overlaps, -1)
            return math.cosh(1) * (weights @ X) - math.sinh(1) * bits
        total = torch.zeros_like(bits)
        for k in range(1, self.degree + 1):  # z^n - (z - 2 ξ x)^n, times ξ
            powers = overlaps ** (self.degree - k)
            read = powers @ X if k % 2 else powers.sum(-1, keepdim=True)
            total -= math.comb(self.degree, k) * (-2 * bits) ** k * read
        return bits * total


def _sign(field: Tensor, old: Tensor) -> Tensor:
    return torch.where(field == 0, old, field.sign())


def _signs(x: Tensor, name: str) -> Tensor:
    """In double precision, where powers of overlaps are exact up to 2^53."""
    if x.ndim != 2 or 0 in x.shape[1:] or not (x.abs() == 1).all():
        raise ValueError(f"{name} are (number, d) of -1 and +1, d at least 1; take .sign() of floats without zeros")
    return x.double()


def _check_order(order: str) -> None:
    if order not in ("synchronous", "random"):
        raise ValueError(f'order is "synchronous" or "random", not {order!r}')
