"""Functions of torch's that run between the model's call and `backward`, at looks: what, where, with what result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, overrides
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from pellucid.activations.targets import is_readable
from pellucid.doctor import lines
from pellucid.doctor.evidence.record import Op
from pellucid.doctor.listening import Listener, give_up, passing_over
from pellucid.doctor.modes import put, take_away

LEAVING = "item", "tolist", "numpy", "__array__", "__float__", "__int__", "__bool__"  # nothing follows from them
_PROPERTIES = "data", "T", "mT", "H", "mH", "real", "imag"
_MAX_VALUES = 8_000_000  # that statistics are of
LOW, HIGH = -0.97, 0.97
_BOUNDS = (
    (1, "min_val", -1),
    (2, "max_val", 1),
)  # of hardtanh: place and name of the argument, and what it is if not given

Watcher = Callable[["Seen"], None]


class Seen:
    """A function that is called.

    Attributes:
        name: Of the function.
        args, kwargs, result: What it was given, and, when it has returned, what it gave.
        path, kind: Dotted name and class of the innermost module of the model that it runs in; None outside.
        module: That module.
    """

    def __init__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], path: str | None, module: Any):
        self.name, self.args, self.kwargs, self.path, self.module = name, args, kwargs, path, module
        self.kind = type(module).__name__ if path is not None else ""
        self.result: Any = None

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among its arguments."""
        given = [*self.args, *self.kwargs.values()]
        inner = [each for x in given if isinstance(x, list | tuple) for each in x]
        return [x for x in (*given, *inner) if isinstance(x, Tensor)]


# A module, and the versions of its own parameters by name: they count every change in place, as a step makes it.
Stranger = tuple[nn.Module, dict[str, int]]


class Functions(overrides.TorchFunctionMode):
    """Tells two functions of every call: `before` it runs, since it may change what it is given, and `after`.

    Args:
        owner: The listener that is given up where they fail.
        model: Whose modules are named.
        before, after: What they are.

    Attributes:
        order: Dotted names of the modules, in the order of the pass that called most of them.
        strangers: Modules with parameters that were called inside the model and do not belong to it, by identity.
    """

    def __init__(self, owner: Listener, model: nn.Module, before: Watcher, after: Watcher):
        self.owner, self.model, self.before, self.after = owner, model, before, after
        self.on = False
        self._hooks: list[Any] = []
        self._stack: list[nn.Module] = []
        self._paths: dict[int, str] = {}
        self.order: dict[str, None] = {}
        self._called: dict[str, None] = {}
        self.strangers: dict[int, Stranger] = {}

    def start(self, module: nn.Module) -> None:
        """Begin; this module is being called."""
        self.stop()
        self._paths = {id(m): path for path, m in self.model.named_modules()}
        self._stack, self._called = [], {}
        self._enter(module, ())
        self._hooks = [register_module_forward_pre_hook(self._enter), register_module_forward_hook(self._leave)]
        self.on = True
        put(self)

    def pause(self) -> None:
        """Tell no more: also where it cannot be taken off at once, since a mode is handling the call that runs."""
        self.on = False
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        # The first pass misses what ran before it was known that it belongs to the model.
        if len(self._called) > len(self.order):
            self.order = self._called | self.order

    def stop(self) -> None:
        """End."""
        self.pause()
        take_away(self)

    def _enter(self, module: nn.Module, _: Any) -> None:
        self._stack.append(module)
        if id(module) in self._paths:
            self._called.setdefault(self._paths[id(module)])
        elif id(module) not in self.strangers and any(id(m) in self._paths for m in self._stack):
            versions = {name: p._version for name, p in module.named_parameters(recurse=False)}
            if versions:
                self.strangers[id(module)] = module, versions

    def _leave(self, module: nn.Module, _: Any, __: Any) -> None:
        while self._stack and self._stack.pop() is not module:
            pass

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func) if self.on else ""
        if not name:
            return func(*args, **kwargs)
        module = next((m for m in reversed(self._stack) if id(m) in self._paths), None)
        name = _of_bounds(name, args, kwargs)
        seen = Seen(name, args, kwargs, None if module is None else self._paths[id(module)], module)
        self._tell(self.before, seen)
        seen.result = func(*args, **kwargs)
        self._tell(self.after, seen)
        return seen.result

    def _tell(self, watcher: Watcher, seen: Seen) -> None:
        with passing_over():
            try:
                if self.on:
                    watcher(seen)
            except Exception as error:
                give_up(self.owner, error)


def name_of(func: Any) -> str:
    """The function's name; `''` for one that only asks for a property, such as a shape."""
    name = getattr(func, "__name__", "")
    if name in ("__get__", "__set__"):
        name = getattr(func.__self__, "__name__", "")
        return name if name in _PROPERTIES else ""
    return name


def _of_bounds(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The name of what `hardtanh` is with its bounds: `nn.ReLU6` calls it with 0 and 6; with others it is a clamp."""
    if name not in ("hardtanh", "hardtanh_"):
        return name
    given = [kwargs.get(key, args[i] if len(args) > i else usual) for i, key, usual in _BOUNDS]
    return "relu6" if given == [0, 6] else name if given == [-1, 1] else "clamp"


def described(seen: Seen) -> Op | None:
    """The operation with the statistics of its result; None if it gave no tensor and nothing followed from it."""
    result = seen.result[0] if isinstance(seen.result, list | tuple) and seen.result else seen.result
    if not isinstance(result, Tensor):
        if seen.name not in LEAVING or not seen.tensors or seen.tensors[0].numel() < 2:
            return None
        return Op(seen.name, seen.path, seen.kind, lines.where(), tuple(seen.tensors[0].shape), attached=False)
    op = Op(seen.name, seen.path, seen.kind, lines.where(), tuple(result.shape), attached=result.requires_grad)
    if is_readable(result) and result.numel():
        x = result.detach()
        x = x[: max(1, _MAX_VALUES // max(1, x[0].numel()))] if x.ndim else x
        x = x.float()
        op.mean, op.std = x.mean().item(), x.std(correction=0).item()
        op.min, op.max = (each.item() for each in torch.aminmax(x))
        op.zero, op.low, op.high = ((y.sum() / x.numel()).item() for y in (x == 0, x < LOW, x > HIGH))
        op.rows_sum_to_one = rows_sum_to_one(x)
    return op


def rows_sum_to_one(x: Tensor) -> float:
    """The share of rows, along the last axis of at least two, that are not negative and sum to 1 within 0.001."""
    if x.ndim < 2 or x.shape[-1] < 2:
        return np.nan
    return (((x.sum(-1) - 1).abs() < 1e-3) & (x.amin(-1) >= 0)).float().mean().item()
