"""Grad-CAM: the paper's equations in closed form, equality with captum, and networks left as they were."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprise.explain import GradCAM, GuidedGradCAM, cam, guided_backprop, guided_grad_cam, overlay
from reprise.testing import check_attribution, toy_dense_head, toy_pooled_head


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def cnn(in_place=False, classes=5):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(in_place), nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(in_place), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(54, classes),
    ).eval()  # fmt: skip


def pictures(n=4):
    return torch.randn(n, 3, 12, 12)


# Closed forms


def test_a_pooled_head_gives_its_weights_and_cam():
    weight = torch.randn(3, 2)
    net, x, target = toy_pooled_head(weight), torch.randn(4, 2, 5, 6), torch.tensor([0, 1, 2, 1])
    found = GradCAM(net, "features", relu=False, upsample=None).details(x, target)
    assert torch.allclose(found.weights * 30, weight[target], atol=1e-6)  # alpha Z = w, Z = 5 * 6
    expected = torch.einsum("nk,nkuv->nuv", weight[target], x.relu())
    assert torch.allclose(found.map * 30, expected, atol=1e-5)
    assert torch.allclose(cam(net, x, target, upsample=None), expected, atol=1e-5)
    assert torch.allclose(cam(net, x, target), F.interpolate(expected[:, None], (5, 6))[:, 0], atol=1e-5)
    assert torch.allclose(found.logits, net(x), atol=1e-6) and not found.logits.requires_grad


def test_a_dense_head_gives_the_mean_of_its_weights():
    weight = torch.randn(3, 2, 4, 4)
    found = GradCAM(toy_dense_head(weight), "features").details(torch.randn(2, 2, 4, 4), 1)
    assert torch.allclose(found.weights, weight[1].mean((1, 2)).expand(2, 2), atol=1e-6)


def test_logits_scaled_or_shifted():
    net, x = cnn(), pictures()
    maps = GradCAM(net, "5")(x, 2)
    weights = GradCAM(net, "5").details(x, 2).weights
    softmax = GradCAM(nn.Sequential(*net, nn.Softmax(1)), "5").details(x, 2).weights
    with torch.no_grad():
        net[-1].bias += torch.randn(5)
        assert torch.allclose(GradCAM(net, "5")(x, 2), maps, atol=1e-7)
        net[-1].weight *= 3
    assert torch.allclose(GradCAM(net, "5")(x, 2), 3 * maps, atol=1e-6)
    assert not torch.allclose(softmax / softmax.norm(), weights / weights.norm(), atol=1e-2)


def test_counterfactual_is_the_negative():
    net, x = cnn(), pictures()
    signed, counter = (GradCAM(net, "5", relu=False, counterfactual=flag)(x, 2) for flag in (False, True))
    assert torch.equal(counter, -signed)
    kept, kept_counter = (GradCAM(net, "5", counterfactual=flag, upsample=None)(x, 2) for flag in (False, True))
    assert not ((kept > 0) & (kept_counter > 0)).any() and bool((kept_counter > 0).any())


def test_upsampling_is_bilinear_and_never_exceeds_the_coarse_map():
    net, x = cnn(), pictures()
    coarse, fine = GradCAM(net, "5", upsample=None)(x, 1), GradCAM(net, "5")(x, 1)
    assert coarse.shape == (4, 6, 6) and fine.shape == (4, 12, 12)
    assert torch.equal(fine, F.interpolate(coarse[:, None], (12, 12), mode="bilinear", align_corners=False)[:, 0])
    assert bool((fine.amax((1, 2)) <= coarse.amax((1, 2)) + 1e-7).all())


# Peers


def test_equals_captum():
    attr = pytest.importorskip("captum.attr")
    net, x, target = cnn(), pictures(), torch.tensor([0, 4, 2, 2])
    theirs = attr.LayerGradCam(net, net[5]).attribute(x, target, relu_attributions=True)[:, 0]
    assert torch.allclose(GradCAM(net, "5", upsample=None)(x, target), theirs, atol=1e-6)
    theirs = attr.GuidedGradCam(net, net[5]).attribute(x, target, interpolate_mode="bilinear")
    assert torch.allclose(guided_grad_cam(net, x, target, layer="5"), theirs, atol=1e-6)


def test_equals_pytorch_grad_cam_up_to_its_scaling():
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # torchvision, which the peer imports, misses them beside a CPU torch
            torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float iou) -> Tensor")
    peer = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net, x = cnn(), pictures(2)
    with peer.GradCAM(model=net, target_layers=[net[5]]) as theirs:
        maps = theirs(x, [ClassifierOutputTarget(1)] * 2)
    assert np.allclose(GradCAM(net, "5", normalize=True)(x, 1).numpy(), maps, atol=1e-4)


# Targets and options


def test_several_targets_equal_one_after_the_other():
    net, x = cnn(), pictures(5)
    targets = torch.tensor([[0, 1, 2], [3, 3, 1], [4, 0, 2], [1, 2, 3], [2, 2, 2]])
    for method in (GradCAM(net, "5", batch_size=2), GuidedGradCAM(net, "5")):
        together = method.details(x, targets)
        one_by_one = [method.details(x, targets[:, t]) for t in range(3)]
        assert together.map.shape == (5, 3, 12, 12) and together.weights.shape == (5, 3, 6)
        assert torch.allclose(together.map, torch.stack([found.map for found in one_by_one], 1), atol=1e-6)
        assert torch.allclose(together.weights, torch.stack([found.weights for found in one_by_one], 1), atol=1e-6)


def test_every_kind_of_target():
    net, x = cnn(), pictures()
    method = GradCAM(net, "5")
    best = net(x).argmax(1)
    assert torch.allclose(method(x), method(x, best), atol=1e-7)
    assert torch.allclose(method(x, 3), method(x, torch.full((4,), 3)), atol=1e-7)
    by_function = method(x, lambda output: output.gather(1, best[:, None])[:, 0])
    assert torch.allclose(by_function, method(x, best), atol=1e-6)
    segmentation = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    assert GradCAM(segmentation, "1")(x, lambda output: output[:, 1, 3, 3]).shape == (4, 12, 12)


def test_normalised_maps_and_the_mean_over_layers():
    net, x = cnn(), pictures()
    early, late = (GradCAM(net, layer, normalize=True)(x, 1) for layer in ("2", "5"))
    assert bool((late.amin((1, 2)) == 0).all()) and torch.allclose(late.amax((1, 2)), torch.ones(4))
    both = GradCAM(net, ["2", "5"]).details(x, 1)
    assert torch.allclose(both.map, (early + late) / 2, atol=1e-6)
    assert [tuple(weights.shape) for weights in both.weights] == [(4, 8), (4, 6)]
    with pytest.raises(ValueError, match="differ in resolution"):
        GradCAM(net, ["2", "5"], upsample=None)(x, 1)
    nothing = GradCAM(toy_pooled_head(-torch.ones(1, 2)), "features", normalize=True)(torch.rand(1, 2, 3, 3), 0)
    assert torch.equal(nothing, torch.zeros(1, 3, 3))


def test_tokens_with_a_reshape_transform():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.head = nn.Linear(3, 6), nn.Linear(6, 5)

        def forward(self, x):
            tokens = F.pad(x.flatten(2).transpose(1, 2), (0, 0, 1, 0))  # a class token before the others
            return self.head(self.block(tokens).mean(1))

    net, x = Tokens(), torch.randn(2, 3, 4, 5)
    method = GradCAM(net, "block", reshape_transform=lambda t: t[:, 1:].transpose(1, 2).unflatten(2, (4, 5)))
    found = method.details(x, 3)
    assert torch.allclose(found.weights * 21, net.head.weight[3].expand(2, 6), atol=1e-6)
    with pytest.raises(ValueError, match=r"returns \(2, 21, 6\), not .* reshape_transform"):
        GradCAM(net, "block")(x, 3)


# Networks are left as they were


@pytest.mark.parametrize("in_place", [False, True])
def test_keeps_the_promises_of_an_attribution(in_place):
    net, x, target = cnn(in_place).train(), pictures(3), torch.tensor([0, 4, 2])
    net[3].eval()
    net[0].weight.requires_grad_(False)
    net[-1].weight.grad = torch.ones_like(net[-1].weight)
    for method in (GradCAM(net, "4"), GradCAM(net), GuidedGradCAM(net)):
        check_attribution(method, x, target, model=net)
        with pytest.raises(RuntimeError):
            method(torch.randn(2, 7, 12, 12), 0)
    check_attribution(GradCAM(nn.DataParallel(net), "module.5"), x, target, model=net)


class Pooled(nn.Module):
    """The layer's output is pooled with overlap and padding, pooled again elsewhere, and used as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4 * 3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.conv(x)
        parts = F.max_pool2d(maps, 3, 2, padding=1).relu_(), nn.MaxPool2d(2)(maps).square(), maps.sin()
        return self.head(torch.cat([part.mean((2, 3)) for part in parts], 1))


