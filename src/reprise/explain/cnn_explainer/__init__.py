"""Small convolutional networks laid open: every map, every link, every value, in Python and as a web page."""

from reprise.explain.cnn_explainer.export import export_web, external_references
from reprise.explain.cnn_explainer.network import Layer, Network, read_network
from reprise.explain.cnn_explainer.trace import (
    Column,
    Neuron,
    SoftmaxTerms,
    Trace,
    intermediate,
    output_size,
    softmax_terms,
    trace,
)

__all__ = [
    "Column",
    "Layer",
    "Network",
    "Neuron",
    "SoftmaxTerms",
    "Trace",
    "export_web",
    "external_references",
    "intermediate",
    "output_size",
    "read_network",
    "softmax_terms",
    "trace",
]
