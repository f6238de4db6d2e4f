"""Learn when to stop by gradient ascent on the payoff itself: the network says how likely it stops at each date.

Backwards through the dates n, ``p_n F + g (1 - F)`` is what stopping with chance ``F = sigmoid(score)`` earns, where g
is the payoff that the hard decisions (score above 0) of later dates lead to. Its mean, summed over dates, is maximised
on fresh paths at every step; no gradient runs through g.

Sources: Becker, Cheridito and Jentzen, Deep Optimal Stopping, JMLR 2019, section 2; Felizardo, Matsumoto and
Del-Moral-Hernandez, IJCNN 2022, for one network shared by all dates.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from reprise.data.finite import all_finite
from reprise.rl.optimal_stopping.rule import Payoff, StoppingRule, checked_paths, checked_payoffs, next_stop
from reprise.training.fit import Diverged, History, OnStep

__all__ = ["NeuralStopper", "Sampler", "soft_payoff"]

Sampler = Callable[[int, tuple[int, int]], Tensor]


def soft_payoff(scores: Tensor, payoffs: Tensor) -> Tensor:
    """The objective: payoffs expected from soft decisions at each date and hard ones after it, summed over dates.

    Args:
        scores: (B, N); positive means stop. The last column is not used: at the last date there is no choice.
        payoffs: (B, N).

    Returns:
        A number to be maximised, the sum over n < N of means over paths.

    Example:
        >>> soft_payoff(torch.tensor([[100.0, -100.0, 0.0]]), torch.tensor([[1.0, 2.0, 5.0]]))
        tensor(6.)
    """
    with torch.no_grad():
        later = payoffs.gather(1, next_stop(scores > 0))[:, 1:]
    # p F + g (1 - F), written so that one product carries the gradient
    gain = (payoffs[:, :-1] - later) * torch.sigmoid(scores[:, :-1])
    return (later + gain).mean(0).sum()


class NeuralStopper(StoppingRule):
    """A network that decides when to stop, trained on the payoff.

    Args:
        payoff: prices (B, d, N) to discounted payoffs (B, N), say an :class:`Option`.
        network: prices (B, d, N) and payoffs (B, N) to scores (B, N), causal: :func:`history_cnn`,
            :func:`history_mlp`, :class:`DOSNetworks`, or one of your own. It is trained in place, and its
            ``state_dict`` is all there is to save.

    Example:
        >>> from reprise.data import simulate
        >>> from reprise.rl import Option, history_cnn
        >>> rule = NeuralStopper(Option("call"), history_cnn(12))
        >>> def paths(count, seed):
        ...     return simulate("gbm", count, 12, seed)
        >>> history = rule.fit(paths, steps=5, batch_size=32, validation=paths(100, 7))
        >>> rule.stopping_times(paths(3, 8)).shape
        torch.Size([3])
    """

    def __init__(self, payoff: Payoff, network: nn.Module) -> None:
        super().__init__(payoff)
        self.network = network
        self.n_dates = getattr(network, "n_dates", None)  # of weights that were trained elsewhere and loaded

    def fit(
        self,
        paths: Tensor | Sampler,
        *,
        steps: int = 501,
        batch_size: int = 163,
        learning_rate: float = 0.05,
        milestones: Sequence[float] = (0.2, 0.4, 0.6),
        validation: Tensor | None = None,
        checks: int = 10,
        seed: int = 0,
        on_step: OnStep | None = None,
    ) -> History:
        """Maximise :func:`soft_payoff` by Adam; the defaults are Felizardo et al.'s.

        Args:
            paths: (B, d, N) prices, from which batches are shuffled, or a sampler: called as
                ``paths(batch_size, (seed, step))``, it returns fresh ones.
            steps: of Adam.
            batch_size: paths per step, at least 2.
            learning_rate: at the start.
            milestones: shares of the steps after which the learning rate is divided by 10.
            validation: paths on which the rule is valued ``checks`` times; the best weights are kept. Without them the
                last weights are.
            checks: how often.
            seed: of the batches. Weights and dropout draw from PyTorch's global generator.
            on_step: called at every check with (step, steps, {"payoff": value}), the value of the hard rule on the
                validation paths (without: on the batch).

        Returns:
            Steps taken and (step, minus the soft payoff per date) at every check.

        Raises:
            ValueError: sizes that do not fit, or paths that are not finite.
            Diverged: a score or a weight is not finite.
        """
        if steps < 1 or batch_size < 2 or checks < 1:
            raise ValueError(
                f"steps and checks are at least 1 and batches hold 2 paths, not {steps}, {checks} and {batch_size}"
            )
        device = next(self.network.parameters()).device
        optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)
        drops = [math.ceil(share * steps) for share in milestones]
        history, best, best_state = History(), -math.inf, None
        for step, batch in zip(range(1, steps + 1), _batches(paths, batch_size, seed), strict=False):
            batch = checked_paths(batch).float().to(device)
            if batch.shape[-1] != getattr(self.network, "n_dates", batch.shape[-1]):
                raise ValueError(f"paths of {batch.shape[-1]} dates came to a network for {self.network.n_dates}")
            self.n_dates = batch.shape[-1]
            payoffs = checked_payoffs(self.payoff, batch)
            optimizer.param_groups[0]["lr"] = learning_rate * 0.1 ** sum(step > drop for drop in drops)
            self.network.train()
            scores = self.network(batch, payoffs)
            loss = -soft_payoff(scores, payoffs)
            if not bool(loss.isfinite()):
                raise Diverged(
                    f"training diverged at step {step} of {steps} (a score is not finite); lower the learning rate"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            history.steps = step
            if step * checks // steps > (step - 1) * checks // steps:
                history.losses.append((step, float(loss.detach()) / max(1, self.n_dates - 1)))
                value = self.value(batch if validation is None else validation).mean
                if not math.isfinite(value) or not all(map(all_finite, self.network.parameters())):
                    raise Diverged(
                        f"training diverged at step {step} of {steps} (a weight is not finite); lower the learning rate"
                    )
                if value > best:
                    best, best_state = value, copy.deepcopy(self.network.state_dict())
                if on_step is not None:
                    on_step(step, steps, {"payoff": value})
        if validation is not None and best_state is not None:
            self.network.load_state_dict(best_state)
        return history

    @torch.no_grad()
    def decisions(self, paths: Tensor) -> Tensor:
        """(B, N): scores above 0, in evaluation mode."""
        training, device = self.network.training, next(self.network.parameters()).device
        self.network.eval()
        parts = []
        # Small parts stay in a CPU's cache. Statistics of a batch, where a network wants them, are those of a part.
        for part in paths.float().split(256):
            part = part.to(device)
            parts.append((self.network(part, checked_payoffs(self.payoff, part)) > 0).to(paths.device))
        self.network.train(training)
        return torch.cat(parts)


def _batches(paths: Tensor | Sampler, batch_size: int, seed: int) -> Iterator[Tensor]:
    if callable(paths):
        step = 0
        while True:
            yield paths(batch_size, (seed, step))
            step += 1
    if not 0 < batch_size <= len(paths):
        raise ValueError(
            f"batch_size {batch_size} does not fit {len(paths)} paths; it must be between 2 and {len(paths)}"
        )
    generator, queue = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.long)
    while True:
        if len(queue) < batch_size:
            queue = torch.cat([queue, torch.randperm(len(paths), generator=generator)])
        yield paths[queue[:batch_size]]
        queue = queue[batch_size:]
