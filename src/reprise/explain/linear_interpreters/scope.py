"""LinearScope: run a network with its decisions frozen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reprise.data.finite import all_finite
from reprise.explain.linear_interpreters.lanes import KINDS, Again, Call, Lanes, Replay, Rule
from reprise.explain.linear_interpreters.rules import AFFINE, NONLINEAR
from reprise.nn.hooks import unwrap

__all__ = ["Action", "LinearScope", "Trace"]

ALL: dict[Any, Rule] = AFFINE | NONLINEAR
UNITS = {str(getattr(key, "__name__", key)): key for key in NONLINEAR}
Action = Callable[[Any, Tensor, Tensor], Tensor]


class Trace(NamedTuple):
    """One pass of x0 in both lanes.

    Attributes:
        x: (N, ...) a copy of x0.
        y: (N, ...) as the network gives it, to the last bit, whose derivative by x is F: the sum of z y has the
            gradient F^T z. The derivative does not reach the weights.
        signals: what functions were called, and the signals that they returned in lane 0; empty where the network
            overwrites some.
    """

    x: Tensor
    y: Tensor
    signals: list[tuple[Callable, Tensor | None]]


class LinearScope:
    """A network whose units decide by one batch and act, frozen, on another (section 3).

    Lane 0 carries x0 through the network as it is. Lane 1 carries x1 through what is left of the network once every
    non-linear unit does to it what it does to x0: a ReLU lets pass where x0 was positive, max pooling picks where x0
    had its maximum, normalisation uses the statistics of x0, of two factors one keeps its value at x0, and any other
    point-wise unit h multiplies by h(x0)/x0. So lane 1 is affine: y1 = F x1 + r, with y1 = y0 where x1 = x0.

    Both lanes run side by side, layer by layer; nothing is stored, and the network is not changed: PyTorch's functions
    are met as they are called, as modules, functions, methods or operators, in place or not.

    Args:
        model: a network in evaluation mode that maps one tensor to one tensor.
        units: "all", or the names of the non-linear functions that may be frozen, such as ``("relu", "max_pool2d")``
            (of those alone, F is the Jacobian); any other is refused.
        extra: actions for further units, by module type, function or function name. ``action(unit, x0, x1)`` is linear
            in x1 with everything else decided by x0; unit is the module or the function with its other arguments.
            The constant part follows from the unit's own output.
        pointwise: "gain", h(x0)/x0, as in the paper, or "tangent", the slope h'(x0) with a constant part.
        eps: nearer to zero than this a gain is h'(0) where h(0) = 0; else h(x0) counts as a constant.

    Raises:
        ValueError: an unknown unit or treatment.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten()).eval()
        >>> x0 = torch.rand(2, 1, 5, 5)
        >>> y0, residual = LinearScope(net)(x0, torch.zeros_like(x0))
        >>> y0, linear_part = LinearScope(net)(x0, x0, constants=False)
        >>> torch.allclose(y0, linear_part + residual, atol=1e-6)
        True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        units: str | Collection[str] = "all",
        extra: Mapping[Any, Action] | None = None,
        pointwise: str = "gain",
        eps: float = 1e-6,
    ) -> None:
        unknown = set() if units == "all" else set(units) - set(UNITS)
        if unknown or (isinstance(units, str) and units != "all"):
            raise ValueError(
                f'units is "all" or a collection of {", ".join(sorted(UNITS))}, not {sorted(unknown) or units}'
            )
        if pointwise not in ("gain", "tangent"):
            raise ValueError(f'pointwise is "gain" or "tangent", not {pointwise!r}')
        if not eps > 0:
            raise ValueError(f"eps must be above 0, not {eps}")
        self.model, self.pointwise, self.eps = unwrap(model), pointwise, eps
        extra = dict(extra or {})
        self.modules = {key: action for key, action in extra.items() if isinstance(key, type)}
        self.rules = ALL if units == "all" else AFFINE | {UNITS[name]: NONLINEAR[UNITS[name]] for name in units}
        if extra:
            self.rules = self.rules | {key: _rule(extra[key]) for key in extra if key not in self.modules}

    def __call__(
        self, x0: Tensor, x1: Tensor, *, constants: bool | Collection[str] = True, trace: Trace | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run both lanes.

        Args:
            x0: (N, ...) what decides.
            x1: (N B, ...) B inputs for the frozen network of each x0, those of the first x0 first.
            constants: whether constants enter lane 1, or which: "bias" (of convolutions and linear layers),
                "normalization" (its shifts), "unit" (of point-wise units) and "other" (any tensor or number that the
                network adds). Without them lane 1 is F x1.
            trace: of the same x0 and weights, so that lane 0 need not be computed again.

        Returns:
            y0 (N, ...) as the network gives it, to the last bit, and y1 (N B, ...).

        Raises:
            ValueError: a network in training mode; inputs that do not fit it or each other; values that are not finite.
            NotImplementedError: an operation without a rule, named with its place in the network.
        """
        count = _count(x0, x1)
        kinds = KINDS if constants is True else () if constants is False else constants
        if not set(kinds) <= set(KINDS):
            raise ValueError(f"constants are {', '.join(KINDS)}, not {constants}")

        known = iter(trace.signals) if trace and trace.signals else None
        channels_last = count > 1 and x0.device.type == "cpu"
        with self._running(), torch.no_grad():
            try:
                y0, y1 = self._pass(x0, x1, count, self._replay(kinds, known=known, channels_last=channels_last))
            except Again:
                y0, y1 = self._pass(x0, x1, count, self._replay(kinds))
        _check_output(y0, "the network's output")
        _check_output(y1, "the frozen network's output")
        return y0, y1

    def trace(self, x0: Tensor) -> Trace:
        """Run x0 in both lanes at once, for products with the transpose of F, and quicker ones with F.

        Args:
            x0: (N, ...).

        Raises:
            ValueError: a network in training mode; an input that does not fit it; values that are not finite.
            NotImplementedError: an operation without a rule, named with its place in the network.
        """
        _check(x0)
        with self._running(), torch.enable_grad():
            x = x0.detach().clone().requires_grad_()
            try:
                signals: list[Any] = []
                y = self._lanes(x, x, self._replay(KINDS, together=True, native=True, kept=signals))[1]
            except Again:
                signals = []
                y = self._lanes(x, x, self._replay(KINDS, together=True))[1]
            y = y if y.requires_grad else y + x[:0].sum()  # of an output that never changes
        _check_output(y, "the network's output")
        return Trace(x, y, signals)

    def _replay(self, kinds: Collection[str], **options: Any) -> Replay:
        return Replay(self.model, self.rules, frozenset(kinds), self.pointwise, self.eps, **options)

    def _pass(self, x0: Tensor, x1: Tensor, count: int, replay: Replay) -> tuple[Tensor, Tensor]:
        run = partial(self._lanes, x0, replay=replay)
        if count == 1:
            return run(x1)
        # Seen from inside, both lanes have one shape, whatever the network does to it.
        y0, y1 = torch.vmap(run, 1, (None, 1))(x1.unflatten(0, (len(x0), count)))  # type: ignore[arg-type]
        return y0, y1.flatten(0, 1)

    def _lanes(self, x0: Tensor, x1: Tensor, replay: Replay) -> tuple[Tensor, Tensor]:
        x1 = x1.clone()  # the network may work in place
        out = self.model(Lanes(x1.detach() if replay.together else x0.clone(), x1, replay))
        if not isinstance(out, Lanes):
            raise ValueError(
                f"the network returns a {type(out).__name__} in place of one tensor that depends on its input; "
                f"wrap it in a module that picks one"
            )
        return out.x0, Call(out.clone, [], {}, replay).pick(out, 1)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Modules with actions of their own run in lane 0 only, and their action in lane 1."""
        if _training(self.model):
            training = next(name for name, module in self.model.named_modules() if module.training)
            raise ValueError(
                f"{repr(training) if training else 'the network'} is in training mode, where pictures would mix and "
                f"statistics change; call model.eval() first"
            )
        handles = []
        try:
            for module in self.model.modules() if self.modules else ():
                action = next((self.modules[kind] for kind in type(module).__mro__ if kind in self.modules), None)
                if action is not None:
                    handles += _hook(module, action)
            with torch.inference_mode(False):
                yield
        finally:
            for handle in handles:
                handle.remove()


def _training(model: nn.Module) -> bool:
    """Whether it or a part of it is in training mode; ``modules`` makes a name for each, which takes longer."""
    return model.training or any(map(_training, model.children()))


def _hook(module: nn.Module, action: Action) -> list[Any]:
    entered: list[Lanes | None] = []

    def enter(_: nn.Module, args: Any) -> Any:
        signal = args[0] if args and isinstance(args[0], Lanes) else None
        entered.append(signal)
        return args if signal is None else (signal.x0.clone(), *args[1:])

    def leave(_: nn.Module, __: Any, y0: Any) -> Any:
        signal = entered.pop()
        if signal is None:
            return y0
        call = Call(module, [signal], {}, signal.replay)
        call.y0 = y0.detach()
        return _acted(call, module, action)

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def _rule(action: Action) -> Rule:
    return lambda call: _acted(call, call.at, action)


def _acted(call: Call, unit: Any, action: Action) -> Lanes:
    call.lay_out()
    return call.freeze(lambda t: action(unit, call.signal.x0, t))


def _check_output(y: Tensor, told: str) -> None:
    if not all_finite(y):
        raise ValueError(f"{told} holds NaN or infinite values; check the weights, or raise eps")


def _check(x: Tensor, name: str = "x0") -> None:
    if not isinstance(x, Tensor) or x.ndim < 2 or not x.is_floating_point() or len(x) == 0:
        told = f"{x.dtype} of {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} must be a batch of floats (N, ...), not {told}")
    if not all_finite(x):
        raise ValueError(f"{name} holds NaN or infinite values; clean it first")


def _count(x0: Tensor, x1: Tensor) -> int:
    """Inputs of lane 1 per input of lane 0."""
    _check(x0)
    _check(x1, "x1")
    if x1.shape[1:] != x0.shape[1:] or len(x1) % len(x0) or x1.dtype != x0.dtype or x1.device != x0.device:
        raise ValueError(
            f"x1 must be like x0 ({x0.dtype} of {tuple(x0.shape)} on {x0.device}), with as many or a multiple of its "
            f"inputs, not {x1.dtype} of {tuple(x1.shape)} on {x1.device}"
        )
    return len(x1) // len(x0)
