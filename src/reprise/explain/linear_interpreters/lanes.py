"""Two signals on one way through a network: lane 0 decides, lane 1 follows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["KINDS", "Again", "Call", "Lanes", "Replay", "Rule", "at_once"]

KINDS = ("bias", "normalization", "unit", "other")  # where the constants of a frozen network come from
PLAIN = {int, float, bool, str, type(None)}  # what has no lanes


class Again(Exception):
    """A pass took for granted what this network does not keep; to be run once more without that."""


@dataclass(frozen=True)
class Replay:
    """What holds for one pass.

    Attributes:
        model: the network; its module names tell where something happened.
        rules: what to do by function, or by the name of a function.
        constants: the kinds of constants that enter lane 1; without any, lane 1 is linear.
        pointwise: "gain" or "tangent".
        eps: where an input is nearer to zero than this, a gain h(x)/x is not taken.
        channels_last: lane 1 is convolved with channels last, which is quicker for several inputs.
        together: lane 1 carries x0, too, and can be differentiated; so an affine function is called once for both.
        native: together, and a unit whose derivative is its action may be left to PyTorch. Its way back needs what it
            returned, or was given, unless that is overwritten.
        kept: where each call's function, and the signal that it returned in lane 0, are added.
        known: what an earlier pass with this x0 has kept, so that lane 0 need not be computed again.
    """

    model: nn.Module
    rules: Mapping[Any, Rule]
    constants: Collection[str]
    pointwise: str
    eps: float
    channels_last: bool = False
    together: bool = False
    native: bool = False
    kept: list[tuple[Callable, Tensor | None]] | None = None
    known: Iterator[tuple[Callable, Tensor | None]] | None = None

    def overwrite(self) -> None:
        """Tell that a signal which others may hold is about to be written into."""
        if self.native or self.channels_last:  # a copy for another layout is no view
            raise Again

    def place(self) -> str:
        """The innermost module of the network that is running: "'layer1.0' (Block, line 12 of net.py)"."""
        names = {id(module): name for name, module in self.model.named_modules()}
        frame = sys._getframe()
        while frame is not None:
            module = frame.f_locals.get("self")
            if isinstance(module, nn.Module) and id(module) in names:
                line = f"line {frame.f_lineno} of {Path(frame.f_code.co_filename).name}"
                name = repr(names[id(module)]) if names[id(module)] else "the network itself"
                return f"{name} ({type(module).__name__}, {line})"
            frame = frame.f_back  # type: ignore[assignment]
        return "the network"


class Lanes(Tensor):
    """A signal of the network at x0 together with what the frozen network makes of x1.

    To the network it is a tensor like the one in lane 0. Every function that PyTorch calls on it is looked up in the
    rules of the replay.

    Attributes:
        x0: the signal, exactly as without a replay.
        x1: the same shape; None for a decision of lane 0 (a mask, an index, a statistic), which is frozen.
        replay: what holds for this pass.
        viewed: whether other lanes may be views of these, or these of others.
    """

    x0: Tensor
    x1: Tensor | None
    replay: Replay
    viewed: bool

    @staticmethod
    def __new__(cls, x0: Tensor, x1: Tensor | None, replay: Replay) -> Lanes:
        """An empty shell of the right shape around both lanes."""
        shell = Tensor._make_wrapper_subclass(cls, x0.shape, dtype=x0.dtype, device=x0.device)
        shell.x0, shell.x1, shell.replay, shell.viewed = x0, x1, replay, False
        return shell

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Follow the rule for this function."""
        with torch._C.DisableTorchFunctionSubclass():
            return _follow(func, list(args), dict(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Only compiled code gets here, past the functions that have rules."""
        raise NotImplementedError(
            f"the network calls {func} from compiled code, which cannot be frozen; run it eagerly"
        )


@dataclass
class Call:
    """One call of a function on lanes, without in-place effects.

    Attributes:
        function: what is called.
        args: positional arguments, the signal first.
        kwargs: named arguments.
        replay: what holds for this pass.
    """

    function: Callable
    args: list[Any]
    kwargs: dict[str, Any]
    replay: Replay

    @property
    def signal(self) -> Lanes:
        """The first argument."""
        first = self.args[0]
        if not isinstance(first, Lanes):
            raise NotImplementedError(f"{self.told} needs the signal as its first argument")
        return first

    @property
    def told(self) -> str:
        """The function and where in the network it is called."""
        return f"{torch.overrides.resolve_name(self.function) or self.function} in {self.replay.place()}"

    @property
    def native(self) -> bool:
        """Whether PyTorch's derivative may stand for the unit's action."""
        return self.replay.native and self.signal.x1 is not None

    def lay_out(self) -> None:
        """Undo channels last in lane 1 of the signal, for what may not take them."""
        x = self.args[0]
        if self.replay.channels_last and isinstance(x, Lanes) and x.x1 is not None:
            x.x1 = x.x1.contiguous()

    @cached_property
    def y0(self) -> Tensor:
        """What the function returns in lane 0."""
        return self.on(self.args, 0)

    def on(self, args: Sequence[Any], lane: int, **changed: Any) -> Any:
        """Call the function on one lane of these arguments."""
        kwargs = {key: self.pick(value, lane) for key, value in (self.kwargs | changed).items()}
        return self.function(*[self.pick(value, lane) for value in args], **kwargs)

    def at(self, t: Tensor) -> Any:
        """Call the function on ``t`` in place of the signal, with the other arguments of lane 0."""
        return self.on([t, *self.args[1:]], 0)

    def pick(self, value: Any, lane: int) -> Any:
        """One lane of a value; weights come without their gradients."""
        if type(value) in PLAIN:
            return value
        if isinstance(value, Lanes):
            if lane == 0 or not value.x0.is_floating_point():
                return value.x0
            return self.constant(value.x0) if value.x1 is None else value.x1
        if isinstance(value, (list, tuple)):
            return value if PLAIN.issuperset(map(type, value)) else type(value)([self.pick(v, lane) for v in value])
        return value.detach() if isinstance(value, Tensor) and value.requires_grad else value

    def constant(self, value: Any, kind: str = "other") -> Any:
        """A constant as lane 1 sees it: itself, or zero of its shape where its kind does not count."""
        value = self.pick(value, 0)
        if kind in self.replay.constants:
            return value
        return torch.zeros_like(value) if isinstance(value, Tensor) else 0

    def freeze(self, action: Callable[[Tensor], Tensor], kind: str = "unit") -> Lanes:
        """Lanes of a unit from its linear action; its constant part is whatever is then missing in lane 0."""
        x = self.signal
        if x.x1 is None:
            return Lanes(self.y0, None, self.replay)
        y1 = action(x.x1)
        if self.replay.together:  # values that are y0's to the last bit, with the action's derivative
            y1 = self.y0 + (y1 - y1.detach())
        elif kind in self.replay.constants:
            y1 = y1 + (self.y0 - action(x.x0))
        return Lanes(self.y0, y1.clone() if y1 is x.x1 else y1, self.replay)

    def affine(self, args: Sequence[Any], viewed: bool = False, **changed: Any) -> Any:
        """Both lanes of an affine function; lane 1 takes its own of these arguments."""
        y1 = self.on(args, 1, **changed)
        return self.join(y1 if self.replay.together else self.y0, y1, viewed)

    def join(self, y0: Any, y1: Any, viewed: bool = False) -> Any:
        """Both lanes of what a function returned, also where that is a sequence."""
        if isinstance(y0, Tensor):
            lanes = Lanes(y0.detach() if y0 is y1 else y0, y1, self.replay)
            lanes.viewed = viewed
            return lanes
        if isinstance(y0, (list, tuple)):
            pairs = [self.join(a, b, viewed) for a, b in zip(y0, y1 or [None] * len(y0), strict=True)]
            return type(y0)(pairs)
        return y0


Rule = Callable[[Call], Any]

VALUES = {"__bool__", "__float__", "__int__", "__index__", "__complex__", "item", "tolist", "numpy", "nonzero"}


def at_once(rule: Rule) -> Rule:
    """Mark a rule that in a native replay calls the function once for both lanes: then it need not be asked."""
    rule.at_once = True  # type: ignore[attr-defined]
    return rule


def _at_once(func: Callable, name: str, args: list[Any], kwargs: dict[str, Any]) -> Lanes | None:
    """What most calls of a trace come to, in half the time; None for calls that are not that plain."""
    signal = args[0] if args else None
    if type(signal) is not Lanes or not signal.replay.native or signal.x1 is None:
        return None
    replay, in_place = signal.replay, kwargs.get("inplace", False)
    if not hasattr(replay.rules.get(func) or replay.rules.get(name), "at_once") or (in_place and signal.viewed):
        return None
    if Lanes in map(type, args[1:]) or not PLAIN.issuperset(map(type, kwargs.values())):
        return None
    others = [value.detach() if isinstance(value, Tensor) else value for value in args[1:]]
    try:
        y = func(signal.x1, *others, **(kwargs | {"inplace": False} if in_place else kwargs))
    except (RuntimeError, IndexError):  # to be told in full
        return None
    if not isinstance(y, Tensor):
        return None
    if in_place:
        signal.x0, signal.x1 = y.detach(), y
    else:
        signal = Lanes(y.detach(), y, replay)
    if replay.kept is not None:
        replay.kept.append((func, signal.x0))
    return signal


def _follow(func: Callable, args: list[Any], kwargs: dict[str, Any]) -> Any:
    name, in_place = _spelled(func)
    if not in_place and (lanes := _at_once(func, name, args, kwargs)) is not None:
        return lanes
    if not args:  # F.relu(input=x)
        args.append(kwargs.pop("input" if "input" in kwargs else next(iter(kwargs))))
    if kwargs.get("inplace"):
        in_place, kwargs["inplace"] = True, False
    elif in_place:
        func = next(getattr(home, name) for home in (Tensor, F, torch) if hasattr(home, name))
    if kwargs.get("out", 0) is None:
        del kwargs["out"]
    target = args[0]
    if (
        in_place and isinstance(target, Lanes) and target.viewed and torch.is_grad_enabled()
    ):  # the way back must find what was decided by
        args[0] = Lanes(target.x0.clone(), target.x1, target.replay)
    call = Call(func, args, kwargs, _find(args, kwargs).replay)
    replay = call.replay
    rule = replay.rules.get(func) or replay.rules.get(name)
    if replay.known is not None:
        before, y0 = next(replay.known, (None, None))
        if before != func:
            raise Again
        if y0 is not None:
            call.y0 = y0
    if func.__name__ in VALUES:
        raise NotImplementedError(
            f"{call.told} asks for the value of a signal: control flow that depends on the data cannot be frozen; "
            f"give a rule for that module in extra"
        )
    if rule is None or "out" in kwargs:
        raise NotImplementedError(
            f"there is no rule for {call.told}; give one: extra={{{name!r}: rule}}, where rule(unit, x0, x1) is linear "
            f"in x1 and all else is decided by x0"
        )
    try:
        result = rule(call)
    except NotImplementedError:
        raise
    except (RuntimeError, IndexError) as error:  # the network does not take what it was given
        shapes = [tuple(value.shape) for value in args if isinstance(value, Tensor)]
        reason = str(error).split("\n")[0]
        raise ValueError(f"{call.told} does not take {' and '.join(map(str, shapes))}: {reason}") from error
    if replay.kept is not None:
        replay.kept.append((func, result.x0 if isinstance(result, Lanes) else None))
    return _overwrite(call, target, result) if in_place else result


def _overwrite(call: Call, target: Any, result: Lanes) -> Lanes:
    """Let an in-place operation reach all views of what it works on."""
    if not isinstance(target, Lanes) or (target.x1 is None and result.x1 is not None):
        raise NotImplementedError(f"{call.told} writes a signal into a constant in place; make a new tensor instead")
    if target.x0.shape != result.x0.shape:
        raise NotImplementedError(f"{call.told} changes a shape in place; make a new tensor instead")
    y0, y1 = result.x0, result.x1
    if target.x1 is not None and y1 is None:
        y1 = call.constant(y0)
    if target.viewed:
        call.replay.overwrite()
        target.x0.copy_(y0)
        if target.x1 is not None and y1 is not None:
            target.x1.copy_(y1)
    else:
        target.x0, target.x1 = y0, y1
    return target


@lru_cache(1024)
def _spelled(func: Callable) -> tuple[str, bool]:
    """A function's bare name, and whether it works in place."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        name = getattr(func.__self__, "__name__", "property")  # type: ignore[attr-defined]
    if name in ("__setitem__", "copy_"):
        return name.strip("_"), False  # have rules of their own
    return name.strip("_"), name.endswith("_") and not name.endswith("__")


def _find(*values: Any) -> Lanes:
    for value in values:
        if isinstance(value, Lanes):
            return value
        if isinstance(value, (list, tuple, dict)) and value:
            found = _find(*(value.values() if isinstance(value, dict) else value))
            if found is not None:
                return found
    return None  # type: ignore[return-value]
