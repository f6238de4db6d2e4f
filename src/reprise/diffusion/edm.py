"""Denoising at any noise level: preconditioning, loss and densities of training noise (EDM).

A denoiser D(x; sigma) estimates the data x_0 from x = x_0 + sigma noise. The network F inside sees inputs, and learns
targets, of unit variance at every level:

    D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)

with c_skip = s^2 / (sigma^2 + s^2), c_out = sigma s / sqrt(sigma^2 + s^2), c_in = 1 / sqrt(sigma^2 + s^2) and c_noise =
log(sigma) / 4, where s is the standard deviation of the data.

Source: Karras, Aittala, Aila and Laine, Elucidating the Design Space of Diffusion-Based Generative Models, 2022,
table 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reprise.diffusion.shapes import check_same, column, reduce

__all__ = [
    "EDM",
    "EDMCoefficients",
    "edm_coefficients",
    "edm_loss_weight",
    "log_logistic_sigmas",
    "log_normal_sigmas",
    "uniform_sigmas",
]


class EDMCoefficients(NamedTuple):
    """The four functions of the noise level; see :func:`edm_coefficients`."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def edm_coefficients(sigma: Tensor, sigma_data: float = 0.5) -> EDMCoefficients:
    """c_skip, c_out, c_in and c_noise of the preconditioned denoiser.

    Args:
        sigma: noise levels of any shape, finite and above 0.
        sigma_data: standard deviation of the data, above 0.

    Raises:
        ValueError: a level or a standard deviation that is not finite and above 0.

    Example:
        >>> c = edm_coefficients(torch.tensor([0.5]))
        >>> c.c_skip, c.c_in
        (tensor([0.5000]), tensor([1.4142]))
    """
    _check_sigma(sigma)
    _check_sigma_data(sigma_data)
    c_in = (sigma.square() + sigma_data**2).rsqrt()
    return EDMCoefficients((sigma_data * c_in).square(), sigma * c_in * sigma_data, c_in, sigma.log() / 4)


def edm_loss_weight(sigma: Tensor, sigma_data: float = 0.5) -> Tensor:
    """1 / c_out^2: how much the squared error of D counts at each level, so that that of F counts equally.

    Arguments and errors as in :func:`edm_coefficients`.

    Example:
        >>> edm_loss_weight(torch.tensor([1.0]), sigma_data=1.0)
        tensor([2.0000])
    """
    return edm_coefficients(sigma, sigma_data).c_out.square().reciprocal()


