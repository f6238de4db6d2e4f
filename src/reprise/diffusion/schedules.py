"""How noise grows: variances of a chain of discrete steps, and levels of a continuum.

Two conventions. A *discrete* chain has steps t = 0..T-1 and keeps the variance of data of unit variance:
x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise (Ho et al., 2020). The *continuous* one leaves the data as
they are and adds noise of standard deviation sigma: x = x_0 + sigma noise (Karras et al., 2022). Scaling x_t by
1 / sqrt(alpha_bar_t) goes over from the first to the second, with sigma = sqrt((1 - alpha_bar) / alpha_bar).

Everything is float64 here; whoever uses a schedule rounds once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "alpha_bar_to_sigma",
    "alpha_bars",
    "betas",
    "ddim_timesteps",
    "sigma_schedule",
    "sigma_to_alpha_bar",
]


def betas(schedule: str = "squared_cosine", steps: int = 1000, *, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """The share of variance that each step of a discrete chain replaces by noise.

    ===================  ==========================================================================================
    schedule
    "linear"             from ``start`` to ``end`` in equal steps (Ho et al., 2020)
    "scaled_linear"      its square root does so (latent diffusion; Stable Diffusion has 0.00085 and 0.012)
    "squared_cosine"     1 - f(t + 1) / f(t) with f(t) = cos^2((t / T + 0.008) / 1.008 * pi / 2), at most 0.999
                         (Nichol and Dhariwal, 2021, equation 17); ``start`` and ``end`` play no role
    ===================  ==========================================================================================

    diffusers calls the last one "squaredcos_cap_v2".

    Args:
        schedule: a row of the table.
        steps: T, of the whole chain, at least 1.
        start: first beta of the linear ones, above 0.
        end: last beta of the linear ones, from ``start`` to below 1.

    Returns:
        (T,) float64 in (0, 1).

    Raises:
        ValueError: unknown schedule, no steps, betas that are not 0 < start <= end < 1.

    Example:
        >>> betas("squared_cosine", 20)[[0, -1]]
        tensor([0.0080, 0.9990], dtype=torch.float64)
    """
    if steps < 1:
        raise ValueError(f"a chain has at least 1 step, not {steps}")
    if schedule == "squared_cosine":
        angles = (torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * (math.pi / 2)
        kept = angles.cos().square()
        return (1 - kept[1:] / kept[:-1]).clamp_(max=0.999)
    if schedule not in ("linear", "scaled_linear"):
        raise ValueError(f'unknown schedule {schedule!r}; there are "linear", "scaled_linear" and "squared_cosine"')
    if not 0 < start <= end < 1:
        raise ValueError(f"betas need 0 < start <= end < 1, not start {start} and end {end}")
    if schedule == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float64)
    return torch.linspace(math.sqrt(start), math.sqrt(end), steps, dtype=torch.float64).square()


def alpha_bars(betas: Tensor) -> Tensor:
    """The share of the data's variance that is left after each step: the cumulative product of 1 - beta.

    Args:
        betas: (T,) in (0, 1).

    Returns:
        (T,) float64, falling, in (0, 1).

    Raises:
        ValueError: not a vector of numbers in (0, 1). A beta of 1 would leave nothing to tell the data by.

    Example:
        >>> alpha_bars(torch.tensor([0.1, 0.5]))
        tensor([0.9000, 0.4500], dtype=torch.float64)
    """
    if betas.ndim != 1 or len(betas) == 0 or not bool(((betas > 0) & (betas < 1)).all()):
        raise ValueError(f"betas are a vector (T,) of numbers above 0 and below 1, not {_short(betas)}")
    return (1 - betas.double()).cumprod(0)


def ddim_timesteps(train_steps: int, steps: int, *, offset: int = 0) -> list[int]:
    """The steps of a chain that a shorter sampler visits: multiples of T // S, falling.

    Source: Song et al., Denoising Diffusion Implicit Models, 2021, appendix D.2 ("linear"); "leading" in diffusers.

    Args:
        train_steps: T, of the chain.
        steps: S, of the sampler, 1..T.
        offset: is added to each; 1 for Stable Diffusion, whose last visited step is 1.

    Raises:
        ValueError: S outside 1..T, or an offset with which a step would lie outside 0..T-1.

    Example:
        >>> ddim_timesteps(20, 5), ddim_timesteps(100, 4, offset=1)
        ([16, 12, 8, 4, 0], [76, 51, 26, 1])
    """
    if not 1 <= steps <= train_steps:
        raise ValueError(f"a sampler of a chain of {train_steps} steps visits 1 to {train_steps} of them, not {steps}")
    stride = train_steps // steps
    if not 0 <= offset < train_steps - stride * (steps - 1):
        raise ValueError(
            f"offset {offset} moves the {steps} visited steps out of 0..{train_steps - 1}; it may be 0 to "
            f"{train_steps - 1 - stride * (steps - 1)}"
        )
    return [i * stride + offset for i in reversed(range(steps))]


def sigma_schedule(schedule: str, steps: int, minimum: float, maximum: float, *, rho: float = 7.0) -> Tensor:
    """Falling noise levels for a sampler of the continuous kind, and a 0 at the end.

    ==============  ===============================================================================================
    schedule        falls evenly from ``maximum`` to ``minimum``
    "karras"        in sigma^(1 / rho) (Karras et al., 2022, equation 5)
    "exponential"   in log sigma
    "linear"        in sigma
    "cosine"        in arctan sigma: alpha_bar is then a squared cosine (Nichol and Dhariwal, 2021, without the offset)
    ==============  ===============================================================================================

    Args:
        schedule: a row of the table.
        steps: n, how often the sampler steps, at least 1.
        minimum: last level but the 0; above 0.
        maximum: first level, above ``minimum`` (with one step, it is the only one).
        rho: of "karras"; large values put more levels near ``minimum``.

    Returns:
        (n + 1,) float64.

    Raises:
        ValueError: unknown schedule, no steps, levels that are not 0 < minimum < maximum, not finite, rho not above 0.

    Source: Karras, Aittala, Aila and Laine, Elucidating the Design Space of Diffusion-Based Generative Models, 2022.

    Example:
        >>> sigma_schedule("exponential", 3, 0.01, 1.0)
        tensor([1.0000, 0.1000, 0.0100, 0.0000], dtype=torch.float64)
    """
    if steps < 1:
        raise ValueError(f"a sampler makes at least 1 step, not {steps}")
    if not 0 < minimum < maximum < math.inf:
        raise ValueError(f"noise levels need 0 < minimum < maximum, both finite, not {minimum} and {maximum}")
    if not 0 < rho < math.inf:
        raise ValueError(f"rho is a finite number above 0, not {rho}")
    warp, unwarp = _warp(schedule, rho)
    levels = unwarp(torch.linspace(warp(maximum), warp(minimum), steps, dtype=torch.float64))
    levels[-1], levels[0] = minimum, maximum  # exactly, whatever rounding there was on the way
    return torch.cat([levels, levels.new_zeros(1)])


def alpha_bar_to_sigma(alpha_bar: Tensor) -> Tensor:
    """The noise level of the continuous convention that belongs to a step of a chain: sqrt((1 - a) / a).

    Args:
        alpha_bar: any shape, in (0, 1].

    Raises:
        ValueError: a number outside (0, 1].

    Example:
        >>> alpha_bar_to_sigma(torch.tensor([1.0, 0.5]))
        tensor([0., 1.])
    """
    if not bool(((alpha_bar > 0) & (alpha_bar <= 1)).all()):
        raise ValueError(f"alpha_bar lies above 0 and at most at 1, unlike {_short(alpha_bar)}")
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def sigma_to_alpha_bar(sigma: Tensor) -> Tensor:
    """The share of variance left at a noise level: 1 / (1 + sigma^2), the inverse of :func:`alpha_bar_to_sigma`.

    Args:
        sigma: any shape, finite, at least 0.

    Raises:
        ValueError: a number that is negative or not finite.

    Example:
        >>> sigma_to_alpha_bar(torch.tensor([0.0, 1.0]))
        tensor([1.0000, 0.5000])
    """
    if not bool(((sigma >= 0) & sigma.isfinite()).all()):
        raise ValueError(f"noise levels are finite and at least 0, unlike {_short(sigma)}")
    return 1 / (1 + sigma.square())


def _warp(schedule: str, rho: float) -> tuple[Callable[[float], float], Callable[[Tensor], Tensor]]:
    """The scale on which a schedule falls evenly: there and back."""
    if schedule == "karras":
        return lambda sigma: sigma ** (1 / rho), lambda value: value**rho
    if schedule == "exponential":
        return math.log, torch.exp
    if schedule == "linear":
        return float, torch.clone
    if schedule == "cosine":
        return math.atan, torch.tan
    raise ValueError(f'unknown schedule {schedule!r}; there are "cosine", "exponential", "karras" and "linear"')


def _short(values: Tensor) -> str:
    """A tensor in a few words, for messages."""
    if values.numel() <= 6:
        return str(values.tolist())
    return f"shape {tuple(values.shape)} with values from {float(values.min()):g} to {float(values.max()):g}"
