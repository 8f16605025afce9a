"""What happens in torch while a script trains, told to listeners: calls of modules, losses, backward, steps, batches.

Everything is hooked or patched once, whoever listens, and gone with the last listener. What runs in worker processes,
in other threads or inside `backward` (a checkpoint that computes a pass once more) is not told.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from pellucid.activations import global_hooks
from pellucid.activations.steps import all_step_hooks
from pellucid.doctor import lines

LOSSES = (
    "cross_entropy",
    "nll_loss",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "kl_div",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "soft_margin_loss",
    "hinge_embedding_loss",
    "cosine_embedding_loss",
    "margin_ranking_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
    "ctc_loss",
    "gaussian_nll_loss",
    "poisson_nll_loss",
)
DROPOUTS = "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"


class Listener:
    """Is told what happens, with gradients off and out of the sight of torch-function modes; ignores all by default.

    Attributes:
        notes: What could not be seen, a sentence each.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []

    def called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, grad: bool) -> None:
        """An outermost module is called; `grad`: whether gradients were on."""

    def returned(self, module: nn.Module, output: Any) -> None:
        """An outermost module returned; its output is None where it raised an error."""

    def lost(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """A loss of torch.nn.functional was computed; the result is None where it raised an error."""

    def dropped(self, name: str, where: str, *, training: bool) -> None:
        """A dropout of torch.nn.functional was called, by no module of torch's but in this line."""

    def before_backward(self, roots: Any, inputs: list[Tensor] | None) -> None:
        """`backward` or `torch.autograd.grad` is called on these tensors; `inputs`: for which alone, if not for all."""

    def after_backward(self, roots: Any, *, accumulated: bool) -> None:
        """It returned; gradients were accumulated in the leaves by `backward`, and not by `grad`."""

    def before_step(self, optimizer: Any) -> None:
        """An optimizer of torch's steps; the gradients are there."""

    def after_step(self, optimizer: Any) -> None:
        """It stepped."""

    def scheduled(self, scheduler: Any, error: str) -> None:
        """A schedule of torch's stepped, or raised an error with this text."""

    def end(self) -> None:
        """Take away whatever it has put into torch itself."""

    def loaded(self, iterator: Any, batch: Any, asked: float) -> None:
        """A DataLoader gave a batch that it was asked for then, in seconds of `perf_counter`."""


_listeners: list[Listener] = []
_installed: ExitStack | None = None
_thread = 0
_depth = 0  # of calls of modules
_inside: list[str] = []  # the patched functions that are running: one may call itself or another


def listen(listener: Listener) -> None:
    """Tell it from now on."""
    global _installed, _thread, _depth
    _listeners.append(listener)
    if _installed is None:
        _thread, _depth = threading.get_ident(), 0
        with ExitStack() as stack:
            for each in (_modules, _backward, _functions, _schedules, _loaders):
                stack.enter_context(each())
            stack.enter_context(all_step_hooks(_is_seen, _telling("before_step"), _telling("after_step")))
            _installed = stack.pop_all()


def forget(listener: Listener) -> None:
    """Tell it no more; what torch was given goes with the last."""
    global _installed
    if listener in _listeners:
        _listeners.remove(listener)
    if not _listeners and _installed is not None:
        installed, _installed = _installed, None
        installed.close()


class passing_over:
    """A place where torch's modes and autograd do not see what is computed.

    Entered eight times a step: by `contextmanager` and `no_grad` that takes several times as long.
    """

    def __enter__(self) -> None:
        self._modes = torch._C.DisableTorchFunction()
        self._modes.__enter__()
        self._grad = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)

    def __exit__(self, *error: Any) -> None:
        torch._C._set_grad_enabled(self._grad)
        self._modes.__exit__(*error)


def _tell(event: str, *args: Any, **options: Any) -> None:
    if global_hooks.is_hidden() or threading.get_ident() != _thread:
        return
    with passing_over():
        for listener in _listeners[:]:
            try:
                getattr(listener, event)(*args, **options)
            except Exception as error:
                give_up(listener, error)


def give_up(listener: Listener, error: Exception) -> None:
    """Tell a listener no more that has failed: whatever a script does with tensors, that must not end its training."""
    forget(listener)
    with suppress(Exception):
        listener.end()
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    where = f"{os.path.basename(frame.f_code.co_filename)}:{line}"
    message = (
        f"the doctor stopped watching because of an error of its own ({type(error).__name__}: {error}, {where}); "
        "the training goes on"
    )
    listener.notes.append(message)
    warnings.warn(message, stacklevel=2)


def _telling(event: str) -> Callable[[Any], None]:
    return lambda subject: _tell(event, subject)


def _is_seen(_: Any) -> bool:
    return not global_hooks.is_hidden()


# Modules


