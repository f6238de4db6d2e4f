"""Labelled picture sets: scikit-learn's digits, MNIST, CIFAR-10 and Fashion-MNIST, held in memory as bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reprise.data import store

__all__ = ["ImageData", "Images", "load"]

CLASSES = {
    "digits": tuple("0123456789"),
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    ),
    "cifar10": (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
}  # fmt: skip
DIGITS_TEST = 500  # scikit-learn's digits have no split of their own: the last 500 of the 1,797 are the test pictures


@dataclass(frozen=True)
class Images:
    """Pictures with one label each.

    Attributes:
        pixels: (N, C, H, W) uint8, 0..255.
        labels: (N,) int64.
        classes: the name of each label.

    Raises:
        ValueError: pixels and labels do not fit each other, or this description.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != torch.uint8:
            raise ValueError(
                f"pixels must be bytes of shape (N, C, H, W), not {self.pixels.dtype} of {tuple(self.pixels.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            raise ValueError(
                f"{len(self.pixels)} pictures need as many int64 labels, not {self.labels.dtype} of shape "
                f"{tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> Images:
        return Images(self.pixels[index], self.labels[index], self.classes)

    def floats(self) -> Tensor:
        """The pictures as (N, C, H, W) float32 in 0..1."""
        return self.pixels.float().div_(255)


@dataclass(frozen=True)
class ImageData:
    """A picture set with its published split."""

    name: str
    train: Images
    test: Images

    def draw(self, seed: int, train: int | None = None, test: int | None = None) -> tuple[Images, Images]:
        """Draw without replacement from either split; the same seed draws the same pictures.

        Args:
            seed: seeds both draws.
            train: how many training pictures; None takes all, shuffled.
            test: how many test pictures; None takes all, shuffled.

        Raises:
            ValueError: more pictures are asked for than the split has.
        """
        generator = np.random.default_rng(seed)
        return self._draw(generator, "train", train), self._draw(generator, "test", test)

    def _draw(self, generator: np.random.Generator, split: str, count: int | None) -> Images:
        images: Images = getattr(self, split)
        count = len(images) if count is None else count
        if not 0 < count <= len(images):
            raise ValueError(f"{count} {split} pictures were asked for; {self.name} has {len(images)}")
        return images[torch.from_numpy(generator.permutation(len(images))[:count])]


def load(name: str) -> ImageData:
    """Load a picture set whole.

    ``digits`` comes with scikit-learn; the others are looked up as :mod:`reprise.data.store` says.

    Args:
        name: "digits" (8x8 grey), "mnist" and "fashion_mnist" (28x28 grey) or "cifar10" (32x32 RGB).

    Raises:
        ValueError: the name is unknown.
        reprise.data.DataMissing: the set is not on this machine; the message says how to get it.

    Example:
        >>> load("digits").train.pixels.shape
        torch.Size([1297, 1, 8, 8])
    """
    if name not in CLASSES:
        raise ValueError(f"unknown picture set {name!r}; there are {', '.join(CLASSES)}")
    if name == "digits":
        return _digits()
    return ImageData(name, *(_decode(name, store.find(name, split)) for split in ("train", "test")))


@lru_cache(maxsize=1)
def _digits() -> ImageData:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8))[:, None]
    images = Images(pixels, torch.from_numpy(digits.target.astype(np.int64)), CLASSES["digits"])
    return ImageData("digits", images[:-DIGITS_TEST], images[-DIGITS_TEST:])


@lru_cache(maxsize=4)
def _decode(name: str, path: Path) -> Images:
    """Decode every picture of a parquet file; the decoded array is kept in the cache and memory-mapped afterwards."""

    def decode() -> dict[str, np.ndarray]:
        table = store.read_table(path)
        if "img" in table.column_names:  # so the hub calls it in CIFAR-10
            table = table.rename_columns({"img": "image"})
        if not {"image", "label"} <= set(table.column_names):
            raise ValueError(f"{path} must have the columns image and label; it has {', '.join(table.column_names)}")
        pictures = [_picture(path, row, image["bytes"]) for row, image in enumerate(table["image"].to_pylist())]
        if len({picture.shape for picture in pictures}) != 1:
            raise ValueError(f"the pictures of {path} are not all of one size, or there are none")
        pixels = np.stack(pictures)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
        return {"pixels": np.ascontiguousarray(pixels), "labels": table["label"].to_numpy().astype(np.int64)}

    arrays = store.cached(path, "pictures", decode)
    return Images(torch.from_numpy(arrays["pixels"]), torch.from_numpy(arrays["labels"]), CLASSES[name])


def _picture(path: Path, row: int, content: bytes) -> np.ndarray:
    from PIL import Image

    try:
        return np.asarray(Image.open(io.BytesIO(content)))
    except OSError as error:
        raise ValueError(f"row {row} of {path} is no picture ({error}); delete the file and get it again") from error
