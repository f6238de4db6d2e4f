"""MoDE: a transformer that denoises action chunks with experts for noise levels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reprise.diffusion.edm import edm_coefficients
from reprise.nn.rms_norm import RMSNorm
from reprise.policies.mode.block import Cached, MoDEBlock
from reprise.policies.mode.embedding import TokenEmbedding
from reprise.policies.mode.experts import Experts, FusedExperts
from reprise.policies.mode.router import Router, Routing, load_balance, mutual_information, z_loss

__all__ = ["MoDETransformer"]


class MoDETransformer(nn.Module):
    """The network F inside an EDM denoiser: [phi(sigma), goal, observations, noisy actions] through MoDE blocks.

    It is called as :class:`~reprise.diffusion.EDM` calls its network, so ``EDM(MoDETransformer(...))`` is the denoiser.
    With the noise router the experts of a sampler's levels are known beforehand: :meth:`cache_experts`.

    Args:
        obs_dim: of an observation token (one per camera, or per part of a state).
        goal_dim: of the goal, say of an embedded instruction; None for none.
        action_dim: of an action.
        embed_dim: D.
        n_layers: L.
        n_heads: of each attention.
        horizon: H, actions in a chunk.
        history: times in an observation.
        n_experts, top_k: N and k; see :class:`MoDEBlock`, which also takes ``block``.
        noise_token: whether phi(sigma) is the first token.
        goal_dropout: probability with which an element of the goal is zeroed in training.
        balance: form of the load-balance loss, "paper" or "released"; see :func:`load_balance`.
        **block: router, draw, router_layers, noise_conditioning, mlp_ratio, attention_dropout, mlp_dropout, causal,
            post_norm_residual.

    Raises:
        ValueError: sizes that do not fit; see :class:`MoDEBlock` and :class:`TokenEmbedding`.

    Source: Reuss, Pari, Agrawal and Lioutikov, 2024, section 3; published sizes are the defaults.

    Example:
        >>> from reprise.diffusion import EDM
        >>> net = MoDETransformer(16, 8, 2, embed_dim=32, n_layers=2, n_heads=4, horizon=6)
        >>> denoiser, sigma = EDM(net).eval(), torch.full((3,), 0.5)
        >>> net.cache_experts(sigma[:1])
        >>> denoiser(torch.randn(3, 6, 2), sigma, torch.randn(3, 2, 16), torch.randn(3, 8)).shape
        torch.Size([3, 6, 2])
    """

    def __init__(
        self,
        obs_dim: int,
        goal_dim: int | None,
        action_dim: int,
        *,
        embed_dim: int = 1024,
        n_layers: int = 8,
        n_heads: int = 8,
        horizon: int = 10,
        history: int = 1,
        n_experts: int = 4,
        top_k: int = 2,
        noise_token: bool = True,
        goal_dropout: float = 0.1,
        balance: str = "paper",
        **block: Any,
    ) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(
            obs_dim, goal_dim, action_dim, embed_dim, horizon=horizon, history=history, goal_dropout=goal_dropout
        )
        self.blocks = nn.ModuleList(MoDEBlock(embed_dim, n_heads, n_experts, top_k, **block) for _ in range(n_layers))
        self.norm = RMSNorm(embed_dim)
        self.head = nn.Linear(embed_dim, action_dim)
        self.horizon, self.noise_token, self.balance = horizon, noise_token, balance
        self._routings: list[Routing] = []  # of the last forward pass in training mode
        self._cache: dict[float, list[Cached]] = {}  # c_noise to the fused experts of every layer

    def forward(self, actions: Tensor, c_noise: Tensor, observations: Tensor, goal: Tensor | None = None) -> Tensor:
        """What the network makes of noisy actions.

        Args:
            actions: (B, H, action_dim), already scaled by c_in.
            c_noise: (B,) log(sigma) / 4.
            observations: (B, C, obs_dim), or (B, history, C, obs_dim).
            goal: (B, goal_dim) or (B, 1, goal_dim).

        Returns:
            (B, H, action_dim).

        Raises:
            ValueError: shapes that do not fit, a goal that is missing or not expected.
        """
        cached: list[Cached] | None = None
        if not self.training and len(c_noise) == len(actions) > 0:
            low, high = (float(level) for level in c_noise.aminmax())
            if low == high:  # as in a sampler: one level for all is routed once
                c_noise, cached = c_noise[:1], self._cache.get(low)
        tokens = self.embedding(actions, c_noise, observations, goal)
        noise, batch = tokens.noise, len(actions)
        parts = [noise.expand(batch, -1, -1)] if self.noise_token else []
        parts += [] if tokens.goal is None else [tokens.goal]
        x = torch.cat([*parts, tokens.observations, tokens.actions], 1)
        routings = []
        for i, block in enumerate(self.blocks):
            x, routing = block(x, noise, None if cached is None else cached[i])
            routings += [] if routing is None else [routing]
        self._routings = routings if self.training else []
        return self.head(self.norm(x[:, -self.horizon :]))

    # Training the router ----------------------------------------------------------------------------------------------

    def load_balancing_loss(self) -> Tensor:
        """Mean over layers of the loss of the last forward pass, to be added with a weight of 0.01.

        0 for a dense network and after :meth:`freeze_router`.

        Raises:
            RuntimeError: there was no forward pass in training mode since the last one in evaluation mode.
        """
        return self._mean_over_layers(lambda routing: load_balance(routing, self.balance))

    def router_z_loss(self) -> Tensor:
        """Mean over layers of :func:`z_loss` of the last forward pass; as :meth:`load_balancing_loss`."""
        return self._mean_over_layers(z_loss)

    def freeze_router(self) -> None:
        """Train on without the routers, as in finetuning: they go on drawing, and their losses are 0."""
        for router in self._routers():
            router.requires_grad_(False)

    def _mean_over_layers(self, loss: Any) -> Tensor:
        if not any(parameter.requires_grad for router in self._routers() for parameter in router.parameters()):
            return self.head.weight.new_zeros(())
        if not self._routings:
            raise RuntimeError("the routers' losses are those of a forward pass in training mode; there was none")
        return torch.stack([loss(routing) for routing in self._routings]).mean()

    # What the router does ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def router_probabilities(self, sigmas: Tensor) -> Tensor:
        """Of every expert, in every layer, at some noise levels.

        Args:
            sigmas: (S,) above 0.

        Returns:
            (L, S, N).

        Raises:
            ValueError: levels that are not above 0, or a network whose router looks at tokens.
        """
        noise = self.embedding.noise(self._c_noise(sigmas)[:, None])
        return torch.stack([router.probabilities(noise)[1] for router in self._noise_routers()])

    def specialisation(self, sigmas: Tensor) -> float:
        """Mutual information of noise level and expert in bits, mean over layers; levels count alike."""
        return float(mutual_information(self.router_probabilities(sigmas)).mean())

    # Expert caching ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def cache_experts(self, sigmas: Tensor) -> None:
        """Choose the experts of some noise levels now, and fuse those of each layer into one perceptron.

        In evaluation mode a batch at one of these levels then needs no router; any other is routed as before. Layers
        share the copies among levels that choose the same experts. The cache is dropped by :meth:`clear_cache`,
        ``train()``, ``to()`` and ``load_state_dict()``; whoever changes weights otherwise clears it.

        Args:
            sigmas: (S,) levels of a sampler; a last 0, at which no network is called, is left out.

        Raises:
            RuntimeError: the network is in training mode, where experts are drawn.
            ValueError: levels that are not above 0, or a network whose router looks at tokens.
        """
        if self.training:
            raise RuntimeError("experts are drawn by chance in training mode; call eval() before cache_experts")
        sigmas = sigmas[:-1] if sigmas.ndim == 1 and len(sigmas) > 1 and sigmas[-1] == 0 else sigmas
        routers, fused = self._noise_routers(), dict[tuple[int, ...], FusedExperts]()
        experts = [block.experts for block in self._blocks() if isinstance(block.experts, Experts)]
        cache: dict[float, list[Cached]] = {}
        for c_noise in self._c_noise(sigmas).split(1):  # one by one, as a sampler asks: larger products round otherwise
            noise, layers = self.embedding.noise(c_noise[:, None])[:, None], list[Cached]()
            for i, router in enumerate(routers):
                routing = router(noise)
                chosen, order = routing.chosen[0, 0].sort()
                key = (i, *chosen.tolist())
                if key not in fused:
                    fused[key] = experts[i].fuse(list(key[1:]))
                layers.append((fused[key], routing.weights[0, 0][order].tolist()))
            cache[float(c_noise)] = layers
        self._cache = cache

    @property
    def can_cache(self) -> bool:
        """Whether experts are chosen by the noise level alone."""
        return all(block.router is not None and block.looks_at == "noise" for block in self._blocks())

    @property
    def cached(self) -> bool:
        """Whether fused experts are there."""
        return bool(self._cache)

    def clear_cache(self) -> None:
        """Forget the fused experts; every level is routed again."""
        self._cache = {}

    def train(self, mode: bool = True) -> MoDETransformer:
        """Set the mode; training changes weights, so the cache is dropped."""
        if mode:
            self.clear_cache()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> MoDETransformer:
        self.clear_cache()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        self.clear_cache()
        super()._load_from_state_dict(*arguments, **options)

    def __getstate__(self) -> dict[str, Any]:
        """Copies begin without a cache, and without the graph of the last forward pass, which cannot be copied."""
        return self.__dict__ | {"_routings": [], "_cache": {}}

    def _c_noise(self, sigmas: Tensor) -> Tensor:
        if sigmas.ndim != 1 or not len(sigmas):
            raise ValueError(f"noise levels are (S,), at least one, not {tuple(sigmas.shape)}")
        return edm_coefficients(sigmas.to(self.head.weight)).c_noise

    def _blocks(self) -> list[MoDEBlock]:
        return [block for block in self.blocks if isinstance(block, MoDEBlock)]

    def _routers(self) -> list[Router]:
        return [block.router for block in self._blocks() if block.router is not None]

    def _noise_routers(self) -> list[Router]:
        if not self.can_cache:
            raise ValueError('only router="noise" with more than one expert chooses by the noise level alone')
        return self._routers()

    # What it costs ----------------------------------------------------------------------------------------------------

    def active_parameters(self) -> int:
        """Parameters that a token meets: all but those of the N - k experts it does not go to."""
        return sum(parameter.numel() for parameter in self.parameters()) - sum(
            block.idle_parameters() for block in self._blocks()
        )

    def multiply_adds(self, tokens: int = 1, *, cached: bool = False) -> dict[str, int]:
        """Multiply-adds of one call for one sample in evaluation mode, by part of the network.

        Args:
            tokens: C, observation tokens at each time.
            cached: whether :meth:`cache_experts` spares the routers.

        Returns:
            ``embedding``, ``attention``, ``router``, ``mlp`` and ``head``.
        """
        e, dim = self.embedding, self.head.in_features
        seen = e.history * tokens
        length = self.noise_token + (e.goal_dim is not None) + seen + e.horizon
        counts = {"embedding": dim * (1 + dim + (e.goal_dim or 0) + seen * e.obs_dim + e.horizon * e.action_dim)}
        counts |= {"attention": 0, "router": 0, "mlp": 0, "head": e.horizon * dim * e.action_dim}
        for block in self._blocks():
            for part, count in block.multiply_adds(length, cached).items():
                counts[part] += count
        return counts
