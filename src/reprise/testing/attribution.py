"""Check an attribution method of your own, and networks small enough to know the right answer by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reprise.nn.hooks import unwrap

__all__ = ["check_attribution", "toy_dense_head", "toy_pooled_head"]


def check_attribution(
    method: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    targets: Tensor,
    *,
    model: nn.Module | None = None,
    tolerance: float = 1e-5,
) -> None:
    """Check that ``method(images, targets)`` keeps what every attribution promises.

    Maps are (N, H, W), finite, carry no graph, are the same for a picture alone as in a batch, and come out the same
    at a second call; the pictures are unchanged. With ``model``: its parameters, buffers, ``grad``, ``requires_grad``,
    training flags and hooks are as they were, also when a call fails.

    Args:
        method: the attribution.
        images: (N, C, H, W) with N of at least 2.
        targets: (N,) classes.
        model: the network that the method explains.
        tolerance: largest difference between maps that should agree, as a share of the largest value.

    Raises:
        AssertionError: the first promise that is broken, in words.

    Example:
        >>> from reprise.explain import GradCAM
        >>> net = toy_pooled_head(torch.tensor([[1.0, -1.0], [0.0, 2.0]]))
        >>> check_attribution(GradCAM(net, "features"), torch.rand(3, 2, 4, 4), torch.tensor([0, 1, 1]), model=net)
    """
    before, pictures = _state(model), images.clone()
    maps = method(images, targets)
    wanted = (len(images), *images.shape[2:])
    assert isinstance(maps, Tensor) and maps.shape == wanted, (
        f"maps must be a tensor {wanted}, not {tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__}"
    )
    assert maps.isfinite().all(), "maps hold NaN or infinite values"
    assert not maps.requires_grad, "maps still carry the graph: detach them"
    assert torch.equal(images, pictures), "the method changes the pictures that it is given"
    _same_state(model, before, "a call")

    allowed = tolerance * max(float(maps.abs().max()), 1e-12)
    gap = float((method(images, targets) - maps).abs().max())
    assert gap <= allowed, f"a second call gives other maps (by {gap:g})"
    alone = torch.cat([method(images[i : i + 1], targets[i : i + 1]) for i in range(len(images))])
    gap = float((alone - maps).abs().max())
    assert gap <= allowed, f"the map of a picture depends on the others in its batch (by {gap:g})"

    try:
        method(torch.full_like(images, torch.nan), targets)
    except Exception:
        _same_state(model, before, "a failed call")


def toy_pooled_head(weight: Tensor) -> nn.Sequential:
    """Logits = weight @ mean of the positive part of each channel: maps known in closed form.

    With the layer "features", whose output A is ReLU(picture), Grad-CAM weights are ``weight / (u v)``, and the map is
    ``ReLU(sum over k of weight[c, k] A_k) / (u v)``.

    Args:
        weight: (classes, C).

    Example:
        >>> toy_pooled_head(torch.tensor([[1.0, -1.0]]))(torch.ones(1, 2, 3, 3))
        tensor([[0.]], grad_fn=<AddmmBackward0>)
    """
    head = _linear(weight)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return _named(features=_identity(weight.shape[1]), pool=pool, head=head)


def toy_dense_head(weight: Tensor) -> nn.Sequential:
    """Logits = sum of weight times the positive part of the picture: Grad-CAM weights are ``weight.mean((2, 3))``.

    Args:
        weight: (classes, C, H, W); the layer is "features".

    Example:
        >>> toy_dense_head(torch.ones(1, 2, 3, 3))(torch.ones(1, 2, 3, 3)).item()
        18.0
    """
    return _named(features=_identity(weight.shape[1]), flat=nn.Flatten(), head=_linear(weight.flatten(1)))


def _named(**modules: nn.Module) -> nn.Sequential:
    net = nn.Sequential()
    for name, module in modules.items():
        net.add_module(name, module)
    return net.eval()


def _identity(channels: int) -> nn.Sequential:
    """A 1x1 convolution that copies its input, and a ReLU."""
    convolution = nn.Conv2d(channels, channels, 1, bias=False)
    nn.init.dirac_(convolution.weight)
    return nn.Sequential(convolution, nn.ReLU())


def _linear(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight.data.copy_(weight)
    nn.init.zeros_(linear.bias)
    return linear


def _state(model: nn.Module | None) -> dict[str, dict]:
    """What a method may not change, by what it is called in the message."""
    if model is None:
        return {}
    model = unwrap(model)
    tensors = model.state_dict(keep_vars=True)
    modules = dict(model.named_modules())
    return {
        "values of parameters or buffers": {name: tensor.detach().clone() for name, tensor in tensors.items()},
        "grad of parameters": {
            name: None if tensor.grad is None else tensor.grad.clone() for name, tensor in tensors.items()
        },
        "requires_grad flags": {name: tensor.requires_grad for name, tensor in tensors.items()},
        "training flags": {name: module.training for name, module in modules.items()},
        "hooks": {
            name: [len(getattr(module, kind)) for kind in vars(module) if kind.endswith("_hooks")]
            for name, module in modules.items()
        },
        "modules": {name: id(module) for name, module in modules.items()},
    }


def _same_state(model: nn.Module | None, before: dict[str, dict], when: str) -> None:
    for what, entries in _state(model).items():
        old = before[what]
        changed = [name for name in old if name not in entries or not _same(old[name], entries[name])]
        changed += [name for name in entries if name not in old]
        assert not changed, f"{when} changes the {what} of the model ({', '.join(map(repr, changed[:3]))})"


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return type(a) is type(b) and a == b
