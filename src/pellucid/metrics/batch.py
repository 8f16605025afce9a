"""Metrics of one batch. A Learner gives their mean over a set, in which each batch counts by its items."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.errors import UsageError
from pellucid.nn.pairing import check_tensors, paired


def accuracy(pred: Tensor, targ: Tensor, axis: int = -1) -> Tensor:
    """Share of predictions whose largest value along `axis` is at the target.

    Args:
        pred: Outputs with one value a class along `axis`, (batch, class) as a rule.
        targ: Classes, whole numbers in the shape of `pred` without `axis`; axes of length 1 do not matter.
        axis: The axis of the classes.

    Raises:
        UsageError: the shapes differ, or there is only one output to choose from.
    """
    decided, labels = paired(chosen(pred, axis, "accuracy"), targ, "accuracy", HINT)
    return (decided == labels).float().mean()


def error_rate(pred: Tensor, targ: Tensor, axis: int = -1) -> Tensor:
    """1 − accuracy."""
    return 1 - accuracy(pred, targ, axis)


def top_k_accuracy(pred: Tensor, targ: Tensor, k: int = 5, axis: int = -1) -> Tensor:
    """Share of predictions with the target among their `k` largest values; arguments as of `accuracy`."""
    decided = chosen(pred, axis, "top_k_accuracy")
    labels = paired(decided, targ, "top_k_accuracy", HINT)[1].reshape(decided.shape)
    best = pred.topk(min(k, pred.shape[axis]), dim=axis).indices
    return (best == labels.unsqueeze(axis)).any(axis).float().mean()


def accuracy_multi(pred: Tensor, targ: Tensor, thresh: float = 0.5, sigmoid: bool = True) -> Tensor:
    """Share of right yes-or-no answers, where an item has several of them, or only one.

    Args:
        pred: Outputs, one for each answer.
        targ: 0 or 1 for each, in the shape of `pred`; axes of length 1 do not matter.
        thresh: An answer is yes above it.
        sigmoid: Put `pred` through a sigmoid first.
    """
    answers, labels = paired(pred, targ, "accuracy_multi")
    return ((answers.sigmoid() if sigmoid else answers) > thresh).eq(labels.bool()).float().mean()


HINT = "labels are class numbers, one for each item; `axis` names the axis of the classes"


def chosen(pred: Tensor, axis: int, name: str) -> Tensor:
    """The class with the largest output."""
    check_tensors(name, pred)
    if pred.dim() == 0 or pred.shape[axis] < 2:
        raise UsageError(
            f"{name} takes the class with the largest output, but outputs of shape {tuple(pred.shape)} have only one "
            f"along axis {axis}: use accuracy_multi for a yes-or-no output, or give the axis of the classes"
        )
    return torch.argmax(pred, axis)
