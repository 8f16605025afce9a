"""Watch any model in any training loop: `with watch(model, optimizer=opt) as seen: …`.

Nothing is attached to the model: one hook of torch's on all modules looks up whether a module is watched, so copies and
pickles of the model know nothing of it. Outputs are read, never changed; no random number is drawn.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self, TypeGuard

import torch
from torch import nn

from pellucid.activations import global_hooks, unseen
from pellucid.activations.autosave import Autosave
from pellucid.activations.calls import Calls
from pellucid.activations.columns import MAX_COLUMNS
from pellucid.activations.losses import Losses
from pellucid.activations.reading import uncompiled
from pellucid.activations.recording import Recording
from pellucid.activations.steps import first_step_hooks, step_hooks, unwrapped
from pellucid.activations.targets import Which, plain
from pellucid.errors import UsageError
from pellucid.history import wording
from pellucid.history.history import History
from pellucid.history.pictures import Pictures

if TYPE_CHECKING:
    from pellucid.doctor.evidence.gather import Gathering
    from pellucid.doctor.evidence.record import Evidence
    from pellucid.doctor.report import Report
    from pellucid.doctor.trials.specimen import Specimen


def watch(
    model: nn.Module,
    optimizer: Any = None,
    *,
    loss: bool = False,
    modules: Which | Sequence[Which] | None = None,
    every: int = 1,
    with_hist: bool = True,
    with_grads: bool | None = None,
    folder: str | Path | None = None,
    doctor: bool = False,
) -> Watch:
    """Record what the layers of a model output, and its gradients, inside a `with` block around any training loop.

    A step ends with `optimizer.step()`; without an optimizer every training pass of the model is one. Passes with the
    model in evaluation mode are kept apart. Each call of a module is seen; of outputs that are tuples, dicts or
    dataclasses the first floating-point tensor. Recomputation of checkpointed activations is not counted again.

    Args:
        model: Any module, also wrapped by DistributedDataParallel (then statistics are reduced over the ranks when the
            block ends) or torch.compile (it runs uncompiled inside the block, with the same results).
        optimizer: Its steps, hyper-parameters and gradients are recorded. `'auto'` takes the first torch optimizer that
            steps any of the model's parameters, for trainers that make their own.
        loss: Record the value `backward()` is called on, where it reaches this model's parameters or a tensor of the
            optimizer.
        modules: Names, patterns, classes, modules or a predicate; None takes all layers with parameters and all
            activation functions of `torch.nn`.
        every: Record every n-th step.
        with_hist: Record histograms, 1.4 MB a layer when all 2,048 columns are used.
        with_grads: Record gradients, weights and updates; None does if there is an optimizer.
        folder: Keep `history.safetensors` there up to date, about every ten seconds.
        doctor: Also gather what the doctor needs to know: inputs, labels, losses, modes, schedules, and how the loop
            goes; `evidence` has it. Losses are recorded too.

    Raises:
        UsageError: nothing to watch, gradients are asked for without an optimizer, or it is none; when the block
            begins, `folder` cannot be written.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"watch() reads the layers of an nn.Module, not of a {type(model).__name__}")
    if isinstance(optimizer, str) and optimizer != "auto":
        raise UsageError(f"optimizer={optimizer!r}: give the optimizer itself, or 'auto' where a trainer makes it")
    if optimizer is not None and not isinstance(optimizer, str) and not callable(getattr(optimizer, "step", None)):
        raise UsageError(f"a {type(optimizer).__name__} has no step(): give one optimizer, and each its own watch")
    if with_grads and optimizer is None:
        raise UsageError("gradients are read when the optimizer steps: give watch(model, optimizer=…)")
    return Watch(
        model,
        optimizer,
        loss=loss or doctor,
        modules=modules,
        every=every,
        with_hist=with_hist,
        with_grads=optimizer is not None if with_grads is None else with_grads,
        folder=folder,
        doctor=doctor,
    )


