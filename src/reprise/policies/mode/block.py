"""One block of MoDE: attention that sees the noise level, then a few of several experts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reprise.nn.qk_norm_attention import QKNormAttention
from reprise.nn.rms_norm import RMSNorm
from reprise.nn.swish_glu import GatedMLP
from reprise.policies.mode.experts import Experts, FusedExperts
from reprise.policies.mode.router import Router, Routing

__all__ = ["Cached", "MoDEBlock"]

ROUTERS = ("noise", "token", "noise+token")
CONDITIONINGS = ("add", "film", None)
Cached = tuple[FusedExperts, list[float]]  # experts of one layer at one noise level, and their weights


class MoDEBlock(nn.Module):
    """Attention that sees the noise level, then k of N experts.

    x <- x + Attention(RMS(x) + phi); x <- RMS(x); x <- x + sum of p_e E_e(x) over the chosen experts.

    Args:
        dim: D.
        n_heads: of the attention; divides D.
        n_experts: N; with 1 the block is dense and has no router.
        top_k: k experts for each token.
        router: what it looks at: "noise" the embedded noise level phi, alike for all tokens; "token" the token;
            "noise+token" both.
        draw: in training, "token" or "sample"; see :class:`Router`.
        router_layers: 2, as in the published code, or 1 for the single matrix of the text.
        noise_conditioning: "add" adds phi to the normalised tokens before attention; "film" scales and shifts them
            by linear maps of phi that begin at zero; None does neither.
        mlp_ratio: hidden width of an expert over D.
        attention_dropout, mlp_dropout: probabilities.
        causal: whether a token sees only those before it.
        post_norm_residual: whether the second norm's output is also what the experts' is added to, as in the
            published code; False adds to what came before the norm.

    Raises:
        ValueError: unknown router or conditioning, k above N, heads that do not divide D.

    Source: section 3.2 of the paper, in the order of the published code.

    Example:
        >>> block = MoDEBlock(8, n_heads=2)
        >>> block(torch.randn(3, 5, 8), torch.randn(3, 1, 8))[0].shape
        torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        n_experts: int = 4,
        top_k: int = 2,
        *,
        router: str = "noise",
        draw: str = "token",
        router_layers: int = 2,
        noise_conditioning: str | None = "add",
        mlp_ratio: float = 4.0,
        attention_dropout: float = 0.3,
        mlp_dropout: float = 0.1,
        causal: bool = True,
        post_norm_residual: bool = True,
    ) -> None:
        super().__init__()
        if router not in ROUTERS:
            raise ValueError(f"unknown router {router!r}; there are {', '.join(map(repr, ROUTERS))}")
        if noise_conditioning not in CONDITIONINGS:
            raise ValueError(f'noise_conditioning is "add", "film" or None, not {noise_conditioning!r}')
        if router_layers not in (1, 2):
            raise ValueError(f"a router has 1 or 2 layers, not {router_layers}")
        if not 1 <= top_k <= n_experts:
            raise ValueError(f"top_k is at least 1 and at most the {n_experts} experts there are, not {top_k}")
        self.looks_at, self.noise_conditioning, self.post_norm_residual = router, noise_conditioning, post_norm_residual
        self.norm1, self.norm2 = RMSNorm(dim), RMSNorm(dim)
        self.attention = QKNormAttention(dim, n_heads, dropout=attention_dropout, causal=causal)
        self.film = nn.Linear(dim, 2 * dim) if noise_conditioning == "film" else None
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)
        self.n_experts, self.top_k, self.hidden = n_experts, top_k, round(mlp_ratio * dim)
        self.router: Router | None = None
        self.experts: Experts | GatedMLP
        if n_experts == 1:
            self.experts = GatedMLP(dim, self.hidden, mlp_dropout)
        else:
            self.experts = Experts(dim, n_experts, self.hidden, mlp_dropout)
            features = 2 * dim if router == "noise+token" else dim
            width = None if router_layers == 1 else 2 * dim
            self.router = Router(features, n_experts, top_k, hidden=width, draw=draw)

    def forward(self, x: Tensor, noise: Tensor, cached: Cached | None = None) -> tuple[Tensor, Routing | None]:
        """One block.

        Args:
            x: (B, T, D) tokens.
            noise: (B or 1, 1, D) phi.
            cached: fused experts and their weights, which stand in for router and experts.

        Returns:
            (B, T, D), and where the tokens went; None of a dense block or with ``cached``.
        """
        x = x + self.attention(self._conditioned(self.norm1(x), noise))
        y = self.norm2(x)
        routing = None
        if cached is not None:
            fused, weights = cached
            update = fused(y, weights)
        elif self.router is None:
            update = self.experts(y)
        else:
            routing = self._route(y, noise)
            update = self.experts(y, routing.chosen, routing.weights)
        return (y if self.post_norm_residual else x) + update, routing

    def _conditioned(self, x: Tensor, noise: Tensor) -> Tensor:
        if self.film is not None:
            scale, shift = self.film(noise).chunk(2, -1)
            return x * (1 + scale) + shift
        return x + noise if self.noise_conditioning == "add" else x

    def _route(self, x: Tensor, noise: Tensor) -> Routing:
        assert self.router is not None
        if self.looks_at == "noise":
            return self.router(noise, tokens=x.shape[1])
        return self.router(x if self.looks_at == "token" else torch.cat([x, noise.expand_as(x)], -1))

    def idle_parameters(self) -> int:
        """Those of the experts that a token does not go to."""
        if self.router is None:
            return 0
        one = sum(parameter[0].numel() for parameter in self.experts.parameters())
        return (self.n_experts - self.top_k) * one

    def multiply_adds(self, length: int, cached: bool = False) -> dict[str, int]:
        """Of one sample of so many tokens in evaluation mode: ``attention``, ``router`` and ``mlp``."""
        dim = len(self.norm1.weight)
        attention = 4 * length * dim**2 + 2 * length**2 * dim + (0 if self.film is None else 2 * dim**2)
        router = 0
        if self.router is not None and not cached:
            weights = sum(parameter.numel() for parameter in self.router.parameters() if parameter.ndim == 2)
            router = weights * (1 if self.looks_at == "noise" else length)
        return {"attention": attention, "router": router, "mlp": 3 * length * self.top_k * dim * self.hidden}
