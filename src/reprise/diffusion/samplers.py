"""Samplers of the continuous kind: from noise to data along dx / dsigma = (x - D(x; sigma)) / sigma.

Training at all noise levels leaves the sampler open. All of these take the same denoiser D and the same falling levels;
they differ in how often D is called per step and in how fast their error falls with the number of steps. A step from
sigma to 0 is always x = D(x; sigma), but for "lms".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from reprise.diffusion.shapes import Denoiser, check_finite, check_noises, check_same

__all__ = ["Churn", "sample"]

BeforeStep = Callable[[int, Tensor, float], Tensor]


@dataclass(frozen=True)
class Churn:
    """New noise before each step, which makes good for errors of earlier ones.

    A step from a level within ``minimum``..``maximum`` starts at the level times 1 + min(amount / n, sqrt(2) - 1).

    Args:
        amount: S_churn, at least 0, spread over the n steps.
        minimum: S_tmin.
        maximum: S_tmax.
        noise: S_noise, the standard deviation of what is added; slightly above 1 keeps detail.

    Raises:
        ValueError: a negative amount or noise, a NaN, or minimum above maximum.

    Source: Karras et al., 2022, algorithm 2.

    Example:
        >>> Churn(80, 0.05, 50, 1.003)
        Churn(amount=80, minimum=0.05, maximum=50, noise=1.003)
    """

    amount: float
    minimum: float = 0.0
    maximum: float = math.inf
    noise: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.amount < math.inf and 0 <= self.noise < math.inf and self.minimum <= self.maximum):
            raise ValueError(f"churn needs amount and noise of at least 0 and minimum <= maximum, unlike {self}")


def sample(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    sampler: str = "ddim",
    *,
    eta: float = 1.0,
    churn: Churn | None = None,
    before_step: BeforeStep | None = None,
    noises: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Denoise through all levels, without gradients.

    ====================  =====  =====  ===========================================================================
    sampler               calls  order  source
    "ddim"                1      1      x + (s' - s) (x - D) / s = (s' / s) x + (1 - s' / s) D (Song et al., 2021)
    "euler"               1      1      the same
    "heun"                2      2      Karras et al., 2022, algorithm 1
    "dpm_2"               2      2      midpoint in log sigma (Karras et al., 2022; Lu et al., DPM-Solver, 2022)
    "dpmpp_2s"            2      2      DPM-Solver++(2S) (Lu et al., DPM-Solver++, 2022, algorithm 1)
    "dpmpp_2m"            1      2      DPM-Solver++(2M) (same, algorithm 2)
    "lms"                 1      4      linear multistep: a polynomial through the last four slopes, integrated
    "euler_ancestral"     1      -      Euler to below the level, then noise up to it
    "dpmpp_2s_ancestral"  2      -      DPM-Solver++(2S) to below the level, then noise up to it
    ====================  =====  =====  ===========================================================================

    Calls are those of the denoiser per step, without the last one, which needs a single call. Names as in k-diffusion.

    Args:
        denoiser: D, called with (B, ...) and (B,) levels. Put the network into evaluation mode first.
        x: (B, ...) where sampling begins: the first level times standard normal noise.
        sigmas: (n + 1,) falling levels, finite and above 0 but for the last, which may be 0; see
            :func:`~reprise.diffusion.schedules.sigma_schedule`.
        sampler: a row of the table.
        eta: of the ancestral samplers, in 0..1: how much of the noise is new. 0 is the sampler without "ancestral".
        churn: new noise before each step, for "ddim", "euler", "heun" and "dpm_2".
        before_step: called with (step, x, level) before each step, in inference mode; what it returns takes the place
            of x. Guidance (:func:`~reprise.diffusion.guidance.policy_guidance`), or parts of x that are held fixed.
        noises: (n, B, ...) standard normal, what the steps add; None draws it.
        generator: of noise that is drawn.

    Returns:
        (B, ...) at the last level.

    Raises:
        ValueError: unknown sampler, levels that do not fall or are not finite, an option that the sampler does not
            have, shapes.
        FloatingPointError: the sample is not finite.

    Example:
        >>> sigmas = torch.tensor([1.0, 0.1, 0.0])
        >>> sample(lambda x, sigma: torch.ones_like(x), torch.randn(4, 2), sigmas, "heun")[0]
        tensor([1., 1.])
    """
    if sampler not in _SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}; there are {', '.join(map(repr, _SAMPLERS))}")
    if churn is not None and sampler not in _CHURNED:
        raise ValueError(f"{sampler!r} takes no churn; {', '.join(map(repr, _CHURNED))} do")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta lies in 0 (no new noise) to 1, not at {eta}")
    levels = sigmas.tolist() if sigmas.ndim == 1 else []
    if len(levels) < 2 or not all(math.inf > s > n for s, n in pairwise(levels)) or not levels[-1] >= 0:
        raise ValueError(f"sigmas are at least two finite levels that fall, to 0 or above, unlike {levels or sigmas}")
    check_noises(noises, len(levels) - 1, x)
    run = _Run(denoiser, levels, eta, noises, generator)
    step = _SAMPLERS[sampler]
    with torch.inference_mode():
        for i, (s, n) in enumerate(pairwise(levels)):
            run.i = i
            if before_step is not None:
                changed = before_step(i, x, s)
                check_same(x, changed, "what before_step returned")
                x = changed
            if churn is not None and churn.minimum <= s <= churn.maximum:
                x, s = _churned(run, x, s, churn)
            x = step(run, x, s, n)
    return check_finite(x.clone())  # outside inference mode, so that the sample may enter a training


