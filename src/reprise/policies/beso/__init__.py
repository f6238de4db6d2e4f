"""BESO: goal-conditioned imitation by a score-based diffusion policy, and its baselines GCBC and C-BeT."""

from reprise.policies.beso.gpt import GoalGPT, ScoreGPT
from reprise.policies.beso.policies import BESOPolicy, BESOSampling, CBeTPolicy, GCBCPolicy

__all__ = ["BESOPolicy", "BESOSampling", "CBeTPolicy", "GCBCPolicy", "GoalGPT", "ScoreGPT"]
