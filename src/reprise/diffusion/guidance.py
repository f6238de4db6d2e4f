"""Guidance: samples that fit a condition better, or are likelier under a policy, than the model alone would make them.

*Classifier-free*: in training the condition is sometimes replaced by a null condition, so that one network models data
with and without it; sampling then goes beyond the conditional prediction, away from the unconditional one.
*By a policy*: between the steps of a sampler, actions move along the gradient of a policy's log-likelihood.

Source: Ho and Salimans, Classifier-Free Diffusion Guidance, 2022; Jackson et al., Policy-Guided Diffusion, 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from reprise.data.finite import all_finite
from reprise.diffusion.shapes import Denoiser

__all__ = ["classifier_free", "drop_condition", "policy_guidance", "policy_guidance_weights"]


def drop_condition(
    condition: Tensor,
    probability: float = 0.1,
    *,
    null: Tensor | float = 0.0,
    mode: str = "example",
    generator: torch.Generator | None = None,
) -> Tensor:
    """For training: the condition, replaced at random by the null condition.

    Args:
        condition: (B, ...), numbers or indices.
        probability: of a replacement, in 0..1.
        null: what takes its place, broadcast to the condition: zeros, an index that means "none", a learned vector.
        mode: "example" replaces the whole condition of an example, "element" each number by itself (as the code
            released with BESO and MoDE does).
        generator: of the draw.

    Returns:
        (B, ...), a new tensor; gradients flow to a null that is learned.

    Raises:
        ValueError: a probability outside 0..1, unknown mode.

    Example:
        >>> captions = torch.tensor([3, 7, 7])
        >>> drop_condition(captions, 1.0, null=16)
        tensor([16, 16, 16])
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"the probability of dropping a condition lies in 0..1, not at {probability}")
    if mode not in ("example", "element"):
        raise ValueError(f'mode is "example" or "element", not {mode!r}')
    shape = condition.shape if mode == "element" else (len(condition), *(1,) * (condition.ndim - 1))
    dropped = torch.rand(shape, device=condition.device, generator=generator) < probability
    return torch.where(dropped, torch.as_tensor(null, dtype=condition.dtype, device=condition.device), condition)


def classifier_free(
    net: Callable[..., Tensor],
    condition: Tensor,
    scale: float,
    *,
    null: Tensor | float | None = None,
    shared: Sequence[Tensor] = (),
) -> Denoiser:
    """A guided denoiser: without + scale (with - without), both predicted in one call of twice the batch.

    Works on what the network predicts, be it noise, data or v. A scale of 1 is the conditional network and 0 the
    unconditional one, each in a call of the batch alone.

    Args:
        net: called as ``net(x, t, condition, *shared)``; gradients flow through it, if wanted.
        condition: (B, ...), what the samples should fit.
        scale: how far to go; finite.
        null: what :func:`drop_condition` put in the condition's place in training; only a scale of 1 can do without.
        shared: further (B, ...) inputs of the network, which were not dropped.

    Returns:
        A function of (B, ...) and (B,) steps or noise levels, for any sampler of this room.

    Raises:
        ValueError: a scale that is not finite; a scale other than 1 without a null condition; at the call: another
            batch size than the condition's.

    Source: Ho and Salimans, 2022, equation 6, with scale = 1 + w.

    Example:
        >>> net = lambda x, t, goal: x + goal
        >>> denoiser = classifier_free(net, torch.ones(2, 1), 3.0, null=0.0)
        >>> denoiser(torch.zeros(2, 1), torch.ones(2)).tolist()
        [[3.0], [3.0]]
    """
    if not math.isfinite(scale):
        raise ValueError(f"the scale of guidance is a finite number, not {scale}")
    if null is None and scale != 1:
        raise ValueError(
            f"guidance by {scale:g} compares with the network's answer to no condition: train with drop_condition, and "
            "give null= what it put in the condition's place"
        )
    batch = len(condition)
    if scale == 1:
        used = condition
    else:
        nulls = torch.as_tensor(null, dtype=condition.dtype, device=condition.device).expand_as(condition)
        used = nulls if scale == 0 else torch.cat([condition, nulls])
    if len(used) == 2 * batch:
        shared = [torch.cat([value, value]) for value in shared]

    def guided(x: Tensor, t: Tensor) -> Tensor:
        if len(x) != batch:
            raise ValueError(f"the guided denoiser holds conditions for {batch} examples and was given {len(x)}")
        if len(used) == batch:
            return net(x, t, used, *shared)
        conditional, unconditional = net(torch.cat([x, x]), torch.cat([t, t]), used, *shared).chunk(2)
        return torch.lerp(unconditional, conditional, scale)

    return guided


