"""What other people's code can reach, judged by the names it uses and the values it holds."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

OURS = ("torch.", "pellucid.")
# Names by which a callback or a loss comes to weights, gradients or the activations inside a model.
REACHING = frozenset({
    "model", "module", "modules", "named_modules", "children", "layers", "parameters", "named_parameters", "params",
    "trainable_params", "state_dict", "weight", "weights", "grad", "hooks", "learn", "learner", "opt", "optimizer",
    "param_groups", "state", "view", "view_as", "stride", "data_ptr", "as_strided", "numpy",
    "getattr", "vars", "globals", "locals", "eval", "exec", "gc",
})  # fmt: skip


def is_ours(code: Any) -> bool:
    """Whether a function, or the class of an object, is torch's or ours."""
    return f"{getattr(code, '__module__', None) or type(code).__module__}.".startswith(OURS)


def reaches_weights(code: Any, seen: set[int] | None = None) -> bool:
    """Whether a function, a loss or a callback might touch the weights of the model that is trained.

    It is asked before every fit, so it must not run the code. Nobody comes to a weight without naming the model, the
    optimizer or the learner, or holding one of them: a timer or a plain loss does not. Where in doubt, it might.

    Args:
        code: A function, a method, a `partial`, a callback, or a loss.
        seen: Objects already looked at, by identity.
    """
    seen = set() if seen is None else seen
    if id(code) in seen:
        return False
    seen.add(id(code))
    if isinstance(code, partial):
        return _any([code.func, *code.args, *code.keywords.values()], seen)
    if isinstance(code, MethodType):
        return _any([code.__func__, code.__self__], seen)
    if isinstance(code, FunctionType):
        return not is_ours(code) and _function_reaches(code, seen)
    if isinstance(code, Tensor | Optimizer):
        return True
    if isinstance(code, list | tuple | set | dict):
        return _any(code.values() if isinstance(code, dict) else code, seen)
    if isinstance(code, type | ModuleType | BuiltinFunctionType) or not hasattr(code, "__dict__"):
        return False
    return _object_reaches(code, seen)


def _any(values: Iterable[Any], seen: set[int]) -> bool:
    return any(reaches_weights(value, seen) for value in values)


def _function_reaches(function: FunctionType, seen: set[int]) -> bool:
    names = _names(function.__code__)
    if names & REACHING:
        return True
    used = [function.__globals__[name] for name in names if name in function.__globals__]
    return _any([*_closed_over(function), *(function.__defaults__ or ()), *used], seen)


def _closed_over(function: FunctionType) -> list[Any]:
    values = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # a name that is not bound yet has an empty cell
            values.append(cell.cell_contents)
    return values


def _names(code: CodeType) -> set[str]:
    """Every name in a function's code, that of functions inside it too."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set().union(code.co_names, code.co_freevars, *inner)


def _object_reaches(thing: Any, seen: set[int]) -> bool:
    held = {name: value for name, value in vars(thing).items() if name != "learn"}  # naming it is what counts
    if isinstance(thing, nn.Module) and (thing._modules or thing._parameters):
        return True  # a loss that is a network, perhaps part of the very model
    if is_ours(type(thing)):
        return _any([value for value in held.values() if isinstance(value, FunctionType | MethodType)], seen)
    classes = [cls for cls in type(thing).__mro__ if cls is not object and not is_ours(cls)]
    functions = [getattr(value, "fget", value) for cls in classes for value in vars(cls).values()]
    return _any([*(f for f in functions if isinstance(f, FunctionType)), *held.values()], seen)
