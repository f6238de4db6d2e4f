"""Sentences as vectors without a vocabulary: words are hashed to places of a vector of fixed size."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise, product

import torch
from torch import Tensor

__all__ = ["HashedWords", "fill_templates"]

WORD = re.compile(r"\w+")


class HashedWords:
    """The words and pairs of neighbouring words of a sentence, each added to one place with one sign, at length 1.

    Place and sign come from CRC-32 of the lower-cased word, so that they are the same on every machine and need no
    vocabulary. Two sentences share as much of their vectors as they share words; pairs tell "red on blue" from "blue on
    red". A sentence without words is the zero vector.

    Source: the hashing trick, Weinberger, Dasgupta, Langford, Smola and Attenberg, ICML 2009.

    Args:
        size: D, of the vectors.

    Raises:
        ValueError: size below 1.

    Example:
        >>> words = HashedWords(64)
        >>> a, b, c = words(["push the red block left", "push the red block right", "open a drawer"])
        >>> bool(a @ b > 0.5 > a @ c), words(["Push the red block, left!"]).equal(a[None])
        (True, True)
    """

    def __init__(self, size: int = 64) -> None:
        if size < 1:
            raise ValueError(f"vectors have at least 1 number, not {size}")
        self.size = size

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """(N, size) float32 of N sentences."""
        vectors = torch.zeros(len(sentences), self.size)
        for vector, sentence in zip(vectors, sentences, strict=True):
            words = WORD.findall(sentence.lower())
            for word in [*words, *map(" ".join, pairwise(words))]:
                code = zlib.crc32(word.encode())
                vector[(code >> 1) % self.size] += 1.0 if code & 1 else -1.0
        return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)


def fill_templates(templates: Sequence[str], **choices: Sequence[str] | Mapping[str, str]) -> list[str]:
    """Every sentence that templates give with every choice of words.

    Args:
        templates: with names in braces, as for ``str.format``.
        choices: the words for each name. A template uses those that it names.

    Raises:
        ValueError: a template names something that has no choices.

    Example:
        >>> fill_templates(["push {what}", "move {what} {where}"], what=["it"], where=["left", "right"])
        ['push it', 'move it left', 'move it right']
    """
    sentences = []
    for template in templates:
        names = list(dict.fromkeys(re.findall(r"{(\w+)}", template)))
        if unknown := [name for name in names if name not in choices]:
            raise ValueError(f"{template!r} needs words for {unknown[0]!r}; there are words for {sorted(choices)}")
        for words in product(*(choices[name] for name in names)):
            sentences.append(template.format(**dict(zip(names, words, strict=True))))
    return sentences
