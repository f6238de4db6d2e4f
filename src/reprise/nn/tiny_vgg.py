"""Tiny VGG: the network that CNN Explainer draws, small enough to look at every one of its maps."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["FlattenChannelsLast", "TinyVGG", "load_tfjs_weights"]


class FlattenChannelsLast(nn.Module):
    """Maps (N, C, H, W) to vectors (N, H·W·C) in the order row, column, channel, as TensorFlow flattens.

    Example:
        >>> FlattenChannelsLast()(torch.tensor([[[[1, 2]], [[3, 4]]]]))
        tensor([[1, 3, 2, 4]])
    """

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).flatten(1)


class TinyVGG(nn.Sequential):
    """Two blocks of convolution, ReLU, convolution, ReLU and max-pooling, then one linear layer.

    All convolutions are 3x3 with stride 1, without padding and with a bias; pools are 2x2 with stride 2. Kernels start
    Glorot-uniform, biases at zero. The network returns logits: the published one ends in their softmax.

    Source: Wang et al., CNN Explainer, arXiv 2004.15004, and the code published with it.

    Args:
        in_size: height and width of the pictures in pixels, at least 16.
        in_channels: 3 for colour, 1 for grey.
        filters: channels of every convolution.
        classes: number of logits K.
        flatten: "channels_last" (row, column, channel), the order of the published weights, or "channels_first"
            (channel, row, column), PyTorch's own.

    Raises:
        ValueError: a size that is too small, an unknown ``flatten``, or pictures of another shape.

    Example:
        >>> TinyVGG()(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 10])
        >>> [name for name, _ in TinyVGG().named_children()][:3]
        ['conv_1_1', 'relu_1_1', 'conv_1_2']
    """

    def __init__(
        self,
        in_size: int = 64,
        in_channels: int = 3,
        filters: int = 10,
        classes: int = 10,
        flatten: str = "channels_last",
    ) -> None:
        if in_size < 16:
            raise ValueError(f"in_size must be at least 16 pixels, or nothing is left to classify, not {in_size}")
        if min(in_channels, filters, classes) < 1:
            raise ValueError(
                f"in_channels, filters and classes must be at least 1; they are {in_channels}, {filters} and {classes}"
            )
        if flatten not in ("channels_last", "channels_first"):
            raise ValueError(f'flatten is "channels_last" or "channels_first", not {flatten!r}')
        side = ((in_size - 4) // 2 - 4) // 2
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for block in (1, 2):
            for place in (1, 2):
                layers[f"conv_{block}_{place}"] = nn.Conv2d(channels, filters, 3)
                layers[f"relu_{block}_{place}"] = nn.ReLU()
                channels = filters
            layers[f"max_pool_{block}"] = nn.MaxPool2d(2)
        layers["flatten"] = FlattenChannelsLast() if flatten == "channels_last" else nn.Flatten()
        layers["output"] = nn.Linear(side * side * filters, classes)
        super().__init__(layers)
        self.input_shape = (in_channels, in_size, in_size)
        self.apply(_init)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W), floats in 0..1, to logits (N, K)."""
        # torch.fx reads the network with a stand-in that has no shape.
        if isinstance(images, Tensor) and (images.ndim != 4 or images.shape[1:] != self.input_shape):
            wanted = ", ".join(map(str, self.input_shape))
            raise ValueError(
                f"images must be of shape (N, {wanted}), not {tuple(images.shape)}; "
                "TinyVGG(in_size=..., in_channels=...) makes a network for other sizes"
            )
        return super().forward(images)


def load_tfjs_weights(binary: str | Path, topology: str | Path) -> TinyVGG:
    """A Tiny VGG with the weights that the published code keeps for TensorFlow.js.

    Args:
        binary: the shard of weights (``group1-shard1of1.bin``), float32, kernels and biases in the order of the
            manifest; kernels of convolutions as (height, width, in, out), of the linear layer as (in, out).
        topology: the ``model.json`` beside it. It tells the sizes.

    Raises:
        ValueError: the files do not describe a Tiny VGG, or do not fit each other.
    """
    try:
        content = json.loads(Path(topology).read_text(encoding="utf-8"))
        entries = [entry for group in content["weightsManifest"] for entry in group["weights"]]
        shapes = {entry["name"]: tuple(entry["shape"]) for entry in entries}
        first = content["modelTopology"]["model_config"]["config"]["layers"][0]["config"]
        _, in_size, _, in_channels = first["batch_input_shape"]
        filters, classes = shapes["conv_1_1/kernel"][-1], shapes["output/kernel"][-1]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{topology} is no model.json of a Tiny VGG as TensorFlow.js keeps it ({error!r})") from error
    others = {entry["dtype"] for entry in entries} - {"float32"}
    if others:
        raise ValueError(f"{topology} keeps weights as {', '.join(sorted(others))}; only float32 is read")
    model = TinyVGG(in_size, in_channels, filters, classes)
    _check_names(topology, model, shapes)
    data = np.fromfile(binary, dtype="<f4")
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    if data.size != total:
        raise ValueError(f"{binary} holds {data.size} numbers, where {topology} lists {total}")
    state, start = {}, 0
    for name, shape in shapes.items():
        values = data[start : start + int(np.prod(shape))].reshape(shape)
        start += values.size
        layer, _, kind = name.partition("/")
        # (height, width, in, out) to (out, in, height, width); (in, out) to (out, in).
        values = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values.T
        state[f"{layer}.{'weight' if kind == 'kernel' else 'bias'}"] = torch.from_numpy(values.copy())
    model.load_state_dict(state)
    return model.eval()


def _check_names(topology: Any, model: TinyVGG, shapes: dict[str, tuple[int, ...]]) -> None:
    expected = {}
    for name, weight in model.named_parameters():
        layer, _, kind = name.rpartition(".")
        order = (2, 3, 1, 0) if weight.ndim == 4 else tuple(reversed(range(weight.ndim)))
        expected[f"{layer}/{'kernel' if kind == 'weight' else 'bias'}"] = tuple(weight.shape[axis] for axis in order)
    for name in [*expected, *shapes]:
        if shapes.get(name) != expected.get(name):
            raise ValueError(
                f"{topology}: {name} is {shapes.get(name, 'missing')}, "
                f"where a Tiny VGG of these sizes has {expected.get(name, 'no such weight')}"
            )


def _init(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
