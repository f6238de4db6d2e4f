"""Everything that a small network computes for one picture: neurons, links, and how each value comes about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.explain.cnn_explainer.network import Layer, Network, read_network
from reprise.nn.hooks import evaluating

__all__ = ["Column", "Neuron", "SoftmaxTerms", "Trace", "intermediate", "output_size", "softmax_terms", "trace"]

TOLERANCE = 1e-4  # how far the chain of layers may be from the module that it was read from, relative to its outputs
INPUT = Layer("input", "input")


@dataclass(frozen=True)
class Neuron:
    """One neuron: a map of a convolution, a ReLU or a pool, or one number of a vector.

    Attributes:
        layer, index: where it is; ``index`` counts as the layer orders its outputs.
        kind: "input", "conv", "relu", "pool", "flatten" or "linear".
        output: (H, W) map, or a number as a tensor without dimensions.
        bias: 0 for neurons without one.
        sources: indices of the neurons of the column before that it is computed from.
        weights: (sources, kernel, kernel) of "conv", (sources,) of "linear", else None.
        cell: (channel, row, column) of the pixel that a "flatten" neuron passes on, else None.
    """

    layer: str
    index: int
    kind: str
    output: Tensor
    bias: float
    sources: range
    weights: Tensor | None = None
    cell: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Column:
    """One layer with what it computed from one picture: maps (C, H, W), or a vector (N,)."""

    layer: Layer
    output: Tensor
    before: Column | None

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def kind(self) -> str:
        return self.layer.kind

    @property
    def links(self) -> int:
        """How many links come in from the column before, all of them."""
        return sum(len(self._sources(index)) for index in range(len(self.output)))

    @property
    def neurons(self) -> list[Neuron]:
        """The neurons of this column, made anew on every call."""
        return [self.neuron(index) for index in range(len(self.output))]

    def neuron(self, index: int) -> Neuron:
        """The neuron at an index; a linear layer's knows its logit as its output."""
        if not 0 <= index < len(self.output):
            raise ValueError(f"{self.name!r} has the neurons 0 to {len(self.output) - 1}, not {index}")
        weight, bias = self.layer.weight, self.layer.bias
        return Neuron(
            self.name,
            index,
            self.kind,
            self.output[index],
            0.0 if bias is None else float(bias[index]),
            self._sources(index),
            None if weight is None else weight[index],
            self.cell(index) if self.kind == "flatten" else None,
        )

    def cell(self, index: int) -> tuple[int, int, int]:
        """The (channel, row, column) that number ``index`` of a flatten column is taken from."""
        if self.kind != "flatten" or self.before is None:
            raise ValueError(f"{self.name!r} is a {self.kind} column; only a flatten has cells")
        shape = self.before.output.shape
        order = (1, 2, 0) if self.layer.channels_last else (0, 1, 2)
        place = torch.unravel_index(torch.tensor(index), [shape[axis] for axis in order])
        cell = {axis: int(value) for axis, value in zip(order, place, strict=True)}
        return cell[0], cell[1], cell[2]

    def _sources(self, index: int) -> range:
        if self.before is None:
            return range(0)
        if self.kind in ("conv", "linear"):
            return range(len(self.before.output))
        if self.kind == "flatten":
            channel = self.cell(index)[0]
            return range(channel, channel + 1)
        return range(index, index + 1)


