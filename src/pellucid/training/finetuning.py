"""Train a body that knows other images and a new head: the head first, then both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch import nn

from pellucid.nn.norms import is_batch_norm
from pellucid.training.asking import Asked, remembered
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.holder import listed
from pellucid.training.features import features_in_place_of_images, needs_images


class KeptStatistics(Callback):
    """Has the batch norms of all groups but the last use the statistics that they came with, and leave them.

    A head that was fitted on a body in evaluation mode no longer fits where each batch has its own statistics: of
    EfficientNet-Lite0 on CIFAR-10 at 96 pixels, whose probe has an accuracy of 0.763 and a loss of 0.73, the first
    batches have a loss of 1.6, and five epochs end at 0.61. With the kept statistics they begin at 0.5.
    """

    needs_images = False

    def before_train(self) -> None:
        """Put them into evaluation mode, as the learner has just put everything into training mode."""
        held = {id(p) for group in self.learn._groups()[:-1] for p in group}
        for module in self.learn.model.modules():
            if is_batch_norm(module) and any(id(p) in held for p in module.parameters()):
                module.eval()


class FineTuning(Asked):
    """Trains the last parameter group before the others; the parts that it needs are the learner's."""

    dls: Any
    model: nn.Module
    cbs: list[Callback]
    train_bn: bool
    fit_one_cycle: Callable[..., None]
    freeze: Callable[[], None]
    unfreeze: Callable[[], None]
    _groups: Callable[[], list[list[nn.Parameter]]]

    @remembered
    def fit_frozen(self, epochs: int, lr: float, *, flipped: bool = False, **options: Any) -> None:
        """Train the last parameter group alone, with the 1cycle schedule.

        A body that is frozen whole (`train_bn=False`, as `vision_learner` has it) is in evaluation mode. It looks at
        every image once, without random transforms, and all epochs train on its features, unless a callback needs
        images.

        Args:
            epochs: Passes over the training images.
            lr: Highest rate of the last group; norms of the others that are trained have a tenth of it.
            flipped: On features, learn from every training image or its mirror image, at random.
            options: Further arguments of `fit_one_cycle`.
        """
        self.freeze()
        cbs = self._fine_tuning(options.pop("cbs", None))
        live = needs_images(self, cbs) or self.next_is_behind
        with nullcontext() if live else features_in_place_of_images(self, views=1 + flipped):
            self.fit_one_cycle(epochs, slice(lr), pct_start=0.99, cbs=cbs, **options)

    @remembered
    def fine_tune(
        self,
        epochs: int,
        base_lr: float = 2e-3,
        freeze_epochs: int = 1,
        lr_mult: float = 100,
        pct_start: float = 0.3,
        div: float = 5.0,
        *,
        flipped: bool = False,
        **options: Any,
    ) -> None:
        """Train the last parameter group alone for `freeze_epochs`, then all of them at rates that rise from the input.

        With one group there is nothing to freeze and one rate: both parts train everything. Without `train_bn` the
        batch norms of all groups but the last keep the statistics that the head was trained on.

        Args:
            epochs: Passes after unfreezing.
            base_lr: Highest rate of the last group while the others are frozen, see `fit_frozen`; half of it
                afterwards.
            freeze_epochs: Passes with all but the last group frozen; 0 leaves that part out.
            lr_mult: Last group's rate over the first group's, after unfreezing.
            pct_start: Fraction of the second part spent on the way up.
            div: Highest over first learning rate in the second part.
            flipped: As of `fit_frozen`.
            options: Further arguments of `fit_one_cycle`.
        """
        if freeze_epochs:
            self.fit_frozen(freeze_epochs, base_lr, flipped=flipped, **options)
        self.unfreeze()
        high = base_lr / 2
        lrs = high if len(self._groups()) == 1 else slice(high / lr_mult, high)
        cbs = self._fine_tuning(options.pop("cbs", None))
        self.fit_one_cycle(epochs, lrs, pct_start=pct_start, div=div, cbs=cbs, **options)

    def _fine_tuning(self, cbs: Any) -> list[Callback]:
        return [*listed(cbs), *([] if self.train_bn else [KeptStatistics()])]
