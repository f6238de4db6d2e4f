"""MoDE as a policy: learned from demonstrations with instructions, ten denoising steps for a chunk of actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from reprise.data.crops import random_shift
from reprise.data.episodes import Episodes
from reprise.diffusion.edm import EDM, log_logistic_sigmas
from reprise.diffusion.samplers import sample
from reprise.diffusion.schedules import sigma_schedule
from reprise.nn.film_resnet import FiLMResNet
from reprise.policies.demonstrations import Batch
from reprise.policies.imitation import ImitationPolicy, masked_mean
from reprise.policies.mode.cross_attention import CrossAttentionTransformer
from reprise.policies.mode.transformer import MoDETransformer
from reprise.policies.observations import Shapes, is_picture

__all__ = ["MoDEPolicy"]

NETWORKS = {"mode": MoDETransformer, "cross_attention": CrossAttentionTransformer}
TRAINING = {"batch_size": 512, "learning_rate": 1e-4, "weight_decay": 0.05, "betas": (0.9, 0.95), "warmup": 0.02}
AVERAGE = {"decay": 0.9999, "power": 2 / 3}  # of the weights


class MoDEPolicy(ImitationPolicy):
    """Chunks of actions by a diffusion transformer with experts for noise levels.

    Everything that is observed becomes a token: a state, or each part of it, by a linear layer, a picture by a
    FiLM-ResNet that knows the goal. The goal is the encoded instruction, the observations of a goal, or both.

    Args:
        horizon: H, actions in a chunk.
        network: "mode", or "cross_attention" for the dense baseline (:class:`CrossAttentionTransformer`).
        token_dim: of an observation token.
        parts: name of a state to sizes that add up to its own: it becomes as many tokens.
        camera: arguments of :class:`~reprise.nn.FiLMResNet` for pictures; by default depth 18, FiLM inside its blocks.
        shift: pixels by which pictures are moved at random in training.
        transformer: further arguments of the network: embed_dim, n_layers, n_heads, n_experts, top_k, router, ...
        balance_weight: of the load-balance loss.
        sigma_data, sigma_min, sigma_max: of the noise: deviation of the data, and range of levels in training.
        sampler: of :func:`reprise.diffusion.sample`.
        sampling_steps: calls of the network for a chunk, at levels that fall evenly in log sigma.
        **options: of :class:`~reprise.policies.ImitationPolicy`.

    Raises:
        ValueError: an unknown network, settings that do not fit, a picture as a goal.

    Source: Reuss et al., 2024, section 3 and appendix.

    Example:
        >>> walk = {"state": np.zeros((20, 3), np.float32)}
        >>> episodes = Episodes(walk, np.ones((20, 2), np.float32), np.array([20]), ("go on",))
        >>> policy = MoDEPolicy(horizon=4, token_dim=8, transformer={"embed_dim": 16, "n_layers": 1}, instructions=8)
        >>> policy.fit(episodes, steps=2).plan({"state": np.zeros((5, 3)), "instruction": "go on"}).shape
        torch.Size([5, 4, 2])
    """

    module: Denoiser

    def __init__(
        self,
        *,
        horizon: int = 10,
        network: str = "mode",
        token_dim: int = 512,
        parts: Mapping[str, Sequence[int]] | None = None,
        camera: Mapping[str, Any] | None = None,
        shift: int = 10,
        transformer: Mapping[str, Any] | None = None,
        balance_weight: float = 0.01,
        sigma_data: float = 0.5,
        sigma_min: float = 0.001,
        sigma_max: float = 80.0,
        sampler: str = "ddim",
        sampling_steps: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(horizon=horizon, **options)
        if network not in NETWORKS:
            raise ValueError(f"unknown network {network!r}; there are {', '.join(map(repr, NETWORKS))}")
        self.network, self.token_dim, self.sampler = network, token_dim, sampler
        self.parts = {name: tuple(sizes) for name, sizes in (parts or {}).items()}
        self.camera, self.transformer = dict(camera or {"where": "block"}), dict(transformer or {})
        self.balance_weight, self.sigma_data, self.sigma_max = balance_weight, sigma_data, sigma_max
        self.sigma_min, self.shift = sigma_min, shift
        self.sigmas = sigma_schedule("exponential", sampling_steps, sigma_min, sigma_max).float().to(self.device)

    def build(self, shapes: Shapes) -> nn.Module:
        """Encoders and the denoiser."""
        goal_dim = shapes.instruction + sum(torch.Size(shape).numel() for shape in shapes.goal.values())
        net = NETWORKS[self.network](
            self.token_dim, goal_dim or None, shapes.action, horizon=self.horizon, history=self.history,
            **self.transformer,
        )  # fmt: skip
        denoiser = EDM(net, self.sigma_data)
        return Denoiser(shapes, goal_dim, self.token_dim, self.parts, self.camera, self.shift, denoiser)

    def fit(self, episodes: Episodes, *, steps: int, **training: Any) -> Self:
        """Learn from demonstrations, by default as published but for the shape of the learning rate's rise and fall.

        Arguments as of :meth:`~reprise.policies.ImitationPolicy.fit`.
        """
        return super().fit(episodes, steps=steps, **{**TRAINING, "ema": AVERAGE, **training})

    def parameter_groups(self, module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        """Biases of the transformer do not decay; all else does, as published."""
        free = [p for name, p in module.named_parameters() if "denoiser" in name and "bias" in name.split(".")[-1]]
        known = {id(parameter) for parameter in free}
        groups = [(free, 0.0), ([p for p in module.parameters() if id(p) not in known], weight_decay)]
        return [{"params": [p for p in group if p.requires_grad], "weight_decay": decay} for group, decay in groups]

    def loss(self, batch: Batch) -> Tensor:
        """The squared error of F at levels from a log-logistic density, and in training the routers' balance."""
        actions, (tokens, goal) = batch["actions"], self.module.condition(batch)
        sigma = log_logistic_sigmas(len(actions), self.sigma_min, self.sigma_max, device=actions.device)
        errors = self.module.denoiser.loss(actions, tokens, goal, sigma=sigma, reduction="none")
        loss = masked_mean(errors, batch["padding"])
        net = self.module.denoiser.net
        if self.module.training and isinstance(net, MoDETransformer) and self.balance_weight:
            loss = loss + self.balance_weight * net.load_balancing_loss()
        return loss

    def predict(self, batch: Batch, noise: Tensor | None, generator: torch.Generator | None = None) -> Tensor:
        """(B, H, A) from noise of deviation ``sigma_max``; the experts of the sampler's levels are fused before."""
        assert noise is not None
        net = self.module.denoiser.net
        if isinstance(net, MoDETransformer) and net.can_cache and not net.cached:
            net.cache_experts(self.sigmas)
        tokens, goal = self.module.condition(batch)
        return sample(
            lambda x, sigma: self.module.denoiser(x, sigma, tokens, goal),
            self.sigma_max * noise, self.sigmas, self.sampler, generator=generator,
        )  # fmt: skip