@contextmanager
def _modules() -> Iterator[None]:
    hooks = (
        register_module_forward_pre_hook(_before_forward),
        register_module_forward_hook(_after_forward, always_call=True),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _before_forward(module: nn.Module, args: tuple[Any, ...]) -> None:
    global _depth
    if threading.get_ident() != _thread:
        return
    _depth += 1
    if _depth == 1 and torch._C._current_graph_task_id() == -1:
        _tell("called", module, args, _kwargs(), grad=torch.is_grad_enabled())


def _after_forward(module: nn.Module, args: Any, output: Any) -> None:
    global _depth
    if threading.get_ident() != _thread:
        return
    _depth = max(0, _depth - 1)
    if _depth == 0 and torch._C._current_graph_task_id() == -1:
        _tell("returned", module, output)


def _kwargs() -> dict[str, Any]:
    """What the module was given by name, which torch tells no hook on all modules: looked up where it is called."""
    frame = sys._getframe(2)
    return frame.f_locals.get("kwargs") or {}


# backward


@contextmanager
def _backward() -> Iterator[None]:
    accumulate, differentiate = torch.autograd.backward, torch.autograd.grad

    @functools.wraps(accumulate)
    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        if torch._C._current_graph_task_id() != -1:  # a reentrant checkpoint
            return accumulate(tensors, *args, **kwargs)
        _tell("before_backward", tensors, _listed(args[4] if len(args) > 4 else kwargs.get("inputs")))
        result = accumulate(tensors, *args, **kwargs)
        _tell("after_backward", tensors, accumulated=True)
        return result

    @functools.wraps(differentiate)
    def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = inputs if isinstance(inputs, Tensor) else tuple(inputs)
        _tell("before_backward", outputs, _listed(inputs))
        result = differentiate(outputs, inputs, *args, **kwargs)
        _tell("after_backward", outputs, accumulated=False)
        return result

    with _replaced(torch.autograd, "backward", backward), _replaced(torch.autograd, "grad", grad):
        yield


def _listed(inputs: Any) -> list[Tensor] | None:
    return None if inputs is None else [inputs] if isinstance(inputs, Tensor) else list(inputs)


# Functions


@contextmanager
def _functions() -> Iterator[None]:
    with ExitStack() as stack:
        for name in (*LOSSES, *DROPOUTS):
            stack.enter_context(_replaced(F, name, _function(name, getattr(F, name))))
        yield


def _function(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def function(*args: Any, **kwargs: Any) -> Any:
        if _inside:  # a torch-function mode calls the function that it is given, which is this one
            return plain(*args, **kwargs)
        _inside.append(name)
        try:
            result = plain(*args, **kwargs)
        except Exception:
            _inside.clear()
            if name in LOSSES:
                _tell("lost", name, args, kwargs, None)  # labels that do not fit the output, for instance
            raise
        finally:
            if _inside:
                _inside.pop()
        if name in DROPOUTS:
            if not lines.is_torch(sys._getframe(1).f_code.co_filename):
                training = args[2] if len(args) > 2 else kwargs.get("training", "alpha" not in name)
                _tell("dropped", name, lines.where(), training=bool(training))
        else:
            _tell("lost", name, args, kwargs, result)
        return result

    return function


# Schedules


@contextmanager
def _schedules() -> Iterator[None]:
    with ExitStack() as stack:
        for cls in _with_steps(LRScheduler):
            stack.enter_context(_replaced(cls, "step", _schedule_step(cls.step)))
        yield


def _with_steps(cls: type) -> list[type]:
    below = [each for sub in cls.__subclasses__() for each in _with_steps(sub)]
    return list(dict.fromkeys([cls, *below] if "step" in vars(cls) else below))


def _schedule_step(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A schedule steps once as it is made, and one made of others steps those.
        if _inside or getattr(self, "_is_initial", False) or getattr(self, "_step_count", 1) == 0:
            return plain(self, *args, **kwargs)
        _inside.append("schedule")
        try:
            result = plain(self, *args, **kwargs)
        except Exception as error:
            _tell("scheduled", self, str(error))
            raise
        finally:
            _inside.pop()
        _tell("scheduled", self, "")
        return result

    return step


# Loaders


@contextmanager
def _loaders() -> Iterator[None]:
    plain = _BaseDataLoaderIter.__next__

    @functools.wraps(plain)
    def following(self: Any) -> Any:
        global _depth
        if threading.get_ident() == _thread:
            _depth = 0  # after Ctrl-C in the middle of a call
        asked = perf_counter()
        batch = plain(self)
        _tell("loaded", self, batch, asked)
        return batch

    with _replaced(_BaseDataLoaderIter, "__next__", following):
        yield


@contextmanager
def _replaced(owner: Any, name: str, stand_in: Any) -> Iterator[None]:
    plain = getattr(owner, name)
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        if getattr(owner, name) is stand_in:  # else someone put another one before it, which goes on calling it
            setattr(owner, name, plain)