@dataclass
class _Run:
    """What the steps of one sample share."""

    denoiser: Denoiser
    levels: list[float]
    eta: float
    noises: Tensor | None
    generator: torch.Generator | None
    i: int = 0
    past: list[Tensor] = field(default_factory=list)  # of multistep samplers, newest first

    def denoise(self, x: Tensor, s: float) -> Tensor:
        estimate = self.denoiser(x, x.new_full((len(x),), s))
        check_same(x, estimate, "the denoiser's output")
        return estimate

    def noise(self, x: Tensor) -> Tensor:
        if self.noises is not None:
            return self.noises[self.i]
        return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=self.generator)

    def remember(self, value: Tensor, most: int) -> list[Tensor]:
        self.past = [value, *self.past[: most - 1]]
        return self.past


def _churned(run: _Run, x: Tensor, s: float, churn: Churn) -> tuple[Tensor, float]:
    higher = s * (1 + min(churn.amount / (len(run.levels) - 1), math.sqrt(2) - 1))
    if higher == s:
        return x, s
    return x + churn.noise * math.sqrt(higher**2 - s**2) * run.noise(x), higher


def _toward(estimate: Tensor, x: Tensor, s: float, n: float) -> Tensor:
    """From level s to n on the straight line to the estimate: (n / s) x + (1 - n / s) estimate."""
    return torch.lerp(estimate, x, n / s)


def _euler(run: _Run, x: Tensor, s: float, n: float) -> Tensor:
    return _toward(run.denoise(x, s), x, s, n)


def _heun(run: _Run, x: Tensor, s: float, n: float) -> Tensor:
    estimate = run.denoise(x, s)
    y = _toward(estimate, x, s, n)
    if n == 0:
        return y
    slopes = (x - estimate) / s + (y - run.denoise(y, n)) / n
    return x + (n - s) / 2 * slopes


def _dpm_2(run: _Run, x: Tensor, s: float, n: float) -> Tensor:
    if n == 0:
        return _euler(run, x, s, n)
    middle = math.sqrt(s * n)
    y = _euler(run, x, s, middle)
    return x + (n - s) / middle * (y - run.denoise(y, middle))


def _dpmpp_2s(run: _Run, x: Tensor, s: float, n: float) -> Tensor:
    if n == 0:
        return _euler(run, x, s, n)
    middle = math.sqrt(s * n)
    y = _euler(run, x, s, middle)
    return _toward(run.denoise(y, middle), x, s, n)


def _dpmpp_2m(run: _Run, x: Tensor, s: float, n: float) -> Tensor:
    estimate = run.denoise(x, s)
    past = run.remember(estimate, 2)
    if len(past) == 2 and n > 0:
        # Extrapolated in log sigma from the last two estimates to the middle of the step.
        weight = math.log(s / n) / (2 * math.log(run.levels[run.i - 1] / s))
        estimate = torch.lerp(past[1], estimate, 1 + weight)
    return _toward(estimate, x, s, n)


def _lms(run: _Run, x: Tensor, s: float, n: float) -> Tensor:
    slopes = run.remember((x - run.denoise(x, s)) / s, 4)
    nodes = run.levels[run.i :: -1][: len(slopes)]  # newest first, like the slopes
    for weight, slope in zip(_lagrange_integrals(nodes, s, n), slopes, strict=True):
        x = torch.add(x, slope, alpha=weight)
    return x


def _lagrange_integrals(nodes: list[float], a: float, b: float) -> list[float]:
    """Integrals from a to b of the polynomials that are 1 at one node and 0 at the others."""
    integrals = []
    for k, node in enumerate(nodes):
        others = nodes[:k] + nodes[k + 1 :]
        basis = np.polynomial.Polynomial.fromroots(others) if others else np.polynomial.Polynomial([1.0])
        whole = basis.integ()
        integrals.append(float((whole(b) - whole(a)) / basis(node)))
    return integrals


def _ancestral(step: Callable[[_Run, Tensor, float, float], Tensor]) -> Callable[[_Run, Tensor, float, float], Tensor]:
    """The step to a level below n, and noise that leads up to n; the variances add."""

    def ancestral(run: _Run, x: Tensor, s: float, n: float) -> Tensor:
        up = min(n, run.eta * n / s * math.sqrt(s**2 - n**2))
        x = step(run, x, s, math.sqrt(max(0.0, n**2 - up**2)))
        return torch.add(x, run.noise(x), alpha=up) if up else x

    return ancestral


_SAMPLERS: dict[str, Callable[[_Run, Tensor, float, float], Tensor]] = {
    "ddim": _euler,
    "euler": _euler,
    "heun": _heun,
    "dpm_2": _dpm_2,
    "dpmpp_2s": _dpmpp_2s,
    "dpmpp_2m": _dpmpp_2m,
    "lms": _lms,
    "euler_ancestral": _ancestral(_euler),
    "dpmpp_2s_ancestral": _ancestral(_dpmpp_2s),
}
_CHURNED = ("ddim", "euler", "heun", "dpm_2")
