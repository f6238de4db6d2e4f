"""Which experts a token goes to: drawn by chance while training, the most probable ones afterwards."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Router", "Routing", "load_balance", "mutual_information", "z_loss"]

DRAWS = ("token", "sample")
SMALLEST = 1e-9


class Routing(NamedTuple):
    """Where tokens go.

    Attributes:
        logits: (B, R, N) less their maximum; R is 1 where all tokens of a sample share them.
        probabilities: (B, R, N) of every expert.
        chosen: (B, T or 1, k) numbers of experts, no two of them alike.
        weights: (B, T or 1, k) their probabilities, divided by their sum.
    """

    logits: Tensor
    probabilities: Tensor
    chosen: Tensor
    weights: Tensor


class Router(nn.Module):
    """Probabilities of N experts from a condition, and a choice of k of them.

    In training mode k different experts are drawn one after the other in proportion to their probabilities; in
    evaluation mode the k most probable ones are taken. Either way the weights keep the gradient to the router.

    Args:
        features: of the condition.
        n_experts: N.
        top_k: k, 1..N.
        hidden: width of the layer between; None maps the condition to the logits by one matrix.
        draw: "token" draws anew for every token, as published; "sample" once for all tokens that share a condition.

    Raises:
        ValueError: k outside 1..N, an unknown draw.

    Source: section 3.2 of the paper; two layers with a GELU between, weights N(0, 0.02), as in the published code
    (the text writes one matrix).

    Example:
        >>> router = Router(8, n_experts=4, top_k=2, hidden=16).eval()
        >>> routing = router(torch.randn(5, 1, 8))
        >>> routing.chosen.shape, bool((routing.weights.sum(-1) - 1).abs().max() < 1e-6)
        (torch.Size([5, 1, 2]), True)
    """

    def __init__(
        self, features: int, n_experts: int, top_k: int, *, hidden: int | None = None, draw: str = "token"
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= n_experts:
            raise ValueError(f"top_k is at least 1 and at most the {n_experts} experts there are, not {top_k}")
        if draw not in DRAWS:
            raise ValueError(f'draw is "token" or "sample", not {draw!r}')
        self.top_k, self.draw = top_k, draw
        if hidden is None:
            self.net = nn.Sequential(nn.Linear(features, n_experts, bias=False))
        else:
            self.net = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, n_experts))
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def probabilities(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Logits less their maximum and probabilities, (..., N), of conditions (..., features)."""
        logits = self.net(condition)
        logits = logits - logits.amax(-1, keepdim=True)
        return logits, logits.softmax(-1).clamp(SMALLEST, 1 - SMALLEST)

    def forward(self, condition: Tensor, tokens: int | None = None) -> Routing:
        """Choose experts.

        Args:
            condition: (B, R, features); R is the number of tokens, or 1 for a condition that all tokens share.
            tokens: T, how many tokens share a condition; by default R.
        """
        logits, probabilities = self.probabilities(condition)
        everyones = probabilities
        if self.training:
            if self.draw == "token" and tokens is not None:
                everyones = probabilities.expand(-1, tokens, -1)
            drawn = torch.multinomial(everyones.detach().flatten(0, -2), self.top_k)
            chosen = drawn.view(*everyones.shape[:-1], self.top_k)
        else:
            chosen = everyones.topk(self.top_k, -1).indices
        weights = everyones.gather(-1, chosen)
        return Routing(logits, probabilities, chosen, weights / weights.sum(-1, keepdim=True))


def load_balance(routing: Routing, form: str = "paper") -> Tensor:
    """N sum_n f_n P_n, small where experts share the work: k at even shares, N / k times that at most.

    f_n is the share of tokens that go to expert n, so that the f_n sum to k, and P_n its mean probability.

    Args:
        routing: of a batch.
        form: "paper" takes P_n from all probabilities; "released" from the weights of the chosen ones, as the
            published code does: the same value at even shares, with another gradient.

    Raises:
        ValueError: unknown form.

    Source: equation 9 of the paper.

    Example:
        >>> even = torch.full((1, 2, 4), 0.25)
        >>> pairs = torch.tensor([[[0, 1], [2, 3]]])
        >>> load_balance(Routing(even.log(), even, pairs, torch.full((1, 2, 2), 0.5)))
        tensor(2.)
    """
    n = routing.probabilities.shape[-1]
    rows, chosen = routing.chosen.shape[:-1].numel(), routing.chosen.flatten()
    share = chosen.bincount(minlength=n) / rows
    if form == "paper":
        mean = routing.probabilities.flatten(0, -2).mean(0)
    elif form == "released":
        mean = routing.weights.new_zeros(n).index_add(0, chosen, routing.weights.flatten()) / rows
    else:
        raise ValueError(f'form is "paper" or "released", not {form!r}')
    return n * (share * mean).sum()


def z_loss(routing: Routing) -> Tensor:
    """Mean square of the logarithm of the sum of exponentials of the logits, which keeps logits close together.

    Source: Zoph et al., ST-MoE, 2022; here of logits less their maximum, as in the published code.

    Example:
        >>> logits = torch.tensor([[[0.0, -100.0]]])
        >>> z_loss(Routing(logits, logits.exp(), torch.zeros(1, 1, 1), torch.ones(1, 1, 1)))
        tensor(0.)
    """
    return routing.logits.logsumexp(-1).square().mean()


def mutual_information(probabilities: Tensor) -> Tensor:
    """How much a noise level tells about the expert, in bits: 0 where all levels route alike, at most log2 N.

    Args:
        probabilities: (..., S, N) of experts at S noise levels that are equally frequent.

    Returns:
        (...).

    Example:
        >>> mutual_information(torch.eye(4)), mutual_information(torch.full((4, 4), 0.25))
        (tensor(2.), tensor(0.))
    """

    def entropy(p: Tensor) -> Tensor:
        return -torch.special.xlogy(p, p).sum(-1) / torch.log(torch.tensor(2.0))

    return (entropy(probabilities.mean(-2)) - entropy(probabilities).mean(-1)).clamp(min=0)
