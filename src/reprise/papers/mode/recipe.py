"""Do experts for noise levels make a better policy than a dense transformer of the same active size?

Four tasks on a table, asked for in words. Both policies learn from the same scripted demonstrations in as many updates,
plan eight actions in ten denoising steps, and carry out four before they plan again. They are asked to do every task on
new tables, and to denoise demonstrations they never saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from reprise.data import Episodes
from reprise.envs.tabletop import Tabletop, demonstrate, with_pictures
from reprise.papers.mode.pictures import draw, strip
from reprise.policies import ChunkedPolicy, Demonstrations, MoDEPolicy, MoDETransformer, evaluate, masked_mean
from reprise.training import Diverged

CAMERA = {"depth": None, "where": "block", "block": "basic", "layers": (1, 1, 1), "widths": (16, 32, 64)}
PARTS = (6, 6, 6, 6, 2)  # of a state, a token each: gripper, three objects, drawer and button
SHOWN = 4  # tasks of which an episode is kept for the figure


@dataclass(frozen=True)
class Settings:
    network: str = "mode"  # or "cross_attention", the dense baseline
    router: str = "noise"  # of MoDE, or "token" or "noise+token"
    noise_conditioning: str = "add"  # of MoDE's attention, or "film"
    pictures: bool = False  # whether objects are seen in pictures of 64x64 pixels instead of as numbers
    tasks: tuple[str, ...] = ("lift-red", "push-blue-left", "open", "press")  # of the table
    demonstrations: int = 200  # of each task
    held_out: int = 20  # demonstrations of each task that only the denoiser's error is measured on
    embed_dim: int = 64  # width of tokens
    n_layers: int = 3  # blocks
    n_heads: int = 4  # of attention
    horizon: int = 8  # actions in a chunk
    execute: int = 4  # of them are carried out before the next plan
    dropout: float = 0.0  # of attention and perceptrons; published are 0.3 and 0.1 at sixteen times the width
    steps: int = 3500  # updates
    batch_size: int = 64  # windows in an update
    learning_rate: float = 4e-3  # peak of AdamW
    rollouts: int = 40  # tables for each task
    seconds: float = 4.0  # before a task counts as failed; demonstrations take up to three


def prepare(trial: Any) -> tuple[Episodes, Episodes]:
    """This seed's demonstrations, and those held out."""
    s = trial.settings
    counts = (s.demonstrations, s.held_out)
    both = [demonstrate(s.tasks, count, 2 * trial.seed + i) for i, count in enumerate(counts)]
    episodes, unseen = [with_pictures(one) for one in both] if s.pictures else both
    return episodes, unseen


def measure(trial: Any) -> dict[str, float]:
    """Train one policy, ask it for every task, and let it denoise."""
    s, (episodes, unseen) = trial.settings, trial.shared
    experts = {"router": s.router, "noise_conditioning": s.noise_conditioning} if s.network == "mode" else {}
    policy = MoDEPolicy(
        horizon=s.horizon, network=s.network, token_dim=s.embed_dim, instructions=64,
        observations=("state", "image") if s.pictures else ("state",),
        parts={} if s.pictures else {"state": PARTS}, camera=CAMERA, shift=3,
        transformer={
            "embed_dim": s.embed_dim, "n_layers": s.n_layers, "n_heads": s.n_heads,
            "attention_dropout": s.dropout, "mlp_dropout": s.dropout, **experts,
        },
        device=trial.device,
    )  # fmt: skip
    try:
        policy.fit(
            episodes, steps=s.steps, batch_size=s.batch_size, learning_rate=s.learning_rate, on_step=trial.on_step
        )
    except Diverged:
        return {"success": 0.0, "score_loss": 10.0}
    trial.count(updates=s.steps)
    losses = score_losses(policy, policy.prepare(unseen)[0])
    done = attempt(trial, ChunkedPolicy(policy, execute=s.execute))  # (tasks, rollouts)
    metrics = {"success": float(done.mean()), "score_loss": float(np.mean(list(losses.values())))}
    metrics |= {f"success[{task}]": float(share) for task, share in zip(s.tasks, done.mean(1), strict=True)}
    metrics |= {f"score_loss[{level:.3g}]": loss for level, loss in losses.items()}
    net = policy.module.denoiser.net
    if isinstance(net, MoDETransformer) and net.can_cache:
        levels = torch.logspace(-3, np.log10(80), 60, device=trial.device)
        metrics["bits"] = net.specialisation(policy.sigmas[:-1])
        probabilities = net.router_probabilities(levels).cpu().numpy()
        np.savez(trial.folder / "router.npz", levels=levels.cpu(), probabilities=probabilities, sampler=policy.sigmas)
    return metrics


@torch.no_grad()
def score_losses(policy: MoDEPolicy, unseen: Demonstrations, levels: int = 10) -> dict[float, float]:
    """The weighted squared error of the denoiser, by noise level: those at even shares of the training density."""
    policy.module.eval()
    batch = unseen.some(1024, seed=0)
    tokens, goal = policy.module.condition(batch)
    generator = torch.Generator().manual_seed(0)  # the same noise for every policy
    losses = {}
    for share in torch.linspace(0.5 / levels, 1 - 0.5 / levels, levels):
        sigma = policy.sigma_data * (0.5 * share.logit()).exp()
        noise = torch.randn(batch["actions"].shape, generator=generator).to(goal)
        errors = policy.module.denoiser.loss(
            batch["actions"], tokens, goal, sigma=sigma.to(goal).expand(len(tokens)), noise=noise, reduction="none"
        )
        losses[float(sigma)] = float(masked_mean(errors, batch["padding"]))
    return losses


def attempt(trial: Any, policy: ChunkedPolicy) -> np.ndarray:
    """(tasks, rollouts): which were done in time; every policy of a seed is given the same tables."""
    s = trial.settings
    names = list(s.tasks) * s.rollouts
    env = Tabletop(
        len(names), "image" if s.pictures else "state", s.tasks, max_episode_steps=round(20 * s.seconds),
        picture_size=(160, 200), render_mode="rgb_array",
    )  # fmt: skip
    shown = min(SHOWN, len(s.tasks))
    result = evaluate(policy, env, seed=10_000 * trial.seed, options={"task": names}, film=shown)
    env.close()
    assert result.success is not None and result.frames is not None
    np.savez(trial.folder / "film.npz", frames=strip(result.frames), tasks=names[:shown])
    return result.success.reshape(s.rollouts, len(s.tasks)).T


def figure(results: Any) -> Figure:
    """Success by task, error by noise level, and which experts the router takes at which level."""
    return draw(results)
