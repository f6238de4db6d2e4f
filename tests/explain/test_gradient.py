"""Plain, guided and deconvolution gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprise.explain import ReLURule, Saliency, deconvnet, guided_backprop, input_gradient
from reprise.testing import check_attribution


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Net(nn.Module):
    """The same network with its ReLUs written in every way there is."""

    def __init__(self, way) -> None:
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
        self.module, self.in_place = nn.ReLU(), nn.ReLU(inplace=True)
        self.way = way

    def forward(self, x):
        return self.head(self.relu(self.conv2(self.relu(self.conv1(x)))).mean((2, 3)))

    def relu(self, x):
        if self.way == "dropped result":
            F.relu_(x)
            return x
        return {
            "module used twice": self.module,
            "in-place module used twice": self.in_place,
            "F.relu": F.relu,
            "F.relu in place": lambda x: F.relu(x, inplace=True),
            "F.relu positional": lambda x: F.relu(x, True),
            "torch.relu": torch.relu,
            "torch.relu_": torch.relu_,
            "method": lambda x: x.relu(),
            "method in place": lambda x: x.relu_(),
        }[self.way](x)


WAYS = (
    "in-place module used twice", "F.relu", "F.relu in place", "F.relu positional", "torch.relu", "torch.relu_",
    "method", "method in place", "dropped result",
)  # fmt: skip


def by_hand(net, x, target, rule):
    """The backward pass written out for Net: gates at the two ReLUs."""
    a = net.conv1(x)
    b = net.conv2(a.relu())

    def gate(pre, gradient):
        kept = gradient if rule == "gradient" else gradient.clamp(min=0)
        return kept if rule == "deconv" else kept * (pre > 0)

    positions = b.shape[2] * b.shape[3]
    at_b = gate(b, (net.head.weight[target] / positions)[None, :, None, None].expand_as(b))
    at_a = gate(a, F.conv_transpose2d(at_b, net.conv2.weight))
    return F.conv_transpose2d(at_a, net.conv1.weight)


@pytest.mark.parametrize("rule", ["gradient", "guided", "deconv"])
def test_rules_equal_the_backward_pass_by_hand_however_the_relu_is_written(rule):
    net, x = Net("module used twice"), torch.randn(3, 3, 8, 8)
    expected = by_hand(net, x, 2, rule)
    for way in ("module used twice", *WAYS):
        net.way = way
        assert torch.allclose(input_gradient(net, x, 2, rule=rule), expected, atol=1e-6), way


def test_equals_captum():
    attr = pytest.importorskip("captum.attr")
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4))
    x, target = torch.randn(3, 3, 8, 8), torch.tensor([3, 0, 1])
    assert torch.allclose(guided_backprop(net, x, target), attr.GuidedBackprop(net).attribute(x, target), atol=1e-6)
    assert torch.allclose(deconvnet(net, x, target), attr.Deconvolution(net).attribute(x, target), atol=1e-6)
    assert torch.allclose(input_gradient(net, x, target), attr.Saliency(net).attribute(x, target, abs=False), atol=1e-6)


def test_guided_is_plain_where_no_gate_closes():
    x = torch.randn(2, 3, 8, 8)
    smooth = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 2))
    assert torch.equal(guided_backprop(smooth, x, 1), input_gradient(smooth, x, 1))
    positive = Net("F.relu")
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_()
    assert torch.allclose(guided_backprop(positive, x.abs(), 1), input_gradient(positive, x.abs(), 1), atol=1e-7)


def test_what_guided_backprop_passes_at_a_relu_is_never_negative():
    net, passed = Net("module used twice"), []
    with ReLURule("guided"):
        a = net.conv1(torch.randn(2, 3, 8, 8))
        a.register_hook(passed.append)
        b = net.conv2(F.relu(a))
        b.register_hook(passed.append)
        score = net.head(F.relu(b).mean((2, 3)))[:, 1].sum()
    score.backward()
    assert len(passed) == 2 and all(bool((gradient >= 0).all()) and bool((gradient > 0).any()) for gradient in passed)


def test_relu6_closes_at_six():
    x = torch.tensor([-1.0, 3.0, 7.0], requires_grad=True)
    with ReLURule("guided"):
        F.relu6(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 0]


def test_several_targets_and_maps():
    net, x = Net("F.relu"), torch.randn(3, 3, 8, 8)
    targets = torch.tensor([[0, 1], [2, 3], [1, 1]])
    for rule in ("gradient", "guided", "deconv"):
        found = Saliency(net, rule, batch_size=2).details(x, targets)
        one_by_one = torch.stack([input_gradient(net, x, targets[:, t], rule=rule) for t in range(2)], 1)
        assert torch.allclose(found.gradient, one_by_one, atol=1e-6)
        assert torch.equal(found.map, found.gradient.abs().amax(2)) and found.map.shape == (3, 2, 8, 8)
        assert torch.allclose(found.logits, net(x), atol=1e-6)


@pytest.mark.parametrize("way", ["in-place module used twice", "method in place"])
def test_keeps_the_promises_of_an_attribution(way):
    net = Net(way).train()
    for rule in ("gradient", "guided", "deconv"):
        method = Saliency(net, rule)
        check_attribution(method, torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 2]), model=net)
        with pytest.raises(RuntimeError):
            method(torch.randn(3, 5, 8, 8), 0)
    assert torch.equal(torch.relu(torch.tensor([-1.0])), torch.zeros(1))


def test_a_first_layer_in_place_is_no_obstacle():
    net, x = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4, 2)), torch.randn(2, 1, 2, 2)
    assert torch.equal(input_gradient(net, x, 0) != 0, x > 0)


def test_wrong_input_is_refused():
    net, x = Net("F.relu"), torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match="unknown rule 'guide'"):
        Saliency(net, "guide")
    with pytest.raises(ValueError, match="give floats"):
        guided_backprop(net, x.long(), 0)
    with pytest.raises(ValueError, match="NaN"):
        input_gradient(net, x * torch.nan, 0)
    with pytest.raises(ValueError, match="out of range"):
        input_gradient(net, x, 4)
    with pytest.raises(ValueError, match="no gradient reaches the pictures"):
        input_gradient(net, x, lambda output: torch.zeros(len(output)))
    with pytest.raises(ValueError, match="scripted"):
        guided_backprop(torch.jit.trace(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), x), x, 0)
