"""Metrics of a whole set: what they have in common, the mean over batches, and functions of all predictions at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import UsageError
from pellucid.nn.pairing import check_tensors, paired, widened
from pellucid.text import snake_case

BatchMetric = Callable[..., Any]


class ActivationType:
    """What `AccumMetric` applies to outputs first."""

    No, Sigmoid, Softmax, BinarySoftmax = ACTIVATIONS = "no", "sigmoid", "softmax", "binarysoftmax"


@runtime_checkable
class MetricLike(Protocol):
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


class Metric:
    """Base of metrics of a whole set: write `reset`, `update` and `compute`, or in fastai's form `accumulate`, `value`.

    Attributes:
        name: Column heading; the class's name in snake_case by default, without a trailing Metric.
    """

    name: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = snake_case(cls.__name__.removesuffix("Metric") or cls.__name__)

    def reset(self) -> None:
        """Forget all batches."""

    def update(self, pred: Any, targ: Any) -> None:
        """Take one batch in."""
        raise NotImplementedError

    def compute(self) -> Any:
        """Value over all batches since `reset`."""
        raise NotImplementedError

    def accumulate(self, learn: Any) -> None:
        """Take the learner's current batch in, its `pred` and `yb`."""
        self.update(learn.pred, *(learn.yb if hasattr(learn, "yb") else (learn.y,)))

    @property
    def value(self) -> Any:
        """The value over all batches since `reset`."""
        return self.compute()

    def __call__(self, pred: Any, targ: Any) -> Any:
        """Value of one batch alone; forgets all batches before."""
        self.reset()
        self.update(pred, targ)
        return self.compute()


class AvgMetric(Metric):
    """Mean of a function of one batch, in which each batch counts by its items; accumulates on the device, read once.

    It is what a plain function among a Learner's metrics becomes. Such a mean is the value of the whole set where the
    function is itself a mean over items, as accuracy is; F1 and other ratios are not: see `AccumMetric` and `F1Score`.

    Args:
        func: (outputs, labels) → one number.
    """

    def __init__(self, func: BatchMetric):
        self.func, self.name = func, metric_name(func)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.total: Any = 0.0
        self.n: Any = 0

    def update(self, pred: Any, targ: Any, *more: Any) -> None:
        """Take one batch in; a batch with several targets gives the function all of them."""
        self.add(as_number(self.func(pred, targ, *more), self.name), len(targ), len(targ))

    def add(self, value: Any, factor: Any, n: Any) -> None:
        """Take in a batch whose sum is `value` times `factor`, over `n` items."""
        value = widened(value.detach()) if isinstance(value, Tensor) else float(value)
        if isinstance(factor, Tensor):  # where nothing counts in a batch, its mean is 0 / 0
            value = torch.where(factor == 0, 0, value)
        elif not factor:
            value = 0.0
        self.total = self.total + value * factor
        self.n = self.n + n

    def compute(self) -> Any:
        """The mean; nan if there was nothing to take one of."""
        return self.total / self.n if isinstance(self.n, Tensor) or self.n else float("nan")


