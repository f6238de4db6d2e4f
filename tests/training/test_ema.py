import copy

import pytest
import torch
from torch import nn

from reprise.training import EMA


def walk(model, steps=5):
    """Weights of a model that changes at each step."""
    for step in range(steps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.full_like(parameter, float(step + 1)))
        yield step


def test_constant_decay_in_closed_form():
    model = nn.Linear(3, 2)
    ema = EMA(model, decay=0.9)
    expected = None
    for step in walk(model):
        ema.update(model)
        expected = 1.0 if step == 0 else 0.9 * expected + 0.1 * (step + 1)
        torch.testing.assert_close(ema.module.weight, torch.full((2, 3), expected))
    assert int(ema.updates) == 5


def test_warm_up():
    ema = EMA(nn.Linear(1, 1), decay=0.99, power=0.75, inv_gamma=2.0)
    assert ema.decay_at(0) == 0
    assert ema.decay_at(10) == pytest.approx(1 - (1 + 10 / 2) ** -0.75)
    assert ema.decay_at(10**6) == 0.99
    rising = [ema.decay_at(t) for t in range(200)]
    assert rising == sorted(rising)


def test_constant_weights_are_their_own_average():
    model = nn.Linear(3, 2)
    ema = EMA(model, power=2 / 3)
    for _ in range(4):
        ema.update(model)
    torch.testing.assert_close(ema.module.weight, model.weight)


def test_buffers_are_copied():
    model = nn.BatchNorm1d(2)
    ema = EMA(model, decay=0.5)
    for _ in range(3):
        model(torch.randn(8, 2) + 3)
        ema.update(model)
    assert torch.equal(ema.module.running_mean, model.running_mean)
    assert int(ema.module.num_batches_tracked) == 3


def test_leaves_the_model_alone_and_takes_no_gradient():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    before = copy.deepcopy(model.state_dict())
    ema = EMA(model)
    ema.update(model)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    x = torch.ones(4, 2)
    assert torch.equal(ema(x), ema(x)) and not ema(x).requires_grad


def test_applied_and_restored():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = EMA(model, decay=0.5)
    for _ in walk(model, 3):
        ema.update(model)
    own, average = copy.deepcopy(model.state_dict()), copy.deepcopy(ema.module.state_dict())
    weight = model[0].weight
    with pytest.raises(RuntimeError, match="stop"), ema.applied_to(model) as same:
        assert same is model
        assert all(torch.equal(average[key], value) for key, value in model.state_dict().items())
        raise RuntimeError("stop")
    assert model[0].weight is weight
    assert all(torch.equal(own[key], value) for key, value in model.state_dict().items())
    assert all(torch.equal(average[key], value) for key, value in ema.module.state_dict().items())


def test_saved_and_loaded():
    model = nn.Linear(2, 2)
    one = EMA(model, decay=0.9, power=0.75)
    for _ in walk(model, 3):
        one.update(model)
    other = EMA(nn.Linear(2, 2), decay=0.9, power=0.75)
    other.load_state_dict(one.state_dict())
    for ema in (one, other, copy.deepcopy(one)):
        ema.update(nn.Linear(2, 2).requires_grad_(False).apply(lambda layer: layer.weight.fill_(7)))
        torch.testing.assert_close(ema.module.weight, one.module.weight)
        assert int(ema.updates) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"decay": 1.0}, "decay"), ({"decay": -0.1}, "decay"), ({"power": 0}, "power"), ({"inv_gamma": 0}, "inv_gamma")],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        EMA(nn.Linear(1, 1), **arguments)
