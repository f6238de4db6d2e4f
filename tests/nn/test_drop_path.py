import pytest
import torch

from reprise.nn import DropPath, drop_path_rates


def test_examples_are_dropped_whole_and_the_others_rescaled():
    torch.manual_seed(0)
    x = torch.randn(4000, 3, 2, 2)
    y = DropPath(0.25)(x)
    factor = (y / x).flatten(1)
    assert torch.equal(factor.min(1).values.round(decimals=5), factor.max(1).values.round(decimals=5))
    assert sorted(factor.round(decimals=4).unique().tolist()) == pytest.approx([0, 4 / 3], abs=1e-4)
    assert (factor[:, 0] == 0).float().mean() == pytest.approx(0.25, abs=0.03)


def test_nothing_happens_in_evaluation_or_at_rate_zero():
    x = torch.randn(8, 3)
    assert DropPath(0.5).eval()(x) is x
    assert DropPath(0.0)(x) is x


def test_gradient_is_that_of_the_kept_examples():
    x = torch.randn(64, 3, requires_grad=True)
    y = DropPath(0.5)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y / x).detach())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_empty_batches(dtype):
    assert DropPath(0.5)(torch.ones(8, 2, dtype=dtype)).dtype == dtype
    assert DropPath(0.5)(torch.ones(0, 2)).shape == (0, 2)


def test_rates_grow_linearly_and_end_one_step_below():
    assert drop_path_rates(0.1, 20)[-1] == pytest.approx(0.095)
    assert drop_path_rates(0.2, 5) == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_wrong_rate(rate):
    with pytest.raises(ValueError, match="a probability in"):
        DropPath(rate)
