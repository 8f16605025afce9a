"""The training loop: epochs of batches, with an event before and after everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pellucid.callback.core import (
    EVENTS,
    Callback,
    CancelBackwardException,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelStepException,
    CancelTrainException,
    CancelValidException,
)
from pellucid.errors import TrainingError, UsageError

LossFunc = Callable[[Tensor, Tensor], Tensor]


class TrainingLoop:
    """Runs epochs of a model over data loaders and tells the callbacks; `Learner` is its face.

    Attributes:
        epoch, n_epoch: Current epoch, and how many this fit has.
        iter, n_iter: Current batch of the current pass, and how many it has.
        train_iter: Training batches done in this fit.
        pct_train: Fraction of this fit's training batches done before the current one.
        training: Whether the current pass trains.
        xb, yb, pred, loss: Those of the current batch.
    """

    model: nn.Module
    loss_func: LossFunc
    opt: Optimizer
    dls: Any

    def __init__(self) -> None:
        self.cbs: list[Callback] = []
        self._handlers: dict[str, list[Callable[[], None]]] = {}
        self.training = False
        self.epoch = self.iter = self.train_iter = 0
        self.n_epoch = self.n_iter = 1
        self.pct_train = 0.0

    def add_cb(self, cb: Callback | type[Callback]) -> TrainingLoop:
        """Add a callback; it is reachable as the attribute of its name.

        Raises:
            UsageError: the name is taken, by another callback or by the learner itself.
        """
        cb = cb() if isinstance(cb, type) else cb
        if hasattr(self, cb.name):
            raise UsageError(
                f"cannot add {type(cb).__name__}: learn.{cb.name} exists already; remove that, or rename the class"
            )
        cb.learn = self  # type: ignore[assignment]
        setattr(self, cb.name, cb)
        self.cbs = sorted([*self.cbs, cb], key=lambda cb: cb.order)
        self._wire()
        return self

    def remove_cb(self, cb: Callback | type[Callback]) -> TrainingLoop:
        """Remove a callback, or all of a class."""
        gone = [c for c in self.cbs if c is cb or (isinstance(cb, type) and isinstance(c, cb))]
        if not gone:
            raise UsageError(f"no such callback to remove: {cb}; there are {', '.join(c.name for c in self.cbs)}")
        for c in gone:
            self.cbs.remove(c)
            delattr(self, c.name)
        self._wire()
        return self

    def _run(self, n_epoch: int) -> None:
        self.n_epoch, self.train_iter = n_epoch, 0
        try:
            self._phase("fit", CancelFitException, self._epochs)
        except BaseException as error:
            self._clean_up(error)
            raise
        self._clean_up(None)

    def _clean_up(self, ended_by: BaseException | None) -> None:
        """Clear gradients and run every callback's cleanup, whatever the others do; then report what went wrong.

        The error that ended the fit stays the one that is raised and those of the cleanup become notes of it, with one
        exception: Ctrl-C is never hidden in a note, where a caller who goes on after errors would not see it.
        """
        self.training = False
        errors: list[BaseException] = []
        for step in (self.opt.zero_grad, *self._handlers.get("cleanup_fit", ())):
            try:
                step()
            except BaseException as error:  # Ctrl-C too: the hooks and files that come after must still be closed
                errors.append(error)
        if not errors:
            return
        first = next((error for error in errors if not isinstance(error, Exception)), errors[0])
        if ended_by is not None and (isinstance(first, Exception) or not isinstance(ended_by, Exception)):
            first = ended_by
        for error in errors:
            if error is not first:
                first.add_note(f"(while cleaning up after the fit: {type(error).__name__}: {error})")
        if first is not ended_by:
            raise first

    def _epochs(self) -> None:
        for epoch in range(self.n_epoch):
            self.epoch = epoch
            self._phase("epoch", CancelEpochException, self._epoch)

    def _epoch(self) -> None:
        self._phase("train", CancelTrainException, lambda: self._pass(self.dls.train, training=True))
        with torch.no_grad():
            self._phase("validate", CancelValidException, lambda: self._pass(self.dls.valid, training=False))

    def _pass(self, dl: Iterable[Any], *, training: bool) -> None:
        self.training, self.n_iter = training, len(dl)  # type: ignore[arg-type]
        self.model.train(training)
        for self.iter, batch in enumerate(dl):
            if training:
                self.pct_train = self.train_iter / (self.n_iter * self.n_epoch)
            self.xb, self.yb = (t.to(self.dls.device) for t in batch)
            self._phase("batch", CancelBatchException, self._batch)
            self.train_iter += training

    def _batch(self) -> None:
        self.pred = self.model(self.xb)
        self._call("after_pred")
        self.loss = self._loss(self.pred, self.yb)
        self._call("after_loss")
        if not self.training:
            return
        self._phase("backward", CancelBackwardException, lambda: self.loss.backward())
        self._phase("step", CancelStepException, lambda: self.opt.step())
        self.opt.zero_grad()

    def _loss(self, pred: Any, yb: Tensor) -> Tensor:
        try:
            return self.loss_func(pred, yb)
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
            shapes = f"model output {_described(pred)} and labels {_described(yb)}"
            if not getattr(self.loss_func, "__module__", "").startswith(("torch.", "pellucid.")):
                error.add_note(f"(the loss was given {shapes})")  # the user's own code: leave its traceback alone
                raise
            highest = f" with highest label {int(yb.max())}" if yb.numel() and not yb.is_floating_point() else ""
            raise TrainingError(
                f"{_name(self.loss_func)} does not fit {shapes}{highest}: {error}. "
                "The last layer needs one output per class, as (batch, classes)"
            ) from error

    def _phase(self, name: str, cancel: type[Exception], body: Callable[[], None]) -> None:
        try:
            self._call(f"before_{name}")
            body()
        except cancel:
            self._call(f"after_cancel_{name}")
        self._call(f"after_{name}")

    def _call(self, event: str) -> None:
        for handler in self._handlers.get(event, ()):
            handler()

    def _wire(self) -> None:
        """List per event the callbacks that override it, so that a batch pays for nothing else."""
        self._handlers = {
            event: [getattr(cb, event) for cb in self.cbs if getattr(type(cb), event) is not getattr(Callback, event)]
            for event in EVENTS
        }


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{'×'.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__
