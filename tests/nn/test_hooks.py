"""Captured layers, names of layers, and networks left as they were."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprise.nn import capture, evaluating, find_layer, unwrap


class Residual(nn.Module):
    """A block as in ResNet: one ReLU module used twice, in place, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(x + self.conv2(self.relu(self.conv1(x))))


def resnet():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), Residual(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def hooks(model):
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]


def test_capture_keeps_the_output_before_an_in_place_operation():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True))
    x = torch.randn(2, 1, 5, 5)
    with capture(net, "0", net[1]) as outputs:
        result = net(x)
    before, after = outputs
    assert torch.equal(before, net[0](x)) and bool((before < 0).any())
    assert torch.equal(after, before.relu()) and torch.equal(result, after)


def test_differentiable_capture_starts_the_graph_at_the_first_layer():
    net = resnet()
    x = torch.randn(2, 1, 8, 8)
    with evaluating(net), capture(net, "1", "2", differentiable=True) as outputs, torch.no_grad():
        y = net(x)
        by_pool, by_block = torch.autograd.grad(y[:, 0].sum(), outputs)
    assert outputs[0].is_leaf and not outputs[1].is_leaf
    full = net(x)
    pooled = net[1](net[0](x))
    block = net[2](pooled)
    expected = torch.autograd.grad(net[3:](block)[:, 0].sum(), (pooled, block))
    assert torch.allclose(by_pool, expected[0], atol=1e-7) and torch.allclose(by_block, expected[1], atol=1e-7)
    assert torch.allclose(full, y) and torch.is_grad_enabled()


def test_every_run_fills_the_list_anew():
    net = resnet()
    with capture(net, "0") as outputs:
        net(torch.zeros(2, 1, 8, 8))
        net(torch.zeros(3, 1, 8, 8))
        assert len(outputs[0]) == 3


def test_hooks_and_flags_return_after_success_and_after_an_exception():
    net = resnet().train()
    net[2].eval()
    before, flags = hooks(net), [m.training for m in net.modules()]
    with pytest.raises(RuntimeError), evaluating(net), capture(net, "0", differentiable=True), torch.no_grad():
        assert not any(m.training for m in net.modules())
        net(torch.zeros(1, 7, 8, 8))
    with pytest.raises(RuntimeError):
        find_layer(net, "auto", torch.zeros(1, 7, 8, 8))
    assert hooks(net) == before and [m.training for m in net.modules()] == flags and torch.is_grad_enabled()


def test_evaluating_can_differentiate_inside_inference_mode():
    net = nn.Linear(2, 1)
    with torch.inference_mode():
        with evaluating(net):
            x = torch.ones(1, 2, requires_grad=True)
            assert torch.autograd.grad(net(x).sum(), x)[0].shape == (1, 2)
        assert torch.is_inference_mode_enabled()


@pytest.mark.parametrize("name", ["2.conv1", "module.2.conv1"])
def test_layers_are_found_by_name_and_by_identity_through_wrappers(name):
    net = resnet()
    wrapped = nn.DataParallel(net)
    assert unwrap(wrapped) is net
    assert find_layer(wrapped, name) is net[2].conv1
    assert find_layer(wrapped, net[2].conv1) is net[2].conv1


def test_auto_takes_what_follows_the_last_convolution_at_its_resolution():
    x = torch.zeros(1, 1, 8, 8)
    net = resnet()
    assert find_layer(net, "auto", x) is net[2]  # the residual sum; not the pooling, not the ReLU that runs twice
    vgg = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 2))
    assert find_layer(vgg, "auto", x) is vgg[1]
    head = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 3, 1), nn.Flatten())
    assert find_layer(head, "auto", x) is head[1]  # a classifier written as a 1x1 convolution has no positions

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return F.relu(self.conv(x)).mean((2, 3))

    functional = Functional()
    assert find_layer(functional, "auto", x) is functional.conv


def test_faults_are_named():
    net = resnet()
    with pytest.raises(ValueError, match=r"no layer '2\.conv3'; there are '2\.conv"):
        find_layer(net, "2.conv3")
    with pytest.raises(ValueError, match="Conv2d given as layer is not part of the network"):
        find_layer(net, nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match="no convolution"):
        find_layer(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "auto", torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="give an example batch"):
        find_layer(net, "auto")
    with pytest.raises(ValueError, match=r"'2.relu' runs more than once"), capture(net, "2.relu"):
        net(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="returns a tuple"), capture(lstm := nn.Sequential(nn.LSTM(2, 2)), "0"):
        lstm(torch.zeros(1, 1, 2))
    assert sum(hooks(net)) == 0 and sum(hooks(lstm)) == 0
