"""Integrated gradients: the paper's axioms, equality with captum, and the short cut past the first convolution."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from reprise.explain import IntegratedGradients
from reprise.testing import check_attribution


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def cnn(activation=nn.Tanh, classes=4):
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), activation(), nn.Dropout(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(54, classes)
    ).eval()


def pictures(n=3):
    return torch.randn(n, 3, 8, 8)


def plain(net, x, target, baseline, alphas, weights):
    """The sum of equation 3, written out."""
    total = torch.zeros_like(x)
    for alpha, weight in zip(alphas, weights, strict=True):
        point = (baseline + alpha * (x - baseline)).requires_grad_()
        total += weight * torch.autograd.grad(net(point)[:, target].sum(), point)[0]
    return total * (x - baseline)


# The axioms


@pytest.mark.parametrize("method", ["gausslegendre", "riemann_middle", "riemann_trapezoid"])
def test_completeness_on_a_smooth_network(method):
    net, x, baseline = cnn().double(), pictures().double(), torch.rand(3, 1, 1)
    errors = []
    for steps in (5, 20, 80):
        explain = IntegratedGradients(net, steps=steps, method=method, baseline=baseline)
        maps = explain(x, 2)
        errors.append(float(explain.completeness(maps, x, 2).abs().max()))
        difference = (net(x) - net(baseline.double().expand_as(x)))[:, 2].detach()
        assert torch.allclose(maps.sum((1, 2)) - difference, explain.completeness(maps, x, 2), atol=1e-12)
    assert errors[0] > errors[1] >= errors[2] - 1e-12 and errors[2] < 1e-3 * float(difference.abs().max())


@pytest.mark.parametrize("method", ["gausslegendre", "riemann_middle", "riemann_trapezoid"])
def test_a_linear_model_gives_weight_times_difference(method):
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), pictures()
    weight = net[1].weight[1].view(3, 8, 8)
    for baseline in (0.0, -1.5, torch.rand(3, 1, 1), torch.rand(3, 8, 8), torch.rand_like(x)):
        found = IntegratedGradients(net, steps=3, baseline=baseline, method=method).details(x, 1)
        assert torch.allclose(found.gradient, weight * (x - baseline), atol=1e-6)
        assert torch.allclose(found.map, found.gradient.sum(1)) and torch.allclose(found.logits, net(x))


def test_symmetric_pixels_get_the_same_and_unused_ones_nothing():
    class Product(nn.Module):
        def forward(self, x):
            a, b, unused = x.flatten(2).mean(2).unbind(1)
            return torch.stack([(a * b).sin() + (a + b).exp(), unused], 1)

    x = pictures()
    x[:, 1] = x[:, 0]
    found = IntegratedGradients(Product(), baseline=0.1).details(x, 0).gradient
    assert torch.allclose(found[:, 0], found[:, 1], atol=1e-7) and bool((found[:, 0].abs() > 0).any())
    assert torch.equal(found[:, 2], torch.zeros(3, 8, 8))


# Equality


@pytest.mark.parametrize(
    ("ours", "theirs", "factor"),
    [
        ("gausslegendre", "gausslegendre", 1),
        ("riemann_middle", "riemann_middle", 1),
        ("riemann_trapezoid", "riemann_trapezoid", 20 / 19),  # captum's weights sum to 19 / 20
    ],
)
def test_equals_captum(ours, theirs, factor):
    attr = pytest.importorskip("captum.attr")
    x, target, baseline = pictures(), torch.tensor([0, 3, 1]), torch.rand(3, 3, 8, 8)
    for net in (cnn(), cnn(nn.ReLU)):
        expected = attr.IntegratedGradients(net).attribute(x, baseline, target, n_steps=20, method=theirs)
        explain = IntegratedGradients(net, steps=20, method=ours, baseline=baseline)
        assert torch.allclose(explain.details(x, target).gradient, expected.float() * factor, atol=1e-6)


class Twice(nn.Module):
    """The first convolution runs twice, another runs too, and the picture is used as it is."""

    def __init__(self, in_place) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, padding=1), nn.Linear(15, 4)
        self.in_place = in_place

    def forward(self, x):
        if self.in_place:
            x.mul_(0.5).sub_(0.1)
        parts = [F.relu_(self.first(x)).square(), self.first(x).tanh(), self.second(x).sin(), x.sin()]
        return self.head(torch.cat([part.mean((2, 3)) for part in parts], 1))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_short_cut_past_the_first_convolution_is_exact(in_place, batch_size):
    net, x = Twice(in_place).double(), pictures().double()
    alphas = (torch.arange(7) + 0.5) / 7
    expected = plain(lambda point: net(point.clone()), x, 2, 0.25, alphas, [1 / 7] * 7)
    explain = IntegratedGradients(net, steps=7, baseline=0.25, method="riemann_middle", batch_size=batch_size)
    torch.testing.assert_close(explain.details(x, 2).gradient, expected)


class Count(TorchDispatchMode):
    """How often each operation runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen[function.overloadpacket] += 1
        return function(*args, **(kwargs or {}))


