"""Finite numbers are told from others at every place, also where their sum overflows."""

from __future__ import annotations

import pytest
import torch

from reprise.data import all_finite


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("wrong", [torch.inf, -torch.inf, torch.nan])
def test_a_single_number_counts(dtype: torch.dtype, wrong: float) -> None:
    values = torch.linspace(-1, 1, 12).to(dtype).view(3, 4)
    assert all_finite(values)
    for place in range(12):
        broken = values.clone()
        broken.view(-1)[place] = wrong
        assert not all_finite(broken)


def test_opposite_infinities_do_not_cancel() -> None:
    assert not all_finite(torch.tensor([torch.inf, -torch.inf]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_sum_that_overflows_says_nothing(dtype: torch.dtype) -> None:
    assert all_finite(torch.full((1000,), torch.finfo(dtype).max, dtype=dtype))


def test_no_numbers_and_gradients() -> None:
    assert all_finite(torch.empty(0, 3))
    assert all_finite(torch.ones(2, requires_grad=True))
