"""The moving average without a second network."""

import copy

import pytest
import torch
from torch import nn

from reprise.training import EMA, WeightAverage


def test_it_is_the_ema():
    model = nn.Linear(3, 2)
    ema, average = EMA(model, decay=0.9, power=0.75), WeightAverage(model, decay=0.9, power=0.75)
    for _ in range(5):
        nn.init.normal_(model.weight)
        ema.update(model)
        average.update()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="inside"), average.applied():
        assert torch.equal(model.weight, ema.module.weight)
        raise RuntimeError("inside")
    assert torch.equal(model.weight, before["weight"])
    average.finish()
    assert torch.equal(model.weight, ema.module.weight)


def test_bad_settings():
    with pytest.raises(ValueError, match="decay"):
        WeightAverage(nn.Linear(1, 1), decay=1.0)
