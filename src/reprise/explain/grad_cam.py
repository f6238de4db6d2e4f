"""Grad-CAM: where in the picture a network finds the evidence for a class.

Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017
and IJCV 2020, arXiv 1610.02391.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from reprise.explain.gradient import input_gradient
from reprise.explain.targets import Attribution, Targets, batches, class_index, gradients, join, select_scores
from reprise.nn.hooks import Captured, Layer, capture, evaluating, find_layer, unwrap

__all__ = ["GradCAM", "GuidedGradCAM", "cam", "guided_grad_cam", "overlay"]

DETACHED = (
    "no gradient reaches the layer: the score does not depend on it, or the network computes what lies between under "
    "no_grad or detaches it"
)


class GradCAM:
    """Gradient-weighted class activation maps of any network with a convolutional layer, as it is.

    With A the (K, u, v) output of the layer and y the score of the target before the softmax (section 3),

        alpha_k = mean over positions of dy/dA_k,    map = ReLU(sum over k of alpha_k A_k).

    The network runs once per picture, without gradients up to the layer; only what comes behind it is differentiated,
    once per target. Neither the network nor its parameters' ``grad`` change.

    Args:
        model: the network to explain; wrappers such as ``DataParallel`` are looked through.
        layer: a module, its dotted name, "auto" (the last module with maps as fine as the last convolution's; see
            :func:`reprise.nn.find_layer`), or a list of these: then the maps of all layers, each scaled to 0..1, are
            averaged. The paper takes the output of the last convolution after its ReLU.
        relu: keep only evidence for the target; False also keeps the negative part.
        counterfactual: use -dy/dA: highlights what speaks against the target (section 3.3).
        upsample: "bilinear" gives maps as large as the pictures, None as large as the layer's.
        normalize: scale each map to 0..1 by its own least and largest value; a constant map becomes 0.
        reshape_transform: turns the layer's output into (N, K, u, v) by moving numbers only, say tokens (N, 1 + u v, K)
            without the first one.
        batch_size: pictures per pass; about 32 fit into a CPU's cache.

    Raises:
        ValueError: unknown ``upsample``.

    Example:
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 10)
        ... )
        >>> grad_cam = GradCAM(net)
        >>> grad_cam(torch.rand(2, 1, 5, 5)).shape  # for the class with the highest logit
        torch.Size([2, 5, 5])
        >>> grad_cam(torch.rand(2, 1, 5, 5), torch.tensor([[3, 7], [1, 2]])).shape  # for two classes of each picture
        torch.Size([2, 2, 5, 5])
        >>> grad_cam.details(torch.rand(2, 1, 5, 5), 3).weights.shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: Layer | Sequence[Layer] = "auto",
        *,
        relu: bool = True,
        counterfactual: bool = False,
        upsample: str | None = "bilinear",
        normalize: bool = False,
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 32,
    ) -> None:
        if upsample not in ("bilinear", None):
            raise ValueError(f'upsample is "bilinear" or None, not {upsample!r}')
        self.model = unwrap(model)
        self.several = not isinstance(layer, (str, nn.Module))
        self.layers: list[Layer] = list(layer) if self.several else [layer]  # type: ignore[arg-type,list-item]
        if not self.layers:
            raise ValueError("layer is an empty list; name at least one layer")
        self.relu, self.sign = relu, -1 if counterfactual else 1
        self.upsample, self.normalize = upsample, normalize
        self.reshape_transform, self.batch_size = reshape_transform, batch_size

    def __call__(self, images: Tensor, targets: Targets = None) -> Tensor:
        """Explain a batch.

        Args:
            images: (N, C, H, W) floats.
            targets: None (the class with the highest logit), a class, (N,) or (N, T) classes, or a function from the
                network's output to (N,) scores.

        Returns:
            (N, H, W), for targets (N, T) (N, T, H, W); with ``upsample=None`` (u, v) in the place of (H, W).

        Raises:
            ValueError: pictures or targets that do not fit; a layer that is unknown, does not run, runs more than once
                or has no four-dimensional output; no gradient between the score and the layer.
        """
        return self.details(images, targets).map

    def details(self, images: Tensor, targets: Targets = None) -> Attribution:
        """The maps with the weights alpha (N, K) and the logits; arguments as in a call."""
        maps: list[Tensor] = []
        weights: list[list[Tensor]] = [[] for _ in self.layers]
        outputs: list[Tensor] = []
        chunks = batches(self.model, images, targets, self.batch_size)
        with evaluating(self.model):
            for chunk, target in chunks:
                if any(isinstance(layer, str) for layer in self.layers):  # "auto" needs a picture
                    self.layers = [find_layer(self.model, layer, chunk[:1]) for layer in self.layers]
                activations, alphas, output = self._run(chunk, target)
                maps.append(self._combine(activations, alphas, chunk.shape[2:]))
                outputs.append(output)
                for store, alpha in zip(weights, alphas, strict=True):
                    store.append(alpha)
        joined = [join(store, targets) for store in weights]
        return Attribution(join(maps, targets), torch.cat(outputs), joined if self.several else joined[0])

    def _run(self, images: Tensor, targets: Targets) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Activations (n, K, u, v) and weights (n, T, K) of each layer, and the network's output."""
        # capture switches gradients on at the layer: all before it runs as plain inference.
        with capture(self.model, *self.layers, differentiable=True) as captured, torch.no_grad():
            pooling = _PastMaxPooling(captured)
            # With several layers the way back from one may lead through the pooling of another.
            simple = len(self.layers) == 1 and self.reshape_transform is None
            with pooling.behind(self.layers[0]) if simple else nullcontext():
                output = self.model(images)
            found = [self._present(layer, activation) for layer, activation in zip(self.layers, captured, strict=True)]
            pooled = (pooling.pooled[id(copy)] for copy in captured.copies)
            starts = [[activation, *more] for activation, more in zip(found, pooled, strict=True)]
            activations = [self._as_maps(activation.detach()) for activation in found]
            columns = gradients(select_scores(output, targets), list(chain.from_iterable(starts)), DETACHED)
            means = [self._mean_gradients(column, starts, activations) for column in columns]
        alphas = [self.sign * torch.stack(column, 1) for column in zip(*means, strict=True)]
        return activations, alphas, output.detach()

    def _mean_gradients(
        self, column: list[Tensor | None], starts: list[list[Tensor]], activations: list[Tensor]
    ) -> list[Tensor]:
        """The mean over positions (n, K) of the gradient at each layer, from the gradients at all that starts there."""
        left, means = iter(column), []
        for group, maps in zip(starts, activations, strict=True):
            found = [gradient for _, gradient in zip(group, left, strict=False) if gradient is not None]
            if not found:
                raise ValueError(DETACHED)
            sums = [self._as_maps(gradient).sum((-2, -1)) for gradient in found]
            means.append(torch.stack(sums).sum(0) / maps[0, 0].numel())
        return means

    def _combine(self, activations: list[Tensor], alphas: list[Tensor], size: torch.Size) -> Tensor:
        """Maps (n, T, H, W) from what was found at each layer."""
        combined = []
        for activation, alpha in zip(activations, alphas, strict=True):
            maps = torch.einsum("ntk,nkuv->ntuv", alpha, activation)
            maps = maps.relu_() if self.relu else maps
            if self.upsample is not None:
                maps = F.interpolate(maps, size=size, mode=self.upsample, align_corners=False)
            combined.append(_unit_range(maps) if self.normalize or self.several else maps)
        if len({maps.shape for maps in combined}) > 1:
            raise ValueError('the layers differ in resolution: only upsample="bilinear" can average their maps')
        return torch.stack(combined).mean(0) if self.several else combined[0]

    def _present(self, layer: Layer, activation: Tensor | None) -> Tensor:
        if activation is None:
            name = next(name for name, module in self.model.named_modules() if module is layer)
            raise ValueError(f"layer {name!r} did not run in the forward pass; choose one that does")
        return activation

    def _as_maps(self, activation: Tensor) -> Tensor:
        maps = activation if self.reshape_transform is None else self.reshape_transform(activation)
        if maps.ndim != 4:
            whose = "the layer returns" if self.reshape_transform is None else "reshape_transform returns"
            raise ValueError(
                f"{whose} {tuple(maps.shape)}, not (N, K, u, v): choose a convolutional layer, "
                f"or give a reshape_transform that arranges tokens as maps"
            )
        return maps