class EDM(nn.Module):
    """A network turned into a denoiser for all noise levels.

    Args:
        net: F, called as ``net(c_in x, c_noise, *condition)`` with (B, ...), (B,) and whatever the denoiser is given;
            returns the shape of x.
        sigma_data: standard deviation of the data, above 0.

    Raises:
        ValueError: ``sigma_data`` not above 0; at the call: levels that are not (B,), finite and above 0, or a network
            that returns another shape.

    Example:
        >>> class Net(nn.Linear):
        ...     def forward(self, x, c_noise):
        ...         return super().forward(torch.cat([x, c_noise[:, None]], 1))
        >>> denoiser, x0 = EDM(Net(3, 2)), torch.randn(8, 2)
        >>> denoiser.loss(x0, sigma=log_normal_sigmas(8)).backward()
        >>> denoiser(x0, torch.ones(8)).shape
        torch.Size([8, 2])
    """

    def __init__(self, net: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__()
        _check_sigma_data(sigma_data)
        self.net = net
        self.sigma_data = sigma_data

    def extra_repr(self) -> str:
        return f"sigma_data={self.sigma_data:g}"

    def forward(self, x: Tensor, sigma: Tensor, *condition: Any, **options: Any) -> Tensor:
        """D(x; sigma), the estimate of the data.

        Args:
            x: (B, ...) noisy data.
            sigma: (B,) its noise levels.
            *condition: handed on to the network, as are keywords.
        """
        c = self._coefficients(x, sigma)
        return torch.addcmul(c.c_skip * x, c.c_out, self._net(x, c, condition, options))

    def loss(
        self,
        x0: Tensor,
        *condition: Any,
        sigma: Tensor,
        noise: Tensor | None = None,
        reduction: str = "mean",
        **options: Any,
    ) -> Tensor:
        """The squared error of D, weighted by 1 / c_out^2: that of F against its target (x_0 - c_skip x) / c_out.

        Args:
            x0: (B, ...) data.
            *condition: handed on to the network, as are other keywords.
            sigma: (B,) noise levels, drawn by :func:`log_normal_sigmas` or another density.
            noise: like ``x0``, standard normal; None draws it.
            reduction: "mean" over everything, "example" over all but the batch, (B,), or "none": (B, ...).

        Raises:
            ValueError: shapes, levels, unknown reduction.
        """
        if noise is None:
            noise = torch.randn_like(x0)
        check_same(x0, noise, "noise")
        c = self._coefficients(x0, sigma)
        x = x0 + column(sigma, x0) * noise
        target = (x0 - c.c_skip * x) / c.c_out
        return reduce((self._net(x, c, condition, options) - target).square(), reduction)

    def _net(self, x: Tensor, c: EDMCoefficients, condition: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
        output = self.net(c.c_in * x, c.c_noise.flatten(), *condition, **options)
        check_same(x, output, "the network's output")
        return output

    def _coefficients(self, x: Tensor, sigma: Tensor) -> EDMCoefficients:
        """Shaped to be multiplied with x, in its type and on its device."""
        if sigma.shape != (len(x),):
            raise ValueError(f"sigma is ({len(x)},), one level for each example, not {tuple(sigma.shape)}")
        levels = sigma.reshape(-1, *(1,) * (x.ndim - 1))
        return EDMCoefficients(*(value.to(x) for value in edm_coefficients(levels, self.sigma_data)))


def log_normal_sigmas(
    count: int,
    mean: float = -1.2,
    std: float = 1.2,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Noise levels for training whose logarithm is normal.

    Args:
        count: B, how many.
        mean: of the logarithm.
        std: of the logarithm, above 0.
        generator: on the device that is drawn on; None is PyTorch's own.
        device: of the levels.

    Returns:
        (B,) float32.

    Source: Karras et al., 2022, table 1.

    Example:
        >>> log_normal_sigmas(10_000).log().mean().sub(-1.2).abs() < 0.05
        tensor(True)
    """
    if not (math.isfinite(mean) and 0 < std < math.inf):
        raise ValueError(f"the logarithm has a finite mean and a finite std above 0, not {mean} and {std}")
    return (mean + std * torch.randn(count, generator=generator, device=device)).exp()


def log_logistic_sigmas(
    count: int,
    minimum: float = 0.0,
    maximum: float = math.inf,
    *,
    loc: float = math.log(0.5),
    scale: float = 0.5,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Noise levels for training whose logarithm is logistic, cut to a range.

    Args:
        count: B, how many.
        minimum, maximum: the range, 0 <= minimum < maximum.
        loc: mean of the logarithm before the cut; the logarithm of the data's standard deviation.
        scale: of the logistic distribution, above 0.
        generator, device: as in :func:`log_normal_sigmas`.

    Returns:
        (B,) float32. Drawn in float64, since in float32 the tails would be infinite.

    Source: Reuss et al., Goal-Conditioned Imitation Learning using Score-based Diffusion Policies, 2023.

    Example:
        >>> sigma = log_logistic_sigmas(1000, 0.05, 1.0)
        >>> 0.05 <= sigma.min() and sigma.max() <= 1
        tensor(True)
    """
    _check_range(minimum, maximum)
    if not (math.isfinite(loc) and 0 < scale < math.inf):
        raise ValueError(f"the logarithm has a finite loc and a finite scale above 0, not {loc} and {scale}")
    ends = torch.tensor([minimum, maximum], dtype=torch.float64, device=device)
    low, high = ((ends.log() - loc) / scale).sigmoid()
    share = low + (high - low) * torch.rand(count, dtype=torch.float64, generator=generator, device=device)
    return (loc + scale * share.logit(eps=2**-53)).exp().float().clamp_(minimum, maximum)


def uniform_sigmas(
    count: int,
    minimum: float,
    maximum: float,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Noise levels for training that are spread evenly; arguments as in :func:`log_logistic_sigmas`.

    Example:
        >>> uniform_sigmas(10_000, 0.0, 1.0).mean().sub(0.5).abs() < 0.02
        tensor(True)
    """
    _check_range(minimum, maximum)
    if maximum == math.inf:
        raise ValueError("even levels need a finite maximum")
    # 1 - rand lies in (0, 1], so that no level is 0.
    return minimum + (maximum - minimum) * (1 - torch.rand(count, generator=generator, device=device))


def _check_range(minimum: float, maximum: float) -> None:
    if not 0 <= minimum < maximum:
        raise ValueError(f"noise levels need 0 <= minimum < maximum, not {minimum} and {maximum}")


def _check_sigma(sigma: Tensor) -> None:
    if sigma.numel():
        low, high = sigma.aminmax()
        if not (float(low) > 0 and float(high) < math.inf):  # NaN fails, too
            raise ValueError(f"noise levels are finite and above 0; they go from {float(low):g} to {float(high):g}")


def _check_sigma_data(sigma_data: float) -> None:
    if not 0 < sigma_data < math.inf:
        raise ValueError(f"sigma_data is the data's standard deviation, finite and above 0, not {sigma_data}")
