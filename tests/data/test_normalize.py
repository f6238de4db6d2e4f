import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from reprise.data import Normalizer

MAKERS = (Normalizer.min_max, Normalizer.standard)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 20), st.sampled_from(MAKERS), st.floats(-3, 3))
def test_back_again(seed, dimensions, rows, make, exponent):
    generator = torch.Generator().manual_seed(seed)
    data = 10**exponent * torch.randn(rows, dimensions, generator=generator)
    data[:, 0] = data[0, 0]  # constant
    normalizer = make(data)
    other = 10**exponent * torch.randn(3, 7, dimensions, generator=generator)
    for x in (data, other):
        torch.testing.assert_close(normalizer.inverse(normalizer(x)), x, rtol=1e-4, atol=1e-5 * 10**exponent)
    y = normalizer(data)
    assert y.isfinite().all() and y[:, 0].abs().max() < 1e-3


def test_ranges():
    data = torch.randn(500, 3) * torch.tensor([1.0, 50.0, 0.01]) + torch.tensor([0.0, 200.0, 5.0])
    y = Normalizer.min_max(data)(data)
    torch.testing.assert_close(y.min(0).values, -torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.max(0).values, torch.ones(3), atol=1e-4, rtol=0)
    y = Normalizer.standard(data.reshape(50, 10, 3).numpy())(data)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-2, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)
    limits = Normalizer.limits(np.array([0.0, -1.0]), np.array([512.0, -1.0]))
    assert limits(torch.tensor([512.0, -1.0])).tolist() == [1, 0]


@pytest.mark.parametrize("make", MAKERS)
def test_rounding_is_not_blown_up(make):
    """A dimension that changes by no more than its rounding counts as constant."""
    data = torch.full((100, 1), 512.0)
    data[::2] += 6.1e-5
    assert len(data.unique()) == 2
    assert make(data)(data).abs().max() < 1e-3


def test_save_and_load(tmp_path):
    normalizer = Normalizer.standard(torch.randn(20, 4))
    normalizer.save(tmp_path / "actions.safetensors")
    again = Normalizer.load(tmp_path / "actions.safetensors")
    assert all(torch.equal(again.state_dict()[key], value) for key, value in normalizer.state_dict().items())
    holder = torch.nn.ModuleDict({"actions": Normalizer(torch.zeros(4), torch.ones(4))})
    holder.load_state_dict({f"actions.{key}": value for key, value in normalizer.state_dict().items()})
    assert torch.equal(holder["actions"].scale, normalizer.scale)
    (tmp_path / "actions.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="is damaged"):
        Normalizer.load(tmp_path / "actions.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Normalizer.load(tmp_path / "other")
    from safetensors.torch import save_file

    save_file({"offset": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="holds no normalizer"):
        Normalizer.load(tmp_path / "other")


def test_what_is_refused():
    with pytest.raises(ValueError, match="row 1 of the data is not finite"):
        Normalizer.min_max(torch.tensor([[0.0], [float("nan")]]))
    with pytest.raises(ValueError, match=r"data are \(\.\.\., D\)"):
        Normalizer.standard(torch.zeros(3))
    with pytest.raises(ValueError, match="must not be above"):
        Normalizer.limits(np.ones(1), np.zeros(1))
    with pytest.raises(ValueError, match="scale finite and above 0"):
        Normalizer(torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match=r"must have 2 dimensions, not \(3,\)"):
        Normalizer(torch.zeros(2), torch.ones(2))(torch.zeros(3))
