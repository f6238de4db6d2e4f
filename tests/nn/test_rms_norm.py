import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from reprise.nn import RMSNorm


@settings(max_examples=10, deadline=None)
@given(dim=st.integers(1, 9), scale=st.sampled_from([1e-3, 1.0, 1e4]), seed=st.integers(0, 99))
def test_equals_the_definition_and_torchs_where_inputs_are_not_tiny(dim, scale, seed):
    torch.manual_seed(seed)
    x = (scale * (0.5 + torch.rand(3, 4, dim, dtype=torch.float64))).requires_grad_()
    norm, peer = RMSNorm(dim).double(), nn.RMSNorm(dim, eps=1e-20).double()
    nn.init.normal_(norm.weight)
    peer.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(x), norm.weight * x / x.square().mean(-1, keepdim=True).sqrt())
    dy = torch.randn_like(x)
    gradients = [torch.autograd.grad(layer(x), [x, layer.weight], dy) for layer in (norm, peer)]
    torch.testing.assert_close(*gradients)


def test_tiny_vectors_are_divided_by_eps():
    x = torch.tensor([[3e-8, 4e-8], [0.0, 0.0]], requires_grad=True)
    y = RMSNorm(2)(x)
    torch.testing.assert_close(y, x / 1e-6)
    y.sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("eps", [0.0, -1.0, float("nan")])
def test_eps_must_be_above_zero(eps):
    with pytest.raises(ValueError, match="eps is above 0"):
        RMSNorm(2, eps)
