"""Asked about one of two objects in a scene, which explanation of a classifier's decision points at the right one?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.data import Scenes, images, two_object_scenes
from reprise.explain import (
    GradCAM,
    GuidedGradCAM,
    Saliency,
    box_iou,
    discrimination,
    map_boxes,
    occlusion_map,
    pointing_game,
    rank_correlation,
)
from reprise.training.fit import fit, predict

if TYPE_CHECKING:
    pass

LAYER = "last_relu"  # output of the last convolution after its ReLU: 64 maps, a quarter of the scene's size
EXAMPLES = 4  # scenes kept for the figure


@dataclass(frozen=True)
class Settings:
    """Two digits of different classes on a cluttered canvas; one network that names both."""

    method: str = "grad_cam"  # the explanation: a key of METHODS
    data: str = "digits"  # picture set the objects come from
    enlarge: int = 3  # factor by which the objects grow: digits of 24x24
    canvas: int = 48  # height and width of a scene in pixels
    train: int = 4000  # training scenes
    test: int = 200  # test scenes; those count in which the two highest logits are the two objects
    occlusion: int = 50  # of these, scenes that are compared with an occlusion map
    epochs: float = 4  # passes over the training scenes
    batch_size: int = 64
    learning_rate: float = 1e-3  # Adam
    patch: int = 7  # side of the occluding patch in pixels, coloured as the scene's mean
    stride: int = 3  # pixels from one patch to the next


def vgg_like(canvas: int, classes: int) -> nn.Sequential:
    """Six convolutions in three blocks and two dense layers, without global pooling; initialised as in He et al."""

    def convolution(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]

    *deep, last_relu = [*convolution(32, 64), *convolution(64, 64)]
    net = nn.Sequential(
        *convolution(1, 16), *convolution(16, 16), nn.MaxPool2d(2),
        *convolution(16, 32), *convolution(32, 32), nn.MaxPool2d(2), *deep,
    )  # fmt: skip
    net.add_module(LAYER, last_relu)
    inputs = 64 * (canvas // 8) ** 2
    head = (nn.MaxPool2d(2), nn.Flatten(), nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, classes))
    for number, module in enumerate(head):
        net.add_module(f"head_{number}", module)
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
    height, width = pictures.shape[2:]
    row, column = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    return torch.exp(-2 * (row**2 + column**2)).expand(*targets.shape, height, width)


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
    data, generator = images.load(s.data), torch.Generator().manual_seed(trial.seed)
    sizes: dict[str, int] = {"enlarge": s.enlarge, "canvas": s.canvas}
    train = two_object_scenes(data.train, s.train, generator=generator, **sizes)
    test = two_object_scenes(data.test, s.test, generator=generator, **sizes)
    net = vgg_like(s.canvas, len(data.train.classes)).to(trial.device)
    fit(
        net, train.pixels, train.labels, loss=F.binary_cross_entropy_with_logits, epochs=s.epochs,
        batch_size=s.batch_size, learning_rate=s.learning_rate, transform=to_floats, diverged="stop",
        on_step=trial.on_step,
    )  # fmt: skip
    named = predict(net, test.pixels, transform=to_floats).topk(2).indices
    right = (named.sort(1).values == test.pair.sort(1).values).all(1)
    scenes = test[right]
    some = scenes[: s.occlusion]
    drops = torch.empty(0)
    if len(some):
        pictures, pair = some.floats().to(trial.device), some.pair.to(trial.device)
        drops = occlusion_map(net, pictures, pair, patch=s.patch, stride=s.stride).cpu()
    return Shared(net, scenes, float(right.float().mean()), drops)


def measure(trial: Any) -> dict[str, float]:
    """Explain both objects of every scene, and score the maps by the boxes and by the occlusion maps."""
    s, shared = trial.settings, trial.shared
    scenes = shared.scenes
    if not len(scenes):  # nothing was learned, so nothing can be explained
        worst = {"pointing": 0.0, "pointing_other": 0.0, "discrimination": 0.0, "localization_error": 1.0}
        return worst | {"rank_correlation": -1.0, "both_right": 0.0}
    method = METHODS[s.method](shared.net)
    maps = method(scenes.floats().to(trial.device), scenes.pair.to(trial.device)).cpu()  # (N, 2, H, W)
    own, other = scenes.boxes, scenes.boxes.flip(1)
    coarse = F.avg_pool2d(maps[: len(shared.drops)], s.patch, s.stride)  # what each position of the patch covers
    np.savez_compressed(
        trial.folder / "examples.npz",
        pixels=scenes.pixels[:EXAMPLES, 0], pair=scenes.pair[:EXAMPLES], boxes=own[:EXAMPLES], maps=maps[:EXAMPLES],
    )  # fmt: skip
    return {
        "pointing": class_mean(pointing_game(maps, own), scenes.pair),
        "pointing_other": class_mean(pointing_game(maps, other), scenes.pair),
        "discrimination": class_mean(discrimination(maps, own, other), scenes.pair),
        "localization_error": class_mean((box_iou(map_boxes(maps), own) < 0.5).float(), scenes.pair),
        "rank_correlation": float(rank_correlation(coarse.flatten(0, 1), shared.drops.flatten(0, 1)).mean()),
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
