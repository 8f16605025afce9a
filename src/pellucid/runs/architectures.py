"""How a run folder says which model its weights belong to, and how that model is made again.

An architecture is a name of `pellucid.nn.models`, one of a library such as `timm:resnet50` (see `nn.libraries`), or
`module:function` (a class is one, too), with arguments that fit into JSON. The last kind is code of others (see
`pellucid.importing`), called only if whoever opens the run allows it. Of the first two kinds, the argument `head` makes
a body and a head (see `nn.transfer`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pellucid import importing
from pellucid.errors import UsageError
from pellucid.importing import imported, is_foreign
from pellucid.nn.libraries import is_library
from pellucid.nn.models import ARCHITECTURES, check_own, create_model
from pellucid.nn.transfer import BodyAndHead, with_head
from pellucid.seed import kept_rng
from pellucid.text import printable

Arguments = Mapping[str, Any]


def make(arch: str, arguments: Arguments, shape: tuple[int, ...], n_out: int) -> nn.Module:
    """Make a model; a named architecture is also given channels in, classes out and the longest side.

    Raises:
        UsageError: there is no such architecture, it does not take these arguments, or what it makes is no module.
    """
    others = needs_permission(arch)
    if not others and len(shape) != 3:
        raise UsageError(f"{arch} takes images (channel, row, column), these have the shape {shape}")
    try:
        model = imported(arch)(**arguments) if others else _named(arch, arguments, shape[0], n_out, max(shape[1:]))
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UsageError(f"{described(arch, arguments)} cannot be made: {printable(error)}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"{described(arch, arguments)} is no torch module but a {type(model).__name__}")
    return model


def needs_permission(arch: str) -> bool:
    """Whether this is code of others, which runs only if whoever opens the run allows it."""
    return is_foreign(arch) and not is_library(arch)


def _named(arch: str, arguments: Arguments, n_in: int, n_out: int, size: int) -> nn.Module:
    if "head" in arguments:
        return with_head(arch, arguments, n_in, n_out, size)
    return create_model(arch, n_in, n_out, size, **arguments)


def outline(arch: str, arguments: Arguments, shape: tuple[int, ...], n_out: int) -> nn.Module | None:
    """The model without memory for its weights, or None where code of others cannot be run that way."""
    try:
        with kept_rng(), torch.device("meta"):
            return make(arch, arguments, shape, n_out)
    except (UsageError, NotImplementedError):  # a constructor that looks at values: there are none
        if is_foreign(arch):
            return None
        raise


def described(arch: str, arguments: Arguments) -> str:
    """As a call, such as `nets:small(width=8)`; a name of pellucid's without arguments as it is."""
    return importing.described(arch, arguments if arguments or is_foreign(arch) else None)


def of_model(model: nn.Module) -> dict[str, Any]:
    """The settings `arch`, `arguments` and `weights` of a model that knows how it is made again; of others none."""
    known = model.architecture if isinstance(model, BodyAndHead) else None
    if known is None:
        return {}
    return {"arch": known.name, "arguments": dict(known.arguments), "weights": dict(known.weights)}


def name_of(arch: Any) -> str:
    """The name that makes an architecture again: of a function or class, or the name itself.

    Raises:
        UsageError: a function that cannot be imported by its name, such as a lambda or one of a notebook.
    """
    if isinstance(arch, str):
        if needs_permission(arch):
            imported(arch)
        elif not is_library(arch):  # a library says itself what it lacks
            check_own(arch, ", or name a function or class that makes the model as 'module:function'")
        return arch
    known: dict[Any, str] = {function: known for known, function in ARCHITECTURES.items()}
    if callable(arch) and arch in known:
        return known[arch]
    return importing.name_of(arch, "makes the model")
