"""Metrics, and their means over batches of differing size without waiting for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

BatchMetric = Callable[[Tensor, Tensor], Any]


def accuracy(pred: Tensor, targ: Tensor, axis: int = -1) -> Tensor:
    """Share of predictions whose largest value along `axis` is at the target."""
    return (pred.argmax(axis) == targ).float().mean()


def error_rate(pred: Tensor, targ: Tensor, axis: int = -1) -> Tensor:
    """1 − accuracy."""
    return 1 - accuracy(pred, targ, axis)


def top_k_accuracy(pred: Tensor, targ: Tensor, k: int = 5, axis: int = -1) -> Tensor:
    """Share of predictions with the target among their `k` largest values."""
    best = pred.topk(min(k, pred.shape[axis]), dim=axis).indices
    return (best == targ.unsqueeze(axis)).any(axis).float().mean()


@runtime_checkable
class Metric(Protocol):
    """A metric that is more than a mean over batches; torchmetrics' classes are of this form."""

    def reset(self) -> Any:
        """Start a validation."""
        ...

    def update(self, pred: Tensor, targ: Tensor) -> Any:
        """Take one batch in."""
        ...

    def compute(self) -> Any:
        """Value over all batches since `reset`."""
        ...


class Mean:
    """Mean of a per-batch value, weighted by batch size; accumulates on the device, read once."""

    def __init__(self, metric: BatchMetric):
        self.metric = metric
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.total: Any = 0.0
        self.n = 0

    def update(self, pred: Tensor, targ: Tensor) -> None:
        """Take one batch in."""
        self.add(self.metric(pred, targ), len(targ))

    def add(self, value: Any, n: int) -> None:
        """Take in a value that stands for `n` items."""
        self.total = self.total + value * n
        self.n += n

    def compute(self) -> Any:
        """The weighted mean; nan if there was no batch."""
        return self.total / self.n if self.n else float("nan")


def metric_name(metric: Any) -> str:
    """Column heading of a metric: the function's name, or the class's in lower case."""
    while isinstance(metric, partial):
        metric = metric.func
    return getattr(metric, "__name__", None) or getattr(metric, "name", None) or type(metric).__name__.lower()


class Evaluation:
    """Loss and metrics over one pass of a loader."""

    def __init__(self, metrics: Sequence[Any], device: torch.device):
        self.loss = Mean(lambda pred, targ: None)
        self.metrics = [metric if isinstance(metric, Metric) else Mean(metric) for metric in metrics]
        for metric in self.metrics:
            if isinstance(metric, torch.nn.Module):  # torchmetrics keep their sums in buffers
                metric.to(device)
            metric.reset()

    def update(self, loss: Tensor, pred: Tensor, targ: Tensor) -> None:
        """Take one batch in."""
        self.loss.add(loss.detach(), len(targ))
        for metric in self.metrics:
            metric.update(pred, targ)

    def values(self) -> list[float]:
        """Loss and metrics as numbers: the one place that waits for the device."""
        return [float(self.loss.compute()), *(float(metric.compute()) for metric in self.metrics)]
