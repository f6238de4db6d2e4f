"""The forward process of discrete diffusion: data turned into noise step by step, and what a network learns to undo it.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise

A network sees x_t and t and predicts the noise ("epsilon"), the data ("sample") or v = sqrt(alpha_bar_t) noise -
sqrt(1 - alpha_bar_t) x_0 ("v"). Each of the three gives the other two, since x_t is known.

Source: Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020; v: Salimans and Ho, Progressive
Distillation for Fast Sampling of Diffusion Models, 2022.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from reprise.diffusion.schedules import alpha_bars, betas as betas_of
from reprise.diffusion.shapes import Denoiser, check_same, column, reduce

__all__ = ["ForwardProcess", "denoising_loss"]


class ForwardProcess:
    """A chain of noising steps t = 0..T-1, and what the network that goes back along it predicts.

    Args:
        betas: a name for :func:`~reprise.diffusion.schedules.betas`, or (T,) numbers in (0, 1).
        steps: T, with a name.
        prediction: "epsilon", "sample" or "v".

    Attributes:
        alpha_bars: (T,) float64, the share of the data's variance that is left.
        prediction: as given.

    Raises:
        ValueError: unknown schedule or prediction, betas outside (0, 1), ``steps`` that disagree with the betas given.

    Example:
        >>> process = ForwardProcess("squared_cosine", 100)
        >>> x, noise, t = torch.zeros(4, 16, 2), torch.ones(4, 16, 2), torch.tensor([0, 10, 50, 99])
        >>> process.add_noise(x, noise, t)[:, 0, 0]
        tensor([0.0251, 0.1824, 0.7223, 1.0000])
    """

    def __init__(
        self, betas: str | Tensor = "squared_cosine", steps: int | None = None, *, prediction: str = "epsilon"
    ) -> None:
        if prediction not in ("epsilon", "sample", "v"):
            raise ValueError(f'prediction is "epsilon", "sample" or "v", not {prediction!r}')
        if isinstance(betas, str):
            betas = betas_of(betas, 1000 if steps is None else steps)
        elif steps is not None and steps != len(betas):
            raise ValueError(f"{len(betas)} betas came with steps={steps}; leave steps out")
        self.alpha_bars = alpha_bars(betas)
        self.prediction = prediction

    def __len__(self) -> int:
        return len(self.alpha_bars)

    def __repr__(self) -> str:
        return f"ForwardProcess({len(self)} steps, prediction={self.prediction!r})"

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t for given noise.

        Args:
            x0: (B, ...) data.
            noise: of the same shape, standard normal.
            t: (B,) int64 steps in 0..T-1; or a single one, ().

        Raises:
            ValueError: other shapes, a step outside the chain.
        """
        check_same(x0, noise, "noise")
        signal, scale = self._at(t, x0)
        return signal * x0 + scale * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should say of x_t: the noise, the data or v. Arguments as in :meth:`add_noise`."""
        check_same(x0, noise, "noise")
        if self.prediction != "v":
            return noise if self.prediction == "epsilon" else x0
        signal, scale = self._at(t, x0)
        return signal * noise - scale * x0

    def to_sample(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The data x_0 that an output of the network means.

        Args:
            output: (B, ...) of the network, at ``x`` and ``t``.
            x: (B, ...) noisy data x_t.
            t: (B,) or () steps.
        """
        check_same(x, output, "the network's output")
        signal, scale = self._at(t, x)
        if self.prediction == "epsilon":
            return (x - scale * output) / signal
        return output if self.prediction == "sample" else signal * x - scale * output

    def to_epsilon(self, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The noise that an output of the network means. Arguments as in :meth:`to_sample`."""
        check_same(x, output, "the network's output")
        signal, scale = self._at(t, x)
        if self.prediction == "sample":
            return (x - signal * output) / scale
        return output if self.prediction == "epsilon" else scale * x + signal * output

    @cached_property
    def _table(self) -> Tensor:
        """(2, T): sqrt(alpha_bar) and sqrt(1 - alpha_bar)."""
        return torch.stack([self.alpha_bars, 1 - self.alpha_bars]).sqrt()

    def _at(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Both coefficients at the steps t, shaped to be multiplied with ``like``."""
        check_steps(t, len(self), like)
        signal, scale = self._table[:, t.cpu()]
        return column(signal, like), column(scale, like)


def denoising_loss(
    process: ForwardProcess,
    denoiser: Denoiser,
    x0: Tensor,
    *,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The mean squared error of the network's prediction at noisy data: the loss of diffusion models.

    Args:
        process: says how noise is added and what is predicted.
        denoiser: the network, called as ``denoiser(x_t, t)`` with (B, ...) and (B,) int64.
        x0: (B, ...) data.
        t: (B,) steps; None draws them uniformly.
        noise: like ``x0``; None draws it.
        reduction: "mean" over everything, "example" over all but the batch, (B,), or "none": (B, ...), to be masked.

    Raises:
        ValueError: unknown reduction, shapes that do not fit.

    Source: Ho et al., 2020, equation 14.

    Example:
        >>> process = ForwardProcess("squared_cosine", 100)
        >>> denoising_loss(process, lambda x, t: torch.zeros_like(x), torch.zeros(512, 16, 2)).round()
        tensor(1.)
    """
    if t is None:
        t = torch.randint(len(process), (len(x0),), device=x0.device)
    if noise is None:
        noise = torch.randn_like(x0)
    output = denoiser(process.add_noise(x0, noise, t), t)
    check_same(x0, output, "the network's output")
    return reduce((output - process.target(x0, noise, t)).square(), reduction)


def check_steps(t: Tensor, steps: int, like: Tensor) -> None:
    """Refuse what indexing would take from the end, or spread over the batch."""
    if t.is_floating_point() or t.ndim > 1 or (t.ndim == 1 and len(t) != len(like)):
        raise ValueError(
            f"steps are one integer, or one for each of the {len(like)} examples, not {t.dtype} {tuple(t.shape)}"
        )
    if t.numel():
        low, high = (int(value) for value in t.aminmax())
        if low < 0 or high >= steps:
            raise ValueError(f"steps lie in 0..{steps - 1}; they go from {low} to {high}")
