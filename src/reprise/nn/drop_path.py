"""Drop path (stochastic depth): a residual branch is left out, per example and at random, while training."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["DropPath", "drop_path_rates"]


class DropPath(nn.Module):
    """Zero a residual branch for each example with probability ``rate``; divide the kept ones by 1 - rate.

    Does nothing in evaluation mode. ``rate`` may be changed while training.

    Source: Huang et al., Deep Networks with Stochastic Depth, ECCV 2016; per example and rescaled, as in FractalNet.

    Args:
        rate: probability of being dropped, in [0, 1).

    Raises:
        ValueError: rate outside [0, 1).

    Example:
        >>> branch = DropPath(0.5)(torch.ones(1000, 2, 1, 1))
        >>> sorted(branch.unique().tolist()), bool((branch[:, 0] == branch[:, 1]).all())
        ([0.0, 2.0], True)
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"a drop-path rate is a probability in [0, 1), not {rate}")
        self.rate = rate

    def extra_repr(self) -> str:
        return f"{self.rate:g}"

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) to the same shape."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        return x * x.new_empty((len(x), *[1] * (x.ndim - 1))).bernoulli_(keep).div_(keep)


def drop_path_rates(rate: float, blocks: int) -> list[float]:
    """Rates that grow linearly over the blocks of a network: rate * j / blocks for block j = 0, 1, ...

    The last block stays one step below ``rate``.

    Args:
        rate: where the line ends, in [0, 1).
        blocks: how many.

    Example:
        >>> drop_path_rates(0.2, 4)
        [0.0, 0.05, 0.1, 0.15...]
    """
    return [rate * block / blocks for block in range(blocks)]
