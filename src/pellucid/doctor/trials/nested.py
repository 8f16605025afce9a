"""Tensors in the arguments and results of a call: in lists, tuples, dicts, dataclasses and what is like them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors in a value, in an order that is the same for values of the same structure."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors_of(each)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from tensors_of(each)
    elif isinstance(value, slice):
        yield from tensors_of((value.start, value.stop, value.step))
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name, None))


def replaced(value: Any, replace: Callable[[Any], Any]) -> Any:
    """The value with each leaf replaced; lists, tuples and mappings are made anew, everything else is a leaf."""
    if isinstance(value, dict) and type(value) is dict:
        return {name: replaced(each, replace) for name, each in value.items()}
    if isinstance(value, Mapping):
        made: Any = copy.copy(value)  # keeps the class of a BatchEncoding, whose items are also attributes
        for name, each in value.items():
            made[name] = replaced(each, replace)
        return made
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(replaced(each, replace) for each in value))
    if isinstance(value, list | tuple):
        return type(value)(replaced(each, replace) for each in value)
    if isinstance(value, slice):
        return slice(*(replaced(each, replace) for each in (value.start, value.stop, value.step)))
    return replace(value)
