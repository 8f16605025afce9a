"""The callback protocol: events of the training loop, in order, and the exceptions that cut a phase short."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pellucid.learner import Learner


class Callback:
    """Code that runs at events of the training loop; override the events you need.

    `self.learn` is the learner: its `model, dls, opt, loss_func, epoch, n_epoch, iter, n_iter, train_iter, pct_train,
    training, xb, yb, pred, loss` are those of the moment. The learner reaches the callback under its class name in
    snake_case without a trailing Callback: `learn.recorder`. Callbacks run by ascending `order`.

    ```
    before_fit
      before_epoch
        before_train
          before_batch · after_pred · after_loss · before_backward · after_backward
          before_step · after_step · after_batch                          each training batch
        after_train
        before_validate
          before_batch · after_pred · after_loss · after_batch            each validation batch
        after_validate
      after_epoch
    after_fit
    cleanup_fit                                                           always, whatever ended the fit
    ```
    """

    order: int = 0
    learn: Learner

    @property
    def name(self) -> str:
        """Name of the learner's attribute for this callback."""
        stem = type(self).__name__.removesuffix("Callback") or "Callback"
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", stem).lower()

    def before_fit(self) -> None: ...
    def before_epoch(self) -> None: ...
    def before_train(self) -> None: ...
    def before_batch(self) -> None: ...
    def after_pred(self) -> None: ...
    def after_loss(self) -> None: ...
    def before_backward(self) -> None: ...
    def after_backward(self) -> None: ...
    def before_step(self) -> None: ...
    def after_step(self) -> None: ...
    def after_batch(self) -> None: ...
    def after_train(self) -> None: ...
    def before_validate(self) -> None: ...
    def after_validate(self) -> None: ...
    def after_epoch(self) -> None: ...
    def after_fit(self) -> None: ...
    def cleanup_fit(self) -> None: ...
    def after_cancel_batch(self) -> None: ...
    def after_cancel_backward(self) -> None: ...
    def after_cancel_step(self) -> None: ...
    def after_cancel_train(self) -> None: ...
    def after_cancel_validate(self) -> None: ...
    def after_cancel_epoch(self) -> None: ...
    def after_cancel_fit(self) -> None: ...


EVENTS = tuple(name for name in vars(Callback) if re.match(r"(before|after|cleanup)_", name))


class CancelFitException(Exception):
    """Raise in an event to end the fit."""


class CancelEpochException(Exception):
    """Raise in an event to go on with the next epoch."""


class CancelTrainException(Exception):
    """Raise in an event to go on with this epoch's validation."""


class CancelValidException(Exception):
    """Raise in an event to end this epoch's validation."""


class CancelBatchException(Exception):
    """Raise in an event to go on with the next batch; gradients computed so far are kept."""


class CancelBackwardException(Exception):
    """Raise in an event to skip the backward pass and still step."""


class CancelStepException(Exception):
    """Raise in an event to skip the optimizer's step; gradients are zeroed."""