def policy_guidance_weights(steps: int, strength: float = 1.0, *, cosine: float = 0.3, delay: int = 0) -> list[float]:
    """How strongly each step of a sampler is guided by a policy: falling, with a bump in the middle.

    strength (1 - i / T + cosine sin(pi (i + 1) / T)) for steps i from ``delay`` to before the last; 0 for the others.

    Args:
        steps: T, of the sampler, at least 1.
        strength: lambda, the power of the policy's likelihood in the target density; finite.
        cosine: height of the bump; finite.
        delay: first step that is guided, at least 0.

    Raises:
        ValueError: a number outside its range.

    Source: the code published with Jackson et al., 2024.

    Example:
        >>> [round(weight, 3) for weight in policy_guidance_weights(4)]
        [1.212, 1.05, 0.712, 0.0]
    """
    if steps < 1 or delay < 0 or not (math.isfinite(strength) and math.isfinite(cosine)):
        raise ValueError(
            f"weights need steps >= 1, delay >= 0, a finite strength and cosine, not {steps}, {delay}, {strength} and "
            f"{cosine}"
        )
    guided = [strength * (1 - i / steps + cosine * math.sin(math.pi * (i + 1) / steps)) for i in range(steps - 1)]
    return [0.0 if i < delay else weight for i, weight in enumerate(guided)] + [0.0]


def policy_guidance(
    log_prob: Callable[[Tensor], Tensor],
    channels: slice,
    weights: Sequence[float],
    *,
    normalise: bool = True,
    denoiser: Denoiser | None = None,
) -> Callable[[int, Tensor, float], Tensor]:
    """A function to be called before each step of a sampler, which makes the actions in x likelier under a policy.

    x[..., channels] moves by weights[i] times the gradient of ``log_prob`` with respect to these channels; the others
    (states, rewards) stay, and so does the data's influence on them.

    Args:
        log_prob: log-likelihood of the actions in (B, H, C) trajectories, as they are sampled: it undoes their scaling
            itself. Returns (B,) or (B, H), differentiable.
        channels: where in the last dimension the actions are.
        weights: one for each step; see :func:`policy_guidance_weights`. A step with 0 is left alone, bit for bit.
        normalise: divide each trajectory's gradient by its norm over all steps and actions.
        denoiser: take the gradient at this denoiser's estimate of the data instead of at the noisy trajectory (one more
            call per step).

    Returns:
        A function of (step, x, noise level), for ``before_step`` of :func:`~reprise.diffusion.samplers.sample`.

    Raises:
        ValueError: a weight that is not finite; at the call: a ``log_prob`` that does not depend on x differentiably,
            or more steps than weights.
        FloatingPointError: the gradient is not finite.

    Source: Jackson et al., 2024, section 4.

    Example:
        >>> log_prob = lambda x: -0.5 * (x[..., 1:] - 2).square().sum((1, 2))  # states in channel 0, actions in 1
        >>> guide = policy_guidance(log_prob, slice(1, 2), [0.5, 0.0], normalise=False)
        >>> guide(0, torch.zeros(1, 1, 2), 1.0)
        tensor([[[0., 1.]]])
    """
    if not all(map(math.isfinite, weights)):
        raise ValueError(f"weights of guidance are finite, unlike {list(weights)}")

    def guide(i: int, x: Tensor, sigma: float) -> Tensor:
        if i >= len(weights):
            raise ValueError(f"there are weights for {len(weights)} steps of guidance, but the sampler makes more")
        if weights[i] == 0:
            return x
        point = x if denoiser is None else denoiser(x, x.new_full((len(x),), sigma))
        gradient = _gradient(log_prob, point)[..., channels]
        if normalise:
            norm = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)  # no gradient stays none
            gradient = gradient / norm.reshape(-1, *(1,) * (x.ndim - 1))
        x = x.clone()
        x[..., channels] += weights[i] * gradient
        return x

    return guide


def _gradient(log_prob: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Of the sum of ``log_prob`` at x, also inside inference mode."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.clone().requires_grad_()  # a clone made here is an ordinary tensor
        value = log_prob(leaf)
        if not value.requires_grad:
            raise ValueError(
                "log_prob does not depend on x differentiably; a detach or no_grad inside it hides the way"
            )
        (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
    if gradient is None:
        raise ValueError("log_prob does not depend on x; it must take the actions from it")
    if not all_finite(gradient):
        raise FloatingPointError("the gradient of log_prob is not finite; look at its value for the first step's x")
    return gradient