class AccumMetric(Metric):
    """A function of all outputs and labels of a set at once, kept on the CPU until it is over.

    Args:
        func: (outputs, labels) → one number, under `flatten` of two vectors.
        dim_argmax: Take the class with the largest output along this axis; None takes the outputs.
        activation: Applied to outputs instead: `softmax` (along `dim_argmax`, the last axis by default),
            `binarysoftmax` (the softmax's share of the last class), `sigmoid`, or `no`.
        thresh: True where the output is at least this; None for no threshold.
        to_np: Give `func` numpy arrays.
        invert_arg: Call `func` with labels first, as scikit-learn's functions want them.
        flatten: Flatten both, after checking that they have one shape.
        name: Column heading; None takes the function's name.
        kwargs: Further arguments of `func`.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        dim_argmax: int | None = None,
        activation: str = "no",
        thresh: float | None = None,
        to_np: bool = False,
        invert_arg: bool = False,
        flatten: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ):
        if activation not in ActivationType.ACTIVATIONS:
            raise UsageError(
                f"activation {activation!r} does not exist: use one of {', '.join(ActivationType.ACTIVATIONS)}"
            )
        self.func, self.dim_argmax, self.activation, self.thresh = func, dim_argmax, activation, thresh
        self.to_np, self.invert_arg, self.flatten, self.kwargs = to_np, invert_arg, flatten, kwargs
        self.name = name or metric_name(func)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.preds: list[Tensor] = []
        self.targs: list[Tensor] = []

    def update(self, pred: Tensor, targ: Tensor) -> None:
        """Take one batch in."""
        check_tensors(self.name, pred, targ)
        pred = self._activated(pred.detach())
        pred = pred >= self.thresh if self.thresh is not None else pred
        pred, targ = paired(pred, targ.detach(), self.name) if self.flatten else (pred, targ.detach())
        self.preds.append(pred.cpu())
        self.targs.append(targ.cpu())

    def compute(self) -> Any:
        """The function's value; nan if there was no batch."""
        if not self.preds:
            return float("nan")
        pair: Any = torch.cat(self.preds), torch.cat(self.targs)
        pair = tuple(t.numpy() for t in pair) if self.to_np else pair
        return self.func(*(reversed(pair) if self.invert_arg else pair), **self.kwargs)

    def _activated(self, pred: Tensor) -> Tensor:
        if self.activation == "sigmoid":
            return pred.sigmoid()
        if self.activation in ("softmax", "binarysoftmax"):
            pred = pred.softmax(-1 if self.dim_argmax is None else self.dim_argmax)
            return pred[:, -1] if self.activation == "binarysoftmax" else pred
        return pred if self.dim_argmax is None else pred.argmax(self.dim_argmax)


def skm_to_fastai(
    func: Callable[..., Any],
    is_class: bool = True,
    thresh: float | None = None,
    axis: int = -1,
    activation: str | None = None,
    **kwargs: Any,
) -> AccumMetric:
    """A function of `sklearn.metrics` as a metric of the whole set.

    Args:
        func: (labels, predictions) → one number, of numpy vectors.
        is_class: It compares classes: takes the one with the largest output along `axis`, or what is above `thresh`.
        thresh: Yes or no by a threshold on the sigmoid, in place of the largest output.
        axis: The axis of the classes.
        activation: As of `AccumMetric`; None takes a sigmoid where there is a threshold.
        kwargs: Further arguments of `func`, and of `AccumMetric`.
    """
    dim = axis if is_class and thresh is None else None
    if activation is None:
        activation = "sigmoid" if is_class and thresh is not None else "no"
    return AccumMetric(func, dim, activation, thresh, to_np=True, invert_arg=True, **kwargs)


def metric_name(metric: Any) -> str:
    """Column heading of a metric: the function's name, or the class's in lower case."""
    while isinstance(metric, partial):
        metric = metric.func
    return getattr(metric, "__name__", None) or getattr(metric, "name", None) or type(metric).__name__.lower()


def column_names(metrics: Sequence[Any]) -> list[str]:
    """Column headings of metrics, with a number behind those that are taken, so that no column hides another."""
    taken = {"epoch", "train_loss", "valid_loss", "time", "seconds"}
    names = []
    for metric in metrics:
        name = heading = metric_name(metric)
        n = 1
        while heading in taken:
            n += 1
            heading = f"{name}_{n}"
        taken.add(heading)
        names.append(heading)
    return names


def as_number(value: Any, name: str) -> Any:
    """`value` if it is one number, a tensor as a scalar; nothing is read from the device.

    Raises:
        UsageError: it is something else, such as a matrix, a dict or a string.
    """
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return value.reshape(())
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, Real | np.bool_):
        return value
    if isinstance(value, Tensor | np.ndarray):
        kind = f"an array of shape {tuple(value.shape)}" if value.ndim else f"a number of type {value.dtype}"
    else:
        kind = "nothing" if value is None else f"a {type(value).__name__}"
    raise UsageError(
        f"the metric {name} gave {kind}: a metric is one number. For several values, list a metric for each"
    )
