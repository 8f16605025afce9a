"""Losses of classifiers, and what every loss implies: predictions, what a batch counts for, one loss an item."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.errors import UsageError
from pellucid.nn.pairing import check_tensors, paired, widened

SMALL_INTEGERS = torch.int8, torch.int16, torch.int32


class LabelSmoothingCrossEntropy(nn.CrossEntropyLoss):
    """Cross entropy against targets that give each of K classes eps / K, and the labelled one 1 − eps on top.

        loss = (1 − eps) · (−log p[label]) + eps · mean over classes of (−log p)

    A model trained with it is less sure of itself, which helps when labels are wrong now and then. It is torch's
    cross entropy with `label_smoothing`, under fastai's name.

    Args:
        eps: Share of the target spread over all classes, in [0, 1].
        weight: Weight of each class, shape (class,), in both parts of the loss as in torch; fastai leaves it out of
            the second.
        reduction: `mean`, `sum`, or `none` for one loss an item.

    Raises:
        UsageError: `eps` is outside [0, 1], or `weight` is no tensor.

    Source: Szegedy et al., arXiv:1512.00567, section 7.
    """

    def __init__(self, eps: float = 0.1, weight: Tensor | None = None, reduction: str = "mean"):
        if not 0 <= eps <= 1:
            raise UsageError(f"eps is the share of the target spread over all classes, from 0 to 1, got {eps}")
        _check_weight(weight)
        super().__init__(weight=weight, reduction=reduction, label_smoothing=eps)
        _check_reduction(self)

    @property
    def eps(self) -> float:
        """Share of the target spread over all classes."""
        return self.label_smoothing


class _AlongAxis:
    """What outputs with classes along `axis` mean."""

    axis: int

    def activation(self, pred: Tensor) -> Tensor:
        """Probabilities of outputs: the softmax along `axis`."""
        return pred.softmax(self.axis)

    def decodes(self, pred: Tensor) -> Tensor:
        """The class with the largest output."""
        return pred.argmax(self.axis)


class CrossEntropyLossFlat(_AlongAxis, nn.CrossEntropyLoss):
    """Cross entropy with the classes along any axis, all other axes of outputs and labels taken as items.

    Args:
        args: Those of `nn.CrossEntropyLoss`, whose first is the weight of each class.
        axis: The axis of the classes in the outputs, the last one by default (torch's own loss takes the second).
        kwargs: Those of `nn.CrossEntropyLoss`: weight, ignore_index, reduction, label_smoothing.

    Calling it raises UsageError where labels do not have the shape of the outputs without `axis`.
    """

    def __init__(self, *args: Any, axis: int = -1, **kwargs: Any):
        _check_weight(args[0] if args else kwargs.get("weight"))
        super().__init__(*args, **kwargs)
        _check_reduction(self)
        self.axis = axis

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Loss of outputs (batch, …) with classes along `axis`, and class numbers (batch, …)."""
        return super().forward(*_items(input, target, self.axis, type(self).__name__))


class LabelSmoothingCrossEntropyFlat(CrossEntropyLossFlat):
    """`LabelSmoothingCrossEntropy` with the classes along any axis, see `CrossEntropyLossFlat`."""

    def __init__(self, eps: float = 0.1, weight: Tensor | None = None, reduction: str = "mean", *, axis: int = -1):
        checked = LabelSmoothingCrossEntropy(eps, weight, reduction)
        super().__init__(weight, reduction=reduction, label_smoothing=checked.eps, axis=axis)


class BCEWithLogitsLossFlat(nn.BCEWithLogitsLoss):
    """Binary cross entropy of outputs before the sigmoid, with labels of any number type and in the same shape.

    Outputs (batch, 1) and labels (batch,) fit each other too, as axes of length 1 do not matter.

    Args:
        args: Those of `nn.BCEWithLogitsLoss`, whose first is a weight.
        thresh: `decodes` says yes to probabilities above it.
        kwargs: Those of `nn.BCEWithLogitsLoss`: weight, reduction, pos_weight.

    Calling it raises UsageError where the shapes differ.
    """

    def __init__(self, *args: Any, thresh: float = 0.5, **kwargs: Any):
        _check_weight(args[0] if args else kwargs.get("weight"))
        super().__init__(*args, **kwargs)
        _check_reduction(self)
        self.thresh = thresh

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Loss of outputs and of labels in the same shape."""
        labels = paired(input, target, type(self).__name__)[1]
        if self.weight is None and self.pos_weight is None:
            return super().forward(input.reshape(-1), labels.to(input.dtype))
        return super().forward(input, labels.reshape(input.shape).to(input.dtype))  # weights belong to axes

    def activation(self, pred: Tensor) -> Tensor:
        """Probabilities of outputs."""
        return pred.sigmoid()

    def decodes(self, pred: Tensor) -> Tensor:
        """Yes where a probability is above the threshold."""
        return pred > self.thresh


class MSELossFlat(nn.MSELoss):
    """Mean squared error of outputs and numbers in the same shape; axes of length 1 do not matter.

    Args:
        reduction: `mean`, `sum`, or `none` for one loss a value.

    Calling it raises UsageError where the shapes differ: (batch, 1) and (batch,) are never broadcast.
    """

    def __init__(self, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        _check_reduction(self)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Loss of outputs and of labels in the same shape."""
        values, labels = paired(input, target, type(self).__name__)
        return super().forward(values, labels.to(values.dtype))


class L1LossFlat(nn.L1Loss):
    """Mean absolute error of outputs and numbers in the same shape; see `MSELossFlat`.

    Args:
        reduction: `mean`, `sum`, or `none` for one loss a value.
    """

    def __init__(self, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        _check_reduction(self)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Loss of outputs and of labels in the same shape."""
        values, labels = paired(input, target, type(self).__name__)
        return super().forward(values, labels.to(values.dtype))


class FocalLoss(nn.Module):
    """Cross entropy in which what the model is sure of counts little.

        loss = (1 − q)^gamma · ce        q = exp(−ce), the probability of the label if classes weigh alike

    Args:
        gamma: How little; 0 gives the cross entropy.
        weight: Weight of each class in the cross entropy ce, shape (class,).
        reduction: `mean` over items, `sum`, or `none` for one loss an item.

    Source: Lin et al., arXiv:1708.02002, equation 4.
    """

    def __init__(self, gamma: float = 2.0, weight: Tensor | None = None, reduction: str = "mean"):
        _check_weight(weight)
        super().__init__()
        self.gamma, self.reduction = gamma, reduction
        _check_reduction(self)
        self.register_buffer("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Loss of outputs (batch, class, …) and class numbers (batch, …)."""
        name = type(self).__name__
        check_tensors(name, input, target)
        _several_classes(input.shape[1], name)
        if tuple(target.shape) not in ((len(input), *input.shape[2:]), tuple(input.shape)):  # the latter: probabilities
            raise UsageError(
                f"{name} compares outputs (batch, class, …) of shape {tuple(input.shape)} with labels of shape "
                f"{tuple(target.shape)}: labels are class numbers (batch, …), one for each item; target.squeeze(1) "
                "takes away an axis of length 1"
            )
        weight: Any = self.weight
        each = F.cross_entropy(input, target, weight=weight, reduction="none")
        losses = (1 - (-each).exp()) ** self.gamma * each
        return losses if self.reduction == "none" else losses.sum() if self.reduction == "sum" else losses.mean()

    def activation(self, pred: Tensor) -> Tensor:
        """Probabilities of outputs."""
        return pred.softmax(1)

    def decodes(self, pred: Tensor) -> Tensor:
        """The class with the largest output."""
        return pred.argmax(1)


class FocalLossFlat(_AlongAxis, FocalLoss):
    """`FocalLoss` with the classes along any axis, see `CrossEntropyLossFlat`."""

    def __init__(self, gamma: float = 2.0, weight: Tensor | None = None, reduction: str = "mean", *, axis: int = -1):
        super().__init__(gamma, weight, reduction)
        self.axis = axis

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Loss of outputs (batch, …) with classes along `axis`, and class numbers (batch, …)."""
        return super().forward(*_items(input, target, self.axis, type(self).__name__))


FLAT = CrossEntropyLossFlat, BCEWithLogitsLossFlat, MSELossFlat, L1LossFlat


def is_cross_entropy(loss_func: Any) -> bool:
    """Whether it is torch's cross entropy or log-likelihood, as function or module, with arguments or without."""
    function = unwrapped(loss_func)
    return function in (F.cross_entropy, F.nll_loss) or isinstance(function, nn.CrossEntropyLoss | nn.NLLLoss)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda pred: pred.softmax(-1),
    "sigmoid": torch.sigmoid,
    "exp": torch.exp,
}


def activation_of(loss_func: Any) -> Callable[[Tensor], Tensor]:
    """What turns outputs into predictions under a loss.

    Softmax for cross entropy, sigmoid for binary cross entropy with logits, exp for the log-likelihood; a loss of the
    user may have a method `activation`; otherwise outputs are predictions.
    """
    if callable(getattr(loss_func, "activation", None)):
        return loss_func.activation
    name = activation_name(loss_func)
    return ACTIVATIONS[name] if name else lambda pred: pred


def activation_name(loss_func: Any) -> str | None:
    """Which of `ACTIVATIONS` turns outputs into predictions under a loss of torch's; None for any other loss."""
    function = unwrapped(loss_func)
    if isinstance(function, CrossEntropyLossFlat):
        return "softmax" if function.axis == -1 else None
    if callable(getattr(function, "activation", None)) and not isinstance(function, FLAT):
        return None
    if function is F.cross_entropy or isinstance(function, nn.CrossEntropyLoss):
        return "softmax"
    if function is F.binary_cross_entropy_with_logits or isinstance(function, nn.BCEWithLogitsLoss):
        return "sigmoid"
    if function is F.nll_loss or isinstance(function, nn.NLLLoss):
        return "exp"
    return None


def batch_share(loss_func: Any, targ: Tensor) -> tuple[Any, Any]:
    """What the loss of a batch counts for in the mean over a set: (factor that makes it a sum, items in it).

    Σ loss · factor / Σ items is then the loss of the whole set as one batch, so it does not depend on the batches:
    torch divides a weighted cross entropy by the weights of the labels and leaves ignored labels out. A `sum` counts
    as it is, over the number of items. Any other loss is taken for a mean over items.
    """
    n = len(targ)
    if setting(loss_func, "reduction") == "sum":
        return 1, n
    if not is_cross_entropy(loss_func) or targ.is_floating_point():
        return n, n
    counted = label_weights(loss_func, targ).sum()
    items = counted.item() if counted.device.type == "cpu" else counted  # reading would wait for an accelerator
    return items, items


def label_weights(loss_func: Any, targ: Tensor) -> Tensor:
    """What each class number counts for in the mean of a cross entropy: its class weight, 0 if it is ignored."""
    kept = targ != setting(loss_func, "ignore_index", -100)
    weight = setting(loss_func, "weight")
    return kept if weight is None else widened(weight)[torch.where(kept, targ, 0).long()] * kept


def decoded(loss_func: Any, preds: Tensor) -> Tensor:
    """What predictions say: the class with the largest, or yes and no, as the loss understands them.

    A loss of the user may have a method `decodes`; otherwise predictions are taken as they are.
    """
    if callable(getattr(loss_func, "decodes", None)):
        return loss_func.decodes(preds)
    name = activation_name(loss_func)
    if name in ("softmax", "exp"):
        return preds.argmax(1)
    return preds > 0.5 if name == "sigmoid" else preds


def each_loss(loss_func: Any, pred: Tensor, targ: Tensor) -> Tensor:
    """Loss of each item of a batch, shape (batch,).

    torch's losses are asked for it (`reduction="none"`), class weights included; any other loss is called item by item,
    and so is one that has a `reduction` but does not heed it.
    """
    each = unreduced(loss_func)
    losses = None if each is None else each(pred, targ)
    if losses is None or losses.numel() % len(targ):
        losses = torch.stack([loss_func(pred[i : i + 1], targ[i : i + 1]) for i in range(len(targ))])
    return losses.reshape(len(targ), -1).mean(1)


def unreduced(loss_func: Any) -> Callable[..., Tensor] | None:
    """The loss with `reduction="none"`; None for one that does not know it."""
    if isinstance(loss_func, nn.Module) and hasattr(loss_func, "reduction"):
        each = copy.copy(loss_func)
        each.reduction = "none"  # pyright: ignore[reportArgumentType]
        return each
    return partial(loss_func, reduction="none") if _takes_reduction(unwrapped(loss_func)) else None


def _takes_reduction(function: Any) -> bool:
    if isinstance(function, nn.Module) or not callable(function):
        return False
    try:
        return "reduction" in inspect.signature(function).parameters
    except ValueError:  # written in C
        return False


def setting(loss_func: Any, name: str, default: Any = None) -> Any:
    """An argument that a loss was given: a keyword of a partial, an attribute of a module."""
    while isinstance(loss_func, partial):
        if name in loss_func.keywords:
            return loss_func.keywords[name]
        loss_func = loss_func.func
    return getattr(loss_func, name, default)


def unwrapped(loss_func: Any) -> Any:
    """The function inside partials."""
    while isinstance(loss_func, partial):
        loss_func = loss_func.func
    return loss_func


def _check_reduction(loss: Any) -> None:
    if loss.reduction not in ("mean", "sum", "none"):
        raise UsageError(f"{type(loss).__name__}: reduction is 'mean', 'sum' or 'none', got {loss.reduction!r}")


def _check_weight(weight: Any) -> None:
    if not (weight is None or isinstance(weight, Tensor)):
        kind = type(weight).__name__
        raise UsageError(f"weight is a tensor with the weight of each class, got a {kind}: give others by name")


def _several_classes(n: int, name: str) -> None:
    if n < 2:
        raise UsageError(
            f"{name} compares the outputs of classes, and there is only one: its loss is always 0. For a yes-or-no "
            "output use BCEWithLogitsLossFlat"
        )


def _items(input: Tensor, target: Tensor, axis: int, name: str) -> tuple[Tensor, Tensor]:
    """Outputs as (item, class) and labels as (item,)."""
    moved = input.movedim(axis, -1)
    _several_classes(moved.shape[-1], name)
    labels = paired(moved[..., 0], target, name, "labels are class numbers, one for each item")[1]
    # torch's cross entropy takes int64 alone; what is cast here are whole numbers, nothing is rounded.
    labels = labels.long() if labels.dtype in SMALL_INTEGERS else labels
    return moved.reshape(-1, moved.shape[-1]), labels
