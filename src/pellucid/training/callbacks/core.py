"""The callback protocol: events of the training loop, in order, and the exceptions that cut a phase short."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from types import MethodType
from typing import Any

from pellucid.errors import UsageError
from pellucid.text import snake_case


class Callback:
    """Code that runs at events of the training loop; override the events you need.

    `self.learn` is the learner, and its attributes are read as one's own: `self.model`, `self.loss`. What it has at the
    moment: `model, dls, dl, opt, loss_func, epoch, n_epoch, iter, n_iter, train_iter, pct_train, training, x, y, xb,
    yb, pred, loss, loss_grad, smooth_loss`. To change one, assign it on the learner (`self.learn.loss = …`): on `self`
    it would be the callback's alone, and warns. The learner reaches the callback under its class name in snake_case
    without a trailing Callback: `learn.recorder`. Callbacks run by ascending `order`.

    ```
    after_create                                                          once the learner is made
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

    A callback that remembers something from batch to batch, or from epoch to epoch, gives it as `state_dict()`, and
    takes it back in `load_state_dict()` when a fit goes on from a checkpoint: after `before_fit`, `before_epoch` and
    `before_train` of the epoch that goes on, or after `before_fit` alone where an epoch begins.

    Args:
        events: Event → function of the callback, for one without a class: `Callback(after_batch=lambda self: …)`.

    Attributes:
        order: Its place among the callbacks, lowest first; the recorder has 50, the schedule and progress 60.
        run: Whether its events are called, but for `cleanup_fit`; True again after each fit.
        run_train, run_valid: Whether those of training and of validation batches are.
        needs_images: Whether it looks at images or at the model's body; where no callback does, frozen epochs of
            `fine_tune` train on features that were computed once.

    Raises:
        UsageError: there is no event of that name.
    """

    order: int = 0
    run: bool = True
    run_train: bool = True
    run_valid: bool = True
    needs_images: bool = True
    learn: Any  # a Learner: callbacks are below it, and read of it what they need

    def __init__(self, **events: Callable[[Any], Any]):
        for name, function in events.items():
            if name not in EVENTS or not callable(function):
                what = f"no function but {function!r}" if name in EVENTS else "no event"
                raise UsageError(f"Callback({name}=…): that is {what}; the events are {', '.join(EVENTS)}")
            setattr(self, name, MethodType(function, self))

    @property
    def name(self) -> str:
        """Name of the learner's attribute for this callback."""
        stem = type(self).__name__.removesuffix("Callback") or "Callback"
        return snake_case(stem)

    def __repr__(self) -> str:
        return type(self).__name__

    def __getattr__(self, name: str) -> Any:
        # Only called for what the callback lacks. Names with an underscore are never the learner's: copy and pickle
        # ask for such before there is one.
        learn = None if name.startswith("_") else self.__dict__.get("learn")
        try:
            if learn is not None:
                return getattr(learn, name)
        except AttributeError as error:
            raise AttributeError(f"neither {type(self).__name__} nor its learner has {name!r}: {error}") from error
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}" + " and no learner" * (learn is None))

    def __setattr__(self, name: str, value: Any) -> None:
        was_own = name in self.__dict__
        super().__setattr__(name, value)
        learn = self.__dict__.get("learn")
        if learn is None or name.startswith("_") or name == "learn":
            return
        if name in WIRED:
            learn.wire()
        elif not (was_own and isinstance(vars(learn).get(name), Callback)) and has(learn, name):
            warnings.warn(
                f"self.{name} of {type(self).__name__} now hides the learner's {name}, which stays as it is; "
                f"self.learn.{name} = … changes it",
                stacklevel=2,
            )

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as numbers, texts, None, tensors, arrays, and lists and dictionaries of such."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember what `state_dict` gave in the fit that is gone on with; not called where that was nothing."""

    def after_create(self) -> None: ...
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
OF_BATCHES = tuple(name for name in EVENTS if re.search(r"_(batch|pred|loss|backward|step)$", name))
WIRED = {*EVENTS, "order", "run", "run_train", "run_valid"}


def has(learn: Any, name: str) -> bool:
    """Whether a learner has an attribute, without computing it: some properties wait for the device."""
    return name in vars(learn) or hasattr(type(learn), name)


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