class Denoiser(nn.Module):
    """What is observed and wanted to tokens, and the denoiser that looks at them."""

    def __init__(
        self,
        shapes: Shapes,
        goal_dim: int,
        token_dim: int,
        parts: Mapping[str, Sequence[int]],
        camera: Mapping[str, Any],
        shift: int,
        denoiser: EDM,
    ) -> None:
        super().__init__()
        self.shapes, self.denoiser, self.shift = shapes, denoiser, shift
        self.sizes: dict[str, list[int]] = {}  # of the parts of each state
        if pictures := [name for name, shape in shapes.goal.items() if is_picture(shape)]:
            raise ValueError(f"the goal {pictures[0]!r} is a picture; MoDE takes instructions and states as goals")
        if unknown := [name for name in parts if name not in shapes.observations]:
            raise ValueError(f"parts are given for {unknown[0]!r}; observed are {', '.join(shapes.observations)}")
        self.encoders = nn.ModuleDict()
        for name, shape in shapes.observations.items():
            if is_picture(shape):
                if not goal_dim:
                    raise ValueError(f"the encoder of {name!r} knows the goal or the instruction; there is neither")
                self.encoders[name] = FiLMResNet(goal_dim, out_features=token_dim, **camera)
                continue
            size = torch.Size(shape).numel()
            self.sizes[name] = sizes = list(parts.get(name, (size,)))
            if sum(sizes) != size:
                raise ValueError(f"the parts {sizes} of {name!r} do not add up to its {size} numbers")
            self.encoders[name] = nn.ModuleList(nn.Linear(part, token_dim) for part in sizes)

    def condition(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Observation tokens (B, history, C, token_dim) and the goal (B, goal_dim), or None."""
        wanted = [batch["goal"][name].flatten(1) for name in self.shapes.goal]
        wanted += [batch["instruction"]] if self.shapes.instruction else []
        goal = torch.cat(wanted, 1) if wanted else None
        tokens: list[Tensor] = []
        encoder: Any
        for name, encoder in self.encoders.items():
            seen = batch["observations"][name]
            if name in self.sizes:
                parts = seen.flatten(2).split(self.sizes[name], 2)
                tokens += [layer(part) for layer, part in zip(encoder, parts, strict=True)]
            else:
                assert goal is not None
                times = seen.shape[1]
                seen = random_shift(seen, self.shift) if self.training else seen
                pixels = seen.flatten(0, 1).movedim(-1, 1).float() / 127.5 - 1
                pixels = pixels.contiguous(memory_format=torch.channels_last)
                tokens.append(encoder(pixels, goal.repeat_interleave(times, 0)).unflatten(0, (-1, times)))
        return torch.stack(tokens, 2), goal
