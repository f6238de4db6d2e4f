"""A network as a chain of layers: what can be drawn, read out of any PyTorch module that is one."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from reprise.nn.hooks import evaluating, unwrap

__all__ = ["Layer", "Network", "read_network"]

SUPPORTED = "convolution, ReLU, max-pooling, flatten, linear and a final softmax"


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer.

    Attributes:
        name: unique in the network.
        kind: "conv", "relu", "pool", "flatten" or "linear".
        kernel, stride, padding: of "conv" and "pool", in pixels.
        weight: (out, in, kernel, kernel) of "conv", (out, in) of "linear".
        bias: (out,); zeros where the layer has none.
        channels_last: "flatten" in the order row, column, channel instead of channel, row, column.
    """

    name: str
    kind: str
    kernel: int = 0
    stride: int = 0
    padding: int = 0
    weight: Tensor | None = None
    bias: Tensor | None = None
    channels_last: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer to a batch."""
        match self.kind:
            case "conv":
                return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)  # type: ignore[arg-type]
            case "relu":
                return F.relu(x)
            case "pool":
                return F.max_pool2d(x, self.kernel, self.stride, self.padding)
            case "flatten":
                return (x.permute(0, 2, 3, 1) if self.channels_last else x).flatten(1)
            case _:
                return F.linear(x, self.weight, self.bias)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Network:
    """A chain of layers that ends in logits.

    Attributes:
        layers: in their order.
        ends_in: "logits", "probabilities" or "log-probabilities": what the module itself returns.
    """

    layers: tuple[Layer, ...]
    ends_in: str

    @torch.inference_mode()
    def outputs(self, images: Tensor) -> list[Tensor]:
        """What every layer returns for images (N, C, S, S).

        Raises:
            ValueError: pictures that are not square, or that do not fit a layer, which is named.
        """
        if images.ndim != 4 or images.shape[-1] != images.shape[-2] or not images.is_floating_point():
            raise ValueError(
                f"pictures must be square floats (N, C, S, S), not {images.dtype} of shape {tuple(images.shape)}; "
                "crop them, and divide bytes by 255"
            )
        found, x = [], images
        for place, layer in enumerate(self.layers, 1):
            try:
                _check_fit(layer, x)
                x = layer(x)
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    f"layer {place}, {layer.name!r} ({layer.kind}), cannot take {_shape(x)}, which pictures of "
                    f"{tuple(images.shape[1:])} come to there: {str(error).splitlines()[0]}"
                ) from error
            found.append(x)
        return found


def read_network(model: nn.Module) -> Network:
    """Read a module that is a chain of the layers that can be drawn.

    Layers may be modules, nested in any way, or function calls in ``forward``. Dropout and identities, which do nothing
    in evaluation, are left out; a final softmax or log-softmax is noted in ``ends_in``.

    Args:
        model: left as it was. Weights are copied to float32 on the CPU.

    Raises:
        ValueError: a layer that cannot be drawn (named with its place), branches, a ``forward`` whose course depends on
            values, or weights that are not finite.

    Example:
        >>> from reprise.nn import TinyVGG
        >>> [layer.kind for layer in read_network(TinyVGG()).layers][-3:]
        ['pool', 'flatten', 'linear']
    """
    model = unwrap(model)
    try:
        with evaluating(model):
            graph = fx.symbolic_trace(_as_root(model)).graph
    except Exception as error:  # whatever a forward does with a stand-in for its input
        raise ValueError(
            f"{type(model).__name__} cannot be read as a chain of layers: its forward decides by values or sizes, or "
            f"takes more than one input ({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            f"give an nn.Sequential of {SUPPORTED}"
        ) from error
    layers: list[Layer] = []
    ends_in = "logits"
    for place, node in enumerate(_chain(graph, model), 1):
        kind, arguments, name = _meaning(node, model)
        if ends_in != "logits":
            raise ValueError(f"layer {place}, {name!r}, follows a softmax; a softmax can only be the last layer")
        made = _make(kind, arguments, name, place)
        if isinstance(made, str):
            ends_in = made
        elif made is not None:
            layers = _append(layers, made, place)
    if not layers or layers[-1].kind != "linear":
        last = f"{layers[-1].name!r} ({layers[-1].kind})" if layers else "nothing"
        raise ValueError(f"the network ends in {last}; it must end in a linear layer of one number per class")
    return Network(tuple(layers), ends_in)


def _as_root(model: nn.Module) -> nn.Module:
    # A layer that is the whole network is traced as the one step of a chain, not into its own forward.
    own_code = not type(model).__module__.startswith("torch.nn.modules")
    return model if own_code or isinstance(model, nn.Sequential) else nn.Sequential(model)


def _chain(graph: fx.Graph, model: nn.Module) -> list[fx.Node]:
    """The operations between input and output, each with the one before it as its only input."""
    # Sizes, as in x.view(x.size(0), -1), are asked for beside the chain.
    nodes = [node for node in graph.nodes if node.op != "output" and node.target not in SIZES]
    result = next(node for node in graph.nodes if node.op == "output").args[0]
    for before, node in pairwise(nodes):
        if [source for source in node.all_input_nodes if source.target not in SIZES] != [before]:
            raise ValueError(
                f"{type(model).__name__} is no chain: {node.name!r} takes "
                f"{', '.join(repr(source.name) for source in node.all_input_nodes) or 'no layer'} where only "
                f"{before.name!r} is before it; branches, sums and weights used outside layers cannot be drawn"
            )
    if result is not nodes[-1]:
        raise ValueError(f"{type(model).__name__} must return one tensor, what its last layer gives")
    return nodes[1:]


FUNCTIONS: dict[Any, str] = {
    F.relu: "relu", torch.relu: "relu", "relu": "relu", torch.relu_: "relu", "relu_": "relu",
    F.max_pool2d: "pool", torch.max_pool2d: "pool",
    torch.flatten: "flatten", "flatten": "flatten", "permute": "permute", torch.permute: "permute",
    F.softmax: "softmax", torch.softmax: "softmax", "softmax": "softmax",
    F.log_softmax: "log_softmax", torch.log_softmax: "log_softmax", "log_softmax": "log_softmax",
    "view": "reshape", "reshape": "reshape", torch.reshape: "reshape",
    F.dropout: "identity", F.dropout2d: "identity", "contiguous": "identity",
}  # fmt: skip
SIZES = ("size", getattr, operator.getitem)
MODULES: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool", nn.Flatten: "flatten", nn.Linear: "linear",
    nn.Softmax: "softmax", nn.LogSoftmax: "log_softmax",
    nn.Identity: "identity", nn.Dropout: "identity", nn.Dropout2d: "identity",
}  # fmt: skip
SIGNATURES: dict[str, tuple[str, ...]] = {  # names of the arguments of functions, after the input
    "pool": ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "flatten": ("start_dim", "end_dim"),
    "permute": ("dims",),
    "reshape": ("shape",),
    "softmax": ("dim",),
    "log_softmax": ("dim",),
}


def _meaning(node: fx.Node, model: nn.Module) -> tuple[str, Any, str]:
    """The kind of an operation, its arguments as attributes or a dictionary, and its name."""
    if node.op == "call_module":
        module = _as_root(model).get_submodule(str(node.target))
        name = str(node.target) if module is not model else type(model).__name__
        return MODULES.get(type(module), type(module).__name__), module, name
    target = node.target
    kind = FUNCTIONS.get(target, getattr(target, "__name__", str(target)))
    values = node.args[1:]
    if kind in ("permute", "reshape") and len(values) > 1:  # one by one
        values = (tuple(values),)
    return kind, dict(zip(SIGNATURES.get(kind, ()), values, strict=False)) | dict(node.kwargs), node.name


def _make(kind: str, given: Any, name: str, place: int) -> Layer | str | None:
    """A layer; what the network ends in; or None for what does nothing."""

    def get(key: str, default: Any) -> Any:
        value = given.get(key) if isinstance(given, dict) else getattr(given, key, None)
        return default if value is None else value

    def refuse(why: str) -> ValueError:
        return ValueError(f"layer {place}, {name!r} ({kind}), cannot be drawn: {why}")

    def square(key: str, default: Any = None) -> int:
        value = get(key, default)
        first, *others = value if isinstance(value, (tuple, list)) else (value,)
        if others and others != [first]:
            raise refuse(f"its {key} {tuple(value)} is not square")
        return int(first)

    if kind == "identity":
        return None
    if kind == "relu":
        return Layer(name, kind)
    if kind == "conv":
        if get("groups", 1) != 1 or square("dilation", 1) != 1 or get("padding_mode", "zeros") != "zeros":
            raise refuse("groups, dilation and padding other than by zeros are not")
        padding = get("padding", 0)
        if isinstance(padding, str):
            if padding == "same" and square("kernel_size") % 2 == 0:
                raise refuse('padding "same" of an even kernel is not the same on both sides')
            padding = (square("kernel_size") - 1) // 2 if padding == "same" else 0
        else:
            padding = square("padding")
        weight = _copy(given.weight, name, place)
        bias = torch.zeros(len(weight)) if given.bias is None else _copy(given.bias, name, place)
        return Layer(name, kind, square("kernel_size"), square("stride"), padding, weight, bias)
    if kind == "pool":
        if square("dilation", 1) != 1 or get("ceil_mode", False) or get("return_indices", False):
            raise refuse("dilation, ceil_mode and return_indices are not")
        kernel = square("kernel_size")
        return Layer(name, kind, kernel, square("stride", kernel), square("padding", 0))
    if kind == "permute":
        if tuple(get("dims", ())) != (0, 2, 3, 1):
            raise refuse("of permutations, only (0, 2, 3, 1) before a flatten can")
        return Layer(name, kind)
    if kind == "reshape":
        if len(get("shape", ())) != 2:
            raise refuse(f"it must make vectors (N, ...), not {tuple(get('shape', ()))}")
        return Layer(name, "flatten")
    if kind == "flatten":
        default = 1 if isinstance(given, nn.Flatten) else 0
        if get("start_dim", default) != 1 or get("end_dim", -1) not in (-1, 3):
            raise refuse("it must flatten everything but the batch: start_dim 1, end_dim -1")
        return Layer(name, kind)
    if kind == "linear":
        weight = _copy(given.weight, name, place)
        bias = torch.zeros(len(weight)) if given.bias is None else _copy(given.bias, name, place)
        return Layer(name, kind, weight=weight, bias=bias)
    if kind in ("softmax", "log_softmax"):
        if get("dim", -1) not in (1, -1):
            raise refuse(f"it must be over the classes, dim 1, not {get('dim', None)}")
        return "probabilities" if kind == "softmax" else "log-probabilities"
    raise ValueError(f"layer {place}, {name!r}, is a {kind}, which cannot be drawn; there are {SUPPORTED}")


def _append(layers: list[Layer], layer: Layer, place: int) -> list[Layer]:
    if layers and layers[-1].kind == "permute":
        if layer.kind != "flatten":
            raise ValueError(f"layer {place}, {layer.name!r}, follows a permutation, which only a flatten may")
        return [*layers[:-1], replace(layer, name="flatten", channels_last=True)]
    flat = any(before.kind == "flatten" for before in layers)
    if layer.kind in ("conv", "pool", "flatten", "permute") and flat:
        raise ValueError(f"layer {place}, {layer.name!r} ({layer.kind}), takes maps and comes after a flatten")
    if layer.kind == "linear" and not flat:
        raise ValueError(f"layer {place}, {layer.name!r} (linear), takes a vector: put an nn.Flatten() before it")
    if any(before.name == layer.name for before in layers):  # one module used twice
        layer = replace(layer, name=f"{layer.name} ({place})")
    return [*layers, layer]


def _copy(weight: Tensor, name: str, place: int) -> Tensor:
    if weight.is_complex() or not weight.isfinite().all():
        raise ValueError(
            f"layer {place}, {name!r}, has weights that are not finite real numbers; did the training diverge?"
        )
    return weight.detach().float().cpu().clone().contiguous()


def _check_fit(layer: Layer, x: Tensor) -> None:
    if layer.weight is not None and x.shape[1] != layer.weight.shape[1]:
        things = "channels" if layer.kind == "conv" else "numbers"
        raise ValueError(f"it takes {layer.weight.shape[1]} {things}, not {x.shape[1]}")


def _shape(x: Tensor) -> str:
    return "×".join(map(str, x.shape[1:]))
