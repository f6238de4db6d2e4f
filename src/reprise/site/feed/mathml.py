"""Mathematics in titles and abstracts: TeX between dollar signs becomes MathML, everything else escaped text."""

from __future__ import annotations

import re
from functools import lru_cache
from xml.etree.ElementTree import Element, ParseError, fromstring, tostring

from markupsafe import Markup, escape

__all__ = ["with_mathematics"]

FORMULA = re.compile(
    r"(?<!\\)\$\$(?P<display>[^$]{1,800})\$\$|(?<!\\)\$(?P<inline>[^$\s](?:[^$]{0,400}[^$\s\\])?)\$(?!\d)"
)
_ELEMENTS = (
    "math mrow mi mn mo ms mtext mspace mfrac msqrt mroot mstyle mpadded mphantom msub msup msubsup munder mover"
    " munderover mmultiscripts mprescripts none mtable mtr mtd menclose semantics"
)
ELEMENTS = frozenset(_ELEMENTS.split())
SWITCH, LENGTH = "true|false", r"-?[\d.]+(em|ex|px)?"
ATTRIBUTES = {
    "mathvariant": "[a-z-]+", "stretchy": SWITCH, "fence": SWITCH, "form": "prefix|infix|postfix", "separator": SWITCH,
    "accent": SWITCH, "accentunder": SWITCH, "displaystyle": SWITCH, "movablelimits": SWITCH,
    "scriptlevel": r"[+-]?\d", "columnalign": "[a-z ]{1,60}", "width": LENGTH, "height": LENGTH,
    "linethickness": LENGTH, "minsize": LENGTH, "maxsize": LENGTH, "lspace": LENGTH, "rspace": LENGTH,
}  # fmt: skip
NAMESPACE = "http://www.w3.org/1998/Math/MathML"
DEEPEST = 60  # nested elements


@lru_cache(maxsize=4096)
def with_mathematics(text: str) -> Markup:
    """A text for a page: mathematics set, the rest escaped. What cannot be set stays visible as it was written.

    Example:
        >>> str(with_mathematics("a < b")), "<msup>" in with_mathematics("of order $n^2$")
        ('a &lt; b', True)
        >>> str(with_mathematics("costs $5 or $6"))
        'costs $5 or $6'
    """
    parts, end = [], 0
    for match in FORMULA.finditer(text):
        parts.append(escape(text[end : match.start()]))
        source = match["display"] or match["inline"]
        parts.append(_formula(source, match["display"] is not None) or escape(match[0]))
        end = match.end()
    parts.append(escape(text[end:]))
    return Markup("").join(parts)


def _formula(source: str, display: bool) -> Markup | None:
    """MathML for TeX; None if it cannot be made or holds anything but mathematics."""
    from latex2mathml.converter import convert

    try:
        root = fromstring(convert(source, display="block" if display else "inline"))
        made = _checked(root, 0)
    except (Exception, RecursionError):  # the converter's own errors have no common base
        return None
    if made is None:
        return None
    made.set("xmlns", NAMESPACE)
    if display:
        made.set("display", "block")
    made.set("alttext", source)
    try:
        return Markup(tostring(made, encoding="unicode"))
    except (ValueError, ParseError):
        return None


def _checked(element: Element, depth: int) -> Element | None:
    """A copy of known elements with known attributes; None where there is any other element."""
    name = element.tag.rsplit("}", 1)[-1]
    if name not in ELEMENTS or depth > DEEPEST:
        return None
    copy = Element(name)
    copy.text = element.text
    for key, value in element.attrib.items():
        if key in ATTRIBUTES and re.fullmatch(ATTRIBUTES[key], value):
            copy.set(key, value)
    for child in element:
        kept = _checked(child, depth + 1)
        if kept is None:
            return None
        copy.append(kept)
    if (copy.text or "").startswith("\\"):
        return None  # a command that the converter does not know
    return copy
