"""Modern Hopfield networks: the energy and its memory, attention layers that retrieve, and the classical memories."""

from reprise.nn.hopfield.classical import DenseMemory, HebbianMemory
from reprise.nn.hopfield.layers import Hopfield
from reprise.nn.hopfield.learned import HopfieldLayer, HopfieldPooling
from reprise.nn.hopfield.memory import AssociativeMemory, Retrieval, energy, retrieve, update
from reprise.nn.hopfield.multihead import HopfieldAttention, convert_to_hopfield
from reprise.nn.hopfield.theory import (
    capacity_bound,
    capacity_constant,
    classify_fixed_point,
    classify_heads,
    retrieval_error_bound,
    separation,
    well_separated,
)

__all__ = [
    "AssociativeMemory",
    "DenseMemory",
    "HebbianMemory",
    "Hopfield",
    "HopfieldAttention",
    "HopfieldLayer",
    "HopfieldPooling",
    "Retrieval",
    "capacity_bound",
    "capacity_constant",
    "classify_fixed_point",
    "classify_heads",
    "convert_to_hopfield",
    "energy",
    "retrieval_error_bound",
    "retrieve",
    "separation",
    "update",
    "well_separated",
]
