"""Which modules are watched, and which of their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules import activation

from pellucid.errors import UsageError
from pellucid.inspection.layers import never_called, with_parameters

Which = str | type[nn.Module] | nn.Module | Callable[[str, nn.Module], bool]
ACTIVATIONS = tuple(
    cls
    for cls in vars(activation).values()
    if isinstance(cls, type)
    and issubclass(cls, nn.Module)
    and cls is not nn.MultiheadAttention
    and cls is not nn.Module
)


def plain(model: nn.Module) -> nn.Module:
    """The model inside wrappers of torch's: DistributedDataParallel, DataParallel, torch.compile.

    Raises:
        UsageError: it is a TorchScript module.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageError(
            "a TorchScript module runs its layers where they cannot be seen; watch the module it came from"
        )
    while True:
        inner = model._modules.get("_orig_mod")
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def is_activation(module: nn.Module) -> bool:
    """Whether it is an activation function of torch.nn without parameters."""
    return isinstance(module, ACTIVATIONS) and not list(module.parameters(recurse=False))


def choose(model: nn.Module, which: Which | Sequence[Which] | None = None) -> dict[str, nn.Module]:
    """Name → module of those to watch, in the model's order.

    Args:
        model: Where.
        which: None takes every module with parameters of its own and every activation function, except those that are
            never called: lists of parameters, what computes a parametrized weight, and the projection inside an
            `nn.MultiheadAttention`, whose output is the attention's own. Else one or a list of: a name or pattern
            (`'features.*'`), a class, a module, or a function (name, module) → bool.

    Raises:
        UsageError: a name, pattern, class or module matches nothing, or a module is asked for twice.
    """
    named = {name or type(model).__name__: module for name, module in model.named_modules()}
    if which is None:
        unseen, own = never_called(model), {id(module) for module in with_parameters(model).values()}
        found = {n: m for n, m in named.items() if id(m) in own or (is_activation(m) and id(m) not in unseen)}
        return found or _fail(model)
    asked: list[Any] = list(which) if isinstance(which, list | tuple | nn.ModuleList) else [which]
    modules = [id(each) for each in asked if isinstance(each, nn.Module)]
    if len(modules) != len(set(modules)):
        raise UsageError("modules= lists the same module twice; each is watched once")
    if not asked:
        raise UsageError("modules=[] chooses nothing to watch; None takes all layers")
    chosen: set[str] = set()
    for each in asked:
        found = {name for name, module in named.items() if _matches(each, name, module)}
        if not found:
            raise UsageError(f"no module of {type(model).__name__} is {_said(each)}; there are {', '.join(named)}")
        chosen |= found
    return {name: module for name, module in named.items() if name in chosen}


def first_tensor(output: Any) -> Tensor | None:
    """The first floating-point tensor in an output of tuples, dicts or dataclasses; else the first of any kind."""
    return next((x for x in tensors_in(output) if x.is_floating_point()), next(tensors_in(output), None))


def tensors_in(output: Any) -> Iterator[Tensor]:
    """The tensors in an output of tuples, dicts or dataclasses, in order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_in(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from tensors_in(value)
    elif is_dataclass(output):
        for each in fields(output):
            yield from tensors_in(getattr(output, each.name))


def is_readable(x: Tensor) -> bool:
    """Whether it has floating-point values that can be looked at."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(x)  # pyright: ignore[reportAttributeAccessIssue]
    return (
        x.is_floating_point()
        and x.layout is torch.strided
        and not x.is_meta
        and not wrapped
        and not isinstance(x, FakeTensor)
    )


def kind(x: Tensor) -> str:
    """What to call a tensor that cannot be read."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(x)  # pyright: ignore[reportAttributeAccessIssue]
    layout = "" if x.layout is torch.strided else f"{x.layout} "
    return f"{layout}{x.dtype}" + " torch.func" * wrapped + " meta" * (x.is_meta or isinstance(x, FakeTensor))


def _matches(which: Which, name: str, module: nn.Module) -> bool:
    if isinstance(which, nn.Module):
        return module is which
    if isinstance(which, type):
        return isinstance(module, which)
    return fnmatchcase(name, which) if isinstance(which, str) else bool(which(name, module))


def _said(which: Which) -> str:
    return f"called {which!r}" if isinstance(which, str) else f"the given {getattr(which, '__name__', type(which))}"


def _fail(model: nn.Module) -> dict[str, nn.Module]:
    raise UsageError(f"{type(model).__name__} has no layer with parameters to watch")
