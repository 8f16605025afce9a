"""torch's hooks on all modules and on backward, shared by the watches that are open; nothing is attached to a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from pellucid.activations import graph, scaler
from pellucid.activations.calls import Calls
from pellucid.activations.losses import Losses

_calls: list[Calls] = []
_losses: list[Losses] = []
_hook: Any = None
_pre_hook: Any = None
_backward: Any = None
_hidden = 0


def attach(calls: Calls, losses: Losses | None) -> None:
    """Report the calls of a model, and the losses that `backward` is called on, if those are wanted."""
    global _hook, _pre_hook, _backward
    _calls.append(calls)
    if _hook is None:
        _hook = register_module_forward_hook(_forward)
    if _pre_hook is None and calls.are_steps:
        _pre_hook = register_module_forward_pre_hook(_before_forward)
    if losses is None:
        return
    _losses.append(losses)
    installed = _backward is not None and torch.autograd.backward is not _backward
    if not installed:
        _backward = torch.autograd.backward
        torch.autograd.backward = _recording_backward
        scaler.remember()


def detach(calls: Calls, losses: Losses | None) -> None:
    """End that; each hook goes with the last that needs it. Safe at any point of an `attach` that was interrupted."""
    global _hook, _pre_hook, _backward
    if calls in _calls:
        _calls.remove(calls)
    if losses in _losses:
        _losses.remove(losses)
    if not _calls and _hook is not None:
        _hook.remove()
        _hook = None
    if _pre_hook is not None and not any(each.are_steps for each in _calls):
        _pre_hook.remove()
        _pre_hook = None
    if _backward is not None and not _losses:
        if torch.autograd.backward is _recording_backward:  # else someone put another one before ours, which it calls
            torch.autograd.backward, _backward = _backward, None
        scaler.forget()


@contextmanager
def unseen() -> Iterator[None]:
    """Hide what runs inside the block from the watches that are open: a pass that belongs to no training."""
    global _hidden
    calls, losses = _calls[:], _losses[:]
    _calls[:], _losses[:] = [], []
    _hidden += 1
    try:
        yield
    finally:
        _hidden -= 1
        _calls[:], _losses[:] = calls, losses


def is_hidden() -> bool:
    """Whether what runs now is to be hidden from whoever watches."""
    return _hidden > 0


def _before_forward(module: nn.Module, inputs: Any) -> None:
    for calls in _calls:
        if calls.are_steps and module is calls.model:
            calls.begin()


def _forward(module: nn.Module, inputs: Any, output: Any) -> None:
    for calls in _calls:
        row = calls.rows.get(id(module))
        if row is not None:
            calls.read(row, module, inputs, output)
        if module is calls.model:
            calls.end()


def _recording_backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
    backward, unsure = _backward, []
    due = [losses for losses in _losses if losses.recording.due]
    loss = graph.loss_of(tensors) if due else None
    if loss is not None:
        only = kwargs.get("inputs") if len(args) < 5 else args[4]
        for losses in due:
            if losses.owns(tensors if only is None else only, leaves=only is not None):
                losses.recording.loss(loss)
            elif only is None:  # behind a reentrant checkpoint or in a shard no parameter is in sight before
                leaves = losses.leaves()
                unsure.append((losses.recording, leaves, graph.gradients(leaves)))
    result = backward(tensors, *args, **kwargs)
    for recording, leaves, before in unsure:
        if graph.differ(before, graph.gradients(leaves)):
            recording.loss(loss)
    return result
