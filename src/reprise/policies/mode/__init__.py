"""MoDE, a mixture of denoising experts: sparse experts chosen by the noise level, and fused once it is known.

Source: Reuss, Pari, Agrawal and Lioutikov, Efficient Diffusion Transformer Policies with Mixture of Expert Denoisers
for Multitask Learning, ICLR 2025, arXiv 2412.12953.
"""

from reprise.policies.mode.block import MoDEBlock
from reprise.policies.mode.cross_attention import CrossAttentionTransformer
from reprise.policies.mode.embedding import TokenEmbedding
from reprise.policies.mode.experts import Experts, FusedExperts
from reprise.policies.mode.policy import MoDEPolicy
from reprise.policies.mode.router import Router, Routing, load_balance, mutual_information, z_loss
from reprise.policies.mode.transformer import MoDETransformer

__all__ = [
    "CrossAttentionTransformer",
    "Experts",
    "FusedExperts",
    "MoDEBlock",
    "MoDEPolicy",
    "MoDETransformer",
    "Router",
    "Routing",
    "TokenEmbedding",
    "load_balance",
    "mutual_information",
    "z_loss",
]
