"""Transforms as plain data: each has a name, becomes JSON, is made again from it, and may be undone. Without torch.

A transform, of one image or of a batch, is any callable. To say more about itself, its class may have

    decode(x)   undoes it, so that a batch can be shown as pictures
    to_json()   gives the keyword arguments that make the same transform again, as JSON holds them

A dataclass needs no `to_json`, nor does a class whose objects hold nothing; a function is its name. pellucid's own are
`registered` by the names of their classes, those of others known as `module:name`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pellucid.errors import UsageError
from pellucid.importing import described, imported, is_foreign, json_arguments, name_of
from pellucid.text import first_few, printable

Class = TypeVar("Class", bound=type)
Transform = Callable[[Any], Any]

# pellucid's own by their names, which run folders hold: a class may move to another module, and keeps its name.
ITEM_TRANSFORMS: dict[str, type] = {}
BATCH_TRANSFORMS: dict[str, type] = {}


def registered(among: dict[str, type]) -> Callable[[Class], Class]:
    """Class decorator: a transform of pellucid's, of images or of batches, that run folders know by its name."""

    def register(cls: Class) -> Class:
        among[cls.__name__] = cls
        return cls

    return register


def called(transform: Transform) -> str:
    """What messages call a transform: a function by its name, an object by that of its class."""
    return getattr(transform, "__name__", type(transform).__name__)


def undone(transform: Transform, x: Any) -> Any:
    """`x` before this transform; as it is where the transform cannot be undone."""
    decode = getattr(transform, "decode", None)
    return x if decode is None else decode(x)


def to_json(transform: Transform) -> dict[str, Any]:
    """A transform as JSON, its name and what it was made with; inverse of `from_json`.

    Raises:
        UsageError: it cannot be imported by its name, or it is not known what it was made with.
    """
    if inspect.isroutine(transform):
        return {"name": name_of(transform, "is the transform")}
    cls = type(transform)
    own = cls in (*ITEM_TRANSFORMS.values(), *BATCH_TRANSFORMS.values())
    name = cls.__name__ if own else name_of(cls, "makes the transform")
    return {"name": name, "arguments": json_arguments(_arguments(transform), cls.__name__)}


def from_json(value: Mapping[str, Any], known: Mapping[str, type]) -> Transform:
    """Make a transform again from `to_json`; one of others is imported, so their permission comes first.

    Args:
        value: Its name and arguments.
        known: pellucid's own: `ITEM_TRANSFORMS` or `BATCH_TRANSFORMS`.

    Raises:
        UsageError: there is no such transform, or it does not take these arguments.
    """
    name, arguments = value["name"], value.get("arguments")
    if not is_foreign(name) and name not in known:
        kind = "images" if known is ITEM_TRANSFORMS else "batches"
        raise UsageError(
            f"pellucid has no transform of {kind} {printable(name)!r}: there are {', '.join(known)}, and those of "
            "others as 'module:name'"
        )
    found = imported(name) if is_foreign(name) else known[name]
    if arguments is None:
        return found
    try:
        made = found(**arguments)
    except (TypeError, ValueError, OverflowError, RuntimeError, UsageError) as error:
        raise UsageError(f"{described(name, arguments)} cannot be made: {printable(error)}") from error
    if not callable(made):
        raise UsageError(f"{described(name, arguments)} is no transform but a {type(made).__name__}")
    return made


def _arguments(transform: Any) -> dict[str, Any]:
    if hasattr(transform, "to_json"):
        return transform.to_json()
    if is_dataclass(transform):
        return {field.name: getattr(transform, field.name) for field in fields(transform) if field.init}
    held = [name for name in getattr(transform, "__dict__", {}) if name != "split_idx"]
    if held:
        held.sort(key=lambda name: (name.startswith("_"), name))
        raise UsageError(
            f"{called(transform)} does not say what it was made with (it holds {first_few(held, 3)}): give it a "
            "method to_json that returns its arguments, or make it a dataclass"
        )
    return {}
