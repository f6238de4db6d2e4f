"""Write a network as a web page that explains itself: one file, which opens without a server or a connection."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reprise.explain.cnn_explainer.bundle import bundle
from reprise.explain.cnn_explainer.network import Layer, Network, read_network
from reprise.explain.cnn_explainer.trace import check_explained
from reprise.files import written_whole

__all__ = ["export_web", "external_references"]

ATTRIBUTES = {
    "src",
    "href",
    "srcset",
    "action",
    "formaction",
    "poster",
    "data",
    "background",
    "ping",
    "cite",
    "manifest",
}
OUTWARD = re.compile(
    r"@import\b[^;]*|url\(\s*[\"']?(?!#|data:|blob:)[^)]*\)|\b(?:fetch|importScripts|import|require)\s*\([^)]*\)"
    r"|\bnew\s+(?:XMLHttpRequest|WebSocket|EventSource|WebTransport|Worker|SharedWorker|Image)\b"
    r"|\bsendBeacon\b|\bserviceWorker\b|\.(?:src|href)\s*=[^=].*"
)


def export_web(
    model: nn.Module,
    folder: str | Path,
    class_names: Sequence[str],
    samples: Tensor,
    *,
    sample_names: Sequence[str] | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    title: str = "A look into a convolutional network",
) -> Path:
    """Write ``index.html``, which shows every map of a network and how each value comes about.

    The page holds weights, pictures, style and script in one file. It opens from ``file://`` or from any server, asks
    for nothing over the network (its own policy forbids it), and computes the network in the browser: views of every
    layer, of single neurons, and of the numbers behind one value; keyboard, touch and screen readers; light and dark.
    Maps are computed in WebAssembly with SIMD. Where that is missing, or forbidden by a server's policy (which has to
    allow ``script-src 'wasm-unsafe-eval'``), plain JavaScript computes the same, several times as slowly.

    Source: Wang et al., CNN Explainer, arXiv 2004.15004, sections 5 and 6; this is an implementation of its own.

    Args:
        model: a chain of convolution, ReLU, max-pooling, flatten and linear layers that returns logits, or ends in a
            softmax; see :func:`~reprise.explain.cnn_explainer.read_network`.
        folder: made if it is missing; an ``index.html`` in it is replaced.
        class_names: one per output, in their order.
        samples: (N, C, S, S) pictures to choose from, N at least 1: bytes, or floats in 0..1, which are kept as bytes.
            Readers can bring pictures of their own where C is 1 or 3.
        sample_names: one per sample; by default they are numbered.
        mean, std: of the pixels in 0..1, one number or one per channel, where the model takes (pixels - mean) / std.
        title: of the page.

    Returns:
        The path of the page.

    Raises:
        ValueError: a model that cannot be drawn, class names or samples that do not fit it, values that are not finite.
        OSError: the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> from reprise.nn import TinyVGG
        >>> page = export_web(TinyVGG(16, 1, classes=2), tempfile.mkdtemp(), ["cat", "dog"], torch.rand(3, 1, 16, 16))
        >>> page.name, page.stat().st_size < 1_000_000
        ('index.html', True)
    """
    network = read_network(model)
    pixels = _bytes(samples)
    _, channels, size, _ = pixels.shape
    mean, std = (_per_channel(name, value, channels) for name, value in (("mean", mean), ("std", std)))
    if min(std) <= 0:
        raise ValueError(f"std must be above 0, not {std}")
    images = (pixels.float() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    outputs = network.outputs(images[:1])
    check_explained(model, network, images[:1])
    classes = _names("class_names", class_names, outputs[-1].shape[1], "the network has", "outputs")
    if sample_names is None:
        sample_names = [f"Sample {number}" for number in range(1, len(pixels) + 1)]
    labels = _names("sample_names", sample_names, len(pixels), "there are", "samples")

    content = _content(network, outputs) | {
        "size": size,
        "channels": channels,
        "mean": mean,
        "std": std,
        "classes": classes,
        "samples": [
            {"name": name, "pixels": _base64(picture.numpy())} for name, picture in zip(labels, pixels, strict=True)
        ],
    }
    page = _fill(title, json.dumps(content, separators=(",", ":"), allow_nan=False))
    path = Path(folder) / "index.html"
    try:
        with written_whole(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise OSError(
            f"cannot write the page to {folder} ({error.strerror}); give a folder you may write to"
        ) from error
    return path


def external_references(page: str) -> list[str]:
    """Everything in a page that would make a browser ask for something else: none in a page of :func:`export_web`.

    Counted are attributes that name files or addresses, and in styles and scripts ``url()``, ``@import`` and whatever
    fetches. Places inside the page, ``data:`` and ``blob:`` are not outside it.

    Args:
        page: the text of an HTML file.

    Example:
        >>> external_references('<a href="#top">up</a><img src="a.png"><style>@import "b.css";</style>')
        ['src=a.png', '@import "b.css"']
    """
    found: list[str] = []

    class Reader(HTMLParser):
        inside = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            values = dict(attrs)
            self.inside = tag if values.get("type") != "application/json" else ""
            for name, value in attrs:
                if name in ATTRIBUTES and not (value or "").startswith(("#", "data:", "blob:")):
                    found.append(f"{name}={value}")
                if name == "style":
                    found.extend(OUTWARD.findall(value or ""))

        def handle_data(self, data: str) -> None:
            if self.inside in ("script", "style"):
                found.extend(OUTWARD.findall(data))

        def handle_endtag(self, tag: str) -> None:
            self.inside = ""

    Reader().feed(page)
    return found


def _bytes(samples: Tensor) -> Tensor:
    """Pictures as (N, C, S, S) bytes."""
    if samples.ndim != 4 or len(samples) == 0 or samples.shape[2] != samples.shape[3]:
        raise ValueError(
            f"samples must be square pictures (N, C, S, S), N at least 1, not {tuple(samples.shape)}; crop them first"
        )
    samples = samples.detach().cpu()
    if samples.dtype == torch.uint8:
        return samples.contiguous()
    if not samples.is_floating_point() or not samples.isfinite().all():
        raise ValueError(f"samples must be bytes, or finite floats in 0..1, not {samples.dtype} with what came")
    low, high = float(samples.min()), float(samples.max())
    if low < 0 or high > 1:
        raise ValueError(
            f"samples must lie in 0..1, not {low:g}..{high:g}; divide by 255, or give unnormalised pictures and the "
            "normalisation as mean and std"
        )
    return (samples.float() * 255).round().to(torch.uint8).contiguous()


def _per_channel(name: str, value: float | Sequence[float], channels: int) -> list[float]:
    numbers = [float(item) for item in (value if isinstance(value, Sequence) else [value])]
    if len(numbers) == 1:
        numbers *= channels
    if len(numbers) != channels or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be a finite number, or one for each of {channels} channels, not {value}")
    return numbers


def _names(what: str, names: Sequence[str] | None, count: int, there_are: str, things: str) -> list[str]:
    if names is None or isinstance(names, str) or len(names) != count:
        came = "none" if names is None else f"one string, {names!r}" if isinstance(names, str) else str(len(names))
        raise ValueError(f"{there_are} {count} {things}, so {what} must be a list of {count} names; {came} came")
    return [str(name) for name in names]


def _content(network: Network, outputs: Sequence[Tensor]) -> dict[str, Any]:
    """Layers as the page reads them; weights lie one after the other, found by start and length."""
    parts: list[np.ndarray] = []
    start = 0

    def keep(weight: Tensor | None) -> list[int] | None:
        nonlocal start
        if weight is None:
            return None
        parts.append(weight.numpy().astype("<f4").ravel())
        place = [start, weight.numel()]
        start += weight.numel()
        return place

    layers = []
    counts: dict[str, int] = {}
    for layer in network.layers:
        counts[layer.kind] = counts.get(layer.kind, 0) + 1
        entry = {
            "name": layer.name,
            "label": _label(layer, counts[layer.kind]),
            "kind": layer.kind,
            "kernel": layer.kernel,
            "stride": layer.stride,
            "padding": layer.padding,
            "channelsLast": layer.channels_last,
            "weight": keep(layer.weight),
            "bias": keep(layer.bias),
        }
        if layer.weight is not None:
            entry |= {"out": layer.weight.shape[0], "in": layer.weight.shape[1]}
        layers.append(entry)
    return {"layers": layers, "endsIn": network.ends_in, "weights": _base64(np.concatenate(parts))}


def _label(layer: Layer, number: int) -> str:
    """A name for the eye: that of the module where it has one, else its kind and number."""
    own = layer.name.rsplit(".", 1)[-1]
    return own if re.search(r"[A-Za-z]{2}", own) else f"{layer.kind}_{number}"


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _fill(title: str, network: str) -> str:
    page = files(__package__).joinpath("page")
    parts = {
        "title": html.escape(title),
        "style": page.joinpath("page.css").read_text(encoding="utf-8"),
        "script": bundle(),
        "network": network.replace("<", "\\u003c"),  # so that no name can end the script element
    }
    template = page.joinpath("index.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)
