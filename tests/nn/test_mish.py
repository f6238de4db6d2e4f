import pytest
import torch
from torch.nn import functional as F

from reprise.nn import Mish, mish


@pytest.mark.parametrize("count", [100, 10_000])
def test_value_and_derivative_are_those_of_pytorch(count):
    x = torch.cat([torch.linspace(-100, 100, count), torch.tensor([-1e30, -88.0, 0.0, 19.9, 20.1, 88.8, 1e30])])
    a, b = (x.clone().requires_grad_() for _ in range(2))
    ours, theirs = mish(a), F.mish(b)
    assert torch.allclose(ours, theirs, atol=1e-6, rtol=1e-6)
    ours.sum().backward()
    theirs.sum().backward()
    assert torch.allclose(a.grad, b.grad, atol=1e-6) and a.grad.isfinite().all()
    with torch.inference_mode():
        assert torch.allclose(Mish()(x), ours, atol=1e-6)


def test_the_derivative_is_exact():
    x = 3 * torch.randn(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(mish(x).sum(), x)
    with torch.no_grad():
        numeric = (mish(x + 1e-6) - mish(x - 1e-6)) / 2e-6
    assert torch.allclose(gradient, numeric, atol=1e-7)
