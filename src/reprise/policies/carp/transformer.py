"""CARP's second stage: a transformer that predicts all tokens of a scale at once, scale after scale.

Source: Gong et al., CARP, ICCV 2025, section 3.2 and the published configuration; after Tian et al., Visual
Autoregressive Modeling, NeurIPS 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reprise.policies.carp.adaln import AdaLNTransformer, initialize
from reprise.policies.carp.tokenizer import ActionTokenizer

__all__ = ["CoarseToFineTransformer", "pick"]


class CoarseToFineTransformer(nn.Module):
    """What the codes of a chunk are, given an observation: full attention inside a scale, and to all coarser ones.

    Tokens run scale after scale, in a scale by time, and within a time by dimension of the action. Scale 0 is predicted
    from the observation alone, scale k from the area average, at its l_k times, of what the scales before it sum up to.

    Args:
        cond_dim: numbers in the observation, all its steps together.
        action_dim: Da, dimensions of an action.
        vocab: V, codes per dimension.
        code_dim: length of a code.
        scales: times of each scale, as in the tokenizer.
        embed_dim: C, width; 160 in the paper's larger models.
        depth: blocks.
        heads: of the attention; None takes ``depth``, as published.
        drop_path: stochastic depth of the last block, rising linearly from 0; None takes 0.1 depth / 24, as published.

    Raises:
        ValueError: the heads do not divide the width.

    Example:
        >>> transformer = CoarseToFineTransformer(40, 2)
        >>> sum(parameter.numel() for parameter in transformer.parameters())  # Push-T in the paper
        643520
        >>> transformer(torch.zeros(3, 40), torch.zeros(3, 18, 8)).shape
        torch.Size([3, 20, 512])
    """

    mask: Tensor
    level: Tensor

    def __init__(
        self,
        cond_dim: int,
        action_dim: int,
        vocab: int = 512,
        code_dim: int = 8,
        scales: tuple[int, ...] = (1, 2, 3, 4),
        *,
        embed_dim: int = 64,
        depth: int = 8,
        heads: int | None = None,
        drop_path: float | None = None,
    ) -> None:
        super().__init__()
        self.cond_dim, self.code_dim = cond_dim, code_dim
        self.tokens = tuple(scale * action_dim for scale in scales)
        level = torch.cat([torch.full((count,), k) for k, count in enumerate(self.tokens)])
        self.register_buffer("level", level, persistent=False)
        self.register_buffer("mask", level[:, None] >= level, persistent=False)  # (query, key)
        self.obs_embed = nn.Linear(cond_dim, embed_dim)
        self.word_embed = nn.Linear(code_dim, embed_dim)
        self.pos_start = nn.Parameter(torch.empty(1, self.tokens[0], embed_dim))
        self.pos = nn.Parameter(torch.empty(1, len(level), embed_dim))
        self.level_embed = nn.Embedding(len(scales), embed_dim)
        self.trunk = AdaLNTransformer(embed_dim, depth, heads or depth, vocab, drop_path)
        initialize(self, embed_dim)

    def forward(self, cond: Tensor, inputs: Tensor) -> Tensor:
        """Logits of all tokens when the coarser scales are known (teacher forcing).

        Args:
            cond: (B, cond_dim), the observation.
            inputs: (B, tokens of scales 1, ..., K - 1, code_dim), from :meth:`ActionTokenizer.inputs`.

        Returns:
            (B, L, V).
        """
        c = self._condition(cond)
        if inputs.shape[1:] != (len(self.level) - self.tokens[0], self.code_dim):
            expected = (len(self.level) - self.tokens[0], self.code_dim)
            raise ValueError(f"inputs are (B, {expected[0]}, {expected[1]}), not {tuple(inputs.shape)}")
        x = torch.cat([c[:, None] + self.pos_start, self.word_embed(inputs)], 1) + self._places()
        return self.trunk(x, self.trunk.modulations(c), self.mask)

    @torch.no_grad()
    def generate(
        self, cond: Tensor, tokenizer: ActionTokenizer, *, top_k: int = 1, uniform: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Predict a chunk: one pass per scale, each over the tokens of that scale alone, with keys and values cached.

        Args:
            cond: (B, cond_dim), the observation.
            tokenizer: of the codes; turns them into actions.
            top_k: 1 takes the likeliest code; more draws among so many.
            uniform: (B, L) numbers in [0, 1) that decide the draws; None draws them.

        Returns:
            Actions (B, H, Da) in about [-1, 1], and the indices of each scale.
        """
        c = self._condition(cond)
        modulations, caches = self.trunk.modulations(c), self.trunk.caches(len(c), len(self.level))
        if top_k > 1 and uniform is None:
            uniform = torch.rand(len(c), len(self.level), device=c.device)
        places, latent, start = self._places(), None, 0
        indices: list[Tensor] = []
        for k, count in enumerate(self.tokens):
            stop = start + count
            x = c[:, None] + self.pos_start if latent is None else self.word_embed(tokenizer.next_input(latent, k))
            logits = self.trunk(x + places[:, start:stop], modulations, caches=caches)
            indices.append(pick(logits, top_k, None if uniform is None else uniform[:, start:stop]))
            latent, start = tokenizer.add_scale(latent, indices[k], k), stop
        assert latent is not None
        return tokenizer.decode_latent(latent), indices

    def _places(self) -> Tensor:
        return self.level_embed(self.level) + self.pos

    def _condition(self, cond: Tensor) -> Tensor:
        if cond.ndim != 2 or cond.shape[1] != self.cond_dim:
            raise ValueError(f"observations are (B, {self.cond_dim}), not {tuple(cond.shape)}")
        return self.obs_embed(cond)


def pick(logits: Tensor, top_k: int = 1, uniform: Tensor | None = None) -> Tensor:
    """The likeliest index, or one drawn among the ``top_k`` likeliest.

    Args:
        logits: (..., V).
        top_k: among how many; beyond V all.
        uniform: (...) numbers in [0, 1); the smaller, the likelier the index that is drawn.

    Raises:
        ValueError: ``top_k`` below 1, or above 1 without numbers to draw by.

    Example:
        >>> logits = torch.tensor([0.0, 2.0, 1.0])
        >>> pick(logits).item(), pick(logits, 2, torch.tensor(0.9)).item()
        (1, 2)
    """
    if top_k < 1 or (top_k > 1 and uniform is None):
        raise ValueError(f"top_k is at least 1, and above 1 it takes uniform numbers; here it is {top_k}")
    if top_k == 1 or uniform is None:
        return logits.argmax(-1)
    values, order = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
    below = values.softmax(-1).cumsum(-1)[..., :-1] <= uniform[..., None]
    return order.gather(-1, below.sum(-1, keepdim=True))[..., 0]
