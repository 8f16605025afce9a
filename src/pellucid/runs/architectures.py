"""How a run folder says which model its weights belong to, and how that model is made again.

An architecture is a name of `pellucid.nn.models`, or `module:function` (a class is one, too) with arguments that fit
into JSON. The second kind is code of others: a file may name any function on this machine, `os:system` as well, so it
is called only if whoever opens the run wrote that very name down, and never if it lies in the run folder itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pellucid.errors import UsageError
from pellucid.nn.models import ARCHITECTURES
from pellucid.seed import kept_rng
from pellucid.text import printable

Arguments = Mapping[str, Any]


def make(arch: str, arguments: Arguments, shape: tuple[int, ...], n_out: int) -> nn.Module:
    """Make a model; a named architecture is also given channels in, classes out and the longest side.

    Raises:
        UsageError: there is no such architecture, it does not take these arguments, or what it makes is no module.
    """
    function, positional = _factory(arch), ()
    if not is_foreign(arch):
        if len(shape) != 3:
            raise UsageError(f"{arch} takes images (channel, row, column), these have the shape {shape}")
        positional = (shape[0], n_out, max(shape[1:]))
    try:
        model = function(*positional, **arguments)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UsageError(f"{described(arch, arguments)} cannot be made: {printable(error)}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"{described(arch, arguments)} is no torch module but a {type(model).__name__}")
    return model


def outline(arch: str, arguments: Arguments, shape: tuple[int, ...], n_out: int) -> nn.Module | None:
    """The model without memory for its weights, or None where code of others cannot be run that way."""
    try:
        with kept_rng(), torch.device("meta"):
            return make(arch, arguments, shape, n_out)
    except (UsageError, NotImplementedError):  # a constructor that looks at values: there are none
        if is_foreign(arch):
            return None
        raise


def is_foreign(arch: str) -> bool:
    """Whether an architecture is named by module, rather than one of `pellucid.nn.models`."""
    return ":" in arch


def described(arch: str, arguments: Arguments) -> str:
    """As a call, such as `nets:small(width=8)`."""
    listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return printable(f"{arch}({listed})" if arguments or is_foreign(arch) else arch)


def name_of(arch: Any) -> str:
    """The name that makes an architecture again: of a function or class, or the name itself.

    Raises:
        UsageError: a function that cannot be imported by its name, such as a lambda or one of a notebook.
    """
    if isinstance(arch, str):
        _factory(arch)
        return arch
    module, name = getattr(arch, "__module__", None), getattr(arch, "__qualname__", None)
    known: dict[Any, str] = {function: known for known, function in ARCHITECTURES.items()}
    if callable(arch) and arch in known:
        return known[arch]
    if not callable(arch) or not module or module == "__main__" or not name or "<" in name:
        what = name or f"an object of class {type(arch).__name__}"
        raise UsageError(
            f"{what} cannot be imported by another program: put the function or class that makes the model into "
            "a module (a .py file), and give it, or its name as 'module:function'"
        )
    if _factory(f"{module}:{name}") is not arch:
        raise UsageError(f"{module}:{name} is another object than the one given")
    return f"{module}:{name}"


def json_arguments(arguments: Arguments | None) -> dict[str, Any]:
    """Arguments as they come back from JSON.

    Raises:
        UsageError: they do not fit into JSON, or would come back changed.
    """
    if arguments is not None and not isinstance(arguments, Mapping):
        raise UsageError(f"arguments of an architecture are a dict, name → value, not {arguments!r}")
    given = dict(arguments or {})
    try:
        back = json.loads(json.dumps(given, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"arguments of an architecture must fit into JSON: {error}") from None
    if back != given:
        raise UsageError(f"arguments of an architecture must fit into JSON, these come back as {back}: {given}")
    return back


def refuse_own_code(arch: str, folder: Path) -> None:
    """Make sure that the module of an architecture does not come from the run folder.

    Raises:
        UsageError: it does, or there is no such module.
    """
    top = arch.partition(":")[0].partition(".")[0]
    try:
        spec = find_spec(top)  # of a top-level name, which runs nothing
    except ValueError:  # an empty name, or __main__
        spec = None
    if spec is None:
        raise UsageError(f"no module {printable(top)!r} is installed, or on the path, which {printable(arch)} needs")
    places = [spec.origin, *(spec.submodule_search_locations or ())]
    if any(place and Path(place).resolve().is_relative_to(folder.resolve()) for place in places):
        raise UsageError(f"{printable(arch)} would be code out of the run folder itself: it is not run")


def _factory(arch: str) -> Callable[..., Any]:
    if not is_foreign(arch):
        if arch not in ARCHITECTURES:
            raise UsageError(
                f"architecture {printable(arch)!r} does not exist: use one of {', '.join(ARCHITECTURES)}, or name a "
                "function or class that makes the model as 'module:function'"
            )
        return ARCHITECTURES[arch]
    module, _, path = arch.partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, ValueError, AttributeError) as error:
        raise UsageError(f"{printable(arch)} cannot be imported: {printable(error)}") from error
    if not callable(found):
        raise UsageError(f"{printable(arch)} is no function or class but a {type(found).__name__}")
    return found