@dataclass(frozen=True)
class Trace:
    """What a network computed from one picture.

    Attributes:
        columns: the input and then one per layer.
        ends_in: "logits", "probabilities" or "log-probabilities": what the module itself returns.
    """

    columns: tuple[Column, ...]
    ends_in: str

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise ValueError(f"there is no layer {name!r}; there are {', '.join(column.name for column in self.columns)}")

    @property
    def logits(self) -> Tensor:
        """(K,) numbers before the softmax."""
        return self.columns[-1].output

    @property
    def probabilities(self) -> Tensor:
        """(K,) numbers that sum to 1."""
        return self.logits.softmax(0)

    def edges(self) -> list[int]:
        """How many edges an overview draws between neighbouring columns; a flatten is no column of it.

        A neuron behind a flatten is linked to every map before it.
        """
        drawn = [column for column in self.columns if column.kind != "flatten"]
        counts = []
        for before, column in pairwise(drawn):
            every = column.kind in ("conv", "linear")
            counts.append(len(column.output) * (len(before.output) if every else 1))
        return counts

    def ranges(self, scale: str = "unit") -> list[float]:
        """The range R of the colours of every column: white is 0, and the deepest colours are -R/2 and R/2.

        R is 2 (0.1 + max|v|), the maximum rounded half up to three digits, over the outputs of a layer with weights;
        what follows up to the next of them shares it. Input and output have 1.

        Args:
            scale: "unit" (each convolution by itself), "module" (one range up to and with each pool) or "global".

        Raises:
            ValueError: an unknown scale.
        """
        if scale not in ("unit", "module", "global"):
            raise ValueError(f'scale is "unit", "module" or "global", not {scale!r}')
        units: list[list[int]] = []
        modules: list[list[int]] = [[]]
        for index, column in enumerate(self.columns[1:-1], 1):
            if column.layer.weight is not None or not units:
                units.append([])
            units[-1].append(index)
            if modules[-1] and self.columns[modules[-1][-1]].kind == "pool" and column.kind not in ("relu", "flatten"):
                modules.append([])
            modules[-1].append(index)
        tops: dict[int, float] = {}
        for unit in units:
            top = float(self.columns[unit[0]].output.double().abs().max())
            tops |= dict.fromkeys(unit, top)
        groups = {"unit": units, "module": modules, "global": [[index for unit in units for index in unit]]}[scale]
        found = [1.0] * len(self.columns)
        for group in groups:
            top = max((tops[index] for index in group), default=0.0)
            for index in group:
                found[index] = 2 * (0.1 + math.floor(1000 * top + 0.5) / 1000)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers: per column name, kind, output and, where there are any, weights and biases."""
        columns = []
        for column in self.columns:
            entry: dict[str, Any] = {"name": column.name, "kind": column.kind, "output": column.output.tolist()}
            if column.layer.weight is not None and column.layer.bias is not None:
                entry |= {"weight": column.layer.weight.tolist(), "bias": column.layer.bias.tolist()}
            columns.append(entry)
        return {"columns": columns, "ends_in": self.ends_in, "probabilities": self.probabilities.tolist()}


@dataclass(frozen=True)
class SoftmaxTerms:
    """The pieces of p_i = exp(z_i) / Σ_j exp(z_j) in double precision, each (K,).

    The exponentials are those of z - max z, which leaves every quotient as it is and none infinite.
    """

    logits: Tensor
    exponentials: Tensor
    total: float
    probabilities: Tensor


def trace(model: nn.Module | Network, image: Tensor) -> Trace:
    """Run a network on one picture and keep everything.

    Args:
        model: a chain of convolution, ReLU, max-pooling, flatten and linear layers; see
            :func:`~reprise.explain.cnn_explainer.read_network`, whose result is taken, too.
        image: (C, S, S) or (1, C, S, S) floats.

    Raises:
        ValueError: a network that is no such chain, or whose outputs its layers do not explain; a picture that does not
            fit it, or is not finite.

    Example:
        >>> from reprise.nn import TinyVGG
        >>> traced = trace(TinyVGG(), torch.rand(3, 64, 64))
        >>> traced["max_pool_2"].output.shape, sum(traced.edges())
        (torch.Size([10, 13, 13]), 490)
    """
    batch = image[None] if image.ndim == 3 else image
    if batch.ndim != 4 or len(batch) != 1:
        raise ValueError(f"a trace is of one picture (C, S, S), not {tuple(image.shape)}")
    if not batch.is_floating_point() or not batch.isfinite().all():
        raise ValueError(f"a picture must be finite floats, not {batch.dtype} with what came; divide bytes by 255")
    network = model if isinstance(model, Network) else read_network(model)
    batch = batch.detach().float().cpu()
    outputs = network.outputs(batch)
    if isinstance(model, nn.Module):
        check_explained(model, network, batch)
    column = Column(INPUT, batch[0], None)
    columns = [column]
    for layer, output in zip(network.layers, outputs, strict=True):
        column = Column(layer, output[0], column)
        columns.append(column)
    return Trace(tuple(columns), network.ends_in)


def check_explained(model: nn.Module, network: Network, images: Tensor) -> None:
    """Refuse a module that computes something else than its layers say (hooks, say, are not part of the chain)."""
    parameter = next(model.parameters(), torch.empty(0))
    with evaluating(model), torch.no_grad():
        theirs = model(images.to(parameter.device, parameter.dtype)).float().cpu()
    ours = network.outputs(images)[-1]
    if network.ends_in != "logits":
        ours = ours.softmax(1) if network.ends_in == "probabilities" else ours.log_softmax(1)
    gap, scale = float((ours - theirs).abs().max()), 1 + float(ours.abs().max())
    if not gap <= TOLERANCE * scale * (100 if parameter.dtype in (torch.float16, torch.bfloat16) else 1):
        raise ValueError(
            f"the outputs of {type(model).__name__} differ by {gap:.2g} from those of its layers one after the other; "
            "remove hooks and whatever else changes them"
        )


def intermediate(traced: Trace, layer: str, index: int) -> Tensor:
    """What each channel of the layer before adds to a map of a convolution.

    Returns:
        (K, H, W): one correlation per channel. Their sum and the bias are the map.

    Raises:
        ValueError: no such layer or neuron, or the layer is no convolution.

    Example:
        >>> traced = trace(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 2)),
        ...                torch.rand(3, 4, 4))
        >>> parts, neuron = intermediate(traced, "0", 2), traced["0"].neuron(2)
        >>> torch.allclose(parts.sum(0) + neuron.bias, neuron.output, atol=1e-6)
        True
    """
    column = traced[layer]
    if column.kind != "conv" or column.before is None:
        raise ValueError(f"{layer!r} is a {column.kind} layer; only a convolution has intermediate results")
    weights = column.neuron(index).weights
    assert weights is not None
    source = column.before.output[None]
    return F.conv2d(source, weights[:, None], None, column.layer.stride, column.layer.padding, groups=len(weights))[0]


def softmax_terms(traced: Trace) -> SoftmaxTerms:
    """The pieces of the softmax formula.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
        >>> terms = softmax_terms(trace(net, torch.rand(1, 2, 2)))
        >>> torch.allclose(terms.exponentials / terms.total, terms.probabilities)
        True
    """
    logits = traced.logits.double()
    exponentials = (logits - logits.max()).exp()
    total = float(exponentials.sum())
    return SoftmaxTerms(logits, exponentials, total, exponentials / total)


def output_size(size: int, padding: int, kernel: int, stride: int) -> int | None:
    """The side of a convolution's output; None where the kernel's steps do not end at the border.

    Args:
        size: side of the input in pixels.
        padding: pixels added on every side.
        kernel: side of the kernel.
        stride: pixels per step.

    Raises:
        ValueError: sizes that are no sizes, or a kernel larger than the padded input.

    Example:
        >>> output_size(5, 0, 2, 1), output_size(5, 1, 3, 2), output_size(5, 0, 2, 2)
        (4, 3, None)
    """
    room = size + 2 * padding - kernel
    if min(size, kernel, stride) < 1 or padding < 0 or room < 0:
        raise ValueError(
            f"a kernel of {kernel} with stride {stride} does not fit an input of {size} with padding {padding}"
        )
    return room // stride + 1 if room % stride == 0 else None
