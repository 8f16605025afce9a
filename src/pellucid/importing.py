"""Functions and classes of other people, named as `module:name`: found by name, called only where that is allowed.

A file may name any function on this machine, `os:system` as well. So whoever opens it writes the names down that may be
imported, and nothing is ever imported out of the folder that the file lies in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pellucid.errors import UsageError
from pellucid.text import printable


def is_foreign(name: str) -> bool:
    """Whether this names something by its module, rather than something of pellucid's own."""
    return ":" in name


def described(name: str, arguments: Mapping[str, Any] | None) -> str:
    """As a call, such as `nets:small(width=8)`; without arguments at all as the name alone."""
    listed = ", ".join(f"{key}={value!r}" for key, value in (arguments or {}).items())
    return printable(name if arguments is None else f"{name}({listed})")


def imported(name: str) -> Any:
    """What `module:name` names; the name may be one in a class.

    Raises:
        UsageError: there is no such module or name, or what it names cannot be called.
    """
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, ValueError, AttributeError) as error:
        raise UsageError(f"{printable(name)} cannot be imported: {printable(error)}") from error
    if not callable(found):
        raise UsageError(f"{printable(name)} is no function or class but a {type(found).__name__}")
    return found


def name_of(thing: Any, makes: str) -> str:
    """The `module:name` of a function or class.

    Args:
        thing: The function or class.
        makes: What it is for, in the message, such as "makes the model".

    Raises:
        UsageError: it cannot be imported by that name, as a lambda or a function of a notebook.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not callable(thing) or not module or module == "__main__" or not name or "<" in name:
        what = name or f"an object of class {type(thing).__name__}"
        raise UsageError(
            f"{what} cannot be imported by another program: put the function or class that {makes} into a module (a "
            ".py file), and give it, or its name as 'module:function'"
        )
    if imported(f"{module}:{name}") is not thing:
        raise UsageError(f"{module}:{name} is another object than the one given")
    return f"{module}:{name}"


def json_arguments(arguments: Mapping[str, Any] | None, of: str) -> dict[str, Any]:
    """Arguments as they come back from JSON; `of` says whose they are.

    Raises:
        UsageError: they do not fit into JSON, or would come back changed.
    """
    if arguments is not None and not isinstance(arguments, Mapping):
        raise UsageError(f"arguments of {of} are a dict, name → value, not {arguments!r}")
    given = dict(arguments or {})
    try:
        back = json.loads(json.dumps(given, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"arguments of {of} must fit into JSON: {error}") from None
    if back != given:
        raise UsageError(f"arguments of {of} must fit into JSON, these come back as {back}: {given}")
    return back


def refuse_own_code(name: str, folder: Path) -> None:
    """Make sure that a module does not come from the folder whose file names it.

    Raises:
        UsageError: it does, or there is no such module.
    """
    top = name.partition(":")[0].partition(".")[0]
    try:
        spec = find_spec(top)  # of a top-level name, which runs nothing
    except ValueError:  # an empty name, or __main__
        spec = None
    if spec is None:
        raise UsageError(f"no module {printable(top)!r} is installed, or on the path, which {printable(name)} needs")
    places = [spec.origin, *(spec.submodule_search_locations or ())]
    if any(place and Path(place).resolve().is_relative_to(folder.resolve()) for place in places):
        raise UsageError(f"{printable(name)} would be code out of the run folder itself: it is not run")
