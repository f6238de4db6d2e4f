import pytest
import torch

from reprise.nn import AttentionPooling, MaxPooling, MeanPooling, parameters

POOLS = [MeanPooling, MaxPooling, lambda: AttentionPooling(4, 8), lambda: AttentionPooling(4, 8, gated=True)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("make", POOLS)
def test_padding_is_not_there_and_order_does_not_matter(make):
    pool, bags = make(), torch.randn(2, 5, 4)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    whole = pool(bags, padding)
    torch.testing.assert_close(pool(bags[[1], :3])[0], whole[1])
    torch.testing.assert_close(pool(bags.flip(1), padding.flip(1)), whole)
    assert pool(bags[:0]).shape == (0, 4)


def test_attention_by_the_formula():
    bags = torch.randn(2, 5, 4)
    for gated in (False, True):
        pool = AttentionPooling(4, 8, gated)
        hidden = torch.tanh(bags @ pool.V.weight.T + pool.V.bias)
        if gated:
            hidden = hidden * torch.sigmoid(bags @ pool.U.weight.T + pool.U.bias)
        a = torch.softmax((hidden @ pool.w.weight.T).squeeze(-1), 1)
        torch.testing.assert_close(pool(bags), (a[..., None] * bags).sum(1))
        assert parameters(pool) == (1 + gated) * (4 * 8 + 8) + 9


@pytest.mark.parametrize("make", POOLS)
def test_bad_input(make):
    pool, bags = make(), torch.randn(2, 5, 4)
    with pytest.raises(ValueError, match="bag 1 has no instance"):
        pool(bags, torch.tensor([[False] * 5, [True] * 5]))
    with pytest.raises(ValueError, match=r"padding is \(2, 5\) booleans"):
        pool(bags, torch.zeros(2, 5))
    for wrong in (bags[0], bags[:, :0]):
        with pytest.raises(ValueError, match=r"bags are \(B, S, size\)"):
            pool(wrong)
