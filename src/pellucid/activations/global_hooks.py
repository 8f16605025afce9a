"""torch's hooks on all modules and on backward, shared by the watches that are open; nothing is attached to a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from pellucid.activations import graph, scaler

if TYPE_CHECKING:
    from pellucid.activations.watch import Watch

_watches: list[Watch] = []
_hook: Any = None
_pre_hook: Any = None
_backward: Any = None


def attach(watch: Watch) -> None:
    """Let a watch see what its modules put out, and the losses that `backward` is called on."""
    global _hook, _pre_hook, _backward
    _watches.append(watch)
    if _hook is None:
        _hook = register_module_forward_hook(_forward)
    if _pre_hook is None and any(each.passes_are_steps for each in _watches):
        _pre_hook = register_module_forward_pre_hook(_before_forward)
    installed = _backward is not None and torch.autograd.backward is not _backward
    if not installed and any(map(_wants_losses, _watches)):
        _backward = torch.autograd.backward
        torch.autograd.backward = _recording_backward
        scaler.remember()


def detach(watch: Watch) -> None:
    """End that; with the last watch that needs it each hook goes."""
    global _hook, _pre_hook, _backward
    if watch in _watches:
        _watches.remove(watch)
    if not _watches and _hook is not None:
        _hook.remove()
        _hook = None
    if _pre_hook is not None and not any(each.passes_are_steps for each in _watches):
        _pre_hook.remove()
        _pre_hook = None
    if _backward is not None and not any(map(_wants_losses, _watches)):
        if torch.autograd.backward is _recording_backward:  # else someone put another one before ours, which it calls
            torch.autograd.backward, _backward = _backward, None
        scaler.forget()


@contextmanager
def unseen() -> Iterator[None]:
    """Hide what runs inside the block from the watches that are open: a pass that belongs to no training."""
    hidden, _watches[:] = _watches[:], []
    try:
        yield
    finally:
        _watches[:] = hidden


def _wants_losses(watch: Watch) -> bool:
    return watch.with_loss and not watch.by_hand


def _before_forward(module: nn.Module, inputs: Any) -> None:
    for watch in _watches:
        if watch.passes_are_steps and module is watch.root:
            watch.begin_pass()


def _forward(module: nn.Module, inputs: Any, output: Any) -> None:
    for watch in _watches:
        row = watch.rows.get(id(module))
        if row is not None:
            watch.seen(row, module, inputs, output)
        if module is watch.root:
            watch.end_pass()


def _recording_backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
    backward, unsure = _backward, []
    watches = [watch for watch in _watches if watch.due and _wants_losses(watch)]
    loss = graph.loss_of(tensors) if watches else None
    if loss is not None:
        only = kwargs.get("inputs") if len(args) < 5 else args[4]
        for watch in watches:
            if watch.owns(tensors if only is None else only, leaves=only is not None):
                watch.record_loss(loss)
            elif only is None:  # behind a reentrant checkpoint or in a shard no parameter is in sight before
                leaves = watch.leaves()
                unsure.append((watch, leaves, graph.gradients(leaves)))
    result = backward(tensors, *args, **kwargs)
    for watch, leaves, before in unsure:
        if graph.differ(before, graph.gradients(leaves)):
            watch.record_loss(loss)
    return result
