"""Policies whose chunks of actions are tokens: CARP, coarse to fine, and conventional autoregression, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.data.episodes import Episodes
from reprise.data.windows import Windows
from reprise.policies.carp.adaln import undecayed
from reprise.policies.carp.per_step import ActionBins, PerStepTransformer
from reprise.policies.carp.tokenizer import ActionTokenizer
from reprise.policies.carp.training import flat_then_linear, minimize
from reprise.policies.carp.transformer import CoarseToFineTransformer
from reprise.policies.demonstrations import Batch
from reprise.policies.encoders import ObservationEncoder
from reprise.policies.imitation import AVERAGE, ImitationPolicy
from reprise.policies.observations import Shapes
from reprise.training.ema import EMA
from reprise.training.fit import History, OnStep
from reprise.training.flat_adamw import FlatAdamW

__all__ = ["CARPPolicy", "PerStepPolicy", "TokenPolicy"]


class Stages(nn.Module):
    """What a policy over tokens consists of: an encoder of observations, a tokenizer and a transformer."""

    tokenizer: Any
    transformer: Any

    def __init__(self, encoder: ObservationEncoder, tokenizer: nn.Module, transformer: nn.Module) -> None:
        super().__init__()
        self.encoder, self.tokenizer, self.transformer = encoder, tokenizer, transformer


class TokenPolicy(ImitationPolicy):
    """What policies over tokens share: a transformer that names the tokens of a chunk from what is observed.

    The chunk begins beside the first observation of the history, and a window may reach ``execute - 1`` steps beyond
    the end of its episode, where the last action is repeated.

    Args:
        horizon: H, actions in a chunk.
        history: observations that are seen.
        execute: actions that will be played of a chunk, see :class:`~reprise.policies.ChunkedPolicy`.
        embed_dim: width of the transformer.
        depth: blocks.
        heads: of the attention; None takes ``depth``, as published.
        top_k: 1 takes the likeliest token; more draws among so many. It may be changed after training.
        encoder: arguments of the :class:`~reprise.policies.ObservationEncoder`, for pictures.
        **options: of :class:`~reprise.policies.ImitationPolicy`.
    """

    module: Stages

    def __init__(
        self,
        *,
        horizon: int = 16,
        history: int = 2,
        execute: int = 8,
        embed_dim: int = 64,
        depth: int = 8,
        heads: int | None = None,
        top_k: int = 1,
        encoder: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        padding = {"first_action": 1 - history, "pad_start": history - 1, "pad_end": execute - 1}
        super().__init__(horizon=horizon, history=history, **padding | options)
        self.execute, self.embed_dim, self.depth, self.heads, self.top_k = execute, embed_dim, depth, heads, top_k
        self.encoder = dict(encoder or {})

    @property
    def noisy(self) -> bool:  # type: ignore[override]
        """Whether tokens are drawn; the noise then decides how."""
        return self.top_k > 1

    def tokens(self, actions: Tensor) -> Tensor:
        """Scaled chunks (B, H, A) as tokens (B, L)."""
        raise NotImplementedError

    def logits(self, condition: Tensor, tokens: Tensor) -> Tensor:
        """(B, L, V), of each token given those before it."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        """Cross entropy of the tokens of the batch's actions, mean over all tokens."""
        return self._cross_entropy(batch, self.tokens(batch["actions"]))

    def fit(  # type: ignore[override]
        self,
        episodes: Episodes,
        *,
        steps: int,
        batch_size: int = 256,
        learning_rate: float = 1e-4,
        weight_decay: float = 0.05,
        clip_norm: float = 2.0,
        ema: Mapping[str, float] = AVERAGE,
        validation: float = 0.0,
        on_step: OnStep | None = None,
        tokenizer: Mapping[str, Any] | None = None,
    ) -> Self:
        """Learn to name the tokens of demonstrations by AdamW with betas (0.9, 0.95); the averaged weights act.

        The learning rate is level for 5 % of the steps and falls along a line to a tenth; the weight decay falls to
        zero, and biases, places and the attention's scales do not decay.

        Args:
            episodes: the demonstrations.
            steps: of the transformer's optimiser; the paper takes 4,000 epochs.
            batch_size: windows per step.
            learning_rate, weight_decay, clip_norm: at the beginning. The published learning rate, for 256 windows, is
                in proportion to the batch.
            ema: arguments of :class:`~reprise.training.EMA`.
            validation: share of the episodes that is held out; their loss is told.
            on_step: called about fifty times with (step, steps, {"loss": ...}).
            tokenizer: arguments of :meth:`ActionTokenizer.fit`, where there is one to train: ``steps`` and so on. A
                second training may leave it out, and keeps the tokenizer as it is.

        Raises:
            ValueError: episodes that the policy cannot learn from, or no tokenizer yet.
            reprise.training.Diverged: a loss is not finite.
        """
        demonstrations, held_out = self.prepare(episodes, validation)
        windows = demonstrations.windows
        cut = Windows(windows.episodes, 1, self.horizon, first_action=self.first_action, observations=())
        actions = cut.gather(demonstrations.steps)["actions"].to(self.device)
        self.train_tokenizer(actions, dict(tokenizer or {}), on_step)
        tokens = torch.cat([self.tokens(part) for part in actions.split(1024)])
        trained = nn.ModuleList([self.module.encoder, self.module.transformer])
        optimizer = FlatAdamW(
            trained.parameters(),
            learning_rate,
            weight_decay=weight_decay,
            undecayed=undecayed(trained),
            betas=(0.9, 0.95),
        )
        average, losses = EMA(trained, **ema), list[tuple[int, float]]()

        def tell(step: int, total: int, values: dict[str, float]) -> None:
            losses.append((step, values["loss"]))
            if held_out is not None:
                with average.applied_to(trained):
                    values = values | {"validation_loss": self.validate(held_out)}
                trained.train()
            if on_step is not None:
                on_step(step, total, values)

        rng = np.random.default_rng(int(torch.randint(2**31, ())))  # of goals
        trained.train()
        minimize(
            lambda rows: self._cross_entropy(
                demonstrations.gather(demonstrations.steps[rows.numpy()], rng), tokens[rows]
            ),
            len(tokens),
            optimizer,
            steps=steps,
            batch_size=batch_size,
            course=flat_then_linear,
            clip_norm=clip_norm,
            after_step=lambda: average.update(trained),
            on_step=tell,
        )
        trained.load_state_dict(average.module.state_dict())
        self.module.eval()
        self.trained = History(steps, losses)
        self.reset()
        return self

    def train_tokenizer(self, actions: Tensor, options: dict[str, Any], on_step: OnStep | None) -> None:
        """Get ready to turn chunks into tokens; here there is nothing to learn."""

    def _cross_entropy(self, batch: Batch, tokens: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(self.module.encoder(batch), tokens).flatten(0, 1), tokens.flatten())


