"""The spellings of names: "Grad-CAM", "gradcam" and "grad cam" are one, "C++" is not "C"."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator

__all__ = ["STOP_WORDS", "names_of_title", "plain", "tokens", "variants"]

_STOP_WORDS = (
    "a about after all also an and any are as at be been between both but by can could do does each for from had has"
    " have how i if in into is it its like me more most my no not of on one only or other our over same show so some"
    " such than that the their them then there these they this through to under up use used uses using via want was"
    " we were what when where whether which while who why will with without would you your"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
WORD = re.compile(r"[^\W_]+[+#]*", re.UNICODE)
HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
LONGEST = 60  # letters of a token: what is longer is no word
METHOD = re.compile(r"\(([A-Za-z][\w+#-]{1,24})\)")


def tokens(text: str) -> list[str]:
    """The words of a text in small letters without accents.

    Example:
        >>> tokens("Sim-to-Real in C++: naïve?")
        ['sim', 'to', 'real', 'in', 'c++', 'naive']
    """
    return [word[:LONGEST] for word in WORD.findall(_small(text))]


def plain(text: str) -> str:
    """A name without anything that spellings differ in.

    Example:
        >>> plain("Grad-CAM"), plain("deep mad"), plain("C++")
        ('gradcam', 'deepmad', 'c++')
    """
    return "".join(tokens(text))


def variants(title: str) -> Iterator[str]:
    """Other spellings of a title's words: split at capitals, joined at hyphens, joined with the next word.

    Example:
        >>> sorted(set(variants("DeepMAD via Grad-CAM")))
        ['deep', 'deepmadvia', 'gradcam', 'mad', 'viagrad']
    """
    words = title.split()
    for word in words:
        pieces = [piece for piece in HUMPS.split(word) if tokens(piece)]
        if len(pieces) > 1:
            yield from (token for piece in pieces for token in tokens(piece))
        if len(tokens(word)) > 1:
            yield plain(word)
    flat = tokens(title)
    for left, right in itertools.pairwise(flat):
        yield (left + right)[:LONGEST]


def names_of_title(title: str) -> set[str]:
    """Plain names that a title goes by: the whole of it, what stands before a colon, and short forms in brackets.

    Example:
        >>> sorted(names_of_title("Grad-CAM: Visual Explanations"))
        ['gradcam', 'gradcamvisualexplanations']
    """
    names = {plain(title)}
    head, colon, _ = title.partition(":")
    if colon and len(head.split()) <= 5:
        names.add(plain(head))
    names.update(plain(short) for short in METHOD.findall(title))
    return {name for name in names if len(name) > 1}


def _small(text: str) -> str:
    if text.isascii():
        return text.lower()
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
