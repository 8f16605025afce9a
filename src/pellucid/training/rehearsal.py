"""Try metrics on a batch before a fit, so that what is wrong with them is said before an epoch was spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pellucid.activations.global_hooks import unseen
from pellucid.data.adapter import adapted
from pellucid.errors import PellucidError
from pellucid.inspection.looking import looking
from pellucid.metrics import Evaluation
from pellucid.metrics.whole import as_number
from pellucid.training.callbacks.core import Callback
from pellucid.training.forward import loss_of, passed
from pellucid.training.loop import TrainingLoop

PREPARING = "before_fit", "before_epoch", "before_validate", "before_batch", "after_pred", "after_loss"


def rehearse(learn: TrainingLoop, metrics: Sequence[Any]) -> None:
    """Measure the first validation batch and forget it; neither the model nor random numbers nor the data change.

    It is left out where it could find fault with what is right: a callback of the user may prepare batches or
    predictions for the metrics, and a loader that is no sequence may give its batches only once.

    Raises:
        UsageError: something among the metrics is none, or its value is not one number.
        Exception: whatever a metric of the user raises.
    """
    evaluation = Evaluation(metrics, learn.dls.device, learn.loss_func)
    if not metrics or _prepared(learn):
        return
    with looking(learn.model, learn.dls.valid), unseen():
        try:
            batches = adapted(learn.dls.valid).preview()
            # The generator must not outlive this line: when it ends, it gives the model the modes that it found.
            _, pred, yb = next(passed(learn.model, learn.dls, batches, precision=learn.precision), (None, None, None))
            targets = yb if isinstance(yb, tuple) else (yb,)
            loss = None if yb is None else loss_of(learn.loss_func, pred, targets)
        except Exception:  # any: training comes to the model and the loss at once, and reports it there
            return
        if loss is not None:
            _try(evaluation, loss, pred, targets)


def _try(evaluation: Evaluation, loss: Tensor, pred: Any, targets: tuple[Any, ...]) -> None:
    evaluation.update(loss, pred, targets)
    for metric, name in zip(evaluation.metrics, evaluation.names, strict=True):
        try:
            value = metric.compute()
        except PellucidError:
            raise
        except Exception:  # any: a score of a whole set may not exist for one batch, say if that holds one class only
            continue
        finally:
            metric.reset()
        as_number(value, name)


def _prepared(learn: TrainingLoop) -> bool:
    ours = lambda cb: type(cb).__module__.startswith("pellucid.") and type(cb) is not Callback
    return not all(ours(cb) for event in PREPARING for cb in learn.ordered_cbs(event))
