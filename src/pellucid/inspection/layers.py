"""The layers with parameters of a model: what a number counts, wherever a layer is asked for."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

Layer = str | int | nn.Module | None  # how a layer is asked for, see `Lookup.name`


def with_parameters(model: nn.Module) -> dict[str, nn.Module]:
    """Name → module of those with parameters of their own, in the order of the flattened model, each once.

    Left out are those that are never called: lists of parameters, what computes a parametrized weight, and the
    projection inside an `nn.MultiheadAttention`, whose output is the attention's own.
    """
    unseen = never_called(model)
    return {name: module for name, module in model.named_modules() if id(module) not in unseen and _has_own(module)}


def never_called(model: nn.Module) -> set[int]:
    """Identities of modules that no call of the model reaches, whatever they hold."""
    found = set()
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue  # its class has no `forward` to look at
        if type(module).forward is nn.Module.forward:  # not defined: lists and dicts of parameters
            found.add(id(module))
        elif type(module).forward is nn.MultiheadAttention.forward:
            found.add(id(module.out_proj))
        if is_parametrized(module):
            found |= {id(m) for m in module.parametrizations.modules()}  # type: ignore[union-attr, operator]
    return found


def _has_own(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None or is_parametrized(module)
