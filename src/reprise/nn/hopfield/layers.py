"""The Hopfield layer: attention whose queries may be updated several times before they are answered.

State patterns R and stored patterns Y are projected to an association space, where every head runs the Hopfield update
q ← softmax(β q kᵀ) k; what the last association finds is read from projected values: Z = softmax(β q kᵀ) v (equation
10). One update and β = 1/√hidden_size is the attention of transformers.

Source: Ramsauer et al., Hopfield Networks is All You Need, ICLR 2021, sections 3 and A.6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.nn.hopfield.masks import additive_mask

__all__ = ["Hopfield"]

MOST_UPDATES = 10_000  # of a layer that updates until it has converged
HALF = (torch.float16, torch.bfloat16)
FEW = 4  # rows of an association that are looked at first to see whether it still changes
CACHED = 2**18  # numbers of associations that are compared at a time


class Hopfield(nn.Module):
    """Associate two sets: every state pattern retrieves from the stored patterns.

    Args:
        input_size: size of the state patterns.
        hidden_size: size of the association space per head; None for ``input_size / num_heads``. Where states or stored
            patterns are static it is their own size.
        output_size: None for ``input_size``. Without output projection it is ``num_heads * pattern_size``.
        num_heads: H.
        pattern_size: size of the values per head; None for ``hidden_size``. Static projections have their own.
        stored_pattern_size: None for ``input_size``.
        pattern_projection_size: size of the input to the values; None for ``stored_pattern_size``.
        beta: inverse temperature, at least 0, one number or one per head; None for 1/√hidden_size (1 where nothing is
            projected or normalised after the inputs). At 0 a head averages.
        learn_beta: make beta a trained parameter, one per head, which stays positive.
        update_steps_max: updates after the first one; None goes on until converged.
        update_steps_eps: a head stops for a sample when the Frobenius norm of the change of its association (L x S)
            is at most this, above 0.
        dropout: of the last association, in training.
        bias: whether the projections have one.
        state_norm, stored_norm, projection_norm: LayerNorm of each input, with parameters of its own.
        association_norm: LayerNorm of queries and keys per head: None, "plain", or "affine" with one weight and bias
            for queries, keys and all heads.
        state_static, stored_static, projection_static: use the input itself in every head, without projection.
        projection_connected: values are projected from the keys, not from the input.
        output_projection: whether the heads are mixed by a linear layer.
        activation: name of a function of ``torch`` that is applied to the output, say "relu".

    Raises:
        ValueError: sizes, beta, eps or steps that do not fit.

    Example:
        >>> hopfield = Hopfield(16, num_heads=4, update_steps_max=2)
        >>> hopfield(torch.randn(2, 5, 16), torch.randn(2, 9, 16)).shape
        torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | None = None,
        output_size: int | None = None,
        num_heads: int = 1,
        *,
        pattern_size: int | None = None,
        stored_pattern_size: int | None = None,
        pattern_projection_size: int | None = None,
        beta: float | Sequence[float] | Tensor | None = None,
        learn_beta: bool = False,
        update_steps_max: int | None = 0,
        update_steps_eps: float = 1e-4,
        dropout: float = 0.0,
        bias: bool = True,
        state_norm: bool = True,
        stored_norm: bool = True,
        projection_norm: bool = True,
        association_norm: str | None = None,
        state_static: bool = False,
        stored_static: bool = False,
        projection_static: bool = False,
        projection_connected: bool = False,
        output_projection: bool = True,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"num_heads must be at least 1, not {num_heads}")
        if update_steps_max is not None and update_steps_max < 0:
            raise ValueError(f"update_steps_max counts extra updates from 0, or is None; it is {update_steps_max}")
        if not update_steps_eps > 0:
            raise ValueError(f"update_steps_eps must be above 0, not {update_steps_eps}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a share in [0, 1), not {dropout}")
        if association_norm not in (None, "plain", "affine"):
            raise ValueError(f'association_norm is None, "plain" or "affine", not {association_norm!r}')
        if activation is not None and not callable(getattr(torch, activation, None)):
            raise ValueError(f'activation is the name of a function of torch such as "relu", not {activation!r}')
        stored_size = input_size if stored_pattern_size is None else stored_pattern_size
        projection_size = stored_size if pattern_projection_size is None else pattern_projection_size
        self.sizes = {"state": input_size, "stored": stored_size, "projection": projection_size}
        fixed = input_size if state_static else stored_size if stored_static else None
        self.hidden_size = d = _hidden_size(input_size, hidden_size, num_heads, fixed)
        if stored_static and stored_size != d:
            raise ValueError(
                f"static states have {d} entries and static stored patterns {stored_size}: they must agree"
            )
        if projection_connected and projection_static:
            raise ValueError("a static pattern projection cannot be connected to the keys; choose one of the two")
        self.pattern_size = v = _pattern_size(d, pattern_size, projection_size, projection_static, projection_connected)
        self.num_heads, self.dropout, self.activation = num_heads, dropout, activation
        self.update_steps_max, self.update_steps_eps = update_steps_max, update_steps_eps

        self.state_norm = nn.LayerNorm(input_size) if state_norm else None
        self.stored_norm = nn.LayerNorm(stored_size) if stored_norm else None
        self.projection_norm = nn.LayerNorm(projection_size) if projection_norm else None
        affine = association_norm == "affine"
        self.association_norm = nn.LayerNorm(d, elementwise_affine=affine) if association_norm else None
        self.q_proj = None if state_static else nn.Linear(input_size, num_heads * d, bias)
        self.k_proj = None if stored_static else nn.Linear(stored_size, num_heads * d, bias)
        self.projection_connected = projection_connected
        value_size = num_heads * d if projection_connected and not stored_static else projection_size
        if projection_connected and not stored_static and projection_size != stored_size:
            raise ValueError(
                f"connected projections pass through the keys' weights: their {projection_size} entries must be the "
                f"stored patterns' {stored_size}"
            )
        self.v_proj = None if projection_static else nn.Linear(value_size, num_heads * v, bias)
        if not output_projection and output_size not in (None, num_heads * v):
            raise ValueError(f"without output projection the output has {num_heads * v} entries, not {output_size}")
        self.output_size = (output_size or input_size) if output_projection else num_heads * v
        self.out_proj = nn.Linear(num_heads * v, self.output_size, bias) if output_projection else None

        plain = self.q_proj is self.k_proj is self.v_proj is self.association_norm is self.out_proj is None
        default = 1.0 if plain else 1 / math.sqrt(d)
        values = _betas(default if beta is None else beta, num_heads, learn_beta)
        self.log_beta = nn.Parameter(values.log()) if learn_beta else None
        self.register_buffer("fixed_beta", None if learn_beta else values, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights from normal(0, 0.02), biases 0."""
        for linear in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            if linear is not None:
                nn.init.normal_(linear.weight, std=0.02)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)

    @property
    def beta(self) -> Tensor:
        """(H,) inverse temperatures."""
        beta = self.fixed_beta if self.log_beta is None else self.log_beta.exp()
        assert isinstance(beta, Tensor)
        return beta

    def forward(
        self,
        state: Tensor,
        stored: Tensor | None = None,
        projection: Tensor | None = None,
        *,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
    ) -> Tensor:
        """Retrieve.

        Args:
            state: (B, L, input_size), what asks: the query of attention.
            stored: (B, S, stored_pattern_size), what is asked: the key; None for the states themselves.
            projection: (B, S, pattern_projection_size), what is answered: the value; None for the stored patterns.
            stored_pattern_padding_mask: (B, S) booleans, True at stored patterns to ignore.
            association_mask: (L, S), (B, L, S) or (B, H, L, S): booleans, True where a state may not look; or floats
                added to the logits.

        Returns:
            (B, L, output_size).

        Raises:
            ValueError: shapes do not fit, or a state may look at no stored pattern.
        """
        return self.retrieve(state, stored, projection, stored_pattern_padding_mask, association_mask)[0]

    def retrieve(
        self,
        state: Tensor,
        stored: Tensor | None = None,
        projection: Tensor | None = None,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
        need_association: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """What :meth:`forward` and :meth:`association` return, for the price of one; None where it is not needed."""
        q, k, v, mask = self._prepare(state, stored, projection, stored_pattern_padding_mask, association_mask)
        q = self._settle(q, k, mask)
        association = self._associate(q, k, mask) if need_association else None
        dropout = self.dropout if self.training else 0.0
        q = q * self.beta[:, None, None].to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, scale=1.0).transpose(1, 2).flatten(2)
        if self.out_proj is not None:
            out = self.out_proj(out)
        return out if self.activation is None else getattr(torch, self.activation)(out), association

    def association(
        self,
        state: Tensor,
        stored: Tensor | None = None,
        *,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
    ) -> Tensor:
        """The last association without dropout, (B, H, L, S): how much each stored pattern has in what is retrieved.

        Arguments and errors are those of :meth:`forward`.
        """
        q, k, _, mask = self._prepare(state, stored, None, stored_pattern_padding_mask, association_mask, values=False)
        return self._associate(self._settle(q, k, mask), k, mask)

    def _prepare(
        self,
        state: Tensor,
        stored: Tensor | None,
        projection: Tensor | None,
        padding: Tensor | None,
        association_mask: Tensor | None,
        values: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries (B, H, L, d), keys (B, H, S, d), values (B, H, S, v), and what is added to the logits."""
        stored = state if stored is None else stored
        projection = stored if projection is None or not values else projection
        inputs = {"state": state, "stored": stored} | ({"projection": projection} if values else {})
        for name, x in inputs.items():
            if x.ndim != 3 or x.shape[-1] != self.sizes[name] or len(x) != len(state):
                raise ValueError(
                    f"{name} patterns are (batch, length, {self.sizes[name]}) in one batch with the states; they are "
                    f"{tuple(x.shape)}, the states {tuple(state.shape)}"
                )
        if values and projection.shape[1] != stored.shape[1]:
            raise ValueError(f"{stored.shape[1]} stored patterns came with {projection.shape[1]} pattern projections")
        if stored.shape[1] == 0:
            raise ValueError("there are no stored patterns: their length must be at least 1")
        mask = additive_mask(padding, association_mask, len(state), self.num_heads, state.shape[1], stored)
        q = self._heads(self.q_proj, _apply(self.state_norm, state))
        k = self._heads(self.k_proj, _apply(self.stored_norm, stored))
        if self.association_norm is not None:
            q, k = self.association_norm(q), self.association_norm(k)
        if not values:
            return q, k, k, mask
        p = _apply(self.projection_norm, projection)
        if self.projection_connected and self.k_proj is not None:
            p = self.k_proj(p)
        return q, k, self._heads(self.v_proj, p), mask

    def _heads(self, linear: nn.Linear | None, x: Tensor) -> Tensor:
        """(B, L, d) to (B, H, L, d'): projected, or the same for every head."""
        if linear is None:
            return x[:, None].expand(-1, self.num_heads, -1, -1)
        return linear(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _associate(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        logits = (q * self.beta[:, None, None].to(q.dtype)) @ k.mT
        return torch.softmax(logits if mask is None else logits + mask, -1)

    def _settle(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """The queries of the last association: updated q ← A k, until A changes no more or the updates are used up.

        Every head of every sample stops for itself.
        """
        extra = self.update_steps_max
        if extra == 0:
            return q
        dtype = q.dtype
        if dtype in HALF:  # the logits of iterated patterns may leave its range
            q, k, mask = q.float(), k.float(), None if mask is None else mask.float()
        beta = self.beta[:, None, None].to(q.dtype)
        old: Tensor | None = None
        for _ in range(MOST_UPDATES if extra is None else extra):
            active = None if old is None else self._changed(q.detach(), old, k, mask)[..., None, None]
            if active is not None and not active.any():
                break
            old, new = q.detach(), F.scaled_dot_product_attention(q * beta, k, k, mask, scale=1.0)
            q = new if active is None else torch.where(active, new, q)
        else:
            if extra is None:
                raise RuntimeError(
                    f"an association still changed by more than {self.update_steps_eps} after {MOST_UPDATES} updates; "
                    "raise update_steps_eps"
                )
        return q.to(dtype)

    @torch.no_grad()
    def _changed(self, q: Tensor, old: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """(B, H): whether the association moved by more than eps from the last but one queries to the last.

        A few rows mostly tell, because their norm is a lower bound. All rows are compared in parts that fit in a cache.
        """
        few = self._change(q[:, :, :FEW], old[:, :, :FEW], k, mask if mask is None else _rows(mask, FEW))
        if (few > self.update_steps_eps).all():
            return few > self.update_steps_eps
        batch, heads, length, _ = q.shape
        part = max(1, CACHED // (heads * length * k.shape[2])) if q.device.type == "cpu" else batch
        masks = [mask] * batch if mask is None or len(mask) == 1 or mask.ndim < 4 else mask.split(part)
        parts = zip(q.split(part), old.split(part), k.split(part), masks, strict=False)
        return torch.cat([self._change(*some) for some in parts]) > self.update_steps_eps

    def _change(self, q: Tensor, old: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        return (self._associate(q, k, mask) - self._associate(old, k, mask)).flatten(2).norm(dim=2)


def _apply(norm: nn.LayerNorm | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _rows(mask: Tensor, count: int) -> Tensor:
    return mask if mask.shape[-2] == 1 else mask[..., :count, :]


def _hidden_size(input_size: int, hidden_size: int | None, num_heads: int, static: int | None) -> int:
    if static is not None:
        if hidden_size not in (None, static):
            raise ValueError(f"static patterns have {static} entries: hidden_size must be that, not {hidden_size}")
        return static
    if hidden_size is None:
        if input_size % num_heads:
            raise ValueError(
                f"input_size {input_size} cannot be divided by {num_heads} heads; give hidden_size, which is per head"
            )
        return input_size // num_heads
    if hidden_size < 1:
        raise ValueError(f"hidden_size must be at least 1, not {hidden_size}")
    return hidden_size


def _pattern_size(hidden: int, pattern: int | None, projection: int, static: bool, connected: bool) -> int:
    required = projection if static else hidden if connected else None
    if required is not None and pattern not in (None, required):
        raise ValueError(f"the values of this layer have {required} entries per head, not pattern_size {pattern}")
    return required or pattern or hidden


def _betas(beta: float | Sequence[float] | Tensor, num_heads: int, learned: bool) -> Tensor:
    given = beta.tolist() if isinstance(beta, Tensor) else beta
    values = [float(given)] * num_heads if isinstance(given, (int, float)) else [float(value) for value in given]
    if len(values) != num_heads:
        raise ValueError(f"beta is one number or one per head ({num_heads}), not {len(values)} numbers")
    if not all(0 <= value < math.inf for value in values):
        raise ValueError(f"beta is an inverse temperature, at least 0 and finite, not {given}")
    if learned and 0 in values:
        raise ValueError("a learned beta must start above 0")
    return torch.tensor(values)
