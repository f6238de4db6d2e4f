"""CARP: chunks of actions predicted coarse to fine, each scale in one pass of a transformer."""

from reprise.policies.carp.per_step import ActionBins, PerStepTransformer
from reprise.policies.carp.policy import CARPPolicy, PerStepPolicy
from reprise.policies.carp.tokenizer import ActionTokenizer
from reprise.policies.carp.transformer import CoarseToFineTransformer

__all__ = [
    "ActionBins",
    "ActionTokenizer",
    "CARPPolicy",
    "CoarseToFineTransformer",
    "PerStepPolicy",
    "PerStepTransformer",
]
