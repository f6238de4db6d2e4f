"""What each unit of a convolutional network does to lane 1 once lane 0 has decided."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.explain.linear_interpreters.lanes import Call, Lanes, Rule, at_once

__all__ = ["AFFINE", "NONLINEAR"]


# Affine operations: both lanes pass, with or without the constants ----------------------------------------------------


def metadata(call: Call) -> Any:
    """Shapes, types, devices."""
    return call.y0


def decision(call: Call) -> Any:
    """Comparisons, indices and statistics: lane 0 decides for both."""
    return call.join(call.y0, None)


def linear(call: Call) -> Any:
    """Operations that are linear in their signal."""
    if getattr(call.args[0], "x1", None) is None:
        return decision(call)
    call.signal.viewed = True
    return call.affine(call.args, viewed=True)


def laid_out(call: Call) -> Any:
    """Views, which channels last may not allow, and means, which vmap would then take one by one."""
    call.lay_out()
    return linear(call)


def identity(call: Call) -> Any:
    """What does nothing to values; ``detach`` would also cut the way back from lane 1."""
    return call.args[0]


@at_once
def weighted(call: Call) -> Any:
    """Convolutions, transposed convolutions and linear layers. A computed weight is one factor of a product: frozen."""
    x = call.signal
    for key in ("weight", "bias")[len(call.args) - 1 :]:
        call.args.append(call.kwargs.pop(key, None))
    if x.x1 is None:
        return decision(call)
    weight, bias = call.pick(call.args[1], 0), call.args[2]
    if call.replay.channels_last and weight.ndim == 4:
        weight = weight.clone(memory_format=torch.channels_last)  # what is convolved by it is laid out alike
    if bias is not None and "bias" not in call.replay.constants:
        bias = None
    return call.affine([x, weight, call.pick(bias, 0), *call.args[3:]])


def addition(call: Call) -> Any:
    """Sums and differences; whatever is no signal is a constant."""
    if not _signals(call.args[:2]):
        return decision(call)
    parts = [value if isinstance(value, Lanes) else call.constant(value) for value in call.args[:2]]
    return call.affine([*parts, *call.args[2:]])


def joined(call: Call) -> Any:
    """Concatenation and stacking of branches."""
    if not _signals(call.args[0]):
        return decision(call)
    parts = [value if isinstance(value, Lanes) else call.constant(value) for value in call.args[0]]
    return call.affine([parts, *call.args[1:]])


def padding(call: Call) -> Any:
    """Padding in every mode."""
    if call.signal.x1 is None:
        return decision(call)
    value = call.args[3] if len(call.args) > 3 else call.kwargs.get("value")
    changed = {"value": call.constant(value)} if value else {}
    return call.affine(call.args[:3], **changed)


def choice(call: Call) -> Any:
    """``where``: the condition is lane 0's, and whatever is no signal is a constant."""
    condition, *options = call.args
    if not _signals(options):
        return decision(call)
    parts = [value if isinstance(value, Lanes) else call.constant(value) for value in options]
    return call.affine([call.pick(condition, 0), *parts])


def masking(call: Call) -> Any:
    """``masked_fill``: a mask of lane 0 and a constant."""
    x, mask, value = call.args
    if x.x1 is None:
        return decision(call)
    return call.affine([x, call.pick(mask, 0), call.constant(value)])


def assignment(call: Call) -> None:
    """``x[index] = value`` and ``x.copy_(value)``."""
    x, *index, value = call.args
    if not isinstance(x, Lanes) or x.x1 is None:
        raise NotImplementedError(f"{call.told} writes a signal into a constant in place; make a new tensor instead")
    call.replay.overwrite()
    call.on(call.args, 0)
    call.on([x, *call.pick(index, 0), value if isinstance(value, Lanes) else call.constant(value)], 1)
    return x if not index else None  # type: ignore[return-value]


def dropout(call: Call) -> Any:
    """Nothing, in evaluation mode."""
    if call.args[2] if len(call.args) > 2 else call.kwargs.get("training", True):
        raise ValueError(f"{call.told} is in training mode; call model.eval() first")
    return call.args[0]


# Non-linear units: the action of lane 0's decision --------------------------------------------------------------------


@at_once
def relu(call: Call) -> Any:
    """1[x0 > 0] x1."""
    if call.native:
        return call.affine(call.args)
    x0 = call.signal.x0
    gate = x0.relu() if call.replay.together else x0  # its own, for x0 may be overwritten before the way back
    return call.freeze(lambda t: torch.ops.aten.threshold_backward(t, _like(gate, t), 0))