class Watch(Pictures):
    """What `watch` returns: the block, and afterwards (or meanwhile) its history and pictures.

    A loop that has no place for a `with` block calls `start` and, in a `finally`, `stop`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        *,
        loss: bool,
        modules: Which | Sequence[Which] | None,
        every: int,
        with_hist: bool,
        with_grads: bool,
        folder: str | Path | None = None,
        doctor: bool = False,
        by_hand: bool = False,
        compiled: bool = True,
        capacity: int = MAX_COLUMNS,
    ):
        if every < 1:
            raise UsageError(f"every must be at least 1, got {every}")
        self.model, self.optimizer = model, unwrapped(optimizer)
        # By hand, a loop reports losses and steps to `recording` itself: our learner's callbacks know both for certain.
        self.with_grads, self.by_hand, self._compiled = with_grads, by_hand, compiled
        self.finds_losses = loss and not by_hand
        self._autosave = None if folder is None else Autosave(Path(folder), lambda: self.history)
        self.recording = Recording(
            plain(model),
            modules,
            every=every,
            with_hist=with_hist,
            with_grads=with_grads,
            with_hypers=loss or not by_hand,  # by hand and without losses, a Recorder has both
            capacity=capacity,
            on_flush=None if self._autosave is None else self._autosave.save_if_due,
        )
        self.calls = Calls(self.recording, are_steps=optimizer is None and not by_hand)
        self._hooks: ExitStack | None = None
        self._doctor = doctor
        self._gathering: Gathering | None = None
        if self._knows_optimizer:
            self.recording.adopt(self.optimizer)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, failed: type[BaseException] | None, error: BaseException | None, *_: Any) -> None:
        if self._gathering is not None and isinstance(error, Exception):
            self._gathering.failed(error)
        self.stop(failed=failed is not None)
        if self._gathering is not None:
            self._gathering.finished = failed is None

    def __repr__(self) -> str:
        model = type(self.recording.model).__name__
        return f"{'open ' * self.is_open}watch of {model}: {wording.said(self.history)}"

    def start(self) -> Self:
        """Watch from now on.

        Raises:
            UsageError: it is watching already; the folder cannot be written.
        """
        if self._hooks is not None:
            raise UsageError("this watch is open already; make a second one with watch() to watch the model twice")
        if self._autosave is not None:
            self._autosave.prepare()
        known = self._knows_optimizer and self.with_grads
        strangers = unseen.of_optimizer(self.optimizer, self.recording.model) if known else None
        _say([unseen.of_replicas(self.model), strangers])
        with ExitStack() as stack:
            self._put_hooks(stack)
            self._hooks = stack.pop_all()
        return self

    def stop(self, *, failed: bool = False) -> None:
        """Take all hooks off, and complete the history; does nothing to a watch that is not open.

        Args:
            failed: Whether training ended with an error: then ranks that may still be training are not waited for, and
                nothing is said of what was not seen.
        """
        if self._hooks is None:
            return
        self._hooks.close()
        self._hooks = None
        self.calls.end_step()
        self.recording.outputs.forget_last()
        if not failed:
            self.recording.flush()
            self._pool_ranks()
        if self._autosave is not None:
            self._autosave.save()
        if not failed:
            _say(self._missing())

    @property
    def is_open(self) -> bool:
        """Whether it is watching."""
        return self._hooks is not None

    @property
    def due(self) -> bool:
        """Whether the current step is recorded."""
        return self.recording.due

    @property
    def step(self) -> int:
        """Training steps so far."""
        return self.recording.step + self.calls.pending

    @property
    def history(self) -> History:
        """Everything recorded so far."""
        return self.recording.history()

    @property
    def evidence(self) -> Evidence:
        """What was gathered for the doctor so far.

        Raises:
            UsageError: it was not asked to: `watch(…, doctor=True)`.
        """
        if self._gathering is None:
            raise UsageError("nothing is gathered for the doctor; ask for it by watch(model, …, doctor=True)")
        return self._gathering.evidence()

    def specimen(self) -> Specimen:
        """A copy of the model with what was kept of its training, for trials.

        Raises:
            UsageError: it was not asked to gather for the doctor, or nothing was trained.
        """
        if not self.evidence.loop.backwards or self._gathering is None:
            raise UsageError("nothing was trained yet: backward() was never called on a loss of this model")
        return self._gathering.specimen()

    def diagnose(self, budget_s: float | None = None, *, trials: bool = True) -> Report:
        """Say what is wrong with the training that was watched; model and random numbers stay as they are, bit for bit.

        Args:
            budget_s: Seconds for trials on copies of the model; None takes a tenth of the watched time, at least 5 and
                at most 60.
            trials: Whether to make any.

        Raises:
            UsageError: it was not asked to gather for the doctor, or nothing was trained.
        """
        from pellucid.doctor.diagnosis import diagnose  # above this package; only where asked for

        began = perf_counter()
        specimen = self.specimen()
        left_s = None if budget_s is None else max(0.0, budget_s - (perf_counter() - began))
        return diagnose(self.history, self.evidence, specimen if trials else None, left_s)

    @property
    def _knows_optimizer(self) -> bool:
        return self.optimizer is not None and self.optimizer != "auto"

    def _put_hooks(self, stack: ExitStack) -> None:
        if is_compiled(self.model):
            warnings.warn("the model runs uncompiled while it is watched; its results are the same", stacklevel=3)
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", r"Using `torch.compile\(module\)` when there are global hooks")
        if not self._compiled:
            stack.enter_context(uncompiled())
        losses = Losses(self.recording) if self.finds_losses else None
        stack.callback(global_hooks.detach, self.calls, losses)  # before there is anything: Ctrl-C may come between
        global_hooks.attach(self.calls, losses)
        around = self.recording.before_step, self.recording.after_step
        if self.optimizer is not None and not self.by_hand:
            stack.enter_context(
                step_hooks(self.optimizer, *around)
                if self._knows_optimizer
                else first_step_hooks(self.recording.model, self.recording.adopt, *around)
            )
        if self._doctor:
            self._gather(stack)

    def _gather(self, stack: ExitStack) -> None:
        from pellucid.doctor.evidence.gather import (
            Gathering,
            open_gathering,
        )  # above this package; only where asked for

        if self._gathering is None:
            self._gathering = Gathering(self.model, watch=self)
        stack.enter_context(open_gathering(self._gathering))

    def _pool_ranks(self) -> None:
        if pools_ranks(self.model):
            self.recording.pool(self.model.process_group)

    def _missing(self) -> Iterable[str | None]:
        """What was asked for and is not there."""
        recording, calls, series = self.recording, self.calls, self.recording.series
        yield unseen.of_gradients(recording, self.with_grads)
        yield from unseen.of_layers(recording.model, recording.outputs, calls.modes, self.step)
        yield unseen.of_outside(recording.model) if calls.outside else None
        yield unseen.NO_LOSS if self.finds_losses and not series.has_loss else None
        yield unseen.of_idle(series.idle())
        yield unseen.of_changes(recording.model, recording.outputs)


def pools_ranks(model: nn.Module) -> TypeGuard[nn.parallel.DistributedDataParallel]:
    """Whether several processes train this model, so that what is recorded of it is pooled over them."""
    import torch.distributed as dist

    return isinstance(model, nn.parallel.DistributedDataParallel) and dist.is_initialized()


def is_compiled(model: nn.Module) -> bool:
    """Whether it, or any of its modules, was handed to torch.compile."""
    return any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())


def _say(messages: Iterable[str | None]) -> None:
    for message in filter(None, messages):
        warnings.warn(message, stacklevel=3)
