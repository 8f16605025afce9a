"""The training loop: epochs of batches, with an event before and after everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.data.batch import take_apart
from pellucid.errors import TrainingError, UsageError
from pellucid.nn.losses import unwrapped
from pellucid.optim.optimizers import needs_closure
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
from pellucid.training.misfit import input_misfit, misfit, silent_misfit

LossFunc = Callable[..., Tensor]
NO_VARIANCE = "Expected more than 1 value per channel"  # torch's words, in every kind of batchnorm


class TrainingLoop(HasCallbacks):
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

    def __repr__(self) -> str:
        parameters = [p for p in self.model.parameters() if not nn.parameter.is_lazy(p)]
        n_parameters = f"{sum(p.numel() for p in parameters):,} parameters"
        lines = [f"{type(self).__name__}: {type(self.model).__name__} of {n_parameters}, {_name(self.loss_func)}"]
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
        self.wire()  # an event may have been patched into a class since
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
        for cb in self.cbs:
            vars(cb).pop("run", None)
        errors: list[BaseException] = []
        modules = [m for m in (self.model, self.loss_func) if isinstance(m, nn.Module)]
        zero_grads = [self.opt.zero_grad, *(m.zero_grad for m in modules)]  # also what the optimizer does not hold
        for step in (*zero_grads, *self._handlers[False]["cleanup_fit"]):
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
        for i, batch in enumerate(self.dl):
            self.iter = i
            self._xb, self._yb = self._split(batch)
            try:
                self._call("before_batch")
                self._batch()
            except CancelBatchException:
                self._call("after_cancel_batch")
            if self.training:
                self.train_iter += 1
                self.pct_train = (self.epoch * self.n_iter + i + 1) / n_batches
            self._call("after_batch")

    def _split(self, batch: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Inputs and targets of a batch, on the device; no targets if the batch has one tensor only."""
        return take_apart(batch, self.dls.device, getattr(self.dls, "n_inp", None))

    def _batch(self) -> None:
        self.pred = self._output(self._xb)
        self._call("after_pred")
        self.loss, self._loss_grad = self._loss(self.pred, self._yb), None
        self._call("after_loss")
        if not self.training:
            return
        self._phase("backward", CancelBackwardException, self._backward)
        self._phase("step", CancelStepException, self._step)
        self.opt.zero_grad()

    def _output(self, inputs: tuple[Any, ...]) -> Any:
        """What the model makes of a batch, given to it in the type of its weights."""
        if self._float is not None and any(map(self._is_other, inputs)):
            inputs = tuple(x.to(self._float) if self._is_other(x) else x for x in inputs)
        try:
            pred = self.model(*inputs)
        except RuntimeError as error:
            if reason := input_misfit(error, inputs):
                raise TrainingError(reason) from error
            raise
        except ValueError as error:
            if not (self.training and NO_VARIANCE in str(error)):
                raise
            n = len(inputs[0])
            raise TrainingError(
                f"a batchnorm layer needs several values of each channel, and this training batch has {n} "
                f"item{'' if n == 1 else 's'}, with one value each there: take larger batches, and leave the last "
                "incomplete one out (drop_last=True)"
            ) from error

        # Losses and metrics of others may call `view`, which the channels-last output of a convolution does not allow.
        return pred.contiguous() if isinstance(pred, Tensor) and pred.dim() == 4 else pred

    def _is_other(self, x: Any) -> bool:
        return isinstance(x, Tensor) and x.is_floating_point() and x.dtype is not self._float

    def _backward(self) -> None:
        (self.loss if self._loss_grad is None else self._loss_grad).backward()

    def _step(self) -> None:
        if not self._evaluates:
            self.opt.step()
            return
        known = [self.loss]  # loss and gradients at the weights there are; callbacks have seen these

        def closure() -> Tensor:
            if known:
                return known.pop()
            self.opt.zero_grad()
            with torch.enable_grad():
                loss = self._loss(self._output(self._xb), self._yb)
                loss.backward()
            return loss

        self.opt.step(closure)

    def _loss(self, pred: Any, targets: tuple[Any, ...]) -> Tensor:
        if not targets:
            raise UsageError("the batch has no labels: fit and validate need (input, label); for predictions get_preds")
        yb = targets[0]
        silent = silent_misfit(self.loss_func, pred, yb)
        if silent:
            raise TrainingError(f"{_misfitting(self.loss_func, pred, yb)}: {silent}")
        try:
            loss = self.loss_func(pred, *targets)
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
            if not getattr(unwrapped(self.loss_func), "__module__", "").startswith(("torch.", "pellucid.")):
                # the user's own code: leave its traceback alone
                error.add_note(f"(the loss was given model output {_described(pred)} and labels {_described(yb)})")
                raise
            reason = misfit(self.loss_func, pred, yb) or str(error)
            raise TrainingError(f"{_misfitting(self.loss_func, pred, yb)}: {reason}") from error
        return loss if isinstance(loss, Tensor) and not loss.dim() else _one_value(self.loss_func, loss)


def floating_type(model: nn.Module) -> torch.dtype | None:
    """The type of all floating weights of a model, None where there are several or none."""
    found = {p.dtype for p in model.parameters() if p.dtype.is_floating_point}
    return found.pop() if len(found) == 1 else None


def _misfitting(loss_func: Any, pred: Any, yb: Any) -> str:
    labels = _described(yb)
    if isinstance(yb, Tensor) and yb.numel() and not yb.is_floating_point() and not yb.is_complex():
        labels += f" with highest label {int(yb.max())}"
    return f"{_name(loss_func)} does not fit model output {_described(pred)} and labels {labels}"


def _one_value(loss_func: Any, loss: Any) -> Tensor:
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss.reshape(())
    if isinstance(loss, Tensor):
        raise TrainingError(
            f"{_name(loss_func)} gives a loss of shape {tuple(loss.shape)}, training needs one number: take its mean, "
            "or leave reduction='none' out"
        )
    raise TrainingError(
        f"{_name(loss_func)} gives a {type(loss).__name__}, training needs a tensor of one number that leads back to "
        "the outputs"
    )


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{'×'.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def _name(function: Any) -> str:
    function = unwrapped(function)
    return getattr(function, "__name__", None) or type(function).__name__


def _tuple(name: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise UsageError(
            f"learn.{name} is a tuple of tensors, got {_described(value)}: assign (tensor,); a single one is read as "
            f"learn.{name[0]}"
        )
    return tuple(value)
