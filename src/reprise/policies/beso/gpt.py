"""The causal transformers of BESO and of its baselines: a score network over noise, goals, states and actions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.diffusion.guidance import drop_condition

__all__ = ["GoalGPT", "ScoreGPT"]


class Block(nn.Module):
    """x += Attention(LN(x)); x += MLP(LN(x)), causal; queries, keys and values come from one product."""

    def __init__(self, embed_dim: int, n_heads: int, attn_drop: float, resid_drop: float) -> None:
        super().__init__()
        self.n_heads, self.attn_drop, self.resid_drop = n_heads, attn_drop, resid_drop
        self.norm1 = nn.LayerNorm(embed_dim)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.widen = nn.Linear(embed_dim, 4 * embed_dim)
        self.narrow = nn.Linear(4 * embed_dim, embed_dim)

    def forward(self, x: Tensor, kept: slice | None = None, mask: Tensor | None = None) -> Tensor:
        """(B, L, E) tokens to the same, or to those of ``kept`` alone, which saves the work for the others.

        Args:
            x: tokens.
            kept: of the L tokens, those whose output is wanted.
            mask: for them, (kept, L) zeros where a token may look and minus infinity elsewhere.
        """
        width = x.shape[2]
        normed = self.norm1(x)
        if kept is None:
            query, key, value = self._heads(self.qkv(normed), 3)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            key, value = self._heads(F.linear(normed, weight[width:], bias[width:]), 2)
            (query,) = self._heads(F.linear(normed[:, kept], weight[:width], bias[:width]), 1)
            x = x[:, kept]
        x = x + self._drop(self.proj(self._attend(query, key, value, mask)))
        return x + self._drop(self.narrow(F.gelu(self.widen(self.norm2(x)))))

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, L, parts * E) to (B, heads, L, E / heads) of each part."""
        return x.unflatten(2, (parts, self.n_heads, -1)).permute(2, 0, 3, 1, 4).unbind()

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        dropout = self.attn_drop if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None
        )
        return mixed.transpose(1, 2).flatten(2)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.resid_drop) if self.resid_drop and self.training else x


class _GPT(nn.Module):
    """What both networks share: embeddings, positions, blocks and the head."""

    mask: Tensor

    def __init__(
        self,
        obs_dim: int,
        outputs: int,
        embed_dim: int,
        n_layers: int,
        n_heads: int,
        window: int,
        goal_len: int,
        attn_drop: float,
        resid_drop: float,
        linear_output: bool,
        tokens: int,
    ) -> None:
        super().__init__()
        if min(obs_dim, outputs, embed_dim, n_layers, n_heads, window, goal_len) < 1:
            raise ValueError("sizes of a transformer, its window and its goal are at least 1")
        if embed_dim % n_heads:
            raise ValueError(f"{n_heads} heads do not divide embed_dim {embed_dim}; choose a divisor of it")
        self.obs_dim, self.window, self.goal_len = obs_dim, window, goal_len
        self.state_emb = nn.Linear(obs_dim, embed_dim)  # of states and goals alike
        self.pos_emb = nn.Parameter(torch.zeros(1, goal_len + window + 1, embed_dim))  # the last is never used
        self.blocks = nn.ModuleList([Block(embed_dim, n_heads, attn_drop, resid_drop) for _ in range(n_layers)])
        self.norm = nn.LayerNorm(embed_dim)
        self.head: nn.Module = nn.Linear(embed_dim, outputs)
        if not linear_output:
            self.head = nn.Sequential(nn.Linear(embed_dim, 100), nn.SiLU(), nn.Linear(100, outputs))
        # As numbers, since the fast attention of the CPU has no kernel for a mask of booleans with gradients.
        self.register_buffer("mask", torch.full((tokens, tokens), -torch.inf).triu(1), persistent=False)

    def initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.pos_emb, std=0.02)

    def goal_tokens(self, goals: Tensor | None, states: Tensor) -> Tensor:
        """(B, G, E); no goal is a goal of zeros."""
        count, t, width = states.shape
        if width != self.obs_dim or not 1 <= t <= self.window:
            raise ValueError(
                f"states are (B, 1 to {self.window}, {self.obs_dim}) for this network, not {tuple(states.shape)}"
            )
        shape = (count, self.goal_len, self.obs_dim)
        if goals is None:
            goals = states.new_zeros(shape)
        if goals.shape != shape:
            raise ValueError(f"goals are {shape} for these states, not {tuple(goals.shape)}")
        return self.state_emb(goals) + self.pos_emb[:, : self.goal_len]

    def positions(self, t: int) -> Tensor:
        return self.pos_emb[:, self.goal_len : self.goal_len + t]

    def through(self, tokens: Tensor, kept: slice) -> Tensor:
        """The head's outputs for the tokens of ``kept``; the last block works for those alone."""
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens)
        mask = self.mask[kept.start : tokens.shape[1] : kept.step, : tokens.shape[1]]
        return self.head(self.norm(last(tokens, kept, mask)))


