"""Losses torch has no short name for, and what every loss implies: predictions from outputs, one loss an item."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.errors import UsageError


class LabelSmoothingCrossEntropy(nn.CrossEntropyLoss):
    """Cross entropy against targets that give each of K classes eps / K, and the labelled one 1 − eps on top.

        loss = (1 − eps) · (−log p[label]) + eps · mean over classes of (−log p)

    A model trained with it is less sure of itself, which helps when labels are wrong now and then.

    Args:
        eps: Share of the target spread over all classes, in [0, 1].
        weight: Weight of each class, shape (class,).
        reduction: `mean`, `sum`, or `none` for one loss an item.

    Raises:
        UsageError: `eps` is outside [0, 1].

    Source: Szegedy et al., arXiv:1512.00567, section 7.
    """

    def __init__(self, eps: float = 0.1, weight: Tensor | None = None, reduction: str = "mean"):
        if not 0 <= eps <= 1:
            raise UsageError(f"eps is the share of the target spread over all classes, from 0 to 1, got {eps}")
        super().__init__(weight=weight, reduction=reduction, label_smoothing=eps)

    @property
    def eps(self) -> float:
        """Share of the target spread over all classes."""
        return self.label_smoothing


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
    function = _unwrapped(loss_func)
    if callable(getattr(function, "activation", None)):
        return None
    if function is F.cross_entropy or isinstance(function, nn.CrossEntropyLoss):
        return "softmax"
    if function is F.binary_cross_entropy_with_logits or isinstance(function, nn.BCEWithLogitsLoss):
        return "sigmoid"
    if function is F.nll_loss or isinstance(function, nn.NLLLoss):
        return "exp"
    return None


def each_loss(loss_func: Any, pred: Tensor, targ: Tensor) -> Tensor:
    """Loss of each item of a batch, shape (batch,).

    torch's losses are asked for it (`reduction="none"`), class weights included; any other loss is called item by item.
    """
    if isinstance(loss_func, nn.Module) and hasattr(loss_func, "reduction"):
        loss_func = copy.copy(loss_func)
        loss_func.reduction = "none"  # pyright: ignore[reportArgumentType]
        losses = loss_func(pred, targ)
    elif getattr(_unwrapped(loss_func), "__module__", "") == "torch.nn.functional":
        losses = loss_func(pred, targ, reduction="none")
    else:
        losses = torch.stack([loss_func(pred[i : i + 1], targ[i : i + 1]) for i in range(len(targ))])
    return losses.reshape(len(targ), -1).mean(1)


def _unwrapped(loss_func: Any) -> Any:
    while isinstance(loss_func, partial):
        loss_func = loss_func.func
    return loss_func