def leaky_relu(call: Call) -> Any:
    """(1[x0 > 0] + a 1[x0 <= 0]) x1; also for PReLU's slope per channel, and for RReLU in evaluation mode."""
    x0, name = call.signal.x0, call.function.__name__
    options = dict(zip(("lower", "upper", "training"), call.args[1:], strict=False)) | call.kwargs
    if name.startswith("rrelu"):
        if options.get("training"):
            raise ValueError(f"{call.told} is in training mode; call model.eval() first")
        slope: Any = (options.get("lower", 1 / 8) + options.get("upper", 1 / 3)) / 2
    else:
        slope = (
            call.args[1] if len(call.args) > 1 else call.kwargs.get("weight", call.kwargs.get("negative_slope", 0.01))
        )
    slope = call.pick(slope, 0)
    if isinstance(slope, Tensor):
        slope = slope.reshape(-1, *[1] * (x0.ndim - 2))
    gain = torch.where(x0 > 0, torch.ones_like(x0), torch.as_tensor(slope, dtype=x0.dtype, device=x0.device))
    return call.freeze(lambda t: t * gain)


def pointwise(call: Call) -> Any:
    """(h(x0) / x0) x1 for any h, or with the tangent's slope h'(x0).

    Near x0 = 0 the quotient is taken as h'(0) where h(0) = 0; else h(x0) is a constant there, with gain 0.
    """
    x0 = call.signal.x0
    if call.replay.pointwise == "tangent":
        gain = _slope(call, x0)
    else:
        small = x0.abs() < call.replay.eps
        zero = torch.zeros((), dtype=x0.dtype, device=x0.device)
        at_zero = _slope(call, zero) if call.at(zero) == 0 else zero
        at_zero = torch.where(at_zero.isfinite(), at_zero, zero)  # as of the square root
        gain = torch.where(small, at_zero, call.y0 / torch.where(small, torch.ones_like(x0), x0))
    return call.freeze(lambda t: t * gain)


def quotients(call: Call) -> Any:
    """(h(x0) / x0) x1 for softmax and its like, which mix positions: near x0 = 0 the value is a constant."""
    x0 = call.signal.x0
    small = x0.abs() < call.replay.eps
    gain = torch.where(small, torch.zeros_like(x0), call.y0 / torch.where(small, torch.ones_like(x0), x0))
    return call.freeze(lambda t: t * gain)


def gated(call: Call) -> Any:
    """``glu``: the sigmoid of one half multiplies the other, and is frozen."""
    dim = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", -1)
    gate = call.signal.x0.chunk(2, dim)[1].sigmoid()
    return call.freeze(lambda t: t.chunk(2, dim)[0] * gate)


@at_once
def max_pool(call: Call) -> Any:
    """Of x1 the positions that won in x0; of equal ones the first, as PyTorch has it."""
    name = call.function.__name__.removesuffix("_with_indices")
    dims = int(name[-2])
    wanted = call.kwargs.pop("return_indices", False)
    if call.native and not wanted:
        return call.affine(call.args)
    y0, index = getattr(F, name)(call.signal.x0, *call.args[1:], **call.kwargs, return_indices=True)
    call.y0 = y0
    lanes = call.freeze(lambda t: _picked(t.clone() if call.replay.together else t, _like(index, t), dims))
    return (lanes, Lanes(index, None, call.replay)) if wanted else lanes


def _like(decision: Tensor, t: Tensor) -> Tensor:
    """A decision laid out as the signal that it meets, with channels last or first: mixed layouts are slow."""
    if t.ndim != 4 or t.stride()[1:] == decision.stride()[1:]:
        return decision
    last = t.stride(1) == 1 < t.shape[1]
    return decision.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _picked(t: Tensor, index: Tensor, dims: int) -> Tensor:
    """What an index into the flattened last dimensions picks, laid out as the index is."""
    if index.ndim == dims + 2 and not index.is_contiguous():  # channels-last
        t, index = t.movedim(1, -1), index.movedim(1, -1)
        return t.flatten(1, -2).gather(1, index.flatten(1, -2)).view(index.shape).movedim(-1, 1)
    return t.flatten(-dims).gather(-1, index.flatten(-dims)).view(index.shape)


def largest(call: Call) -> Any:
    """``max``, ``min``, ``amax`` and ``amin`` along dimensions, and of two signals place by place."""
    x, name = call.signal, call.function.__name__
    if "other" in call.kwargs or (len(call.args) > 1 and isinstance(call.args[1], Tensor)):
        return _of_two(call)
    dim = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", ())
    dims = sorted(d % x.x0.ndim for d in ((dim,) if isinstance(dim, int) else dim)) or list(range(x.x0.ndim))
    keep = call.args[2] if len(call.args) > 2 else call.kwargs.get("keepdim", False)
    others = [d for d in range(x.x0.ndim) if d not in dims]

    def flat(t: Tensor) -> Tensor:
        return t.permute(*others, *dims).flatten(len(others))

    find = torch.argmax if "max" in name else torch.argmin
    index = find(flat(x.x0), -1, keepdim=True)
    shape = [1 if d in dims else size for d, size in enumerate(x.x0.shape)] if keep else [x.x0.shape[d] for d in others]
    result = call.y0
    if isinstance(result, tuple):
        call.y0 = result[0]
    lanes = call.freeze(lambda t: flat(t).gather(-1, index).reshape(shape))
    return type(result)((lanes, Lanes(result[1], None, call.replay))) if isinstance(result, tuple) else lanes


