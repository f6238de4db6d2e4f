"""Bags for multiple-instance learning: sets of instances of which only the whole has a label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reprise.data import images, store

__all__ = ["Bags", "bit_pattern_bags", "digit_bags", "load"]


@dataclass(frozen=True)
class Bags:
    """Bags of different sizes, padded to the largest.

    Attributes:
        instances: (N, S, F) floats; zeros at the padding.
        padding: (N, S) booleans, True where there is no instance.
        labels: (N,) integers, 0 or 1.
    """

    instances: Tensor
    padding: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> Bags:
        """The bags of an index tensor, padded to the largest of them only."""
        padding = self.padding[index]
        longest = int((~padding).sum(1).max()) if len(padding) else 0
        return Bags(self.instances[index, :longest], padding[:, :longest], self.labels[index])

    @property
    def sizes(self) -> Tensor:
        """(N,) how many instances each bag has."""
        return (~self.padding).sum(1)

    @classmethod
    def of(cls, instances: Tensor, sizes: Tensor, labels: Tensor) -> Bags:
        """Pad bags that lie one after the other.

        Args:
            instances: (sum of sizes, F).
            sizes: (N,) integers above 0.
            labels: (N,).

        Raises:
            ValueError: the sizes do not add up, or a bag is empty.

        Example:
            >>> Bags.of(torch.ones(5, 2), torch.tensor([2, 3]), torch.tensor([0, 1])).padding
            tensor([[False, False,  True],
                    [False, False, False]])
        """
        if int(sizes.sum()) != len(instances) or len(sizes) != len(labels) or not len(sizes):
            raise ValueError(
                f"{len(sizes)} sizes of {int(sizes.sum())} instances came with {len(instances)} instances and "
                f"{len(labels)} labels"
            )
        if not (sizes > 0).all():
            raise ValueError(f"bag {int((sizes <= 0).nonzero()[0])} is empty; a bag has at least one instance")
        padding = torch.arange(int(sizes.max())) >= sizes[:, None]
        padded = torch.zeros(*padding.shape, instances.shape[1])
        padded[~padding] = instances.float()
        return cls(padded, padding, labels)

    def folds(self, count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Stratified cross-validation over bags: pairs of index tensors (training, test).

        Args:
            count: folds.
            seed: shuffles the bags.

        Raises:
            ValueError: a class has fewer bags than there are folds.
        """
        from sklearn.model_selection import StratifiedKFold

        rarest = int(torch.bincount(self.labels, minlength=2).min())
        if not 2 <= count <= rarest:
            raise ValueError(f"the rarer class has {rarest} bags: folds must be between 2 and that, not {count}")
        for train, test in StratifiedKFold(count, shuffle=True, random_state=seed).split(self.padding, self.labels):
            yield torch.from_numpy(train), torch.from_numpy(test)


def load(name: str) -> Bags:
    """Load a multiple-instance set: a table with the columns ``label`` (0 or 1), ``bag`` and ``f0``, ``f1``, ...

    Args:
        name: a folder where :mod:`reprise.data.store` looks, say "elephant" (200 bags, 230 features) or "musk1" (92
            bags, 166 features), or "digits" for :func:`digit_bags` with seed 0.

    Raises:
        reprise.data.DataMissing: the set is not on this machine.
        ValueError: the table is damaged, lacks a column, holds values that are not finite, or a bag has two labels.

    Example:
        >>> load("digits").instances.shape
        torch.Size([200, 16, 64])
    """
    if name == "digits":
        return digit_bags(200, seed=0)
    path = store.find(name, "train")
    columns = store.read_table(path).column_names
    features = sorted((c for c in columns if c[:1] == "f" and c[1:].isdigit()), key=lambda c: int(c[1:]))
    table = store.read_table(path, ["label", "bag", *features])
    if not features or not table.num_rows:
        raise ValueError(f"{path} has no features f0, f1, ... or no rows; it has {', '.join(columns)}")
    values = np.stack([table[feature].to_numpy().astype(np.float32) for feature in features], 1)
    if not np.isfinite(values).all():
        raise ValueError(f"row {int(np.argmin(np.isfinite(values).all(1)))} of {path} holds a value that is not finite")
    labels = table["label"].to_numpy()
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"the labels of {path} are 0 and 1, not {', '.join(map(str, np.unique(labels)[:5]))}")
    names, bag = np.unique(table["bag"].to_numpy(), return_inverse=True)
    order = np.argsort(bag, kind="stable")
    sizes = np.bincount(bag)
    per_bag = np.array([labels[bag == i].mean() for i in range(len(names))])
    mixed = names[(per_bag > 0) & (per_bag < 1)]
    if len(mixed):
        raise ValueError(f"bag {mixed[0]} of {path} has instances of both labels; the label is that of the bag")
    return Bags.of(torch.from_numpy(values[order]), torch.from_numpy(sizes), torch.from_numpy(per_bag.astype(np.int64)))


