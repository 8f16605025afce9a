"""A function of torch's that was called: what it is, where, and under which settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Autocast = tuple[tuple[str, torch.dtype], ...]


@dataclass(eq=False)
class Operation:
    """A function of torch's that was called, with what it was given and what it returned.

    Attributes:
        name: Of the function; of a property (`x.T`) the property's; `''` of a call of the model.
        function: Itself; of a call of the model, or of a module in it, the module's dotted path.
        module: Dotted path of the innermost module of the model that it ran in; `''` is the model itself, None is
            outside of it.
        kind: Class name of the innermost module that it ran in, whether the model has it or not; `''` without one.
        file, line: Innermost line of code that belongs to neither torch nor pellucid; `''` if there is none.
        grad, autocast: Whether gradients were on, and for which devices and data types autocast was.
    """

    name: str
    function: Callable[..., Any] | str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    module: str | None
    kind: str
    file: str
    line: int
    grad: bool
    autocast: Autocast

    @property
    def where(self) -> str:
        """As messages say it: `train.py:31`."""
        return f"{os.path.basename(self.file)}:{self.line}" if self.file else ""

    @property
    def changed(self) -> Tensor | None:
        """The tensor that it changed in place, if it did."""
        return changed_by(self.name, self.args, self.kwargs)


def name_of(function: Callable[..., Any]) -> str:
    """Its name; `T` for the getter of `Tensor.T`."""
    name = getattr(function, "__name__", type(function).__name__)
    return getattr(function.__self__, "__name__", name) if name in ("__get__", "__set__") else name  # pyright: ignore


def changed_by(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The tensor that a function changes in place: `add_`, `x[i] = y`, `x += y`, `relu(x, inplace=True)`, `out=x`."""
    if isinstance(kwargs.get("out"), Tensor):
        return kwargs["out"]
    by_name = name.endswith("_") if not name.endswith("__") else name == "__setitem__" or name[2:3] == "i"
    if (by_name or kwargs.get("inplace")) and name not in ("__invert__", "__index__", "__int__"):
        return args[0] if args and isinstance(args[0], Tensor) else None
    return None


def autocasting() -> Autocast:
    """The devices for which autocast is on, and their data types."""
    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return tuple((kind, torch.get_autocast_dtype(kind)) for kind in kinds if torch.is_autocast_enabled(kind))


def version_of(t: Tensor) -> int:
    """How often it was changed in place; 0 for tensors of inference mode, which do not count."""
    return 0 if t.is_inference() else t._version