def _of_two(call: Call) -> Any:
    a, b = call.args[0], call.args[1] if len(call.args) > 1 else call.kwargs["other"]
    if not _signals([a, b]):
        return decision(call)
    first = call.pick(a, 0) == call.y0
    a1, b1 = (call.pick(value if isinstance(value, Lanes) else call.constant(value), 1) for value in (a, b))
    return Lanes(call.y0, torch.where(first, a1, b1), call.replay)


# Normalisation: statistics from lane 0 --------------------------------------------------------------------------------


def batch_norm(call: Call) -> Any:
    """gamma x1 / sqrt(variance + eps), by running statistics or, where a layer keeps none, by those of x0's batch."""
    names = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, call.args[1:], strict=False)) | call.kwargs
    x0, variance = call.signal.x0, given["running_var"]
    if given.get("training"):
        if variance is not None:
            raise ValueError(f"{call.told} is in training mode and would mix pictures; call model.eval() first")
        variance = x0.var([0, *range(2, x0.ndim)], correction=0)
    return _scaled(call, (variance + given.get("eps", 1e-5)).rsqrt(), given.get("weight"))


def instance_norm(call: Call) -> Any:
    """As :func:`batch_norm`, with the statistics of each map of x0."""
    names = ("running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    given = dict(zip(names, call.args[1:], strict=False)) | call.kwargs
    x0, variance = call.signal.x0, given.get("running_var")
    if given.get("use_input_stats", True):
        if variance is not None:
            raise ValueError(f"{call.told} is in training mode and would keep statistics; call model.eval() first")
        variance = x0.flatten(2).var(-1, correction=0)
    return _scaled(call, (variance + given.get("eps", 1e-5)).rsqrt(), given.get("weight"))


def group_norm(call: Call) -> Any:
    """As :func:`batch_norm`, with the statistics of each group of x0."""
    given = dict(zip(("num_groups", "weight", "bias", "eps"), call.args[1:], strict=False)) | call.kwargs
    x0, groups = call.signal.x0, given["num_groups"]
    variance = x0.unflatten(1, (groups, -1)).flatten(2).var(-1, correction=0)
    variance = variance.repeat_interleave(x0.shape[1] // groups, 1)
    return _scaled(call, (variance + given.get("eps", 1e-5)).rsqrt(), given.get("weight"))


def layer_norm(call: Call) -> Any:
    """As :func:`batch_norm`, over the last dimensions; ``rms_norm`` alike, by the mean square."""
    given = dict(zip(("normalized_shape", "weight", "bias", "eps"), call.args[1:], strict=False)) | call.kwargs
    x0, eps = call.signal.x0, given.get("eps", 1e-5)
    dims = list(range(-len(given["normalized_shape"]), 0))
    if call.function is F.rms_norm:
        spread = x0.square().mean(dims, keepdim=True)
        eps = torch.finfo(x0.dtype).eps if given.get("eps") is None else eps
    else:
        spread = x0.var(dims, correction=0, keepdim=True)
    gain = (spread + eps).rsqrt()
    if given.get("weight") is not None:
        gain = gain * call.pick(given["weight"], 0)
    return call.freeze(lambda t: t * gain, "normalization")


def normalize(call: Call) -> Any:
    """``F.normalize``: the norm of x0 divides both lanes."""
    given = dict(zip(("p", "dim", "eps"), call.args[1:], strict=False)) | call.kwargs
    x0 = call.signal.x0
    norm = x0.norm(given.get("p", 2.0), given.get("dim", 1), keepdim=True).clamp_min(given.get("eps", 1e-12))
    return call.freeze(lambda t: t / norm, "normalization")


def _scaled(call: Call, gain: Tensor, weight: Tensor | None) -> Any:
    """Multiply by one number per channel, (C,) or (N, C)."""
    gain = gain if weight is None else gain * call.pick(weight, 0)
    gain = gain.reshape(*gain.shape, *[1] * (call.signal.x0.ndim - 2))
    return call.freeze(lambda t: t * gain, "normalization")


# Products: one factor is frozen ---------------------------------------------------------------------------------------


def product(call: Call) -> Any:
    """Of two signals the smaller is the gate, and is frozen; of equal ones the second."""
    a, b = call.args[:2]
    if not (signals := _signals([a, b])):
        return decision(call)
    first = a.numel() < b.numel() if len(signals) == 2 else signals[0] is not a
    factors = [call.pick(a, 0), b] if first else [a, call.pick(b, 0)]
    return call.affine([*factors, *call.args[2:]])


def quotient(call: Call) -> Any:
    """The divisor is frozen; a constant over a signal is a point-wise unit."""
    above, below = call.args[:2]
    if call.function.__name__ in ("__rdiv__", "__rtruediv__"):
        above, below = below, above
    if not _signals([above, below]):
        return decision(call)
    if not _signals([above]):
        return pointwise(Call(lambda t: call.pick(above, 0) / t, [below], {}, call.replay))
    return call.affine([above, call.pick(below, 0), *call.args[2:]])


def matrix_product(call: Call) -> Any:
    """All but the last signal are frozen: in attention the weights, so that the values pass."""
    if call.args and isinstance(call.args[-1], (list, tuple)):  # einsum takes its operands as a list, too
        call.args = [*call.args[:-1], *call.args[-1]]
    if not _signals(call.args):
        return decision(call)
    last = max(i for i, value in enumerate(call.args) if _signals([value]))
    factors = [value if i == last else call.pick(value, 0) for i, value in enumerate(call.args)]
    return call.affine(factors)


def attention(call: Call) -> Any:
    """``scaled_dot_product_attention``: queries and keys decide, values pass."""
    query, key, value, *rest = call.args
    if not _signals([value]):
        return decision(call)
    return call.affine([*call.pick([query, key], 0), value, *call.pick(rest, 0)])


def _slope(call: Call, x: Tensor) -> Tensor:
    return torch.func.jvp(call.at, (x,), (torch.ones_like(x),))[1]


def _signals(values: Any) -> list[Lanes]:
    return [value for value in values if isinstance(value, Lanes) and value.x1 is not None]


def _table(*entries: tuple[Rule, str]) -> dict[Any, Rule]:
    return {name: rule for rule, names in entries for name in names.split()}


AFFINE = _table(
    (metadata, """shape size dim ndim ndimension numel nelement stride layout dtype device get_device element_size len
        is_contiguous is_floating_point is_complex is_cuda is_cpu is_mps is_meta is_sparse is_quantized is_leaf names
        requires_grad grad_fn zeros_like ones_like empty_like full_like
        new_zeros new_ones new_full new_empty new_tensor"""),
    (decision, """gt lt ge le eq ne isnan isinf isfinite logical_and logical_or logical_not logical_xor invert and or
        xor bitwise_not bitwise_and bitwise_or any all argmax argmin argsort sign sgn count_nonzero
        var std var_mean std_mean norm vector_norm"""),
    (laid_out, "view view_as unflatten adaptive_avg_pool2d"),
    (linear, """reshape reshape_as flatten ravel permute transpose swapaxes swapdims movedim
        moveaxis t T mT squeeze unsqueeze expand expand_as broadcast_to repeat repeat_interleave tile contiguous clone
        to float double half bfloat16 type_as cpu cuda narrow select getitem index_select gather take_along_dim
        chunk split split_with_sizes tensor_split unbind flip fliplr flipud roll rot90 tril triu diagonal
        mean sum cumsum neg positive pos
        avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool3d
        max_unpool1d max_unpool2d max_unpool3d interpolate upsample upsample_nearest upsample_bilinear grid_sample
        pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle fold unfold"""),
    (identity, "detach data"),
    (weighted, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear"),
    (addition, "add sub subtract rsub radd"),
    (joined, "cat concat concatenate stack hstack vstack dstack"),
    (padding, "pad"),
    (choice, "where"),
    (masking, "masked_fill"),
    (assignment, "setitem copy"),
    (dropout, "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"),
)  # fmt: skip
NONLINEAR = _table(
    (relu, "relu"),
    (leaky_relu, "leaky_relu prelu rrelu"),
    (pointwise, """sigmoid tanh gelu silu elu selu celu mish softplus softsign logsigmoid hardsigmoid hardswish hardtanh
        relu6 threshold softshrink hardshrink tanhshrink clamp clamp_min clamp_max clip abs exp expm1 log log1p
        sqrt rsqrt square pow sin cos atan erf reciprocal"""),
    (quotients, "softmax log_softmax softmin local_response_norm"),
    (gated, "glu"),
    (max_pool, """max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices
        max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
        adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices"""),
    (largest, "max min amax amin maximum minimum"),
    (group_norm, "group_norm"),
    (layer_norm, "layer_norm rms_norm"),
    (normalize, "normalize"),
    (product, "mul multiply rmul"),
    (quotient, "div divide true_divide rdiv rtruediv"),
    (matrix_product, "matmul rmatmul bmm mm mv einsum"),
    (attention, "scaled_dot_product_attention"),
) | {F.batch_norm: batch_norm, F.instance_norm: instance_norm}  # fmt: skip
