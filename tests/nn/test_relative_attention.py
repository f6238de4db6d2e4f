import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprise.nn import RelativePositionBias, RelPosAttention2d


def stirred(attention):
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention


def by_formula(attention, x, real=None):
    """softmax(q k^T / sqrt(d) + bias) v over all pixels of x, head by head and pixel by pixel."""
    n, c, h, w = x.shape
    d = c // attention.heads
    tokens = x.flatten(2).transpose(1, 2)
    q, k, v = (
        F.linear(tokens, weight, bias)
        for weight, bias in zip(attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3), strict=True)
    )
    out = torch.zeros_like(q)
    table = None if attention.bias is None else attention.bias.table
    for head in range(attention.heads):
        part = slice(head * d, (head + 1) * d)
        scores = q[..., part] @ k[..., part].transpose(1, 2) * d**-0.5
        if table is not None:
            p = (table.shape[1] + 1) // 2
            for i in range(h * w):
                for j in range(h * w):
                    scores[:, i, j] += table[head, j // w - i // w + p - 1, j % w - i % w + p - 1]
        if real is not None:
            scores[:, :, ~real] = -torch.inf
        out[..., part] = scores.softmax(-1) @ v[..., part]
    return attention.out(out).transpose(1, 2).reshape(n, c, h, w)


# --- the bias ---------------------------------------------------------------------------------------------------------


def test_bias_of_a_pair_is_the_entry_of_its_offset():
    layer, p = RelativePositionBias(2, 3), 3
    bias = layer(p, p).view(2, p, p, p, p)
    for i, x in torch.cartesian_prod(torch.arange(9), torch.arange(9)).tolist():
        (row_i, column_i), (row_x, column_x) = divmod(i, p), divmod(x, p)
        entry = layer.table[:, row_x - row_i + p - 1, column_x - column_i + p - 1]
        assert torch.equal(bias[:, row_i, column_i, row_x, column_x], entry)
    assert torch.equal(bias[:, 0, 0, p - 1, p - 1], layer.table[:, 2 * p - 2, 2 * p - 2])


def test_another_window_takes_the_resized_table():
    layer = RelativePositionBias(2, 7)
    resized = RelativePositionBias(2, 5)
    resized.table.data = F.interpolate(layer.table[None], size=(9, 9), mode="bilinear", align_corners=False)[0].detach()
    assert torch.equal(layer(5, 5), resized(5, 5))
    assert layer(1, 1).shape == (2, 1, 1)
    assert torch.isclose(layer(1, 1)[0, 0, 0], layer.table[0, 6, 6])


def test_a_saved_table_of_another_size_is_resized_when_loaded():
    small, large = RelativePositionBias(2, 4), RelativePositionBias(2, 6)
    state = small.state_dict()
    large.load_state_dict(state)
    assert torch.equal(large(6, 6), small(6, 6))
    assert state["table"].shape == (2, 7, 7)
    with pytest.raises(RuntimeError, match="size mismatch"):
        RelativePositionBias(3, 4).load_state_dict(state)


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learning", [True, False])
@pytest.mark.parametrize("rel_pos_size", [None, 4])
def test_attention_follows_its_formula(rel_pos_size, learning):
    attention, x = stirred(RelPosAttention2d(8, head_size=4, rel_pos_size=rel_pos_size)), torch.randn(2, 8, 4, 4)
    with torch.set_grad_enabled(learning):
        torch.testing.assert_close(attention(x), by_formula(attention, x), rtol=1e-4, atol=1e-5)


def test_with_a_zero_table_it_is_plain_attention():
    attention, x = RelPosAttention2d(64), torch.randn(2, 64, 5, 6)
    nn.init.zeros_(attention.bias.table)
    q, k, v = attention.qkv(x.flatten(2).transpose(1, 2)).view(2, 30, 3, 2, 32).permute(2, 0, 3, 1, 4)
    plain = attention.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 30, 64))
    torch.testing.assert_close(attention(x), plain.transpose(1, 2).view(2, 64, 5, 6))


