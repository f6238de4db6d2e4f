import pytest
import torch
from torch import nn

from reprise.training import FlatAdam


def train(net, optimizer, max_norm, steps=20):
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(8, 3)).square().sum().backward()
        if isinstance(optimizer, FlatAdam):
            optimizer.step(max_norm)
        else:
            if max_norm is not None:
                nn.utils.clip_grad_norm_(net.parameters(), max_norm)
            optimizer.step()


@pytest.mark.parametrize("large", [2**20, 0])
@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_equals_adam_of_pytorch(monkeypatch, max_norm, large):
    monkeypatch.setattr("reprise.training.flat_adam.LARGE", large)
    ours, theirs = (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    train(ours, FlatAdam(ours.parameters(), 0.01, (0.8, 0.95), 1e-5), max_norm)
    train(theirs, torch.optim.Adam(theirs.parameters(), 0.01, (0.8, 0.95), 1e-5), max_norm)
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=0, atol=1e-6)


def test_parameters_are_views_and_the_frozen_stay_out():
    net = nn.Linear(3, 2)
    net.bias.requires_grad_(False)
    adam = FlatAdam(net.parameters(), 0.1)
    adam.vector.fill_(2.0)
    assert adam.vector.shape == (6,) and (net.weight == 2).all() and not (net.bias == 2).any()


def test_it_goes_on_where_it_stopped():
    nets = [nn.Linear(3, 2) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    adams = [FlatAdam(net.parameters(), 0.1) for net in nets]
    train(nets[0], adams[0], None, 3)
    nets[1].load_state_dict(nets[0].state_dict())
    adams[1].load_state_dict(adams[0].state_dict())
    for net, adam in zip(nets, adams, strict=True):
        train(net, adam, None, 3)
    assert torch.equal(adams[0].vector, adams[1].vector)


@pytest.mark.parametrize("parameters", [[], [nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1).double())]])
def test_nothing_or_mixed_types_are_refused(parameters):
    with pytest.raises(ValueError, match="of one type on one device are needed"):
        FlatAdam(parameters, 0.1)
