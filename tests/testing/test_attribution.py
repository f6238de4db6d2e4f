"""The shipped check finds every fault that it names."""

from __future__ import annotations

import pytest
import torch

from reprise.testing import check_attribution, toy_dense_head, toy_pooled_head

IMAGES, TARGETS = torch.rand(3, 2, 4, 4), torch.tensor([0, 1, 1])


def good(images, targets):
    return images.mean(1) * (targets + 1)[:, None, None]


def test_a_good_method_passes():
    check_attribution(good, IMAGES, TARGETS)


def in_place(images, targets):
    return images.mul_(0.5).mean(1)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda x, t: x, "maps must be a tensor"),
        (lambda x, t: x.mean(1).tolist(), "maps must be a tensor"),
        (lambda x, t: x.mean(1) / 0, "NaN or infinite"),
        (lambda x, t: x.mean(1).clone().requires_grad_(), "carry the graph"),
        (in_place, "changes the pictures"),
        (lambda x, t: torch.rand(len(x), 4, 4), "second call"),
        (lambda x, t: x.mean(1) - x.mean(), "depends on the others"),
    ],
)
def test_faults_of_maps_are_found(method, message):
    with pytest.raises(AssertionError, match=message):
        check_attribution(method, IMAGES.clone(), TARGETS)


def set_flag(net):
    net.head.training = not net.head.training


def freeze(net):
    net.head.weight.requires_grad_(False)


def fill_grad(net):
    net.head.weight.grad = torch.ones_like(net.head.weight)


def leave_hook(net):
    net.head.register_forward_hook(lambda *_: None)


def exchange_module(net):
    net.features[1] = torch.nn.ReLU().eval()


def change_weight(net):
    net.head.weight.data += 1


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (set_flag, "training flags of the model .'head'"),
        (freeze, "requires_grad flags"),
        (fill_grad, "grad of parameters"),
        (leave_hook, "hooks of the model"),
        (exchange_module, "modules of the model"),
        (change_weight, "values of parameters"),
    ],
)
@pytest.mark.parametrize("on_failure", [False, True])
def test_faults_of_state_are_found(harm, message, on_failure):
    net = toy_pooled_head(torch.randn(2, 2))

    def method(images, targets):
        if on_failure and images.isnan().any():
            harm(net)
            raise ValueError
        if not on_failure:
            harm(net)
        return good(images, targets)

    with pytest.raises(AssertionError, match=("a failed call" if on_failure else "a call") + " changes the " + message):
        check_attribution(method, IMAGES, TARGETS, model=net)


def test_toys_compute_what_they_say():
    x, pooled, dense = torch.randn(3, 2, 4, 4), torch.randn(5, 2), torch.randn(5, 2, 4, 4)
    assert torch.allclose(toy_pooled_head(pooled)(x), x.relu().mean((2, 3)) @ pooled.T, atol=1e-6)
    expected = torch.einsum("nkuv,ckuv->nc", x.relu(), dense)
    assert torch.allclose(toy_dense_head(dense)(x), expected, atol=1e-5)
