"""Loss and metrics of one pass over a loader, without waiting for the device before its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import UsageError
from pellucid.metrics.whole import AvgMetric, Metric, MetricLike, as_number, metric_name
from pellucid.nn.losses import batch_share


class Evaluation:
    """Loss and metrics over one pass of a loader.

    The loss is the mean over the items of the set, whatever the batches: see `batch_share`.

    Args:
        metrics: Functions (outputs, labels) → one number, or objects with reset, update and compute.
        device: Where the batches are.
        loss_func: The loss whose values are taken in; it says what a batch counts for.

    Raises:
        UsageError: a metric is neither.
    """

    def __init__(self, metrics: Sequence[Any], device: torch.device, loss_func: Callable[..., Any] | None = None):
        self.loss, self.loss_func = AvgMetric(_nothing), loss_func
        self.names = [metric_name(metric) for metric in metrics]
        self.metrics: list[Any] = [_as_metric(metric) for metric in metrics]
        for metric in self.metrics:
            metric.reset()
            if isinstance(metric, nn.Module):  # torchmetrics keep their sums in buffers
                metric.to(device)

    def update(self, loss: Tensor, pred: Any, targets: tuple[Any, ...]) -> None:
        """Take one batch in: its loss, the model's output and the labels."""
        self.loss.add(loss, *batch_share(self.loss_func, targets[0]))
        for metric in self.metrics:
            metric.update(pred, *targets)

    def values(self) -> list[float]:
        """Loss and metrics as numbers: the one place that waits for the device.

        Raises:
            UsageError: a metric's value is not one number.
        """
        found = [metric.compute() for metric in self.metrics]
        return [float(self.loss.compute()), *map(float, map(as_number, found, self.names))]


class _Accumulating:
    """A metric written for fastai, with `accumulate(learn)` and `value`; what it sees of the learner is the batch."""

    def __init__(self, metric: Any):
        self.metric, self.reset = metric, metric.reset

    def update(self, pred: Any, *targets: Any) -> None:
        y = targets[0] if len(targets) == 1 else targets
        self.metric.accumulate(SimpleNamespace(pred=pred, y=y, yb=targets))

    def compute(self) -> Any:
        return self.metric.value


def _as_metric(metric: Any) -> Any:
    if isinstance(metric, type):
        raise UsageError(f"the metric {metric.__name__} is a class: give an instance, {metric.__name__}()")
    if getattr(type(metric), "accumulate", Metric.accumulate) is not Metric.accumulate:
        return _Accumulating(metric)
    if isinstance(metric, MetricLike):
        return metric
    if not callable(metric):
        raise UsageError(
            f"{metric!r} is no metric: give functions (outputs, labels) → number, or objects with reset, update and "
            "compute"
        )
    return AvgMetric(metric)


def _nothing(pred: Any, targ: Any) -> None:
    """Stands for the loss among the metrics: its values are added. No lambda, so that a learner can be pickled."""
