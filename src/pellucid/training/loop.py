"""The training loop: epochs of batches, with an event before and after everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.data.batch import batches_from, described, parts_of
from pellucid.errors import UsageError
from pellucid.optim.optimizers import needs_closure, refuse_closure
from pellucid.training.asking import Asked
from pellucid.training.callbacks.core import (
    CancelBackwardException,
    CancelBatchException,
    CancelEpochException,
    CancelFitException,
    CancelStepException,
    CancelTrainException,
    CancelValidException,
)
from pellucid.training.callbacks.holder import HasCallbacks
from pellucid.training.computing import Computing, half_of, refuse_compiler
from pellucid.training.forward import floating_type, loss_of, name_of, output_of
from pellucid.training.scaling import LossScaling
from pellucid.training.state import put_back

LossFunc = Callable[..., Tensor]


class TrainingLoop(HasCallbacks, Computing, Asked):
    """Runs epochs of a model over data loaders and tells the callbacks; `Learner` is its face.

    Attributes:
        epoch, n_epoch: Current epoch, and how many this fit has.
        dl: Loader of the current pass.
        iter, n_iter: Current batch of the current pass, and how many it has.
        train_iter: Training batches done in this fit; at `after_batch` the current one counts.
        pct_train: Fraction of this fit's training done, counted likewise.
        training: Whether the current pass trains.
        xb, yb: Inputs and targets of the current batch, each a tuple; of a batch with several tensors the last is the
            target, unless `dls.n_inp` says how many are inputs.
        pred, loss: Output and loss of the current batch. Assign `loss` to train on another one.
        scaling: The `LossScaling` of the last fit, which counts skipped steps; None but in float16.
    """

    model: nn.Module
    loss_func: LossFunc
    opt: Any
    dls: Any

    def __init__(self) -> None:
        super().__init__()
        self.epoch = self.iter = self.train_iter = 0
        self.n_epoch = self.n_iter = 1
        self.pct_train = 0.0
        self._loss_grad: Tensor | None = None
        self._float: torch.dtype | None = None
        self._half: torch.dtype | None = None
        self.scaling: LossScaling | None = None
        self._when_done = []

    def __repr__(self) -> str:
        parameters = [p for p in self.model.parameters() if not nn.parameter.is_lazy(p)]
        n_parameters = f"{sum(p.numel() for p in parameters):,} parameters"
        lines = [f"{type(self).__name__}: {type(self.model).__name__} of {n_parameters}, {name_of(self.loss_func)}"]
        lines += [repr(self.dls), f"callbacks: {', '.join(cb.name for cb in self.cbs) or 'none'}"]
        return "\n".join(lines + [repr(cb) for cb in self.cbs if cb.name == "recorder"])

    @property
    def xb(self) -> tuple[Any, ...]:
        """Inputs of the current batch."""
        return self._xb

    @xb.setter
    def xb(self, inputs: Sequence[Any]) -> None:
        self._xb = _tuple("xb", inputs)

    @property
    def yb(self) -> tuple[Any, ...]:
        """Targets of the current batch."""
        return self._yb

    @yb.setter
    def yb(self, targets: Sequence[Any]) -> None:
        self._yb = _tuple("yb", targets)

    @property
    def x(self) -> Any:
        """The input of the current batch, if it is one, else all of them."""
        return self.xb[0] if len(self.xb) == 1 else self.xb

    @property
    def y(self) -> Any:
        """The target of the current batch, if it is one, else all of them."""
        return self.yb[0] if len(self.yb) == 1 else self.yb

    @property
    def loss_grad(self) -> Tensor:
        """What the backward pass starts from: the loss, until another tensor is assigned, which is not recorded."""
        if self._loss_grad is None:
            self._loss_grad = self.loss.clone()  # so that `loss_grad /= 2` leaves the recorded loss alone
        return self._loss_grad

    @loss_grad.setter
    def loss_grad(self, value: Tensor) -> None:
        self._loss_grad = value

    def _run(self, n_epoch: int) -> None:
        self.n_epoch, self.epoch, self.train_iter, self.pct_train = n_epoch, 0, 0, 0.0
        self._evaluates = needs_closure(self.opt)
        self._half = half_of(self.precision, self.dls.device)
        if self._half is torch.float16:
            refuse_closure(self.opt, "float16")
        self.scaling = LossScaling(self.dls.device) if self._half is torch.float16 else None
        self.wire()  # an event may have been patched into a class since
        try:
            self._phase("fit", CancelFitException, self._epochs)
        except BaseException as error:
            self._clean_up(error)
            raise
        self._clean_up(None)
        self.steps_before += self.train_iter

    def _clean_up(self, ended_by: BaseException | None) -> None:
        """Clear gradients and run every callback's cleanup, whatever the others do; then report what went wrong.

        The error that ended the fit stays the one that is raised and those of the cleanup become notes of it, with one
        exception: Ctrl-C is never hidden in a note, where a caller who goes on after errors would not see it.
        """
        self.training = False
        for cb in self.cbs:
            vars(cb).pop("run", None)
        errors: list[BaseException] = []
        modules = [m for m in (self.model, self.loss_func) if isinstance(m, nn.Module)]
        zero_grads = [self.opt.zero_grad, *(m.zero_grad for m in modules)]  # also what the optimizer does not hold
        reports = [] if self.scaling is None else [self.scaling.report]
        for step in (*zero_grads, *self._handlers[False]["cleanup_fit"], *reports):
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
        for epoch in range(self._first_epoch(), self.n_epoch):
            self.epoch = epoch
            self._phase("epoch", CancelEpochException, self._epoch)

    def _first_epoch(self) -> int:
        """Where the fit begins; one that goes on between two epochs is put back to there."""
        kept = self.kept_step
        if kept is None:
            return 0
        if not kept.batch:
            self.kept_step = None
            put_back(self, kept.state, changed=kept.changed)
            kept.random("now", self.dls.train).restore()
            self.epoch = max(kept.epoch - 1, 0)  # if it was the last one
        return kept.epoch

    def _epoch(self) -> None:
        self._begin(self.dls.train, training=True)
        self._phase("train", CancelTrainException, self._batches)
        if self.dls.valid is None:
            return
        self._begin(self.dls.valid, training=False)
        with torch.no_grad():
            self._phase("validate", CancelValidException, self._batches)

    def _begin(self, dl: Any, *, training: bool) -> None:
        """Get ready for a pass, before its first event: what callbacks then do to the model's modes stays."""
        self.dl, self.n_iter, self.training = dl, len(dl), training
        if training:
            self.pct_train = self.epoch / self.n_epoch
        self.model.train(training)
        self._float = floating_type(self.model)

    def _batches(self) -> None:
        n_batches = self.n_iter * self.n_epoch
        for i, batch in self._numbered():
            self.iter = i
            self._xb, self._yb = parts_of(batch, self.dls)
            try:
                self._call("before_batch")
                self._batch()
            except CancelBatchException:
                self._call("after_cancel_batch")
            if self.training:
                self.train_iter += 1
                self.pct_train = (self.epoch * self.n_iter + i + 1) / n_batches
            self._call("after_batch")

    def _numbered(self) -> Iterator[tuple[int, Any]]:
        """The batches of this pass, from the one on at which a fit goes on."""
        kept = self.kept_step
        if kept is None or not self.training:
            return enumerate(self.dl)
        self.kept_step = None
        kept.random("order", self.dl).restore()
        batches = batches_from(self.dl, kept.batch)
        put_back(self, kept.state, changed=kept.changed)
        kept.random("now", self.dl).restore()
        self.pct_train = (self.epoch * self.n_iter + kept.batch) / (self.n_iter * self.n_epoch)
        return enumerate(batches, kept.batch)

    def _batch(self) -> None:
        self.pred = output_of(self.model, self._xb, self._float, self._half)
        self._call("after_pred")
        self.loss, self._loss_grad = loss_of(self.loss_func, self.pred, self._yb), None
        self._call("after_loss")
        if not self.training:
            return
        self._phase("backward", CancelBackwardException, self._backward)
        if self.scaling is not None:
            self.scaling.unscale(self.opt)
        self._phase("step", CancelStepException, self._step)
        if self.scaling is not None:
            self.scaling.update(self.opt)
        self.opt.zero_grad()

    def _backward(self) -> None:
        loss = self.loss if self._loss_grad is None else self._loss_grad
        try:
            if self.scaling is None:
                loss.backward()
            else:
                self.scaling.backward(loss)
        except RuntimeError as error:  # the backward pass is compiled when it is first needed
            refuse_compiler(error)
            raise

    def _step(self) -> None:
        if self.scaling is not None:
            self.scaling.step(self.opt)
            return
        if not self._evaluates:
            self.opt.step()
            return
        known = [self.loss]  # loss and gradients at the weights there are; callbacks have seen these

        def closure() -> Tensor:
            if known:
                return known.pop()
            self.opt.zero_grad()
            with torch.enable_grad():
                pred = output_of(self.model, self._xb, self._float, self._half)
                loss = loss_of(self.loss_func, pred, self._yb)
                loss.backward()
            return loss

        self.opt.step(closure)


def _tuple(name: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise UsageError(
            f"learn.{name} is a tuple of tensors, got {described(value)}: assign (tensor,); a single one is read as "
            f"learn.{name[0]}"
        )
    return tuple(value)
