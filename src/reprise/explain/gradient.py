"""Attribution by the gradient of a score with respect to the picture: plain, guided backpropagation, deconvolution.

Sources: Simonyan et al., "Deep Inside Convolutional Networks" (arXiv 1312.6034); Springenberg et al., "Striving for
Simplicity" (arXiv 1412.6806), section 3.4; Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks"
(arXiv 1311.2901).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from reprise.explain.targets import Attribution, Targets, batches, gradients, join, select_scores
from reprise.nn.hooks import evaluating, unwrap

__all__ = ["ReLURule", "Saliency", "deconvnet", "guided_backprop", "input_gradient"]

RULES = ("gradient", "guided", "deconv")
RELUS = {F.relu: torch.inf, torch.relu: torch.inf, Tensor.relu: torch.inf, F.relu6: 6.0}
RELUS_IN_PLACE = {F.relu_, torch.relu_, Tensor.relu_}


class _Gate(torch.autograd.Function):
    """A ReLU whose backward pass also stops negative gradients (guided), or nothing else (deconv)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float, rule: str) -> Tensor:
        ctx.rule = rule
        if rule == "guided":
            ctx.save_for_backward((x > 0) & (x < limit))
        return x.clamp(0, limit)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None]:
        passed = gradient[0].clamp(min=0)
        return passed * ctx.saved_tensors[0] if ctx.rule == "guided" else passed, None, None


class ReLURule(TorchFunctionMode):
    """Within the block, ReLU and ReLU6 pass gradients back by another rule; no module is exchanged.

    Modules, ``F.relu``, ``torch.relu``, ``Tensor.relu`` and their in-place forms follow the rule, however often they
    are used. ``clamp(min=0)`` does not, and scripted modules cannot.

    Args:
        rule: with x the input of the ReLU and g the gradient at its output, "gradient" passes g where x > 0,
            "deconv" passes g where g > 0, and "guided" passes g where both hold.

    Example:
        >>> x = torch.tensor([-1.0, 1.0, 2.0], requires_grad=True)
        >>> with ReLURule("guided"):
        ...     score = (torch.relu(x) * torch.tensor([3.0, 4.0, -5.0])).sum()
        >>> torch.autograd.grad(score, x)[0]
        tensor([0., 4., 0.])
    """

    def __init__(self, rule: str) -> None:
        super().__init__()
        if rule not in RULES:
            raise ValueError(f"unknown rule {rule!r}; there are {', '.join(RULES)}")
        self.rule = rule

    def __torch_function__(
        self, function: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace ReLUs; let every other function through."""
        kwargs = kwargs or {}
        if self.rule == "gradient" or (function not in RELUS and function not in RELUS_IN_PLACE):
            return function(*args, **kwargs)
        given = dict(zip(("input", "inplace"), args, strict=False)) | kwargs
        x = given["input"]
        result = _Gate.apply(x, RELUS.get(function, torch.inf), self.rule)
        in_place = given.get("inplace", False) or function in RELUS_IN_PLACE
        return x.copy_(result) if in_place else result


def input_gradient(
    model: nn.Module, images: Tensor, targets: Targets = None, *, rule: str = "gradient", batch_size: int = 32
) -> Tensor:
    """The gradient of the target's score with respect to each pixel.

    Args:
        model: any network; left as it was found, its parameters' ``grad`` included.
        images: (N, C, H, W) floats.
        targets: None (the class with the highest logit), a class, (N,) or (N, T) classes, or a function from the
            output to (N,) scores.
        rule: how ReLUs pass gradients back: "gradient" as they are, "guided" or "deconv"; see :class:`ReLURule`.
        batch_size: pictures per pass.

    Returns:
        (N, C, H, W), or (N, T, C, H, W) for targets (N, T).

    Raises:
        ValueError: pictures, targets or rule that do not fit; a network whose output does not depend on the pictures;
            a scripted network with another rule than "gradient".

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
        >>> bool((input_gradient(net, torch.ones(1, 1, 2, 2), 2).flatten() == net[1].weight[2]).all())
        True
    """
    return _details(model, images, targets, rule, batch_size)[0]


def guided_backprop(model: nn.Module, images: Tensor, targets: Targets = None) -> Tensor:
    """Guided backpropagation: ReLUs pass a gradient only where both it and their input are positive.

    Source: Springenberg et al. 2015. Arguments, result and errors as in :func:`input_gradient`.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> guided_backprop(net, torch.rand(4, 1, 5, 5), 0).shape
        torch.Size([4, 1, 5, 5])
    """
    return input_gradient(model, images, targets, rule="guided")


def deconvnet(model: nn.Module, images: Tensor, targets: Targets = None) -> Tensor:
    """Deconvolution: ReLUs pass a gradient wherever it is positive, whatever their input was.

    Source: Zeiler and Fergus 2014. Arguments, result and errors as in :func:`input_gradient`.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> deconvnet(net, torch.rand(4, 1, 5, 5), 0).shape
        torch.Size([4, 1, 5, 5])
    """
    return input_gradient(model, images, targets, rule="deconv")


class Saliency:
    """Maps from gradients: the largest absolute value over the channels of each pixel.

    Args:
        model: the network to explain.
        rule: "gradient" (Simonyan et al.), "guided" or "deconv"; see :class:`ReLURule`.
        batch_size: pictures per pass.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> Saliency(net)(torch.rand(4, 3, 5, 5), torch.tensor([[0, 1]] * 4)).shape
        torch.Size([4, 2, 5, 5])
    """

    def __init__(self, model: nn.Module, rule: str = "gradient", *, batch_size: int = 32) -> None:
        self.model, self.rule, self.batch_size = model, ReLURule(rule).rule, batch_size

    def __call__(self, images: Tensor, targets: Targets = None) -> Tensor:
        """Maps (N, H, W), or (N, T, H, W) for targets (N, T)."""
        return self.details(images, targets).map

    def details(self, images: Tensor, targets: Targets = None) -> Attribution:
        """The map with the signed gradient and the logits that it came from."""
        gradient, logits = _details(self.model, images, targets, self.rule, self.batch_size)
        return Attribution(map=gradient.abs().amax(-3), logits=logits, gradient=gradient)


def _details(model: nn.Module, images: Tensor, targets: Targets, rule: str, batch_size: int) -> tuple[Tensor, Tensor]:
    model, mode = unwrap(model), ReLURule(rule)
    if rule != "gradient" and any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValueError(
            f"the rule {rule!r} cannot reach into a scripted module; give the network it was scripted from"
        )
    found, outputs = [], []
    with evaluating(model):
        for chunk, target in batches(model, images, targets, batch_size):
            chunk.requires_grad_()
            with mode:
                output = model(chunk.clone())  # a copy, so that an in-place first layer finds no leaf
            columns = gradients(
                select_scores(output, target),
                [chunk],
                "no gradient reaches the pictures: the network detaches them or computes under no_grad",
            )
            found.append(torch.stack([gradient for (gradient,) in columns if gradient is not None], 1))
            outputs.append(output.detach())
    return join(found, targets), torch.cat(outputs)
