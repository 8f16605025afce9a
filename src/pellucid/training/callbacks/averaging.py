"""Validate and keep a moving average of the weights instead of the weights of the last step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pellucid.errors import UsageError
from pellucid.training.callbacks.core import Callback


class ModelEMA(Callback):
    """Average weights and buffers over the steps; the model has the averages whenever it is not being trained.

    After step n, from 1,

        average ← d · average + (1 − d) · weight        d = min(decay, (1 + n) / (10 + n))

    for all floating parameters and buffers (batchnorm's statistics too); whole numbers are copied. The rising d lets go
    of the first weights in short trainings. The averages are put into the model after each epoch's training batches
    and taken out before the next ones: validation, metrics, `SaveModelCallback` and `KeepBestCallback` see them, and
    they are what is left when the fit ends. An error or Ctrl-C in the middle of an epoch leaves the weights themselves.

    Args:
        decay: Highest d: about the last 1 / (1 − decay) steps count.

    Raises:
        UsageError: `decay` is not above 0 and below 1.

    Source: Polyak & Juditsky 1992; the rising d is that of TensorFlow's `ExponentialMovingAverage`.
    """

    order = 30  # before the guard, which keeps the weights that training goes on with
    needs_images = False
    run_valid = False

    def __init__(self, decay: float = 0.999):
        if not 0 < decay < 1:
            raise UsageError(f"decay is the share of the average that is kept, above 0 and below 1, got {decay}")
        self.decay = decay

    def before_fit(self) -> None:
        tensors = [*self.learn.model.parameters(), *self.learn.model.buffers()]
        self._live = [t for t in tensors if t.is_floating_point()]
        self._averages = [t.detach().clone() for t in self._live]
        self._trained: list[Tensor] | None = None
        self._n = 0

    @torch.no_grad()
    def after_step(self) -> None:
        self._n += 1
        d = min(self.decay, (1 + self._n) / (10 + self._n))
        get_ema_multi_avg_fn(d)(self._averages, self._live, self._n)

    def after_train(self) -> None:
        self._trained = [t.detach().clone() for t in self._live]
        self._put(self._averages)

    def before_train(self) -> None:
        if self._trained is not None:
            self._put(self._trained)
            self._trained = None

    def state_dict(self) -> dict[str, Any]:
        return {"averages": self._averages, "trained": self._trained, "n": self._n}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mine, value in zip(self._averages, state["averages"], strict=True):
            mine.copy_(value)
        trained = state["trained"]
        self._trained = None if trained is None else [torch.empty_like(t).copy_(v) for t, v in self._paired(trained)]
        self._n = state["n"]

    def _paired(self, values: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self._live, values, strict=True))

    def cleanup_fit(self) -> None:
        self._live, self._averages, self._trained = [], [], None

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for tensor, value in self._paired(values):
            tensor.copy_(value)
