import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprise.nn import QKNormAttention, parameters


def by_definition(attention, x, context, mask=None):
    """Head by head."""
    both = attention.key_value(context)
    size = x.shape[-1] // attention.n_heads
    heads = []
    for h in range(attention.n_heads):
        part = slice(h * size, (h + 1) * size)
        q, k = attention.query(x)[..., part], both[..., : x.shape[-1]][..., part]
        q, k = (
            F.normalize(z, dim=-1) * math.sqrt(size) * norm.weight
            for z, norm in ((q, attention.query_norm), (k, attention.key_norm))
        )
        scores = q @ k.mT / math.sqrt(size)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        heads.append(scores.softmax(-1) @ both[..., x.shape[-1] :][..., part])
    return torch.cat(heads, -1) @ attention.out.weight.T


def test_equals_the_definition():
    torch.manual_seed(0)
    x, context = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    for causal in (False, True):
        attention = QKNormAttention(8, 2, causal=causal)
        nn.init.normal_(attention.query_norm.weight)
        nn.init.normal_(attention.key_norm.weight)
        mask = torch.ones(5, 5, dtype=torch.bool).tril() if causal else None
        torch.testing.assert_close(attention(x), by_definition(attention, x, x, mask), rtol=0, atol=1e-6)
    cross = QKNormAttention(8, 2)
    torch.testing.assert_close(cross(x, context), by_definition(cross, x, context), rtol=0, atol=1e-6)


def test_dropout_of_attention_is_there_in_training_only():
    torch.manual_seed(0)
    attention, x = QKNormAttention(8, 2, dropout=0.5), torch.randn(2, 5, 8)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_parameters_and_heads():
    with torch.device("meta"):
        assert parameters(QKNormAttention(1024, 8)) == 4 * 1024**2 + 3 * 1024 + 2 * 128
    with pytest.raises(ValueError, match="3 heads do not divide 8"):
        QKNormAttention(8, 3)