class ScoreGPT(_GPT):
    """The network F of BESO's denoiser: a causal transformer over [noise, g_1..g_G, s_1, a_1, ..., s_t, a_t].

    Called as the inside of :class:`~reprise.diffusion.EDM`: ``net(actions, c_noise, goals, states)``. The output of
    action token i sees the noise level, the goal, states and actions up to i, and nothing later; so a shorter window
    gives the first outputs of a longer one.

    Goals are embedded by the layer of the states. The noise token has no position; goal i has slot i of the positions,
    s_i and a_i share slot G + i. The published sizes are embed_dim 360, 6 layers, 6 heads, window 4, goal_len 2,
    attn_drop 0.3 for the kitchen (9,381,249 parameters with states of 30 and actions of 9 numbers) and, for
    Block-Push, the defaults (2,783,762 with 10 and 2).

    Args:
        obs_dim: of a state, and of a goal.
        action_dim: of an action.
        embed_dim: E.
        n_layers, n_heads: of the transformer.
        window: k, the longest history.
        goal_len: G, states in a goal.
        attn_drop: dropout of attention weights.
        resid_drop: dropout of what the blocks add.
        goal_drop: in training, each number of a goal becomes 0 with this probability (or each goal; ``goal_drop_mode``)
            which is what sampling with guidance needs.
        goal_drop_mode: "element", as in the released code, or "example", as in the literature.
        linear_output: False has a head Linear - SiLU - Linear of width 100.

    Raises:
        ValueError: heads that do not divide ``embed_dim``, sizes below 1; at the call: other shapes.

    Source: Reuss et al., 2023, section IV and appendix; positions, masks and initialisation as in the released code.

    Example:
        >>> net = ScoreGPT(obs_dim=10, action_dim=2, embed_dim=64, n_layers=2, n_heads=4)
        >>> states, goals, actions = torch.randn(8, 5, 10), torch.randn(8, 1, 10), torch.randn(8, 5, 2)
        >>> net(actions, torch.zeros(8), goals, states).shape
        torch.Size([8, 5, 2])
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        *,
        embed_dim: int = 240,
        n_layers: int = 4,
        n_heads: int = 12,
        window: int = 5,
        goal_len: int = 1,
        attn_drop: float = 0.05,
        resid_drop: float = 0.05,
        goal_drop: float = 0.0,
        goal_drop_mode: str = "element",
        linear_output: bool = True,
    ) -> None:
        sizes = (embed_dim, n_layers, n_heads, window, goal_len)
        super().__init__(
            obs_dim, action_dim, *sizes, attn_drop, resid_drop, linear_output, tokens=1 + goal_len + 2 * window
        )
        self.goal_drop, self.goal_drop_mode = goal_drop, goal_drop_mode
        self.noise_emb = nn.Linear(1, embed_dim)
        self.action_emb = nn.Linear(action_dim, embed_dim)
        self.initialise()

    def embed(self, goals: Tensor | None, states: Tensor) -> tuple[Tensor, Tensor]:
        """What goals and states become at every noise level: (B, G, E) and (B, t, E)."""
        return self.goal_tokens(goals, states), self.state_emb(states)

    def forward(
        self, actions: Tensor, c_noise: Tensor, goals: Tensor | None, states: Tensor, embedded: bool = False
    ) -> Tensor:
        """F for every action of the windows.

        Args:
            actions: (B, t, action_dim) noisy, times c_in; t from 1 to the window.
            c_noise: (B,) ln(sigma) / 4.
            goals: (B, G, obs_dim); None is no goal.
            states: (B, t, obs_dim).
            embedded: goals and states are what :meth:`embed` made of them.

        Returns:
            (B, t, action_dim).
        """
        if not embedded:
            if goals is not None and self.training and self.goal_drop:
                goals = drop_condition(goals, self.goal_drop, mode=self.goal_drop_mode)
            goals, states = self.embed(goals, states)
        if actions.shape[:2] != states.shape[:2]:
            raise ValueError(f"actions are {(*states.shape[:2], 'action_dim')}, as states, not {tuple(actions.shape)}")
        noise = self.noise_emb(c_noise[:, None, None])
        pairs = torch.stack([states, self.action_emb(actions)], 2) + self.positions(states.shape[1])[:, :, None]
        tokens = torch.cat([noise, goals, pairs.flatten(1, 2)], 1)  # type: ignore[list-item]
        return self.through(tokens, slice(2 + self.goal_len, None, 2))


class GoalGPT(_GPT):
    """The same transformer without noise and actions, over [g_1..g_G, s_1..s_t]: what a baseline predicts with.

    Args:
        obs_dim: of a state, and of a goal.
        outputs: numbers per state, say those of an action.
        embed_dim, n_layers, n_heads, window, goal_len, attn_drop, resid_drop, linear_output: as of :class:`ScoreGPT`.

    Raises:
        ValueError: as :class:`ScoreGPT`.

    Example:
        >>> net = GoalGPT(obs_dim=10, outputs=2, embed_dim=64, n_layers=2, n_heads=4)
        >>> net(torch.randn(8, 1, 10), torch.randn(8, 5, 10)).shape
        torch.Size([8, 5, 2])
    """

    def __init__(
        self,
        obs_dim: int,
        outputs: int,
        *,
        embed_dim: int = 240,
        n_layers: int = 4,
        n_heads: int = 12,
        window: int = 5,
        goal_len: int = 1,
        attn_drop: float = 0.05,
        resid_drop: float = 0.05,
        linear_output: bool = True,
    ) -> None:
        sizes = (embed_dim, n_layers, n_heads, window, goal_len)
        super().__init__(obs_dim, outputs, *sizes, attn_drop, resid_drop, linear_output, tokens=goal_len + window)
        self.initialise()

    def forward(self, goals: Tensor | None, states: Tensor) -> Tensor:
        """(B, G, obs_dim) and (B, t, obs_dim) to (B, t, outputs), one for each state."""
        first = self.goal_tokens(goals, states)
        tokens = torch.cat([first, self.state_emb(states) + self.positions(states.shape[1])], 1)
        return self.through(tokens, slice(self.goal_len, None))
