"""Integrated gradients: what each pixel adds to a score on the straight way from a baseline to the picture.

Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, arXiv 1703.01365.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from reprise.data.finite import all_finite
from reprise.explain.targets import (
    Attribution,
    Targets,
    batches,
    class_index,
    gradients,
    join,
    likes_channels_last,
    select_scores,
)
from reprise.nn.hooks import evaluating, unwrap

__all__ = ["IntegratedGradients"]

METHODS = ("gausslegendre", "riemann_middle", "riemann_trapezoid")
DETACHED = "no gradient reaches the pictures: the network detaches them or computes under no_grad"


class IntegratedGradients:
    """The gradient of a score, averaged on the way from a baseline x' to the picture x, times x - x' (equation 1):

        (x - x') times the integral over alpha in 0..1 of the gradient at x' + alpha (x - x').

    What the pixels get adds up to score(x) - score(x') (completeness), a pixel that the score does not depend on gets
    nothing, and the network's inner make does not matter, only what it computes. The sum over the channels is the map.

    Args:
        model: the network to explain; differentiable almost everywhere.
        steps: points at which the gradient is taken; the paper finds 20 to 300 enough (section 5).
        baseline: the picture that says nothing, in the network's own scale: a number, or a tensor that is expanded to
            (N, C, H, W): (C, 1, 1) is a colour, (C, H, W) a picture, (N, C, H, W) one for each. Black may be another
            number than 0 where pictures are standardised.
        method: rule of the integral. "gausslegendre" is exact for gradients that are polynomials of alpha of degree
            2 steps - 1; "riemann_middle" takes the middles of equal parts, "riemann_trapezoid" their ends. The weights
            always sum to 1.
        batch_size: interpolated pictures per pass; about 32 fit into a CPU's cache.

    Raises:
        ValueError: fewer than 1 step (2 for "riemann_trapezoid"), an unknown method, a baseline that is not finite.

    Example:
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 10)
        ... )
        >>> images, explain = torch.rand(2, 3, 5, 5), IntegratedGradients(net)
        >>> explain(images, torch.tensor([[3, 7], [1, 2]])).shape  # two classes of each picture
        torch.Size([2, 2, 5, 5])
        >>> maps = explain(images, 7)
        >>> bool((explain.completeness(maps, images, 7).abs() < 0.01).all())
        True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        steps: int = 50,
        baseline: float | Tensor = 0.0,
        method: str = "gausslegendre",
        batch_size: int = 32,
    ) -> None:
        self.model = unwrap(model)
        self.alphas, self.weights = _rule(method, steps)
        self.baseline, self.batch_size = torch.as_tensor(baseline).detach(), batch_size
        if not all_finite(self.baseline):
            raise ValueError("the baseline holds NaN or infinite values; give a picture that says nothing, such as 0")

    def __call__(self, images: Tensor, targets: Targets = None) -> Tensor:
        """Maps of a batch.

        Args:
            images: (N, C, H, W) floats.
            targets: None (the class with the highest logit of the picture itself), a class, (N,) or (N, T) classes, or
                a function from the network's output to (N,) scores, which is asked for all N pictures at each step.

        Returns:
            (N, H, W), or (N, T, H, W) for targets (N, T).

        Raises:
            ValueError: pictures, targets or a baseline that do not fit; no gradient, or none that is finite.
        """
        return self.details(images, targets).map

    def details(self, images: Tensor, targets: Targets = None) -> Attribution:
        """The maps with the attributions of each channel, (N, C, H, W), as gradient, and the logits of the pictures."""
        parts, outputs, start = [], [], 0
        baseline = self._baseline(images)
        with evaluating(self.model):
            for chunk, target in batches(self.model, images, targets, self.batch_size):
                with torch.no_grad():
                    outputs.append(self.model(chunk.clone()))
                # The points between keep the class that None stands for.
                chosen = target if callable(target) else class_index(outputs[-1], target)
                parts.append(self._integrate(chunk, baseline[start : start + len(chunk)], chosen))
                start += len(chunk)
        whole = join(parts, targets)
        if not all_finite(whole):
            raise ValueError("a gradient between baseline and picture is NaN or infinite; choose another baseline")
        return Attribution(map=whole.sum(-3), logits=torch.cat(outputs), gradient=whole)

    def completeness(self, maps: Tensor, images: Tensor, targets: Targets = None) -> Tensor:
        """What maps miss of completeness (proposition 1): their sum minus score(x) - score(x').

        More steps bring it nearer to 0; the paper asks for 5 % of the difference of the scores (section 5).

        Args:
            maps: what a call returned for the same pictures and targets.
            images: (N, C, H, W).
            targets: as in the call.

        Returns:
            (N,), or (N, T) for targets (N, T).

        Raises:
            ValueError: maps of other pictures or targets; and as in a call.
        """
        parts, start, baseline = [], 0, self._baseline(images)
        with evaluating(self.model), torch.no_grad():
            for chunk, target in batches(self.model, images, targets, self.batch_size):
                output = self.model(chunk.clone())
                chosen = target if callable(target) else class_index(output, target)
                nothing = torch.empty_like(chunk).copy_(baseline[start : start + len(chunk)])
                parts.append(select_scores(output, chosen) - select_scores(self.model(nothing), chosen))
                start += len(chunk)
        differences = join(parts, targets)
        if maps.shape != (*differences.shape, *images.shape[2:]):
            wanted = (*differences.shape, *images.shape[2:])
            raise ValueError(f"these pictures and targets have maps {wanted}, not {tuple(maps.shape)}")
        return maps.sum((-2, -1)) - differences

    def _baseline(self, images: Tensor) -> Tensor:
        if not isinstance(images, Tensor):  # batches says what is wrong with them
            return self.baseline
        try:
            return self.baseline.to(images).expand_as(images)
        except RuntimeError:
            raise ValueError(
                f"a baseline {tuple(self.baseline.shape)} does not fit images {tuple(images.shape)}; give a number, "
                f"(C, H, W), or one for each picture (N, C, H, W)"
            ) from None

    def _integrate(self, chunk: Tensor, baseline: Tensor, targets: Targets) -> Tensor:
        """Attributions (n, T, C, H, W) of a few pictures, some steps at a time."""
        # A function may know more about the pictures than it is given: it sees each of them once, in order.
        together = 1 if callable(targets) else min(len(self.alphas), max(1, self.batch_size // len(chunk)))
        last = chunk.device.type == "cpu" and likes_channels_last(self.model, chunk.repeat(together, 1, 1, 1), passes=2)
        path = _Path(chunk, baseline, torch.channels_last if last else torch.contiguous_format)
        for alphas, weights in zip(self.alphas.split(together), self.weights.split(together), strict=True):
            chosen = targets.repeat(len(alphas), 1) if isinstance(targets, Tensor) else targets
            points = path.points(alphas.tolist())
            with path:
                scores = select_scores(self.model(points), chosen)
            path.collect(scores * weights.to(scores).repeat_interleave(len(chunk))[:, None])
        return path.gradient() * (chunk - baseline)[:, None]


class _Path(TorchFunctionMode):
    """The points between n baselines and pictures, and the sum of the gradients there.

    A convolution of the points themselves is affine along the way. So it runs at both ends only, and the sum of the
    gradients behind it takes the way back through it once, in place of each of them.
    """

    def __init__(self, chunk: Tensor, baseline: Tensor, layout: torch.memory_format) -> None:
        super().__init__()
        self.layout = layout
        self.ends = [torch.empty_like(chunk, memory_format=layout).copy_(end) for end in (baseline, chunk)]
        self.layers: dict[tuple, tuple[Callable[[Tensor], Tensor], list[Tensor]]] = {}  # and what they make of the ends
        self.totals: dict[tuple[tuple, int], Tensor] = {}  # by layer, () for none, and target
        self.target = 0

    def points(self, alphas: list[float]) -> Tensor:
        """Points (m n, C, H, W) to run the network on, within the block."""
        self.alphas = alphas
        self.leaf = self.between(self.ends).requires_grad_()
        self.entered = self.leaf.clone()  # a copy, so that an in-place first layer finds no leaf
        return self.entered

    def __torch_function__(
        self, function: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Meet convolutions of the points; let every other function through."""
        kwargs = kwargs or {}
        affine = function is F.conv2d and len(args) > 1 and isinstance(args[1], nn.Parameter)
        if not affine or args[0] is not self.entered or self.entered._version:
            return function(*args, **kwargs)
        key = tuple(map(id, (*args[1:], *kwargs.values())))
        if key not in self.layers:
            layer = partial(_with_first, function, args[1:], kwargs)
            with torch.no_grad():
                self.layers[key] = layer, [layer(end) for end in self.ends]
        return _Between.apply(self.entered, self, key)

    def collect(self, scores: Tensor) -> None:
        """Add the gradients of (m n, T) scores up over the m steps."""
        columns = gradients(scores, [self.leaf], DETACHED)
        for self.target in range(scores.shape[1]):
            (gradient,) = next(columns)
            assert gradient is not None
            self.add((), gradient)

    def add(self, key: tuple, gradient: Tensor) -> None:
        """Add to what has been found behind a layer, or with () at the points, for the target in hand."""
        first, *others = gradient.split(len(self.ends[0]))
        total = self.totals.get((key, self.target))
        self.totals[key, self.target] = total = first.clone() if total is None else total.add_(first)
        for other in others:
            total += other

    def gradient(self) -> Tensor:
        """The sum by the pictures, (n, T, C, H, W)."""
        picture = self.ends[1].requires_grad_()
        found = [self.totals[(), t] for t in range(self.target + 1)]
        for (key, t), total in self.totals.items():
            if key:
                found[t] += torch.autograd.grad(self.layers[key][0](picture), picture, total)[0]
        return torch.stack(found, 1)

    def between(self, ends: list[Tensor]) -> Tensor:
        """(m n, ...) for what is known at the ends."""
        start, end = ends
        shape = len(self.alphas) * len(start), *start.shape[1:]
        points = torch.empty(shape, dtype=start.dtype, device=start.device, memory_format=self.layout)
        for part, alpha in zip(points.split(len(start)), self.alphas, strict=True):
            torch.lerp(start, end, alpha, out=part)
        return points


class _Between(torch.autograd.Function):
    """What a layer makes of the points; the gradients that come back are summed up, and go no further yet."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, path: _Path, key: tuple) -> Tensor:
        ctx.path, ctx.key, ctx.nothing = path, key, points.new_zeros(()).expand_as(points)
        return path.between(path.layers[key][1])

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.path.add(ctx.key, gradient[0])
        return ctx.nothing, None, None


def _with_first(function: Callable, others: tuple, kwargs: dict[str, Any], first: Tensor) -> Tensor:
    return function(first, *others, **kwargs)


def _rule(method: str, steps: int) -> tuple[Tensor, Tensor]:
    """Points in 0..1 and their weights, which sum to 1."""
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    least = 2 if method == "riemann_trapezoid" else 1
    if steps < least:
        raise ValueError(f"steps must be at least {least} for {method}, not {steps}")
    if method == "gausslegendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        points, weights = (points + 1) / 2, weights / 2
    elif method == "riemann_middle":
        points, weights = (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    else:
        points, weights = np.linspace(0, 1, steps), np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
    return torch.from_numpy(points), torch.from_numpy(weights)
