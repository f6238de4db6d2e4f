"""Does predicting a chunk of actions coarse to fine push the T as well as a hundred steps of denoising?

On each seed's share of 206 human demonstrations of Push-T three policies are trained for as many updates: CARP, a
diffusion policy with a convolutional network, and CARP's own transformer as a conventional autoregressive model of one
number after the other. Each then pushes from the same starts, once for every way of decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from reprise.envs import PushT
from reprise.papers.carp.decoding import decoded, make_policy
from reprise.papers.carp.pictures import draw
from reprise.papers.carp.push_t import demonstrations, observed
from reprise.policies import CARPPolicy, ChunkedPolicy, ImitationPolicy, evaluate
from reprise.training import Diverged

SCENE = np.array([150.0, 150.0, 280.0, 300.0, 0.79])  # of the figure: finger, then the T, pushed beyond its mark
SAMPLES = 24  # chunks drawn for it
WORST = {"coverage": 0.0, "success": 0.0, "error": 4.0}  # of a policy that diverged


@dataclass(frozen=True)
class Settings:
    method: str = "carp"  # "carp", "diffusion" or "per_step"
    decodings: tuple[str, ...] = ("greedy",)  # the likeliest token; "top-5": drawn among five; "DDPM-100", "DDIM-10"
    tokenizer_updates: int = 3_000  # of CARP's first stage, whose error still falls at a fifth of that
    updates: int = 4_000  # of every policy
    batch_size: int = 32  # windows per update, and chunks per update of the first stage
    learning_rate: float = 1e-3  # at its highest, of every stage of every policy
    depth: int = 4  # blocks of the transformers
    widths: tuple[int, ...] = (64, 128)  # channels of the diffusion policy's network
    people: bool = True  # the human demonstrations; False: of a finger that swings over the board, for the smoke run
    held_out: int = 26  # demonstrations that errors are measured on
    worlds: int = 50  # boards that each way of decoding pushes on
    limit: int = 300  # steps of 0.1 s on each
    execute: int = 8  # actions that are played of a chunk of 16


def measure(trial: Any) -> dict[str, float]:
    """Train a policy, push by it, and see what it makes of demonstrations that it never saw."""
    s = trial.settings
    train, test = demonstrations(s.people, trial.seed).split(s.held_out, trial.seed)
    policy = make_policy(s.method, depth=s.depth, widths=s.widths, execute=s.execute, device=trial.device)
    options: dict[str, Any] = {"steps": s.updates, "batch_size": s.batch_size, "learning_rate": s.learning_rate}
    if isinstance(policy, CARPPolicy):
        options["tokenizer"] = {
            "steps": s.tokenizer_updates,
            "batch_size": s.batch_size,
            "learning_rate": s.learning_rate,
        }
        trial.count(tokenizer_updates=s.tokenizer_updates)
    try:
        policy.fit(train, **options, on_step=trial.on_step)
    except Diverged:
        return {f"{metric}[{name}]": worst for metric, worst in WORST.items() for name in s.decodings}
    trial.count(updates=s.updates)
    unseen = policy.prepare(test)[0].some(512, trial.seed)
    unseen["actions"].clamp_(-1, 1)  # the range of those seen
    metrics = _codes(policy, unseen) if isinstance(policy, CARPPolicy) else {}
    for name in s.decodings:
        policy = decoded(policy, name)
        torch.manual_seed(trial.seed)
        boards = PushT(s.worlds, obs_mode="keypoints", max_episode_steps=s.limit)
        pushed = evaluate(ChunkedPolicy(policy, s.execute), boards, seed=1_000_003 * (trial.seed + 1))
        metrics[f"coverage[{name}]"] = float(pushed.best_rewards.mean())
        metrics[f"success[{name}]"] = pushed.success_rate
        metrics[f"error[{name}]"] = float((_predict(policy, unseen) - unseen["actions"]).square().mean())
    _keep_scene(policy, name, trial.folder / "scene.npz")
    return metrics


@torch.inference_mode()
def _codes(policy: CARPPolicy, batch: dict[str, Any]) -> dict[str, float]:
    """How well the first k scales tell a chunk, and how often the transformer names the codes of a scale."""
    tokenizer, actions = policy.module.tokenizer, batch["actions"]
    tokens = policy.tokens(actions)
    right = (policy.logits(policy.module.encoder(batch), tokens).argmax(2) == tokens).float()
    metrics = {}
    for k, part in enumerate(right.split(tokenizer.tokens, 1)):
        metrics[f"accuracy[{k + 1}]"] = float(part.mean())
        error = (tokenizer.reconstruct(actions, k + 1) - actions).square().mean()
        metrics[f"reconstruction[{k + 1}]"] = float(error)
    return metrics


@torch.inference_mode()
def _predict(policy: ImitationPolicy, batch: dict[str, Any]) -> Tensor:
    return policy.predict(batch, torch.randn_like(batch["actions"]) if policy.noisy else None)


def _keep_scene(policy: ImitationPolicy, decoding: str, path: Any) -> None:
    """Chunks for the figure's scene, and for CARP the first of them as its scales tell it."""
    policy.reset()
    chunks = policy.plan(observed(np.tile(SCENE, (SAMPLES, 1))))
    content: dict[str, Any] = {"pose": SCENE, "decoding": decoding, "samples": chunks.cpu().numpy()}
    if isinstance(policy, CARPPolicy):
        tokenizer, scale = policy.module.tokenizer, policy.normalizers["actions"]
        parts = [
            scale.inverse(tokenizer.reconstruct(scale(chunks[:1]).clamp(-1, 1), k + 1))
            for k in range(len(tokenizer.scales))
        ]
        content |= {"scales": torch.cat(parts).cpu().numpy(), "tokens": np.array(tokenizer.tokens)}
    np.savez(path, **content)


def figure(results: Any) -> Figure:
    """A chunk coarse to fine, what each policy might do next, and how much of the mark it covers."""
    return draw(results)
