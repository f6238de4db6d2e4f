"""DDIM and DDPM: back along a chain of noising steps, in as many steps as one likes, with as much new noise.

From x_t and the network's output follow the data x_0 and the noise e that the network means, and then

    x_s = sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s - std^2) e + std z,    z standard normal,
    std = eta sqrt((1 - alpha_bar_s) / (1 - alpha_bar_t) (1 - alpha_bar_t / alpha_bar_s))

where s is the step that is visited next. eta = 0 is deterministic in the noise it starts from; eta = 1 over all steps
is DDPM. Each step is a normal distribution, so for eta > 0 it has a probability, which policy gradients need. Without
clipping, everything but z is two numbers times x_t and the output; they are computed once, in float64.

Source: Song, Meng and Ermon, Denoising Diffusion Implicit Models, 2021, equations 12 and 16; Ho, Jain and Abbeel,
Denoising Diffusion Probabilistic Models, 2020; log-probabilities: Black et al., Training Diffusion Models with
Reinforcement Learning, 2023.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from reprise.diffusion.forward_process import ForwardProcess, check_steps
from reprise.diffusion.schedules import ddim_timesteps
from reprise.diffusion.shapes import Denoiser, check_finite, check_noises, check_same, column

__all__ = ["DDIM", "Trajectory", "ddpm"]


class Trajectory(NamedTuple):
    """What a sampler went through on its way; see :meth:`DDIM.rollout`."""

    latents: Tensor
    """(B, n + 1, ...): where each step began, and the sample."""
    log_probs: Tensor
    """(B, n): of each step, mean over the sample's dimensions."""
    timesteps: Tensor
    """(n,) int64: the step of the chain that the network saw."""