def test_the_first_convolution_runs_at_the_ends_only():
    with Count() as count:
        IntegratedGradients(cnn(), steps=50, batch_size=3)(pictures(), 2)
    assert count.seen[torch.ops.aten.addmm] == 51  # the head, for the logits and at every step
    assert count.seen[torch.ops.aten.convolution] == 4  # for the logits, at both ends, and for the way back
    assert count.seen[torch.ops.aten.convolution_backward] == 1


def test_several_targets_equal_one_after_the_other_in_the_same_passes():
    net, x, passes = cnn(), pictures(), []
    net.register_forward_hook(lambda *_: passes.append(1))
    targets = torch.tensor([[0, 1, 2], [3, 3, 1], [2, 0, 2]])
    explain = IntegratedGradients(net, steps=10)
    together = explain.details(x, targets)
    assert together.map.shape == (3, 3, 8, 8) and together.gradient.shape == (3, 3, 3, 8, 8) and len(passes) == 2
    alone = torch.stack([explain(x, targets[:, t]) for t in range(3)], 1)
    assert torch.allclose(together.map, alone, atol=1e-6)
    assert explain.completeness(together.map, x, targets).shape == (3, 3)


def test_every_kind_of_target():
    net, x = cnn(), pictures()
    explain = IntegratedGradients(net, steps=10, baseline=-3.0)
    best = net(x).argmax(1)
    assert torch.allclose(explain(x), explain(x, best), atol=1e-6)  # the points between keep the picture's class
    assert torch.allclose(explain(x, 3), explain(x, torch.full((3,), 3)), atol=1e-6)
    by_function = explain(x, lambda output: output.gather(1, best[:, None])[:, 0])
    assert torch.allclose(by_function, explain(x, best), atol=1e-6)


# Promises


def test_keeps_the_promises_of_an_attribution():
    net = cnn(lambda: nn.ReLU(inplace=True)).train()
    check_attribution(IntegratedGradients(net, steps=7), pictures(), torch.tensor([0, 3, 1]), model=net)
    with torch.inference_mode():
        assert IntegratedGradients(net, steps=3)(pictures() + 0, 0).isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, x: IntegratedGradients(net, steps=0), "steps must be at least 1 for gausslegendre, not 0"),
        (lambda net, x: IntegratedGradients(net, steps=1, method="riemann_trapezoid"), "at least 2"),
        (lambda net, x: IntegratedGradients(net, method="simpson"), "unknown method 'simpson'; there are"),
        (lambda net, x: IntegratedGradients(net, baseline=torch.nan), "baseline holds NaN"),
        (lambda net, x: IntegratedGradients(net, baseline=x[:2])(x, 0), r"\(2, 3, 8, 8\) does not fit images"),
        (lambda net, x: IntegratedGradients(net, baseline=x[0, :2])(x, 0), "does not fit images"),
        (lambda net, x: IntegratedGradients(net, batch_size=0)(x, 0), "batch_size"),
        (lambda net, x: IntegratedGradients(net)(x / 0, 0), "images hold NaN"),
        (lambda net, x: IntegratedGradients(net)([1, 2], 0), "images must be a tensor"),
        (lambda net, x: IntegratedGradients(net)(x, 4), "target 4 is out of range"),
        (lambda net, x: IntegratedGradients(net)(x, lambda output: output.detach()[:, 0]), "no gradient reaches"),
        (lambda net, x: IntegratedGradients(nn.Sequential(Root(), net))(x.abs() + 1, 0), "is NaN or infinite"),
        (lambda net, x: IntegratedGradients(net).completeness(x[:2, 0], x, 0), r"have maps \(3, 8, 8\)"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(cnn(), pictures())


class Root(nn.Module):
    """Defined from 0.5 on."""

    def forward(self, x):
        return (x - 0.5).sqrt()
