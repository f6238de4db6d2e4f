"""Look inside a network while it runs: name a layer, record what it returns, leave the network as it was."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Captured", "capture", "evaluating", "find_layer", "unwrap"]

Layer = str | nn.Module


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``.

    Example:
        >>> unwrap(torch.nn.DataParallel(torch.nn.Linear(2, 2)))
        Linear(in_features=2, out_features=2, bias=True)
    """
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        else:
            inner = getattr(model, "_orig_mod", None)  # torch.compile; its class is slow to import
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode; the block can differentiate even inside ``inference_mode``.

    On leaving, also by an exception, each module has the training flag that it had, and the grad mode is the caller's.

    Example:
        >>> net = torch.nn.Dropout()
        >>> with evaluating(net):
        ...     net.training
        False
        >>> net.training
        True
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        if any(flag for _, flag in flags):  # setting a module's attribute is slow
            model.eval()
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, flag in flags:
            if module.training is not flag:
                module.training = flag


class Captured(list[Tensor | None]):
    """What layers returned, and under ``copies`` what the network went on with."""

    def __init__(self, outputs: Iterable[Tensor | None] = ()) -> None:
        super().__init__(outputs)
        self.copies: list[Tensor | None] = list(self)


@contextmanager
def capture(model: nn.Module, *layers: Layer, differentiable: bool = False) -> Iterator[Captured]:
    """Record what layers return each time the network runs in the block.

    The network computes with copies of what is recorded, so that an in-place operation behind a layer changes nothing.

    Args:
        model: called by the block; wrappers such as ``DataParallel`` are looked through, so call ``unwrap(model)``.
        layers: modules of the network or their dotted names.
        differentiable: record tensors that ``torch.autograd.grad`` can differentiate the network's output by. Run the
            network under ``torch.no_grad()`` then: the first of the layers switches gradients on, and the part of the
            network before it costs no more than plain inference.

    Yields:
        A list with one tensor per layer, in the order of ``layers``, filled anew by every run of the network; None
        stands for a layer that did not run. Its ``copies`` are the tensors that the network went on with.

    Raises:
        ValueError: a name or module is not in the network; a layer runs twice in one pass, so that it has no single
            output; a layer returns no tensor.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(inplace=True))
        >>> with capture(net, "0") as outputs:
        ...     result = net(-torch.ones(1, 2))
        >>> outputs[0].shape
        torch.Size([1, 3])
    """
    model = unwrap(model)
    names = _names(model)
    modules = [_lookup(model, names, layer) for layer in layers]
    outputs = Captured([None] * len(layers))

    def forget(*_: Any) -> None:
        outputs[:] = [None] * len(layers)
        outputs.copies[:] = outputs

    def keep(module: nn.Module, _: Any, output: Any) -> Tensor:
        name = names[module]
        if not isinstance(output, Tensor):
            raise ValueError(f"layer {name!r} returns a {type(output).__name__}; choose a layer that returns a tensor")
        copy = None
        for index, wanted in enumerate(modules):
            if wanted is module:
                if outputs[index] is not None:
                    raise ValueError(
                        f"layer {name!r} runs more than once in a pass, so it has no single output; "
                        f"choose a layer that runs once"
                    )
                if differentiable:
                    torch.set_grad_enabled(True)
                    if not output.requires_grad:
                        output = output.detach().requires_grad_()
                copy = output.clone() if copy is None else copy
                outputs[index], outputs.copies[index] = output, copy
        assert copy is not None  # only the wanted modules have this hook
        return copy

    handles = [model.register_forward_pre_hook(forget)]
    try:
        handles += [module.register_forward_hook(keep) for module in dict.fromkeys(modules)]
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def find_layer(model: nn.Module, layer: Layer, example: Tensor | None = None) -> nn.Module:
    """The module that a name stands for.

    Args:
        model: the network.
        layer: a module of the network, its dotted name, or "auto": the last module that runs once and returns maps as
            fine as the network's last convolution does. That takes in the ReLU, the normalisation or the residual sum
            behind the convolution where these are modules, and no pooling. A convolution is any module that holds a
            four-dimensional weight and returns (N, C, H, W); those with 1x1 maps count only if there are no others.
        example: a batch to run the network on; "auto" needs it.

    Raises:
        ValueError: the layer is not in the network, or "auto" meets a network without convolutions.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> find_layer(net, "auto", torch.zeros(1, 1, 5, 5))
        ReLU()
    """
    model = unwrap(model)
    if layer != "auto":
        return _lookup(model, _names(model), layer)
    if example is None:
        raise ValueError('to find the layer "auto" the network has to run: give an example batch')
    runs: list[tuple[nn.Module, torch.Size]] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            runs.append((module, output.shape[2:]))

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with evaluating(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    convolutions = [size for module, size in runs if _is_convolution(module)]
    if not convolutions:
        raise ValueError(
            "the network has no convolution that returns (N, C, H, W): name the layer, "
            "with a reshape_transform if it returns tokens"
        )
    finest = ([size for size in convolutions if size.numel() > 1] or convolutions)[-1]
    ran = [module for module, _ in runs]
    return next(module for module, size in reversed(runs) if size == finest and ran.count(module) == 1)


def _is_convolution(module: nn.Module) -> bool:
    # Parametrised convolutions (weight norm) keep their weight in a module of its own.
    return isinstance(module, nn.modules.conv._ConvNd) or any(weight.ndim == 4 for weight in module.parameters(False))


def _names(model: nn.Module) -> dict[nn.Module, str]:
    return {module: name for name, module in model.named_modules()}


def _lookup(model: nn.Module, names: dict[nn.Module, str], layer: Layer) -> nn.Module:
    if isinstance(layer, nn.Module):
        if unwrap(layer) not in names:
            raise ValueError(f"the {type(layer).__name__} given as layer is not part of the network")
        return unwrap(layer)
    known = dict(model.named_modules(remove_duplicate=False))
    for name in (layer, layer.removeprefix("module.")):  # wrappers put "module." before every name
        if name in known:
            return known[name]
    near: Sequence[str] = difflib.get_close_matches(layer, known, n=3) or list(known)[1:6]
    raise ValueError(f"the network has no layer {layer!r}; there are {', '.join(map(repr, near))}")