def test_a_window_of_the_size_of_the_map_is_global():
    attention, x = RelPosAttention2d(32, rel_pos_size=5), torch.randn(2, 32, 4, 6)
    expected = attention(x)
    attention.window = (4, 6)
    assert torch.equal(attention(x), expected)


def test_windows_know_nothing_of_each_other():
    attention, x = stirred(RelPosAttention2d(8, head_size=4, window=(2, 3), rel_pos_size=3)), torch.randn(2, 8, 4, 9)
    y = attention(x)
    attention.window = None
    for row in (0, 2):
        for column in (0, 3, 6):
            window = (..., slice(row, row + 2), slice(column, column + 3))
            torch.testing.assert_close(y[window], attention(x[window]))


def test_padded_windows_attend_to_no_padding():
    attention = stirred(RelPosAttention2d(8, head_size=4, window=4, rel_pos_size=4, pad_windows=True))
    x = torch.randn(2, 8, 6, 5)
    y = attention(x)
    for row in (0, 4):
        for column in (0, 4):
            crop = x[..., row : row + 4, column : column + 4]
            h, w = crop.shape[-2:]
            real = torch.zeros(4, 4, dtype=torch.bool)
            real[:h, :w] = True
            expected = by_formula(attention, F.pad(crop, (0, 4 - w, 0, 4 - h), value=7.0), real.flatten())
            torch.testing.assert_close(
                y[..., row : row + 4, column : column + 4], expected[..., :h, :w], rtol=1e-4, atol=1e-5
            )
    without = RelPosAttention2d(8, head_size=4, window=4, rel_pos_size=None, pad_windows=True)
    assert without(x).isfinite().all()


def test_the_table_learns():
    attention = RelPosAttention2d(32, window=2, rel_pos_size=2)
    attention(torch.randn(2, 32, 4, 4)).square().sum().backward()
    assert attention.bias.table.grad.abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("padded", [False, True])
def test_large_scores_in_half_precision_stay_finite(dtype, padded):
    attention = RelPosAttention2d(32, window=4 if padded else None, pad_windows=True)
    nn.init.normal_(attention.qkv.weight, std=2.0)
    x = torch.randn(2, 32, 6, 6)
    exact, y = attention(x), attention.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    assert y.isfinite().all()
    assert (y.float() - exact).abs().mean() < 0.1 * exact.abs().mean()


@pytest.mark.parametrize("options", [{}, {"window": 2}, {"window": 3, "pad_windows": True}])
def test_layouts_and_empty_batches(options):
    attention, x = RelPosAttention2d(32, **options), torch.randn(2, 32, 4, 4)
    expected = attention(x)
    strided = torch.randn(2, 64, 8, 4)[:, ::2, ::2].copy_(x)
    for other in (x.to(memory_format=torch.channels_last), strided):
        torch.testing.assert_close(attention(other), expected)
    assert attention(x[:0]).shape == (0, 32, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RelPosAttention2d(48), "48 channels do not split into heads of 32"),
        (lambda: RelPosAttention2d(32, head_size=0), "heads of 0"),
        (lambda: RelPosAttention2d(32, window=(4, 4, 4)), r"a pair \(height, width\) of pixels, not \(4, 4, 4\)"),
        (lambda: RelPosAttention2d(32, window=0), "not 0"),
        (lambda: RelPosAttention2d(32, window=3.5), "not 3.5"),
        (
            lambda: RelPosAttention2d(32, window=4)(torch.zeros(1, 32, 8, 6)),
            "windows of 4x4 do not divide a map of 8x6",
        ),
        (lambda: RelPosAttention2d(32)(torch.zeros(1, 16, 8, 8)), r"RelPosAttention2d takes maps \(N, 32, H, W\)"),
    ],
)
def test_wrong_input_to_attention(call, message):
    with pytest.raises(ValueError, match=message):
        call()