def test_the_short_cut_past_max_pooling_is_exact(monkeypatch):
    torch.manual_seed(0)
    net, x = Pooled().double(), torch.randn(6, 1, 9, 9, dtype=torch.double)
    maps = net.conv(x).detach().requires_grad_()
    monkeypatch.setattr(net.conv, "forward", lambda _: maps)
    expected = torch.autograd.grad(net(x)[:, 2].sum(), maps)[0].mean((2, 3))
    monkeypatch.undo()
    calls = []
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, grad=torch.autograd.grad, **k: calls.append(a) or grad(*a, **k)
    )
    torch.testing.assert_close(GradCAM(net, "conv").details(x, 2).weights, expected)
    assert [len(inputs) for _, inputs in calls] == [3]  # the maps, and what either pooling made of them


def test_an_in_place_relu_changes_nothing():
    net, x = cnn(in_place=False), pictures()
    in_place = cnn(in_place=True)
    in_place.load_state_dict(net.state_dict())
    for layer in ("1", "2", "4", "5"):
        assert torch.allclose(GradCAM(net, layer)(x, 1), GradCAM(in_place, layer)(x, 1), atol=1e-7)
    assert torch.allclose(guided_backprop(net, x, 1), guided_backprop(in_place, x, 1), atol=1e-7)


