"""What a model makes of a batch, and its loss; what does not fit is reported in our words instead of torch's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.data.batch import Parts, described, parts_of
from pellucid.errors import TrainingError, UsageError
from pellucid.inspection.looking import looking
from pellucid.nn.losses import BCEWithLogitsLossFlat, each_loss, unwrapped
from pellucid.training.computing import as_float32, half_of
from pellucid.training.misfit import input_misfit, misfit, silent_misfit

NO_VARIANCE = "Expected more than 1 value per channel"  # torch's words, in every kind of batchnorm


def floating_type(model: nn.Module) -> torch.dtype | None:
    """The type of all floating weights of a model, None where there are several or none."""
    found = {p.dtype for p in model.parameters() if p.dtype.is_floating_point}
    return found.pop() if len(found) == 1 else None


def output_of(
    model: nn.Module, inputs: tuple[Any, ...], floating: torch.dtype | None, half: torch.dtype | None = None
) -> Any:
    """What a model makes of inputs that are given to it in the type of its weights, `floating_type(model)`.

    With `half` it computes in that type, and what comes out is float32.

    Raises:
        TrainingError: the inputs do not fit its first layer, or a batchnorm that trains has one value a channel.
    """

    def is_other(x: Any) -> bool:
        return isinstance(x, Tensor) and x.is_floating_point() and x.dtype is not floating

    if floating is not None and any(map(is_other, inputs)):
        inputs = tuple(x.to(floating) if is_other(x) else x for x in inputs)
    try:
        if half is None:
            pred = model(*inputs)
        else:
            with torch.autocast(inputs[0].device.type, half):
                pred = as_float32(model(*inputs))
    except RuntimeError as error:
        if reason := input_misfit(error, inputs):
            raise TrainingError(reason) from error
        raise
    except ValueError as error:
        if not (model.training and NO_VARIANCE in str(error)):
            raise
        n = len(inputs[0])
        raise TrainingError(
            f"a batchnorm layer needs several values of each channel, and this training batch has {n} "
            f"item{'' if n == 1 else 's'}, with one value each there: take larger batches (bs=, command line: --bs), "
            "and leave the last incomplete one out (drop_last=True)"
        ) from error
    # Losses and metrics of others may call `view`, which the channels-last output of a convolution does not allow.
    return pred.contiguous() if isinstance(pred, Tensor) and pred.dim() == 4 else pred


def passed(
    model: nn.Module, dls: Any, batches: Iterable[Any], loss_func: Any = None, precision: str = "fp32"
) -> Iterator[tuple[Parts, Any, Any]]:
    """Inputs, output and target of each batch, None where it has none; the model is left as it was, see `looking`.

    The model goes on the loaders' device, with the loss, if one is given.
    """
    half = half_of(precision, dls.device)
    model.to(dls.device)
    if isinstance(loss_func, nn.Module):
        loss_func.to(dls.device)
    with looking(model, batches), torch.no_grad():
        floating = floating_type(model)
        for batch in batches:
            inputs, targets = parts_of(batch, dls)
            pred = output_of(model, inputs, floating, half)
            yield inputs, pred, targets[0] if len(targets) == 1 else targets or None


def usual_loss(dls: Any) -> Any:
    """The loss of a learner that was given none: of yes or no for each label where an image may have several."""
    return BCEWithLogitsLossFlat() if getattr(dls, "multi", False) else F.cross_entropy


def loss_of(loss_func: Any, pred: Any, targets: tuple[Any, ...]) -> Tensor:
    """The loss of a batch, a tensor without axes.

    Raises:
        UsageError: there are no targets.
        TrainingError: the loss does not fit the output and the targets, or is not one number.
    """
    if not targets:
        raise UsageError("the batch has no labels: fit and validate need (input, label); for predictions get_preds")
    yb = targets[0]
    silent = silent_misfit(loss_func, pred, yb)
    if silent:
        raise TrainingError(f"{_misfitting(loss_func, pred, yb)}: {silent}")
    try:
        loss = loss_func(pred, *targets)
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        if not getattr(unwrapped(loss_func), "__module__", "").startswith(("torch.", "pellucid.")):
            # the user's own code: leave its traceback alone
            error.add_note(f"(the loss was given model output {described(pred)} and labels {described(yb)})")
            raise
        reason = misfit(loss_func, pred, yb) or str(error)
        raise TrainingError(f"{_misfitting(loss_func, pred, yb)}: {reason}") from error
    return loss if isinstance(loss, Tensor) and not loss.dim() else _one_value(loss_func, loss)


def item_losses(loss_func: Any, pred: Tensor, yb: Tensor) -> Tensor:
    """Loss of each item of a batch, on the CPU; raises as `loss_of`."""
    try:
        return each_loss(loss_func, pred, yb).cpu()
    except RuntimeError:
        loss_of(loss_func, pred, (yb,))  # which says what does not fit
        raise


def _misfitting(loss_func: Any, pred: Any, yb: Any) -> str:
    labels = described(yb)
    if isinstance(yb, Tensor) and yb.numel() and not yb.is_floating_point() and not yb.is_complex():
        labels += f" with highest label {int(yb.max())}"
    return f"{name_of(loss_func)} does not fit model output {described(pred)} and labels {labels}"


def _one_value(loss_func: Any, loss: Any) -> Tensor:
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss.reshape(())
    if isinstance(loss, Tensor):
        raise TrainingError(
            f"{name_of(loss_func)} gives a loss of shape {tuple(loss.shape)}, training needs one number: take its "
            "mean, or leave reduction='none' out"
        )
    raise TrainingError(
        f"{name_of(loss_func)} gives a {type(loss).__name__}, training needs a tensor of one number that leads back to "
        "the outputs"
    )


def name_of(function: Any) -> str:
    """Of a loss, without the wrapper around it."""
    function = unwrapped(function)
    return getattr(function, "__name__", None) or type(function).__name__
