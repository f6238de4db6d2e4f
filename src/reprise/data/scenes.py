"""Scenes of two objects on a cluttered canvas, each object with its class and its box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.data.images import Images

__all__ = ["Scenes", "two_object_scenes"]

VISIBLE = 0.1  # a pixel brighter than this belongs to its object


@dataclass(frozen=True)
class Scenes:
    """Pictures of two objects of different classes.

    Attributes:
        pixels: (N, 1, H, W) uint8, 0..255.
        labels: (N, classes) float32, 1 for the two classes that are present.
        pair: (N, 2) int64, the class of each object.
        boxes: (N, 2, 4) int64, the tight box of each object: top, left, bottom, right, the last two exclusive.
        classes: the name of each class.
    """

    pixels: Tensor
    labels: Tensor
    pair: Tensor
    boxes: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: Tensor | slice) -> Scenes:
        return Scenes(self.pixels[index], self.labels[index], self.pair[index], self.boxes[index], self.classes)

    def floats(self) -> Tensor:
        """The pictures as (N, 1, H, W) float32 in 0..1."""
        return self.pixels.float().div_(255)


def two_object_scenes(
    images: Images,
    count: int,
    *,
    generator: torch.Generator,
    canvas: int = 64,
    enlarge: int = 1,
    noise: float = 0.1,
    clutter: int = 6,
    clutter_size: int = 8,
) -> Scenes:
    """Paste pairs of pictures of different classes, without overlap, on noise and clutter.

    The ground is the absolute value of Gaussian noise. Clutter are square pieces cut from random pictures. Each thing
    is pasted by the maximum, so that it hides nothing brighter.

    Args:
        images: one-channel pictures, bright objects on a dark ground, of at least two classes.
        count: number of scenes.
        generator: draws everything; the same state gives the same scenes.
        canvas: height and width of a scene in pixels; at least twice that of an enlarged picture.
        enlarge: factor by which pictures grow (bilinear).
        noise: standard deviation of the ground, where 1 is white.
        clutter: pieces per scene.
        clutter_size: height and width of a piece in pixels.

    Returns:
        Scenes: N = count.

    Raises:
        ValueError: pictures with several channels, that are not square, or of one class; sizes that do not fit.

    Example:
        >>> from reprise.data import images
        >>> digits = images.load("digits").train
        >>> scenes = two_object_scenes(digits, 5, enlarge=3, generator=torch.Generator().manual_seed(0))
        >>> scenes.pixels.shape, scenes.boxes.shape
        (torch.Size([5, 1, 64, 64]), torch.Size([5, 2, 4]))
    """
    size = images.pixels.shape[-1] * enlarge
    if images.pixels.shape[1:3] != (1, images.pixels.shape[-1]):
        raise ValueError(f"scenes are made of square pictures with one channel, not {tuple(images.pixels.shape[1:])}")
    if len(images.labels.unique()) < 2:
        raise ValueError("scenes show two classes; the pictures are of one")
    if count < 1 or enlarge < 1:
        raise ValueError(f"count and enlarge must be at least 1, not {count} and {enlarge}")
    if canvas < 2 * size or not 1 <= clutter_size <= size:
        raise ValueError(
            f"pictures of {size} pixels need a canvas of at least {2 * size} and clutter of at most {size}, "
            f"not {canvas} and {clutter_size}"
        )
    scenes = torch.randn(count, canvas, canvas, generator=generator).abs_().mul_(noise)
    pieces = torch.randint(len(images), (count, clutter), generator=generator)
    cut = _corners((count, clutter), size - clutter_size + 1, generator)
    put = _corners((count, clutter), canvas - clutter_size + 1, generator)
    for k in range(clutter):
        pictures = _floats(images.pixels[pieces[:, k]], enlarge)
        _paste(scenes, _crop(pictures, cut[:, k], clutter_size), put[:, k])

    chosen, corners = _draw_pairs(images.labels, count, canvas, size, generator)
    boxes = []
    for k in range(2):
        pictures = _floats(images.pixels[chosen[:, k]], enlarge)
        _paste(scenes, pictures, corners[:, k])
        boxes.append(_tight_boxes(pictures) + corners[:, k].repeat(1, 2))
    pair = images.labels[chosen]
    labels = torch.zeros(count, len(images.classes)).scatter_(1, pair, 1.0)
    pixels = scenes.clamp_(0, 1).mul_(255).round_().to(torch.uint8)[:, None]
    return Scenes(pixels, labels, pair, torch.stack(boxes, 1), images.classes)


def _draw_pairs(
    labels: Tensor, count: int, canvas: int, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Indices (N, 2) of pictures of different classes and corners (N, 2, 2) at which they do not overlap."""
    chosen, corners = torch.zeros(count, 2, dtype=torch.long), torch.zeros(count, 2, 2, dtype=torch.long)
    open_ = torch.arange(count)
    while len(open_):
        chosen[open_] = torch.randint(len(labels), (len(open_), 2), generator=generator)
        open_ = open_[labels[chosen[open_]].diff(dim=1).squeeze(1) == 0]
    open_ = torch.arange(count)
    while len(open_):
        corners[open_] = _corners((len(open_), 2), canvas - size + 1, generator)
        open_ = open_[corners[open_].diff(dim=1).abs().amax((1, 2)) < size]
    return chosen, corners


def _corners(shape: tuple[int, int], end: int, generator: torch.Generator) -> Tensor:
    return torch.randint(end, (*shape, 2), generator=generator)


def _floats(pixels: Tensor, enlarge: int) -> Tensor:
    """(N, size, size) floats in 0..1 of the enlarged pictures."""
    pictures = pixels.float().div_(255)
    if enlarge > 1:
        pictures = F.interpolate(pictures, scale_factor=enlarge, mode="bilinear", align_corners=False)
    return pictures.squeeze(1)


def _cells(corners: Tensor, size: int, width: int) -> Tensor:
    """Flat positions (N, size * size) of the pixels of squares in pictures that are ``width`` wide."""
    steps = torch.arange(size)
    row, column = corners[:, 0, None] + steps, corners[:, 1, None] + steps
    return (row[:, :, None] * width + column[:, None, :]).flatten(1)


def _crop(pictures: Tensor, corners: Tensor, size: int) -> Tensor:
    cells = _cells(corners, size, pictures.shape[-1])
    return pictures.flatten(1).gather(1, cells).unflatten(1, (size, size))


def _paste(scenes: Tensor, pictures: Tensor, corners: Tensor) -> None:
    cells = _cells(corners, pictures.shape[-1], scenes.shape[-1])
    scenes.view(len(scenes), -1).scatter_reduce_(1, cells, pictures.flatten(1), "amax")


def _tight_boxes(pictures: Tensor) -> Tensor:
    """(N, 4) boxes of the visible pixels."""
    visible = (pictures > VISIBLE).int()
    sides = []
    for line in (visible.amax(2), visible.amax(1)):
        sides.append((line.argmax(1), line.shape[1] - line.flip(1).argmax(1)))
    (top, bottom), (left, right) = sides
    return torch.stack([top, left, bottom, right], 1)
