"""Parameter groups: of a model, from its input on, and the learning rate of each; and those an optimizer has.

A splitter takes a model and gives its groups: a list of lists of parameters, or one flat list for a single group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from pellucid.errors import UsageError
from pellucid.number import is_number, number

LearningRate = float | Sequence[float] | slice
Splitter = Callable[[nn.Module], Iterable[nn.Parameter] | Iterable[Iterable[nn.Parameter]]]


def params(model: nn.Module) -> list[nn.Parameter]:
    """All parameters, as one group."""
    return list(model.parameters())


def trainable_params(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained, as one group."""
    return [p for p in model.parameters() if p.requires_grad]


def default_split(model: nn.Module) -> list[list[nn.Parameter]]:
    """Two groups: the first child of a Sequential (the body) and the others (the head).

    Raises:
        UsageError: the model is no Sequential of two or more children.
    """
    return split_at(1)(model)


def split_at(*children: int) -> Callable[[nn.Module], list[list[nn.Parameter]]]:
    """A splitter that begins a new group at each of these children of a Sequential.

    Its groups are those of one model: `split_at(2, 4)` gives children 0 and 1, then 2 and 3, then the rest.

    Args:
        children: Ascending indices of children, negative ones from the end.

    Raises:
        UsageError: when it is used: the model is no Sequential, or the indices do not cut it into parts.
    """

    def splitter(model: nn.Module) -> list[list[nn.Parameter]]:
        if not isinstance(model, nn.Sequential):
            raise UsageError(
                f"split_at cuts a Sequential between its children, this model is a {type(model).__name__}: "
                "write a splitter, model → [params(model.body), params(model.head)]"
            )
        n = len(model)
        cuts = [0, *(i + n if i < 0 else i for i in children), n]
        if any(a >= b for a, b in pairwise(cuts)):
            raise UsageError(f"split_at{children} does not cut {n} children (0 to {n - 1}) into parts, in order")
        return [params(nn.ModuleList(list(model)[a:b])) for a, b in pairwise(cuts)]

    return splitter


def split(model: nn.Module, splitter: Splitter) -> list[list[nn.Parameter]]:
    """The groups a splitter makes of a model: each parameter in the first that holds it, none without parameters.

    Raises:
        UsageError: it gave something that is no parameter.
    """
    given: list[Any] = list(splitter(model))
    groups = [given] if all(isinstance(g, Tensor) for g in given) else given
    made: list[Any] = [[g] if isinstance(g, nn.Module | Tensor) else list(g) for g in groups]
    for i, group in enumerate(made):
        wrong = next((p for p in group if not isinstance(p, Tensor)), None)
        if wrong is not None:
            raise UsageError(
                f"the splitter's group {i} holds a {type(wrong).__name__}, not parameters: "
                "return lists of them, [params(model.body), params(model.head)]"
            )
    seen: set[int] = set()
    first = [[p for p in group if id(p) not in seen and not seen.add(id(p))] for group in made]
    return [group for group in first if group] or [[]]


def groups_of(optimizer: Any) -> list[Mapping[str, Any]]:
    """The parameter groups of an optimizer of torch's, or the settings of the groups of one of fastai's."""
    return list(getattr(optimizer, "param_groups", None) or getattr(optimizer, "hypers", []))


def parameters_of(optimizer: Any) -> list[Tensor]:
    """The tensors an optimizer moves."""
    return [p for group in groups_of(optimizer) for p in group.get("params", ())]


def spread(lr: LearningRate, n_groups: int) -> list[float]:
    """One learning rate for each of `n_groups` parameter groups, from the input on.

    A number is the rate of all groups, a sequence has one a group. `slice(a, b)` spreads from a to b in equal ratios;
    `slice(b)` gives b to the last group and b / 10 to the others. A single group takes b.

    Args:
        lr: Numbers may be Python's, numpy's or those of arrays and tensors.
        n_groups: How many.

    Raises:
        UsageError: the sequence has another length; a slice has no end, a step, or ends that are not positive; a rate
            is negative or no number.

    >>> spread(slice(1e-4, 1e-2), 3)
    [0.0001, 0.001, 0.01]
    """
    if isinstance(lr, slice):
        return _spread_slice(lr, n_groups)
    if is_number(lr):
        return [_rate(lr)] * n_groups
    if isinstance(lr, str) or not isinstance(lr, Iterable):
        raise UsageError(f"a learning rate is a number, one number a parameter group, or a slice, got {lr!r}")
    rates = [_rate(rate) for rate in lr]
    if len(rates) != n_groups:
        raise UsageError(f"{len(rates)} learning rates for {n_groups} parameter groups")
    return rates


def _spread_slice(lr: slice, n_groups: int) -> list[float]:
    if lr.stop is None or lr.step is not None:
        raise UsageError(f"learning rates are slice(first group's, last group's) or slice(last group's), got {lr}")
    start = None if lr.start is None else number(lr.start, "a learning rate")
    stop = _rate(lr.stop) if start is None else number(lr.stop, "a learning rate")
    if start is not None and min(start, stop) <= 0:
        raise UsageError(f"slice({start}, {stop}) spreads in equal ratios: both rates must be positive")
    if n_groups == 1:
        return [stop]
    if start is None:
        return [stop / 10] * (n_groups - 1) + [stop]
    return [start * (stop / start) ** (i / (n_groups - 1)) for i in range(n_groups)]


def _rate(value: Any) -> float:
    rate = number(value, "a learning rate")
    if rate < 0:
        raise UsageError(f"a learning rate cannot be negative, got {rate:g}")
    return rate
