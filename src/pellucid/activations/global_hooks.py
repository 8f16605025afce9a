"""torch's hooks on all modules and on backward, shared by the watches that are open; nothing is attached to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from pellucid.activations import scaler

if TYPE_CHECKING:
    from pellucid.activations.watch import Watch

_watches: list[Watch] = []
_hook: Any = None
_backward: Any = None


def attach(watch: Watch) -> None:
    """Let a watch see what its modules put out, and the losses that `backward` is called on."""
    global _hook, _backward
    _watches.append(watch)
    if _hook is None:
        _hook = register_module_forward_hook(_forward)
    if _backward is None and any(map(_wants_losses, _watches)):
        _backward = torch.autograd.backward
        torch.autograd.backward = _recording_backward
        scaler.remember()


def detach(watch: Watch) -> None:
    """End that; with the last watch the hooks go."""
    global _hook, _backward
    _watches.remove(watch)
    if not _watches and _hook is not None:
        _hook.remove()
        _hook = None
    if _backward is not None and not any(map(_wants_losses, _watches)):
        torch.autograd.backward, _backward = _backward, None
        scaler.forget()


def _wants_losses(watch: Watch) -> bool:
    return watch.with_loss and not watch.by_hand


def _forward(module: nn.Module, inputs: Any, output: Any) -> None:
    for watch in _watches:
        row = watch.rows.get(id(module))
        if row is not None:
            watch.seen(row, module, inputs, output)
        passes_are_steps = watch.optimizer is None and not watch.by_hand
        if passes_are_steps and module is watch.root and module.training and torch._C._current_graph_task_id() == -1:
            watch.advance()


def _recording_backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(tensors, Tensor) and tensors.numel() == 1:
        for watch in filter(_wants_losses, _watches):
            watch.record_loss(scaler.unscaled(tensors))
    return _backward(tensors, *args, **kwargs)
