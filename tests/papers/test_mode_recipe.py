import pytest
import torch

from reprise.nn import parameters
from reprise.papers.mode.cost import counts
from reprise.papers.mode.networks import dense_twin, published, small, sparse


@pytest.mark.parametrize("size", [small, published], ids=["small", "published"])
def test_the_dense_twin_has_as_many_parameters_and_twice_the_multiply_adds_in_its_perceptrons(size):
    with torch.device("meta"):
        assert abs(parameters(dense_twin(size)) / parameters(sparse(size)) - 1) < 1e-3
    dense, uncached = counts("it", size, "dense"), counts("it", size, "uncached")
    assert 0.45 < dense["mlp[it]"] < 0.5 and dense["router[it]"] == 0
    assert uncached["total[it]"] == pytest.approx(1 - uncached["router[it]"])
