"""Instance and batch normalisation of the channels of one map in one pass: what an IBN layer computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["image_batch_norm"]


def image_batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, bn: nn.BatchNorm2d, batch: slice) -> Tensor:
    """gamma z + beta, where z is x standardised over each picture, or in some channels over the batch.

    The moments of the batch follow from those of its pictures, so that one pass yields both. Can be differentiated
    once.

    Args:
        x: (N, C, H, W) with H W > 1, and N > 0 in training; contiguous or channels-last, and so is the result.
        gamma: (C,) scales.
        beta: (C,) offsets.
        bn: gives eps, momentum and mode, and holds the running statistics, which are updated in training.
        batch: the channels that are standardised over the batch, or by the running statistics in evaluation.

    Example:
        >>> x, ones = torch.randn(4, 6, 8, 8), torch.ones(6)
        >>> y = image_batch_norm(x, ones, 0 * ones, nn.BatchNorm2d(2), slice(4, None))
        >>> torch.allclose(y[:, 4:], nn.BatchNorm2d(2)(x[:, 4:]), atol=1e-5)
        True
    """
    y: Tensor = _ImageBatchNorm.apply(x, gamma, beta, bn, batch)
    return y


class _ImageBatchNorm(torch.autograd.Function):
    """The function and its derivative.

    With u = x minus its mean over the picture, z = scale u + shift. In the instance half scale is 1 / std of the
    picture and shift is 0; in the batch half they are 1 / std of the batch and the difference of both means over it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, bn: Any, batch: slice) -> Tensor:
        count = x.numel() / x.shape[1]  # of what one moment of the batch is taken over
        mean = x.mean((2, 3))
        u = x - _map(mean)
        var = (u * u).mean((2, 3))
        batch_mean, batch_var = bn.running_mean, bn.running_var
        if bn.training:
            batch_mean = mean[:, batch].mean(0)
            batch_var = var[:, batch].mean(0) + mean[:, batch].var(0, correction=0)
            bn.num_batches_tracked.add_(1)
            momentum = 1 / float(bn.num_batches_tracked) if bn.momentum is None else bn.momentum
            bn.running_mean.lerp_(batch_mean, momentum)
            bn.running_var.lerp_(batch_var * (count / (count - 1)), momentum)
        scale, shift = (var + bn.eps).rsqrt(), torch.zeros_like(mean)
        scale[:, batch] = (batch_var + bn.eps).rsqrt()
        shift[:, batch] = (mean[:, batch] - batch_mean) * scale[:, batch]
        ctx.save_for_backward(u, gamma, scale, shift)
        ctx.batch, ctx.training = batch, bn.training
        return (u * _map(gamma * scale)).add_(_map(gamma * shift + beta))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        u, gamma, scale, shift = ctx.saved_tensors
        pixels = u.shape[2] * u.shape[3]
        dbeta = dy.sum((2, 3))
        dgamma = (dy * u).sum((2, 3)) * scale + dbeta * shift
        # The means of dy and dy z over what z was standardised over.
        g, gz = dbeta / pixels, dgamma / pixels
        for means in (g, gz):
            means[:, ctx.batch] = means[:, ctx.batch].mean(0) if ctx.training else 0
        a = gamma * scale
        dx = (u * _map(-a * gz * scale)).add_(_map(-a * (g + gz * shift))).addcmul_(dy, _map(a))
        return dx, dgamma.sum(0), dbeta.sum(0), None, None


def _map(coefficients: Tensor) -> Tensor:
    """(N, C) coefficients that broadcast over pixels."""
    return coefficients[:, :, None, None]
