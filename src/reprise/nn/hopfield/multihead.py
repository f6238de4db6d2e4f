"""Hopfield layers in the place of ``nn.MultiheadAttention``: its arguments and results, more updates on request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from reprise.nn.hopfield.layers import Hopfield

__all__ = ["HopfieldAttention", "convert_to_hopfield"]


class HopfieldAttention(nn.Module):
    """A drop-in for ``nn.MultiheadAttention``: no norms, and one update by default, which is attention.

    Unlike it, a query whose keys are all masked is refused; there it becomes NaN.

    Args:
        embed_dim, num_heads, dropout, bias, kdim, vdim, batch_first: those of ``nn.MultiheadAttention``.
        beta, learn_beta, update_steps_max, update_steps_eps: those of :class:`Hopfield`.

    Example:
        >>> attention = HopfieldAttention(16, 4, batch_first=True, update_steps_max=3)
        >>> x = torch.randn(2, 5, 16)
        >>> out, weights = attention(x, x, x)
        >>> out.shape, weights.shape
        (torch.Size([2, 5, 16]), torch.Size([2, 5, 5]))
    """

    in_proj_bias = None  # tells nn.TransformerEncoderLayer that its fused path is not for this layer

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        beta: float | Sequence[float] | Tensor | None = None,
        learn_beta: bool = False,
        update_steps_max: int | None = 0,
        update_steps_eps: float = 1e-4,
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.batch_first = embed_dim, num_heads, batch_first
        self.hopfield = Hopfield(
            embed_dim,
            num_heads=num_heads,
            stored_pattern_size=kdim,
            pattern_projection_size=embed_dim if vdim is None else vdim,
            beta=beta,
            learn_beta=learn_beta,
            update_steps_max=update_steps_max,
            update_steps_eps=update_steps_eps,
            dropout=dropout,
            bias=bias,
            state_norm=False,
            stored_norm=False,
            projection_norm=False,
        )

    @classmethod
    def from_attention(cls, attention: nn.MultiheadAttention, **options: Any) -> Self:
        """The same layer with the same weights, ready for more updates.

        Args:
            attention: without ``add_bias_kv`` and ``add_zero_attn``.
            options: ``beta``, ``learn_beta``, ``update_steps_max`` and ``update_steps_eps``.

        Raises:
            ValueError: the attention has an extra key, which no stored pattern stands for.

        Example:
            >>> attention = nn.MultiheadAttention(8, 2, batch_first=True)
            >>> x = torch.randn(1, 3, 8)
            >>> hopfield = HopfieldAttention.from_attention(attention)
            >>> torch.allclose(hopfield(x, x, x)[0], attention(x, x, x)[0], atol=1e-6)
            True
        """
        if attention.bias_k is not None or attention.add_zero_attn:
            raise ValueError("add_bias_kv and add_zero_attn have no counterpart here; make the attention without them")
        new = cls(
            attention.embed_dim,
            attention.num_heads,
            attention.dropout,
            attention.in_proj_bias is not None,
            attention.kdim,
            attention.vdim,
            attention.batch_first,
            **options,
        ).to(attention.out_proj.weight)
        state: dict[str, Tensor] = {}
        if attention.in_proj_weight is not None:
            weights = attention.in_proj_weight.chunk(3)
        else:
            weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        biases = (None,) * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            state |= {f"{name}_proj.weight": weight} | ({} if bias is None else {f"{name}_proj.bias": bias})
        state |= {f"out_proj.{name}": value for name, value in attention.out_proj.state_dict().items()}
        new.hopfield.load_state_dict(state, strict=False)  # beta is not of the attention
        return new.train(attention.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``nn.MultiheadAttention``: (output, association or None), also for unbatched input.

        Weights are those of the last update, without dropout, averaged over heads unless told otherwise.

        Raises:
            ValueError: as :class:`Hopfield`; ``is_causal`` without ``attn_mask``, which it is only a hint about.
        """
        if is_causal and attn_mask is None:
            raise ValueError("is_causal is a hint about attn_mask: give attn_mask, too")
        batched = query.ndim == 3
        if not batched:
            query, key, value = query[None], key[None], value[None]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))
        if key_padding_mask is not None and key_padding_mask.dtype != torch.bool:  # floats that are added to the logits
            added = key_padding_mask[:, None, None].expand(-1, self.num_heads, query.shape[1], -1)
            if attn_mask is not None and attn_mask.dtype == torch.bool:
                attn_mask = torch.zeros_like(attn_mask, dtype=added.dtype).masked_fill_(attn_mask, float("-inf"))
            attn_mask, key_padding_mask = added if attn_mask is None else added + attn_mask, None
        out, weights = self.hopfield.retrieve(query, key, value, key_padding_mask, attn_mask, need_weights)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return out[0], None if weights is None else weights[0]
        return out if self.batch_first else out.transpose(0, 1), weights


def convert_to_hopfield(model: nn.Module, **options: Any) -> nn.Module:
    """Put :class:`HopfieldAttention` in the place of every ``nn.MultiheadAttention``, with its weights.

    So ``nn.TransformerEncoderLayer`` and ``nn.TransformerDecoderLayer`` become the paper's encoder and decoder layers.

    Args:
        model: changed in place.
        options: ``beta``, ``learn_beta``, ``update_steps_max`` and ``update_steps_eps``.

    Returns:
        The model, or the new layer if the model is itself an attention.

    Raises:
        ValueError: there is no attention in it, or one that has no counterpart.

    Example:
        >>> encoder = convert_to_hopfield(nn.TransformerEncoderLayer(16, 4, batch_first=True), update_steps_max=2)
        >>> encoder(torch.randn(2, 5, 16)).shape
        torch.Size([2, 5, 16])
    """
    if isinstance(model, nn.MultiheadAttention):
        return HopfieldAttention.from_attention(model, **options)
    found = [name for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)]
    if not found:
        raise ValueError(f"there is no nn.MultiheadAttention in {type(model).__name__}")
    for name in found:
        attention = model.get_submodule(name)
        assert isinstance(attention, nn.MultiheadAttention)
        model.set_submodule(name, HopfieldAttention.from_attention(attention, **options))
    return model