def test_inside_no_grad_and_inference_mode_and_in_double_precision():
    net, x = cnn(), pictures()
    expected = GradCAM(net, "5")(x, 1)
    with torch.no_grad():
        assert torch.equal(GradCAM(net, "5")(x, 1), expected)
    with torch.inference_mode():
        assert torch.equal(GradCAM(net, "5")(x + 0, 1), expected)
    assert GradCAM(net.double(), "5")(x.double(), 1).dtype == torch.double


# Wrong input


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.frozen = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3)

    def forward(self, x):
        with torch.no_grad():
            x = self.frozen(self.used(x))
        return x.mean((2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, x: GradCAM(net, "5")(x[0], 1), r"images must be a tensor \(N, C, H, W\)"),
        (lambda net, x: GradCAM(net, "5")(x[:0], 1), "with N > 0"),
        (lambda net, x: GradCAM(net, "5")(x.byte(), 1), "torch.uint8; give floats"),
        (lambda net, x: GradCAM(net, "5")(x / 0, 1), "NaN or infinite"),
        (lambda net, x: GradCAM(net, "5")(x, 5), "target 5 is out of range: the network has classes 0 to 4"),
        (lambda net, x: GradCAM(net, "5")(x, -1), "target -1 is out of range"),
        (lambda net, x: GradCAM(net, "5")(x, torch.tensor([1.0] * 4)), r"LongTensor \(N,\)"),
        (lambda net, x: GradCAM(net, "5")(x, torch.tensor([1])), "with N = 4"),
        (lambda net, x: GradCAM(net, "5")(x, "cat"), "not a str"),
        (lambda net, x: GradCAM(net, "5")(x, lambda output: output), "one score per picture"),
        (lambda net, x: GradCAM(net, "5")(x, lambda output: output.sum()), "one score per picture"),
        (lambda net, x: GradCAM(net[:6], "5")(x, 1), r"need a network that returns logits \(N, classes\)"),
        (lambda net, x: GradCAM(net, "7")(x, 1), r"the layer returns \(4, 54\)"),
        (lambda net, x: GradCAM(nn.Sequential(nn.Flatten(), nn.Linear(432, 2)))(x, 1), "no convolution"),
        (lambda net, x: GradCAM(net, "5", upsample="nearest"), "upsample"),
        (lambda net, x: GradCAM(net, []), "empty list"),
        (lambda net, x: GradCAM(net, "5", batch_size=0)(x, 1), "batch_size"),
        (lambda net, x: GradCAM(Unused(), "unused")(x, 1), "'unused' did not run"),
        (lambda net, x: GradCAM(Unused(), "used")(x, 1), "no gradient reaches the layer"),
        (lambda net, x: GradCAM(net, "5")(x, lambda output: output.detach()[:, 0]), "no gradient reaches the layer"),
        (lambda net, x: cam(net, x, 1), "not the linear head"),
        (lambda net, x: cam(net[:6], x, 1), "need a linear head"),
        (lambda net, x: cam(net, x, lambda output: output[:, 0]), "explain classes"),
        (lambda net, x: overlay(x[0], torch.zeros(3, 3)), "do not fit together"),
        (lambda net, x: overlay(x[0], torch.zeros(12, 12), alpha=2), "alpha"),
        (lambda net, x: overlay(x[0], torch.zeros(12, 12), colormap="jest"), "no colour map 'jest'"),
    ],
)
def test_wrong_input_is_refused(call, message):
    net = cnn()
    with pytest.raises(ValueError, match=message):
        call(net, pictures().abs())
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()) == 0


def test_overlay_mixes_picture_and_colours():
    white = np.full((3, 4, 4), 255, np.uint8)
    heat = torch.zeros(4, 4)
    heat[0, 0] = 2.0
    mixed = overlay(white, heat, alpha=0.5, colormap="gray")
    assert mixed.dtype == np.uint8 and mixed.shape == (4, 4, 3)
    assert mixed[0, 0].tolist() == [255] * 3 and mixed[1, 1].tolist() == [128] * 3
    assert np.array_equal(overlay(torch.ones(4, 4), heat, 0.5, "gray"), mixed)