class _PastMaxPooling(TorchFunctionMode):
    """Lets gradients start behind the max pooling that follows a captured layer.

    Max pooling hands each gradient to exactly one of its inputs, so the sum over the positions, which is all that
    Grad-CAM takes of a gradient, is the same on either side; the slow backward pass of the pooling can be left out.
    """

    def __init__(self, captured: Captured) -> None:
        super().__init__()
        self.captured = captured
        self.pooled: dict[int, list[Tensor]] = defaultdict(list)  # by id of the copy that was pooled

    @contextmanager
    def behind(self, layer: Layer) -> Iterator[None]:
        """Look at what runs after the layer: to look at each function takes time."""
        with ExitStack() as stack:

            def begin(*_: Any) -> None:
                stack.enter_context(self)

            assert isinstance(layer, nn.Module)  # capture has found it by its name
            stack.callback(unwrap(layer).register_forward_hook(begin).remove)
            yield

    def __torch_function__(
        self, function: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Cut the graph at max pooling of a captured tensor; let every other function through."""
        known = function in (F.max_pool2d, torch.max_pool2d) and args and not (kwargs or {}).get("return_indices")
        # A copy that was worked on in place is no longer what the layer returned.
        if not known or not any(args[0] is copy and copy._version == 0 for copy in self.captured.copies):
            return function(*args, **(kwargs or {}))
        with torch.no_grad():
            pooled = function(*args, **(kwargs or {})).requires_grad_()
        self.pooled[id(args[0])].append(pooled)
        return pooled.clone()  # what follows may work in place


class GuidedGradCAM:
    """Fine maps that tell classes apart: guided backpropagation times the up-sampled Grad-CAM map (section 3.2).

    Called, it gives the largest absolute value over the channels; :func:`guided_grad_cam` gives the signed product.

    Args:
        model: the network to explain.
        layer: as in :class:`GradCAM`.
        rule: "guided", or "deconv" for Deconvolution Grad-CAM.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> GuidedGradCAM(net)(torch.rand(2, 3, 5, 5), 1).shape
        torch.Size([2, 5, 5])
    """

    def __init__(self, model: nn.Module, layer: Layer | Sequence[Layer] = "auto", *, rule: str = "guided") -> None:
        self.grad_cam, self.rule = GradCAM(model, layer), rule

    def __call__(self, images: Tensor, targets: Targets = None) -> Tensor:
        """Maps (N, H, W), or (N, T, H, W) for targets (N, T)."""
        return self.details(images, targets).map

    def details(self, images: Tensor, targets: Targets = None) -> Attribution:
        """The map with the signed product (N, C, H, W) as gradient, the weights and the logits."""
        coarse = self.grad_cam.details(images, targets)
        fine = input_gradient(self.grad_cam.model, images, targets, rule=self.rule) * coarse.map.unsqueeze(-3)
        return Attribution(fine.abs().amax(-3), coarse.logits, coarse.weights, fine)


def guided_grad_cam(
    model: nn.Module, images: Tensor, targets: Targets = None, *, layer: Layer | Sequence[Layer] = "auto"
) -> Tensor:
    """Guided backpropagation times the up-sampled Grad-CAM map, signed: (N, C, H, W).

    Arguments and errors as in :class:`GradCAM`.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> guided_grad_cam(net, torch.rand(2, 3, 5, 5), 1).shape
        torch.Size([2, 3, 5, 5])
    """
    fine = GuidedGradCAM(model, layer).details(images, targets).gradient
    assert fine is not None
    return fine


def cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = "auto",
    head: Layer | None = None,
    upsample: str | None = "bilinear",
) -> Tensor:
    """Class activation maps: the maps of the last convolution summed with the weights of the linear head.

    Only for networks whose logits are a linear layer of the maps' averages. There Grad-CAM gives the same up to the
    factor 1/(u v) and its ReLU (section 3.1). Source: Zhou et al. 2016, arXiv 1512.04150.

    Args:
        model: the network to explain.
        images: (N, C, H, W) floats.
        targets: None (the class with the highest logit), a class, or (N,) or (N, T) classes.
        layer: the layer whose maps are averaged.
        head: the linear layer; None takes the last one of the network.
        upsample: "bilinear" to the size of the pictures, or None.

    Returns:
        (N, H, W), or (N, T, H, W) for targets (N, T); may be negative.

    Raises:
        ValueError: the network's logits are not the head of the averages; targets is a function.

    Example:
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 10)
        ... )
        >>> cam(net, torch.rand(2, 1, 5, 5), 7).shape
        torch.Size([2, 5, 5])
    """
    if callable(targets):
        raise ValueError("class activation maps explain classes: a target function has no weights in the head")
    model = unwrap(model)
    linears: list[nn.Module] = [module for module in model.modules() if isinstance(module, nn.Linear)]
    linear = find_layer(model, head) if head is not None else linears[-1] if linears else None
    if not isinstance(linear, nn.Linear):
        raise ValueError("class activation maps need a linear head; this network's is none: use GradCAM")
    parts = []
    for chunk, target in batches(model, images, targets, 32):
        assert not callable(target)
        layer = find_layer(model, layer, chunk[:1])
        with evaluating(model), torch.no_grad(), capture(model, layer) as captured:
            logits = model(chunk)
        maps = captured[0]
        pooled = None if maps is None or maps.ndim != 4 else maps.mean((2, 3))
        fits = pooled is not None and pooled.shape[1] == linear.in_features
        if not fits or not torch.allclose(linear(pooled), logits, rtol=1e-3, atol=1e-4):
            raise ValueError("the logits are not the linear head of the layer's averaged maps: use GradCAM")
        summed = torch.einsum("ntk,nkuv->ntuv", linear.weight[class_index(logits, target)], maps)
        if upsample is not None:
            summed = F.interpolate(summed, size=chunk.shape[2:], mode=upsample, align_corners=False)
        parts.append(summed.detach())
    return join(parts, targets)


def overlay(image: Any, heat: Any, alpha: float = 0.5, colormap: str = "jet") -> np.ndarray:
    """Lay a map over its picture.

    Args:
        image: (H, W), (1, H, W) or (3, H, W); bytes, or floats in 0..1.
        heat: (H, W); its least value takes the first colour, its largest the last.
        alpha: share of the map in the mixture.
        colormap: name of a Matplotlib colour map.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: shapes that do not fit, alpha outside 0..1, an unknown colour map.

    Example:
        >>> overlay(torch.rand(1, 8, 8), torch.rand(8, 8)).shape
        (8, 8, 3)
    """
    from matplotlib import colormaps

    picture, values = torch.as_tensor(image).detach().cpu(), torch.as_tensor(heat).detach().cpu()
    picture = picture[None] if picture.ndim == 2 else picture
    if picture.ndim != 3 or picture.shape[0] not in (1, 3) or values.shape != picture.shape[1:]:
        raise ValueError(f"an image {tuple(picture.shape)} and a map {tuple(values.shape)} do not fit together")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is a share in 0..1, not {alpha}")
    if colormap not in colormaps:
        raise ValueError(f"Matplotlib has no colour map {colormap!r}")
    ground = picture / 255 if picture.dtype == torch.uint8 else picture.clamp(0, 1)
    colours = colormaps[colormap](_unit_range(values.float()).numpy())[..., :3]
    mixed = (1 - alpha) * ground.permute(1, 2, 0).numpy() + alpha * colours
    return (mixed * 255).round().astype(np.uint8)


def _unit_range(maps: Tensor) -> Tensor:
    """Each map scaled to 0..1; a constant one becomes 0."""
    low = maps.amin((-2, -1), keepdim=True)
    span = maps.amax((-2, -1), keepdim=True) - low
    return (maps - low) / torch.where(span > 0, span, torch.ones_like(span))
