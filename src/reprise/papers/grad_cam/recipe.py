"""Asked about one of two objects in a scene, which explanation of a classifier's decision points at the right one?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise import explain
from reprise.data import Scenes, images, two_object_scenes
from reprise.explain import GradCAM, GuidedGradCAM, Saliency
from reprise.papers.grad_cam.pictures import figure
from reprise.training.fit import fit, predict

__all__ = ["Settings", "figure", "measure", "prepare"]

LAYER = "last_relu"  # output of the last convolution after its ReLU: 64 maps, a quarter of the scene's size


@dataclass(frozen=True)
class Settings:
    """Two digits of different classes on a cluttered canvas; one network that names both."""

    method: str = "grad_cam"  # the explanation: a key of METHODS
    data: str = "digits"  # picture set the objects come from
    enlarge: int = 3  # factor by which the objects grow: digits of 24x24
    canvas: int = 48  # height and width of a scene in pixels
    train: int = 10_000  # training scenes
    test: int = 200  # test scenes; those count in which the two highest logits are the two objects
    occlusion: int = 50  # how many of these are compared with an occlusion map
    epochs: float = 2  # passes over the training scenes
    batch_size: int = 64  # scenes per step
    learning_rate: float = 1e-3  # Adam
    patch: int = 7  # side of the occluding patch in pixels, coloured as the scene's mean
    stride: int = 3  # pixels from one patch to the next


def vgg_like(canvas: int, classes: int) -> nn.Sequential:
    """Six convolutions in three blocks and two dense layers, without global pooling; initialised as in He et al."""
    net, channels = nn.Sequential(), 1
    for number, width in enumerate((16, 16, 32, 32, 64, 64), start=1):
        net.add_module(f"conv_{number}", nn.Conv2d(channels, width, 3, padding=1))
        net.add_module(f"relu_{number}" if number < 6 else LAYER, nn.ReLU())
        if number % 2 == 0:
            net.add_module(f"pool_{number}", nn.MaxPool2d(2))
        channels = width
    size = 64 * (canvas // 8) ** 2
    net.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, classes)))
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        else:
            nn.init.zeros_(parameter)
    return net


def random_map(pictures: Tensor, targets: Tensor) -> Tensor:
    """A floor: white noise."""
    return torch.rand(*targets.shape, *pictures.shape[2:])


def centre_map(pictures: Tensor, targets: Tensor) -> Tensor:
    """A floor: the same hill in the middle of every picture."""
    row, column = (torch.linspace(-1, 1, length) for length in pictures.shape[2:])
    return torch.exp(-2 * (row[:, None] ** 2 + column**2)).expand(*targets.shape, -1, -1)


METHODS: dict[str, Callable[[nn.Module], Callable[[Tensor, Tensor], Tensor]]] = {
    "grad_cam": lambda net: GradCAM(net, LAYER),
    "guided_grad_cam": lambda net: GuidedGradCAM(net, LAYER),
    "deconv_grad_cam": lambda net: GuidedGradCAM(net, LAYER, rule="deconv"),
    "counterfactual": lambda net: GradCAM(net, LAYER, counterfactual=True),
    "gradient": lambda net: Saliency(net, "gradient"),
    "guided_backprop": lambda net: Saliency(net, "guided"),
    "deconvnet": lambda net: Saliency(net, "deconv"),
    "random": lambda net: random_map,
    "centre": lambda net: centre_map,
}


@dataclass(frozen=True)
class Shared:
    """What all methods of a seed explain."""

    net: nn.Module
    scenes: Scenes  # test scenes with both labels right
    both_right: float  # their share
    drops: Tensor  # (occlusion, 2, h, w) drop of each object's logit under the occluding patch


def prepare(trial: Any) -> Shared:
    """Train the network on scenes of training pictures; keep the test scenes that it gets right."""
    s = trial.settings
    data, draw = images.load(s.data), torch.Generator().manual_seed(trial.seed)
    train = two_object_scenes(data.train, s.train, generator=draw, canvas=s.canvas, enlarge=s.enlarge)
    test = two_object_scenes(data.test, s.test, generator=draw, canvas=s.canvas, enlarge=s.enlarge)
    net = vgg_like(s.canvas, len(test.classes)).to(trial.device)
    fit(
        net, train.pixels, train.labels, loss=F.binary_cross_entropy_with_logits, epochs=s.epochs,
        batch_size=s.batch_size, learning_rate=s.learning_rate, transform=to_floats, diverged="stop",
        on_step=trial.on_step,
    )  # fmt: skip
    named = predict(net, test.pixels, transform=to_floats).topk(2).indices
    right = (named.sort(1).values == test.pair.sort(1).values).all(1)
    scenes, drops = test[right], torch.empty(0)
    if len(scenes):
        some, pair = scenes.floats()[: s.occlusion].to(trial.device), scenes.pair[: s.occlusion].to(trial.device)
        drops = explain.occlusion_map(net, some, pair, patch=s.patch, stride=s.stride).cpu()
    return Shared(net, scenes, float(right.float().mean()), drops)


def measure(trial: Any) -> dict[str, float]:
    """Explain both objects of every scene, and score the maps by the boxes and by the occlusion maps."""
    s, shared, scenes = trial.settings, trial.shared, trial.shared.scenes
    if not len(scenes):  # the network learned nothing that could be explained
        worst = {"pointing": 0.0, "pointing_other": 0.0, "discrimination": 0.0, "localization_error": 1.0}
        return worst | {"rank_correlation": -1.0, "both_right": 0.0}
    method = METHODS[s.method](shared.net)
    maps = method(scenes.floats().to(trial.device), scenes.pair.to(trial.device)).cpu()  # (N, 2, H, W)
    own, other = scenes.boxes, scenes.boxes.flip(1)
    covered = F.avg_pool2d(maps[: len(shared.drops)], s.patch, s.stride)  # the map under each position of the patch
    few = slice(6)
    np.savez(trial.folder / "examples.npz", pixels=scenes.pixels[few, 0], boxes=own[few], maps=maps[few],
             names=np.array(scenes.classes)[scenes.pair[few]])  # fmt: skip
    return {
        "pointing": class_mean(explain.pointing_game(maps, own), scenes.pair),
        "pointing_other": class_mean(explain.pointing_game(maps, other), scenes.pair),
        "discrimination": class_mean(explain.discrimination(maps, own, other), scenes.pair),
        "localization_error": class_mean((explain.box_iou(explain.map_boxes(maps), own) < 0.5).float(), scenes.pair),
        "rank_correlation": float(explain.rank_correlation(covered.flatten(0, 1), shared.drops.flatten(0, 1)).mean()),
        "both_right": shared.both_right,
    }


def to_floats(pixels: Tensor) -> Tensor:
    """Bytes to 0..1."""
    return pixels.float().div_(255)


def class_mean(values: Tensor, classes: Tensor) -> float:
    """The mean over classes of the mean over the objects of a class."""
    counts = torch.bincount(classes.flatten())
    sums = torch.bincount(classes.flatten(), weights=values.flatten())
    return float((sums / counts)[counts > 0].mean())