class DDIM:
    """A sampler that visits some steps of a chain.

    Args:
        process: the chain, and what its network predicts.
        steps: S, how many steps of the chain are visited, spaced evenly from ``offset`` on; or those steps, falling.
        eta: in 0..1, how much of DDPM's noise is added in each step.
        clip: x_0 is held within -clip..clip in every step; None leaves it. 1 for data scaled to -1..1.
        recompute_epsilon: after clipping, take e from the clipped x_0 rather than from the network.
        ends_at_data: the last step goes to x_0. False: to step 0 of the chain, which keeps a little noise (then every
            step has a probability, as policy gradients on Stable Diffusion need).
        offset: last step that is visited, if ``steps`` is a number; Stable Diffusion has 1.

    Attributes:
        timesteps: (S,) int64, falling.
        stds: (S,) float64, standard deviation of the noise that each step adds.

    Raises:
        ValueError: steps outside the chain or not falling; eta outside 0..1; clip not above 0; a last step from 0 to 0.

    Example:
        >>> process = ForwardProcess("squared_cosine", 100)
        >>> sampler = DDIM(process, 10, clip=1.0)
        >>> sampler.sample(lambda x, t: torch.zeros_like(x), torch.randn(4, 16, 2)).shape
        torch.Size([4, 16, 2])
    """

    def __init__(
        self,
        process: ForwardProcess,
        steps: int | Iterable[int],
        *,
        eta: float = 0.0,
        clip: float | None = None,
        recompute_epsilon: bool = False,
        ends_at_data: bool = True,
        offset: int = 0,
    ) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta lies in 0 (deterministic) to 1 (DDPM's noise), not at {eta}")
        if clip is not None and not clip > 0:
            raise ValueError(f"clip must be above 0, not {clip}; None leaves the data as predicted")
        if isinstance(steps, Iterable):
            visited = [int(t) for t in steps]
        else:
            visited = ddim_timesteps(len(process), steps, offset=offset)
        falling = all(a > b for a, b in pairwise([len(process), *visited, -1]))
        if not visited or not falling:
            raise ValueError(f"steps fall, within 0..{len(process) - 1}, unlike {visited}")
        if not ends_at_data and visited[-1] == 0:
            raise ValueError("the last visited step is 0 and would lead to itself; give offset=1, or end at the data")
        self.process, self.clip = process, clip
        self.timesteps = torch.tensor(visited)
        here = process.alpha_bars[self.timesteps]
        end = here.new_ones(1) if ends_at_data else process.alpha_bars[:1]
        self._table = _coefficients(here, torch.cat([here[1:], end]), process.prediction, eta, clip, recompute_epsilon)
        self._rows: list[list[float]] = self._table.T.tolist()
        self.stds = self._table[-1]

    def __len__(self) -> int:
        return len(self.timesteps)

    def moments(self, output: Tensor, x: Tensor, i: int | Tensor) -> tuple[Tensor, Tensor | float]:
        """Mean and standard deviation of the normal distribution that step ``i`` draws from.

        Args:
            output: (B, ...) of the network at ``x`` and ``timesteps[i]``.
            x: (B, ...) where the step begins.
            i: which step of the sampler, 0..S-1; one for all, or (B,) int64.

        Returns:
            (B, ...), and a number or (B, 1, ...).

        Raises:
            ValueError: other shapes, or a step that the sampler does not have.
        """
        check_same(x, output, "the network's output")
        row: Sequence[Tensor | float]
        if isinstance(i, Tensor):
            check_steps(i, len(self), x)
            row = [column(values, x) for values in self._table[:, i.cpu()]]
        else:
            self._range(i, i + 1)
            row = self._rows[i]
        u, v, a, b, c, std = row
        if self.clip is None:
            return a * x + c * output, std
        return a * x + b * (u * x + v * output).clamp(-self.clip, self.clip) + c * output, std

    def step(
        self,
        output: Tensor,
        x: Tensor,
        i: int | Tensor,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Where step ``i`` leads; gradients flow. Arguments as in :meth:`moments`.

        Args:
            noise: like ``x``, standard normal; None draws it if the step adds any.
            generator: of noise that is drawn.
        """
        mean, std = self.moments(output, x, i)
        if noise is not None:
            check_same(x, noise, "noise")
        elif isinstance(std, Tensor) or std:
            noise = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        return mean if noise is None else mean + std * noise

    def log_prob(
        self, output: Tensor, x: Tensor, i: int | Tensor, following: Tensor, *, reduce: str = "mean"
    ) -> Tensor:
        """The logarithm of the density with which step ``i`` leads from ``x`` to ``following``.

        Args:
            output, x, i: as in :meth:`moments`. Gradients flow to ``output``, not to ``following``.
            following: (B, ...) where the step led.
            reduce: "mean" over the dimensions, which keeps ratios near 1 (Black et al., 2023), or "sum".

        Returns:
            (B,)

        Raises:
            ValueError: the step adds no noise (eta is 0, or the step ends at the data); shapes; unknown ``reduce``.

        Example:
            >>> sampler = DDIM(ForwardProcess("squared_cosine", 200), 20, eta=1.0, ends_at_data=False, offset=1)
            >>> x, output = torch.randn(2, 3, 12, 12), torch.randn(2, 3, 12, 12)
            >>> sampler.log_prob(output, x, 19, sampler.step(output, x, 19)).shape
            torch.Size([2])
        """
        if reduce not in ("mean", "sum"):
            raise ValueError(f'reduce is "mean" or "sum", not {reduce!r}')
        check_same(x, following, "following")
        mean, std = self.moments(output, x, i)
        std = torch.as_tensor(std, dtype=mean.dtype, device=mean.device)
        if not bool((std > 0).all()):
            raise ValueError(
                "a step without noise has no log-probability: take eta above 0 and, if the last step matters, "
                "ends_at_data=False with offset=1"
            )
        error = (following.detach() - mean) / std
        values = (-0.5 * error.square() - std.log() - 0.5 * math.log(2 * math.pi))[:, None].flatten(1)
        return values.mean(1) if reduce == "mean" else values.sum(1)

    def sample(
        self,
        denoiser: Denoiser,
        noise: Tensor,
        *,
        begin: int = 0,
        end: int | None = None,
        noises: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """All steps, or those from ``begin`` to before ``end``, without gradients.

        Args:
            denoiser: the network, called as ``denoiser(x, t)`` with (B, ...) and (B,) int64. ``x`` is overwritten two
                calls later: copy what you keep. Put it into evaluation mode first.
            noise: (B, ...) where the sampler begins: standard normal, or what an earlier call ended with.
            begin, end: which steps of the sampler.
            noises: (end - begin, B, ...) standard normal, what the steps add; None draws it.
            generator: of noise that is drawn.

        Returns:
            (B, ...)

        Raises:
            ValueError: shapes, or steps that the sampler does not have.
            FloatingPointError: the sample is not finite.
        """
        with torch.inference_mode():
            sample = noise
            for *_, following in self._walk(denoiser, noise, self._range(begin, end), noises, generator):
                sample = following
        return check_finite(sample.clone())  # outside inference mode, so that the sample may enter a training

    def rollout(
        self,
        denoiser: Denoiser,
        noise: Tensor,
        *,
        begin: int = 0,
        end: int | None = None,
        noises: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Trajectory:
        """As :meth:`sample`, but everything on the way is kept, with its log-probabilities.

        Recomputing ``log_prob(denoiser(x, t), x, i, following)`` with the same weights gives the same numbers.

        Raises:
            ValueError: also if a step adds no noise.

        Example:
            >>> sampler = DDIM(ForwardProcess("squared_cosine", 200), 20, eta=1.0, ends_at_data=False, offset=1)
            >>> trajectory = sampler.rollout(lambda x, t: torch.zeros_like(x), torch.randn(2, 8), begin=15)
            >>> trajectory.latents.shape, trajectory.log_probs.shape, trajectory.timesteps
            (torch.Size([2, 6, 8]), torch.Size([2, 5]), tensor([41, 31, 21, 11,  1]))
        """
        steps = self._range(begin, end)
        latents = noise.new_empty((len(noise), len(steps) + 1, *noise.shape[1:]))
        log_probs = noise.new_empty((len(noise), len(steps)))
        latents[:, 0] = noise.detach()
        with torch.inference_mode():
            walk = self._walk(denoiser, noise, steps, noises, generator)
            for k, (i, output, x, following) in enumerate(walk):
                log_probs[:, k] = self.log_prob(output, x, i, following)
                latents[:, k + 1] = following
        check_finite(latents[:, -1])
        return Trajectory(latents, log_probs, self.timesteps[steps.start : steps.stop].clone())

    def _walk(
        self,
        denoiser: Denoiser,
        x: Tensor,
        steps: range,
        noises: Tensor | None,
        generator: torch.Generator | None,
    ) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Step by step: which one, the network's output, where the step began, where it led."""
        check_noises(noises, len(steps), x)
        timesteps = self.timesteps.to(x.device)[:, None].expand(-1, len(x)).unbind()
        places = torch.empty_like(x), torch.empty_like(x)
        fresh = torch.empty_like(x) if noises is None and any(self._rows[i][-1] for i in steps) else x
        clip = self.clip
        for k, i in enumerate(steps):
            output = denoiser(x, timesteps[i])
            check_same(x, output, "the network's output")
            u, v, a, b, c, std = self._rows[i]
            following = places[k % 2]
            if clip is None:  # in place throughout: at batch 1, allocation and dispatch are half of the time
                torch.mul(x, a, out=following).add_(output, alpha=c)
            else:
                torch.mul(x, u, out=following).add_(output, alpha=v).clamp_(-clip, clip).mul_(b)
                if a:
                    following.add_(x, alpha=a)
                if c:
                    following.add_(output, alpha=c)
            if std:
                drawn = fresh.normal_(generator=generator) if noises is None else noises[k]
                following.add_(drawn, alpha=std)
            yield i, output, x, following
            x = following

    def _range(self, begin: int, end: int | None) -> range:
        end = len(self) if end is None else end
        if not 0 <= begin <= end <= len(self):
            raise ValueError(f"a sampler of {len(self)} steps has no steps {begin} to before {end}")
        return range(begin, end)


def ddpm(process: ForwardProcess, *, clip: float | None = None) -> DDIM:
    """The sampler of denoising diffusion probabilistic models: every step of the chain, with the posterior's noise.

    Args:
        process: the chain, and what its network predicts.
        clip: x_0 is held within -clip..clip in every step; None leaves it.

    Source: Ho, Jain and Abbeel, 2020, equation 7 (the smaller of the two variances they give).

    Example:
        >>> sampler = ddpm(ForwardProcess("squared_cosine", 10), clip=1.0)
        >>> sampler.sample(lambda x, t: torch.zeros_like(x), torch.randn(4, 2)).abs().max() <= 1
        tensor(True)
    """
    return DDIM(process, len(process), eta=1.0, clip=clip, recompute_epsilon=True)


def _coefficients(
    here: Tensor, there: Tensor, prediction: str, eta: float, clip: float | None, recompute_epsilon: bool
) -> Tensor:
    """What each step from alpha_bar ``here`` to ``there`` multiplies x and the output by.

    Returns:
        (6, S): u, v, a, b, c, std, with mean = a x + b clip(u x + v output) + c output; without clipping b is 0.
    """
    signal, scale, zero, one = here.sqrt(), (1 - here).sqrt(), torch.zeros_like(here), torch.ones_like(here)
    std = eta * ((1 - there) / (1 - here) * (1 - here / there)).sqrt()
    toward = (1 - there - std.square()).clamp_min(0).sqrt()  # rounding may leave -1e-17
    u, v, p, q = {  # x_0 = u x + v output, e = p x + q output
        "epsilon": (1 / signal, -scale / signal, zero, one),
        "sample": (zero, one, 1 / scale, -signal / scale),
        "v": (signal, -scale, scale, signal),
    }[prediction]
    if clip is None:
        a, b, c = there.sqrt() * u + toward * p, zero, there.sqrt() * v + toward * q
    elif recompute_epsilon:  # e = (x - signal x_0) / scale
        a, b, c = toward / scale, there.sqrt() - toward * signal / scale, zero
    else:
        a, b, c = toward * p, there.sqrt(), toward * q
    return torch.stack([u, v, a, b, c, std])
