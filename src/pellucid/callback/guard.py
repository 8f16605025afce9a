"""Stop a run whose loss is no longer a number, before it takes the model with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pellucid.callback.core import Callback
from pellucid.errors import TrainingError

COPY_EVERY = 50


class NonFiniteGuard(Callback):
    """End the fit with `TrainingError` when a training loss is nan or infinite, leaving a model of finite weights.

    On the CPU each loss is looked at before its backward pass; on an accelerator every 50 batches, because reading one
    waits for the device. If weights or running statistics are non-finite by then, those of the last good look (at most
    50 batches back) are put back.
    """

    order = 40

    def before_fit(self) -> None:
        self._state = self._tensors()
        self._copy = [tensor.clone() for tensor in self._state]
        self._unread: list[Tensor] = []
        self._steps = 0

    def after_loss(self) -> None:
        if not self.learn.training:
            return
        self._unread.append(self.learn.loss.detach())
        due = self._steps % COPY_EVERY == 0
        if due or self.learn.loss.device.type == "cpu":
            self._look(refresh=due)
        self._steps += 1

    def after_train(self) -> None:
        self._look(refresh=True)

    def cleanup_fit(self) -> None:
        self._copy, self._state, self._unread = [], [], []

    def _look(self, refresh: bool) -> None:
        losses, self._unread = self._unread, []
        value = losses[0].item() if len(losses) == 1 else torch.stack(losses).sum().item() if losses else 0.0
        if not math.isfinite(value):
            self._stop(value)
        if refresh and self._finite():
            _copy(self._state, into=self._copy)

    def _stop(self, value: float) -> None:
        restored = not self._finite()
        if restored:
            _copy(self._copy, into=self._state)
        lr = self.learn.opt.param_groups[-1]["lr"]
        kept = "put back as it was a few batches earlier" if restored else "kept as it is, its weights are finite"
        raise TrainingError(
            f"the training loss became {value} at epoch {self.learn.epoch}, batch {self.learn.iter} (learning rate "
            f"{lr:.3g}); the model is {kept}. Lower the learning rate, or look for bad values in inputs and loss"
        )

    def _finite(self) -> bool:
        return bool(torch.stack([tensor.isfinite().all() for tensor in self._state]).all()) if self._state else True

    def _tensors(self) -> list[Tensor]:
        return [tensor for tensor in self.learn.model.state_dict().values() if tensor.is_floating_point()]


def _copy(tensors: list[Tensor], into: list[Tensor]) -> None:
    with torch.no_grad():
        for source, target in zip(tensors, into, strict=True):
            target.copy_(source)
