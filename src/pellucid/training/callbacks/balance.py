"""Let classes with few images count as much as those with many: weights in the training loss."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.data.imbalance import class_weights
from pellucid.errors import UsageError
from pellucid.nn.losses import is_cross_entropy, setting, unwrapped
from pellucid.training.callbacks.core import Callback


class BalancedLoss(Callback):
    """Weigh the classes in the training loss; the validation loss stays the mean over images.

    So the loss that is reported of validation can be compared with that of other trainings, and of other weights. To
    weigh both, give the weights to the loss itself: `CrossEntropyLossFlat(weight=…)`.

    Args:
        weights: Weight of each class, shape (class,); None takes n / (k · n_c), under which each of k classes counts
            alike, whatever its n_c of the n training images.

    Raises:
        UsageError: when a fit begins: the loss takes no weights or has some already, or training labels are not known.
    """

    order = -10  # before whatever looks at the loss that trains
    needs_images = False

    def __init__(self, weights: Any = None):
        self.weights = None if weights is None else torch.as_tensor(weights, dtype=torch.float32, device="cpu")

    def before_fit(self) -> None:
        self._plain = self.learn.loss_func
        self._weighted = _with_weights(self._plain, self._found().to(self.learn.dls.device))

    def before_train(self) -> None:
        self.learn.loss_func = self._weighted

    def after_train(self) -> None:
        self.learn.loss_func = self._plain

    def after_cancel_train(self) -> None:
        self.learn.loss_func = self._plain

    def cleanup_fit(self) -> None:
        if "_weighted" in vars(self):
            self.learn.loss_func = self._plain
            del self._plain, self._weighted

    def _found(self) -> Tensor:
        dls = self.learn.dls
        if self.weights is not None:
            return self.weights
        labels = getattr(dls.train, "labels", None)
        if not isinstance(labels, Tensor) or labels.dim() != 1 or labels.is_floating_point():
            raise UsageError(
                "BalancedLoss needs loaders of ours with one class an image to count the classes in; give it the "
                "weights: BalancedLoss([1.0, 3.5])"
            )
        return class_weights(labels, dls.c)


def _with_weights(loss_func: Any, weights: Tensor) -> Any:
    """The loss with weights of classes."""
    if setting(loss_func, "weight") is not None:
        raise UsageError("BalancedLoss: the loss has weights of its own already; leave one of the two out")
    if unwrapped(loss_func) in (F.cross_entropy, F.nll_loss):
        return partial(loss_func, weight=weights)
    if not is_cross_entropy(loss_func) and not hasattr(loss_func, "weight"):
        raise UsageError(
            "BalancedLoss: the loss has no weights of classes; cross entropy and focal loss have, under `weight`"
        )
    weighted = copy.copy(loss_func)
    weighted._buffers = {**loss_func._buffers, "weight": weights}
    return weighted
