"""What a network costs: parameters and multiply-adds, also of networks on the meta device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from reprise.nn.hooks import evaluating

__all__ = ["multiply_adds", "parameters"]


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
    return int(sdpa_flop_count(query, key, value))


# PyTorch's counter knows every attention kernel but the one of the CPU.
KERNELS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


def parameters(model: nn.Module, *, trainable: bool = False) -> int:
    """Count parameters in real numbers: a complex one counts twice, a shared one once.

    Args:
        model: on any device.
        trainable: only those that take a gradient.

    Example:
        >>> parameters(nn.Linear(3, 2))
        8
    """
    counted = (p for p in model.parameters() if p.requires_grad or not trainable)
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in counted)


def multiply_adds(model: nn.Module, inputs: Sequence[int] | Tensor | tuple[Tensor, ...]) -> int:
    """Count the multiply-adds of one forward pass in evaluation mode: convolutions, matrix products, attention.

    Norms, activations and other pointwise work are not counted, as is usual.

    Args:
        model: left as it was.
        inputs: the shape of the one input, batch included: nothing is computed then. Or the input, or a tuple of
            inputs: on the meta device nothing is computed either; elsewhere it is, for models that look at values.

    Example:
        >>> multiply_adds(nn.Conv2d(3, 8, 3, padding=1), (1, 3, 16, 16)) == 3 * 8 * 9 * 16 * 16
        True
    """
    if isinstance(inputs, Tensor):
        arguments: tuple[Tensor, ...] = (inputs,)
    elif all(isinstance(item, int) for item in inputs):
        arguments = (torch.empty(*inputs, device="meta"),)
    else:
        arguments = tuple(inputs)  # type: ignore[arg-type]
    device = arguments[0].device
    state = {name: value.to(device) for name, value in (*model.named_parameters(), *model.named_buffers())}
    with evaluating(model), torch.no_grad(), FlopCounterMode(display=False, custom_mapping=KERNELS) as counter:
        functional_call(model, state, arguments)
    return counter.get_total_flops() // 2