class CARPPolicy(TokenPolicy):
    """CARP: actions by coarse-to-fine prediction, as many passes of the network as there are scales.

    First a tokenizer for each dimension of the actions learns to write chunks as codes of several scales; then, with
    the tokenizers frozen, a transformer learns to name the codes of a scale, all at once, from what is observed and the
    coarser scales.

    Args:
        vocab, code_dim, ch, mult, scales, cosine: of the :class:`~reprise.policies.ActionTokenizer`.
        **options: of :class:`~reprise.policies.carp.policy.TokenPolicy` and
            :class:`~reprise.policies.ImitationPolicy`: horizon, history, depth, top_k, observations, ...

    Source: Gong, Ding, Lyu, Huang, Sun, Zhao, Fan and Wang, CARP: Visuomotor Policy Learning via Coarse-to-Fine
    Autoregressive Prediction, ICCV 2025.

    Example:
        >>> from reprise.data import Episodes
        >>> walk = Episodes({"state": np.zeros((40, 3))}, np.random.rand(40, 2).astype(np.float32), np.array([40]))
        >>> policy = CARPPolicy(depth=2, embed_dim=16).fit(walk, steps=2, batch_size=8, tokenizer={"steps": 2})
        >>> policy.plan(np.zeros((5, 3))).shape
        torch.Size([5, 16, 2])
    """

    def __init__(
        self,
        *,
        vocab: int = 512,
        code_dim: int = 8,
        ch: int = 2,
        mult: tuple[int, ...] = (2, 4),
        scales: tuple[int, ...] = (1, 2, 3, 4),
        cosine: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.vocab, self.code_dim, self.ch, self.cosine = vocab, code_dim, ch, cosine
        self.mult, self.scales = tuple(mult), tuple(scales)
        if self.top_k > 1 and sum(self.scales) > self.horizon:
            raise ValueError(f"noise for {self.horizon} actions cannot decide {sum(self.scales)} draws; use top_k=1")

    def build(self, shapes: Shapes) -> Stages:
        """Encoder, tokenizer and transformer."""
        encoder = ObservationEncoder(shapes, self.history, **self.encoder)
        tokenizer = ActionTokenizer(
            shapes.action, self.horizon, self.vocab, self.code_dim, self.ch, self.mult, self.scales, cosine=self.cosine
        )
        transformer = CoarseToFineTransformer(
            encoder.size,
            shapes.action,
            self.vocab,
            self.code_dim,
            self.scales,
            embed_dim=self.embed_dim,
            depth=self.depth,
            heads=self.heads,
        )
        return Stages(encoder, tokenizer, transformer)

    def train_tokenizer(self, actions: Tensor, options: dict[str, Any], on_step: OnStep | None) -> None:
        """The first stage."""
        if options:
            self.module.tokenizer.requires_grad_(True).fit(actions, **{"on_step": on_step} | options)
        elif self.trained is None:
            raise ValueError("the tokenizer has learned nothing yet: give its training, say tokenizer={'steps': 1000}")
        self.module.tokenizer.requires_grad_(False)

    def tokens(self, actions: Tensor) -> Tensor:
        """Codes of all scales, coarse to fine."""
        return torch.cat(self.module.tokenizer.encode(actions), 1)

    def logits(self, condition: Tensor, tokens: Tensor) -> Tensor:
        """(B, L, V)."""
        tokenizer = self.module.tokenizer
        return self.module.transformer(condition, tokenizer.inputs(tokens.split(tokenizer.tokens, 1)))

    def predict(self, batch: Batch, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """(B, H, A)."""
        transformer, condition = self.module.transformer, self.module.encoder(batch)
        # The first of the normal numbers, as uniform ones, decide the draws.
        uniform = None if noise is None else torch.special.ndtr(noise.flatten(1)[:, : sum(transformer.tokens)])
        return transformer.generate(condition, self.module.tokenizer, top_k=self.top_k, uniform=uniform)[0]


class PerStepPolicy(TokenPolicy):
    """Conventional autoregression: each number of each action in bins, one pass of the network for each of them.

    Args:
        bins: equal ones over [-1, 1].
        **options: as of :class:`CARPPolicy`.

    Source: the baseline of the kind that CARP sets itself against, with CARP's own transformer; bins as in Brohan et
    al., RT-1, 2022.

    Example:
        >>> from reprise.data import Episodes
        >>> walk = Episodes({"state": np.zeros((40, 3))}, np.random.rand(40, 2).astype(np.float32), np.array([40]))
        >>> policy = PerStepPolicy(depth=2, embed_dim=16).fit(walk, steps=2, batch_size=8)
        >>> policy.plan(np.zeros((5, 3))).shape
        torch.Size([5, 16, 2])
    """

    def __init__(self, *, bins: int = 256, **options: Any) -> None:
        super().__init__(**options)
        self.bins = bins

    def build(self, shapes: Shapes) -> Stages:
        """Encoder and transformer."""
        encoder = ObservationEncoder(shapes, self.history, **self.encoder)
        transformer = PerStepTransformer(
            encoder.size,
            shapes.action,
            self.horizon,
            self.bins,
            embed_dim=self.embed_dim,
            depth=self.depth,
            heads=self.heads,
        )
        return Stages(encoder, ActionBins(self.bins), transformer)

    def tokens(self, actions: Tensor) -> Tensor:
        """Bins, by time and within a time by dimension."""
        return self.module.tokenizer.encode(actions).flatten(1)

    def logits(self, condition: Tensor, tokens: Tensor) -> Tensor:
        """(B, L, bins)."""
        return self.module.transformer(condition, tokens)

    def predict(self, batch: Batch, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """(B, H, A)."""
        uniform = None if noise is None else torch.special.ndtr(noise.flatten(1))
        indices = self.module.transformer.generate(self.module.encoder(batch), top_k=self.top_k, uniform=uniform)
        return self.module.tokenizer.decode(indices).unflatten(1, (self.horizon, -1))
