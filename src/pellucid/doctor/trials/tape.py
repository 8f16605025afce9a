"""Records one training pass, from the model's call to the loss, so that a copy of the model can make it again.

A `TorchFunctionMode` sees every function of torch's that is called meanwhile, and hooks on all modules say where. The
functions are called with the very arguments they were given; nothing is computed, drawn or attached to the model.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from itertools import chain
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn, overrides
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

import pellucid
from pellucid.activations import scaler
from pellucid.doctor.modes import put, take_away
from pellucid.doctor.trials import replay
from pellucid.doctor.trials.building import Builder
from pellucid.doctor.trials.nested import replaced, tensors_of
from pellucid.doctor.trials.operations import Operation, autocasting, changed_by, name_of, version_of
from pellucid.seed import RandomState

Frame = tuple[str, int]  # file and line
NOWHERE: Frame = "", 0

_HERE = __file__, scaler.__file__  # the second passes on what a GradScaler computes
_TORCH = os.path.dirname(torch.__file__) + os.sep
_PELLUCID = os.path.dirname(pellucid.__file__) + os.sep
# What is computed here while a training is watched is not of the training.
_WATCHING = tuple(os.path.join(_PELLUCID, *part, "") for part in (("activations",), ("doctor", "evidence")))
_GENERATED = "<frozen", "<string>", "<eval_with_key>"
_PENDING = object()  # result of a call that has not returned


class Tape:
    """Records passes of one model, one at a time.

    `begin` is called when the model, or a module in it, is called from outside of it; `finish` when `backward` is
    called on the loss; `abandon` if that does not happen. Further calls of the model before that belong to the pass.

    Attributes:
        ops: What was called since `begin`, in order, inside the model and outside; `finish` empties it.
        recording: Whether a pass is being recorded.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.ops: list[Operation] = []
        self.recording = False
        self._mode = _Mode(self)
        self._forget()

    def begin(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, module: nn.Module | None = None
    ) -> None:
        """Record from here on; `module` is the one that is called with these arguments, None for the model itself.

        A call while a pass is recorded belongs to that pass, unless the one before it did not return.
        """
        if self.recording and not self._stack:
            return  # the hooks see this call
        self.abandon()
        self._paths = {id(m): path for path, m in self.model.named_modules()}
        # Twice the same tensor under two names (tied weights) is one here.
        self._owned = {id(p): name for name, p in chain(self.model.named_buffers(), self.model.named_parameters())}
        self._modes = {path: m.training for path, m in self.model.named_modules()}
        self._random, self._thread = RandomState(), threading.get_ident()
        self._begun = self.model if module is None else module
        self._enter_module(self._begun, args, kwargs or {})
        self._handles = [
            register_module_forward_pre_hook(self._before),
            register_module_forward_hook(self._after, with_kwargs=True),
        ]
        self.recording = True
        _on(self._mode)

    def finish(self, loss: Tensor | None = None) -> replay.CapturedBatch:
        """End the pass: what it takes to make it again, which holds constants and nothing of the graph.

        Where it cannot be made again, `why` of the batch says so. Without a loss, as in validation, it is the first
        number that was computed from the model's output.
        """
        self._leave()
        inputs = {id(clone) for _, clone in self._inputs.values()}
        batch = Builder(self._trail, self._owned, inputs, self._seen, self._labels).batch(loss)
        batch.random, batch.modes = self._random, self._modes
        self._forget()
        return batch

    def abandon(self) -> None:
        """End the pass without a loss, if there is one."""
        if self.recording:
            self._leave()
        self._forget()

    def _forget(self) -> None:
        self.ops = []
        self._trail: list[Operation] = []  # outside of the model and depending on it, and the calls of it
        self._stack: list[nn.Module] = []
        self._begun: nn.Module | None = None
        self._dynamic: set[int] = set()
        self._inputs: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}  # what the model was given, and its clone
        self._seen: dict[int, tuple[Tensor, Tensor | None, int]] = {}  # see `Builder`
        self._labels: set[int] = set()
        self._owned: dict[int, str] = {}
        self._paths: dict[int, str] = {}
        self._handles: list[Any] = []

    def _leave(self) -> None:
        self.recording = False
        for handle in self._handles:
            handle.remove()
        _off(self._mode)

    # What the hooks see

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if threading.get_ident() == self._thread and self.recording:
            begun, self._begun = self._begun, None
            if module is not begun:  # else `begin` was called right before the module, and not by a hook on its call
                self._enter_module(module, args, {})

    def _after(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if threading.get_ident() != self._thread or not self.recording:
            return
        while self._stack and self._stack.pop() is not module:
            pass  # a module that raised an error, which the code around it took
        if id(module) not in self._paths or self._path() is not None:
            return
        call = next((each for each in reversed(self._trail) if each.result is _PENDING), None)
        if call is not None:
            call.result = output
            # `begin` may be called where gradients are off and by code that is not the program's; this hook is not.
            call.grad, call.autocast = torch.is_grad_enabled(), autocasting()
            call.file, call.line = _user_frame() or NOWHERE
            if not call.kwargs:
                call.kwargs = self._as_given(kwargs)
            self._dynamic.update(map(id, tensors_of(output)))

    def _enter_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        path = self._paths.get(id(module))
        if path is not None and self._path() is None:
            given, options = self._as_given(args), self._as_given(dict(kwargs))
            self._trail.append(self._operation("", path, given, options, _PENDING, _user_frame() or NOWHERE))
        self._stack.append(module)

    def _as_given(self, value: Any) -> Any:
        """The value with clones of the tensors that are constants, since the model may change what it is given."""

        def clone(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or id(leaf) in self._dynamic or id(leaf) in self._owned:
                return leaf
            if leaf.requires_grad:  # the loss may be of its gradient: what the model is given has to be that tensor
                self._note(leaf)
                return leaf
            key = id(leaf), version_of(leaf)
            if key not in self._inputs:
                self._inputs[key] = leaf, leaf.detach().clone()
            return self._inputs[key][1]

        with torch._C.DisableTorchFunction():
            return replaced(value, clone)

    # What the mode sees

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of torch's and record it."""
        if not self.recording or threading.get_ident() != self._thread:
            return function(*args, **kwargs)
        name, path = name_of(function), self._path()
        changed = changed_by(name, args, kwargs)
        if path is None and changed is not None and self._becomes_dynamic(changed, (args, kwargs)):
            self._seen[id(changed)] = changed, changed.detach().clone(), -1
        result = function(*args, **kwargs)
        made = list(tensors_of(result))
        if not made and changed is None:
            return result  # a shape, a number: a constant from here on
        frame = _user_frame()
        if frame is None:
            return result
        operation = self._operation(name, function, args, kwargs, result, frame)
        self.ops.append(operation)
        if path is None:
            with torch._C.DisableTorchFunction():
                self._follow(operation, made)
        return result

    def _follow(self, operation: Operation, made: list[Tensor]) -> None:
        operands = list(tensors_of((operation.args, operation.kwargs)))
        known = [t for t in operands if id(t) in self._dynamic]
        if not known and not any(id(t) in self._owned for t in operands):
            return
        self._trail.append(operation)
        for t in operands:
            if id(t) not in self._dynamic and id(t) not in self._owned:
                self._note(t)
                if not _is_weight(t, operation.kwargs) and any(_is_label(t, each) for each in known):
                    self._labels.add(id(t))
        if operation.changed is not None:
            self._dynamic.add(id(operation.changed))
        self._dynamic.update(map(id, made))

    def _becomes_dynamic(self, changed: Tensor, operands: Any) -> bool:
        known = self._dynamic | self._owned.keys()
        return id(changed) not in known | self._seen.keys() and any(id(t) in known for t in tensors_of(operands))

    def _note(self, constant: Tensor) -> None:
        if id(constant) not in self._seen:
            self._seen[id(constant)] = constant, None, version_of(constant)

    def _path(self) -> str | None:
        return next((self._paths[id(m)] for m in reversed(self._stack) if id(m) in self._paths), None)

    def _operation(self, name: str, function: Any, args: Any, kwargs: Any, result: Any, frame: Frame) -> Operation:
        kind = type(self._stack[-1]).__name__ if self._stack else ""
        return Operation(
            name, function, args, kwargs, result, self._path(), kind, *frame, torch.is_grad_enabled(), autocasting()
        )


class _Mode(overrides.TorchFunctionMode):
    def __init__(self, tape: Tape):
        self.tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.tape.run(func, args, kwargs or {})


def _user_frame() -> Frame | None:
    """Where the function that a mode was given was called from; None for what a watch computes."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((*_HERE, _TORCH)):
        frame = frame.f_back
    if frame is not None and frame.f_code.co_filename.startswith(_WATCHING):
        return None
    while frame is not None and frame.f_code.co_filename.startswith((_PELLUCID, _TORCH, *_GENERATED)):
        if frame.f_code.co_filename == replay.__file__:
            return NOWHERE  # whoever asks for a replay is not who wrote the program
        frame = frame.f_back
    return NOWHERE if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def _is_label(constant: Tensor, known: Tensor) -> bool:
    """Whether a constant has one entry, or row, for each of those of a tensor that depends on the model."""
    if constant.dim() == 0 or known.dim() == 0 or not len(constant) == len(known) > 1 or constant.requires_grad:
        return False
    # The rows in `log_probabilities[torch.arange(len(y)), y]` are no labels.
    return constant.is_floating_point() or constant.dim() > 1 or bool(constant.diff().ne(1).any())


def _is_weight(constant: Tensor, kwargs: dict[str, Any]) -> bool:
    return any(kwargs.get(name) is constant for name in ("weight", "pos_weight"))


# `Tensor.backward` is itself a function that modes see. While a mode handles one it cannot be taken off, so this is
# done before: the method is replaced while a pass is recorded.
_modes_on: list[_Mode] = []
_backward: Any = None


def _on(mode: _Mode) -> None:
    global _backward
    if not _modes_on:
        _backward, Tensor.backward = Tensor.backward, _unseen_backward  # pyright: ignore[reportAttributeAccessIssue]
    _modes_on.append(mode)
    put(mode)


def _off(mode: _Mode) -> None:
    _modes_on.remove(mode)
    take_away(mode)
    if not _modes_on and Tensor.backward is _unseen_backward:  # else someone put another one before it
        Tensor.backward = _backward


def _unseen_backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
    modes = _modes_on[:]
    for mode in modes:
        take_away(mode)
    try:
        _backward(loss, *args, **kwargs)
    finally:
        for mode in modes:
            if mode in _modes_on:  # the loss was not that model's
                put(mode)
