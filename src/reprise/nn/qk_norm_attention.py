"""Multi-head attention whose queries and keys have unit root mean square, so that no product of them grows large."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from reprise.nn.rms_norm import RMSNorm

__all__ = ["QKNormAttention"]


class QKNormAttention(nn.Module):
    """Attention with RMS-normalised queries and keys; linear layers with biases in, without one out.

    Args:
        dim: of input and output.
        n_heads: heads; ``dim`` is a multiple of it.
        dropout: probability, of attention weights.
        causal: whether a token sees only itself and those before it; for self-attention.

    Raises:
        ValueError: heads that do not divide ``dim``.

    Source: Henry et al., Query-Key Normalization for Transformers, 2020, with a learned gain per feature of a head.

    Example:
        >>> attention = QKNormAttention(8, 2)
        >>> attention(torch.zeros(3, 5, 8)).shape, attention(torch.zeros(3, 5, 8), torch.zeros(3, 2, 8)).shape
        (torch.Size([3, 5, 8]), torch.Size([3, 5, 8]))
    """

    def __init__(self, dim: int, n_heads: int, *, dropout: float = 0.0, causal: bool = False) -> None:
        super().__init__()
        if n_heads < 1 or dim % n_heads:
            raise ValueError(f"{n_heads} heads do not divide {dim} features; choose a divisor of {dim}")
        self.n_heads, self.dropout, self.causal = n_heads, dropout, causal
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim, bias=False)
        self.query_norm = RMSNorm(dim // n_heads)
        self.key_norm = RMSNorm(dim // n_heads)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, T, dim) and what it attends to, (B, S, dim) or None for itself, to (B, T, dim)."""
        q = self.query(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        both = self.key_value(x if context is None else context)
        k, v = both.unflatten(-1, (2, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(
            self.query_norm(q),
            self.key_norm(k),
            v,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal,
        )
        return self.out(y.transpose(1, 2).flatten(2))
