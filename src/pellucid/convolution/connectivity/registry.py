"""The rules: for every module and function, what it reads of its inputs and what it makes of that.

A rule is called like the function it describes, with the output's shape first and tensors as `Input`. A module is read
as a call whose arguments are the attributes of the same names. Receptive fields, traces, matrices, spreadsheets and the
page are derived from what rules return, so that an operation is described once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from pellucid.convolution.connectivity.axes import everything
from pellucid.convolution.connectivity.moves import Gather, Move, Reshape, Shape
from pellucid.convolution.connectivity.weights import Weights


@dataclass(frozen=True)
class Input:
    """A tensor that an operation was given: what made it, and its shape with a batch axis of one first."""

    made_by: str
    shape: Shape


class Read(NamedTuple):
    """What an output reads of one input; several reads of the same input are united.

    Attributes:
        source: The input.
        moves: From the input's places to the output's.
        weights: What becomes of the numbers read; None if that is no simple sum.
    """

    source: Input
    moves: tuple[Move, ...] = ()
    weights: Weights | None = None


Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}
GRIDS = ("1d", "2d", "3d")


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule under names of functions, methods and modules; one that ends in `?` is its 1d, 2d and 3d form."""

    def register(function: Rule) -> Rule:
        for name in " ".join(names).split():
            for dims in GRIDS if name.endswith("?") else ("",):
                RULES[name.removesuffix("?") + dims] = function
        return function

    return register


def rule_of(module: nn.Module) -> Rule | None:
    """The rule of a module: of its class, or of the class whose `forward` it inherits.

    A class of somebody's own that is called like one of PyTorch's, or overrides `forward`, computes something else.
    """
    for cls in type(module).__mro__:
        found = RULES.get(cls.__name__)
        known_name = cls.__module__.startswith("torch.") or not hasattr(nn, cls.__name__)
        if found and known_name and type(module).forward is cls.forward:
            return found
    return None


def reads_of(out: Any, target: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, bool]:
    """What a call reads of its inputs, and whether a rule is known.

    Args:
        out: Shape of the output, or a list of shapes.
        target: The module, the function or the method's name.
        args, kwargs: Of the call, tensors as `Input`.

    Returns:
        Reads, or a list of reads for each output if there are several. Without a rule, everything reads everything.
    """
    if isinstance(target, nn.Module):
        found = rule_of(target)
        kwargs = (_attributes(found, target) if found else {}) | kwargs
    else:
        name = target if isinstance(target, str) else target.__name__
        found = RULES.get(name.strip("_"))  # relu_ works in place, __add__ is an operator: they read the same
    # torch calls the first tensor input, rules call it x; a tensor to write into is not read.
    kwargs = {"x" if name == "input" else name: value for name, value in kwargs.items() if name != "out"}
    reads = found(out, *args, **kwargs) if found and _takes(found, out, args, kwargs) else None
    if reads is not None:
        return reads, True
    reads = [read for source in inputs_in((args, kwargs)) for read in whole(out, source)]
    return [reads] * len(out) if isinstance(out, list) else reads, False


def inputs_in(value: Any) -> list[Input]:
    """The tensors among arguments, nested lists included."""
    if isinstance(value, Input):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [source for item in value for source in inputs_in(item)] if isinstance(value, list | tuple) else []


def per_axis(value: Any, n: int) -> tuple[Any, ...]:
    """A setting for each of n axes, from one for all or one for each."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * n if len(values) == 1 else values


def whole(out: Any, x: Input) -> list[Read]:
    """Every output place reads every input place."""
    shape = out[0] if isinstance(out, list) else out
    # Over a single number in between, so that neither side needs a table of all pairs.
    gathers = [Gather(dim, everything(n, 1)) for dim, n in enumerate(x.shape)]
    ones = Reshape((1,) * len(x.shape), (1,) * len(shape))
    return [Read(x, (*gathers, ones, *(Gather(dim, everything(1, n)) for dim, n in enumerate(shape))))]


def _takes(found: Rule, *call: Any) -> bool:
    out, args, kwargs = call
    try:  # torch has overloads, of which a rule may describe one: max(x) and max(x, other)
        inspect.signature(found).bind(out, *args, **kwargs)
    except TypeError:
        return False
    return True


def _attributes(found: Rule, module: nn.Module) -> dict[str, Any]:
    names = [name for name, p in list(inspect.signature(found).parameters.items())[2:] if p.kind is not p.VAR_KEYWORD]
    return {name: getattr(module, name) for name in names if hasattr(module, name)}
