"""What both experiments share: training a policy as the settings say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reprise.data import Episodes
from reprise.policies import BESOPolicy, BESOSampling, CBeTPolicy, GCBCPolicy
from reprise.policies.beso.history import HistoryPolicy
from reprise.training import Diverged

POLICIES: dict[str, type[HistoryPolicy]] = {"beso": BESOPolicy, "gcbc": GCBCPolicy, "cbet": CBeTPolicy}


def learn(trial: Any, episodes: Episodes, goal_entries: tuple[int, ...]) -> HistoryPolicy | None:
    """The trained policy of a trial, or None where training diverged."""
    s = trial.settings
    options = {name: getattr(s, name) for name in ("window", "embed_dim", "n_layers", "n_heads")}
    if s.goal_drop:
        options["goal_drop"] = s.goal_drop
    policy = POLICIES[s.method](
        **options, goal_entries=goal_entries, attn_drop=0.0, resid_drop=0.0, device=trial.device
    )
    try:
        policy.fit(
            episodes,
            steps=s.updates,
            batch_size=s.batch_size,
            learning_rate=s.learning_rate,
            schedule="cosine",
            on_step=trial.on_step,
        )
    except Diverged:
        return None
    trial.count(updates=s.updates)
    return policy


def sampled(policy: HistoryPolicy | None, **changed: Any) -> HistoryPolicy | None:
    """The same policy with another way of sampling."""
    if isinstance(policy, BESOPolicy):
        policy.sampling = replace(BESOSampling(), **changed)
    return policy
