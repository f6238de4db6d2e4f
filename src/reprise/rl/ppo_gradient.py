"""The gradient of PPO's loss for an :class:`~reprise.rl.ActorCritic` of tanh layers, written out.

Minibatches of PPO are so small that automatic differentiation costs more than the arithmetic. What is here gives the
same numbers as ``ppo.loss(minibatch).backward()``, about four times as fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reprise.nn.stacked import StackedLinear
from reprise.rl.actor_critic import ActorCritic
from reprise.rl.distributions import Distribution, Gaussian
from reprise.rl.vector import flatten

if TYPE_CHECKING:
    from reprise.rl.ppo import PPO


def has_closed_form(policy: nn.Module) -> bool:
    """Whether the gradient is written out for this policy."""
    return type(policy) is ActorCritic and all(
        isinstance(layer, (StackedLinear, nn.Tanh)) for layer in policy.bodies.layers
    )


@torch.no_grad()
def accumulate_gradient(ppo: PPO, minibatch: dict[str, Any], old: Distribution | None) -> None:
    """Add the gradient of :meth:`PPO.loss <reprise.rl.PPO.loss>` to ``grad`` of the policy's parameters."""
    policy, size = ppo.policy, len(minibatch["advantage"])
    assert isinstance(policy, ActorCritic)
    layers = [layer for layer in policy.bodies.layers if isinstance(layer, StackedLinear)]

    inputs = [flatten(minibatch["observation"]).expand(2, -1, -1)]
    for layer in layers:
        inputs.append(torch.baddbmm(layer.bias, inputs[-1], layer.weight).tanh_())
    actor, critic = inputs[-1]
    distribution = policy.distribution(policy.action_head(actor))
    value = policy.value_head(critic)

    # By the log-probability: -advantage * ratio where moving the ratio changes the clipped objective, else nothing.
    ratio = (distribution.log_prob(minibatch["action"]) - minibatch["log_prob"]).exp_()
    gain = minibatch["advantage"] * ratio
    clipped = minibatch["advantage"] * ratio.clamp(1 - ppo.clip_range, 1 + ppo.clip_range)
    by_log_prob = gain.masked_fill_(gain > clipped, 0).mul_(-1 / size)
    by_output, *by_log_std = distribution.gradient(
        minibatch["action"], by_log_prob, -ppo.ent_coef / size, old, ppo.kl_coef / size
    )
    error = value.sub_(minibatch["return"][:, None])
    by_value = error * (2 * ppo.vf_coef / size)
    if ppo.value_error_clip:
        by_value.masked_fill_(error.square() > ppo.value_error_clip, 0)

    if isinstance(distribution, Gaussian):
        _grad(policy.log_std).add_(by_log_std[0])
    by_hidden = torch.empty_like(inputs[-1])
    for head, by_head, hidden, target in (
        (policy.action_head, by_output, actor, by_hidden[0]),
        (policy.value_head, by_value, critic, by_hidden[1]),
    ):
        _grad(head.weight).addmm_(by_head.T, hidden)
        _grad(head.bias).add_(by_head.sum(0))
        torch.mm(by_head, head.weight, out=target)
    for i in reversed(range(len(layers))):
        by_sum = torch.ops.aten.tanh_backward(by_hidden, inputs[i + 1])
        _grad(layers[i].weight).baddbmm_(inputs[i].mT, by_sum)
        _grad(layers[i].bias).add_(by_sum.sum(1, keepdim=True))
        if i:
            by_hidden = torch.bmm(by_sum, layers[i].weight.mT)


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