def digit_bags(
    count: int, seed: int, mean_size: float = 10.0, target: int = 9, digits: images.Images | None = None
) -> Bags:
    """Bags of handwritten digits: positive where the target is among them; every other bag is positive.

    Source: Ilse et al., Attention-based Deep Multiple Instance Learning, ICML 2018, section 4.2.

    Args:
        count: bags.
        seed: seeds sizes (round of a normal with standard deviation 2, between 1 and 16) and pictures.
        mean_size: mean of that normal.
        target: the digit that makes a bag positive.
        digits: pictures to draw from, say ``images.load("mnist").train``; by default scikit-learn's.

    Returns:
        Bags of pictures laid flat, grey values in 0..1.

    Raises:
        ValueError: no bags, or no picture of the target or of anything else.

    Example:
        >>> bags = digit_bags(4, seed=1)
        >>> bags.labels, bags.instances.shape
        (tensor([0, 1, 0, 1]), torch.Size([4, 16, 64]))
    """
    if count < 1 or target not in range(10):
        raise ValueError(f"at least one bag and a target in 0..9 are needed, not {count} and {target}")
    digits = images.load("digits").train if digits is None else digits
    generator = np.random.default_rng(seed)
    hits, others = (((digits.labels == target) == wanted).nonzero()[:, 0].numpy() for wanted in (True, False))
    if not len(hits) or not len(others):
        raise ValueError(f"among the {len(digits.labels)} pictures are {len(hits)} of the digit {target}")
    padding = torch.ones(count, 16, dtype=torch.bool)
    padded = torch.zeros(count, 16, digits.pixels[0].numel())
    for i in range(count):
        size = int(np.clip(round(generator.normal(mean_size, 2)), 1, 16))
        chosen = generator.choice(len(digits.labels) if i % 2 else others, size)
        if i % 2 and not np.isin(chosen, hits).any():
            chosen[generator.integers(size)] = generator.choice(hits)
        padded[i, :size] = digits.pixels[torch.from_numpy(chosen)].flatten(1).float() / 255
        padding[i, :size] = False
    return Bags(padded, padding, torch.arange(count) % 2)


def bit_pattern_bags(count: int, seed: int, size: int = 16, bits: int = 8, signals: int = 8) -> Bags:
    """Bags of random bit patterns: half of them hold one of a few signal patterns, at a random place.

    Source: Ramsauer et al., Hopfield Networks is All You Need, ICLR 2021, the bit pattern task of the published code.

    Args:
        count: bags; the first half is positive.
        seed: seeds signals and instances.
        size: instances per bag.
        bits: bits per instance.
        signals: distinct non-zero signal patterns; no other instance is one of them, or zero.

    Example:
        >>> bit_pattern_bags(6, seed=0).instances.shape
        torch.Size([6, 16, 8])
    """
    if not 0 < signals < 2**bits - 1 or count < 1 or size < 1:
        raise ValueError(f"{signals} signals do not leave other patterns of {bits} bits, or there is no bag to fill")
    generator = np.random.default_rng(seed)
    codes = 1 + generator.permutation(2**bits - 1)
    bags = generator.choice(codes[signals:], (count, size))
    positive = count // 2
    bags[np.arange(positive), generator.integers(size, size=positive)] = generator.choice(codes[:signals], positive)
    instances = torch.from_numpy(bags[..., None] >> np.arange(bits) & 1).float()
    labels = (torch.arange(count) < positive).long()
    return Bags(instances, torch.zeros(count, size, dtype=torch.bool), labels)
