"""Record losses, hyper-parameters and metrics of a fit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pellucid.callback.core import Callback
from pellucid.errors import UsageError
from pellucid.metrics import Evaluation, metric_name
from pellucid.optimizer import hypers
from pellucid.plot.figure import figure_of
from pellucid.plot.training import plot_loss, plot_sched

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLUSH_EVERY = 50
BETA = 0.98
SCHEDULED = ("lr", "mom")


class Recorder(Callback):
    """What happened in the last fit.

    Attributes:
        raw_losses: Training loss of each batch.
        losses: The same as exponential mean over the whole fit (beta 0.98, debiased).
        hypers: Hyper-parameter → its value at each batch, one per parameter group.
        values: Per epoch (train_loss, valid_loss, metrics…); train_loss is the smoothed one at its end.
        iters: Batches trained at the end of each epoch.
        seconds: Duration of each epoch.
    """

    order = 50

    def __init__(self) -> None:
        self._clear()

    @property
    def metric_names(self) -> list[str]:
        """Column headings of the result table."""
        return ["epoch", "train_loss", "valid_loss", *map(metric_name, self.learn.metrics), "time"]

    @property
    def lrs(self) -> list[float]:
        """Learning rate of the last parameter group at each batch."""
        return [values[-1] for values in self.hypers.get("lr", [])]

    def before_fit(self) -> None:
        self._clear()

    def before_epoch(self) -> None:
        self._started = time.perf_counter()
        self._evaluation = None

    def before_validate(self) -> None:
        self._evaluation = Evaluation(self.learn.metrics, self.learn.dls.device)

    def after_batch(self) -> None:
        learn = self.learn
        if not learn.training:
            if self._evaluation is not None:
                self._evaluation.update(learn.loss, learn.pred.detach(), learn.yb)
            return
        self._pending.append(learn.loss.detach())
        for name, values in hypers(learn.opt).items():
            self.hypers.setdefault(name, []).append(values)
        if len(self._pending) >= FLUSH_EVERY:
            self.flush()

    def after_train(self) -> None:
        self.flush()

    def after_epoch(self) -> None:
        n_columns = 1 + len(self.learn.metrics)
        measured = self._evaluation.values() if self._evaluation else [float("nan")] * n_columns
        self.values.append([self.losses[-1] if self.losses else float("nan"), *measured])
        self.iters.append(len(self.raw_losses))
        self.seconds.append(time.perf_counter() - self._started)

    def cleanup_fit(self) -> None:
        self.flush()

    def flush(self) -> None:
        """Read the losses recorded since the last call: the only place that waits for the device inside an epoch."""
        if not self._pending:
            return
        fresh = torch.stack([loss.float() for loss in self._pending]).tolist()
        self._pending.clear()
        for loss in fresh:
            self._mean = BETA * self._mean + (1 - BETA) * loss
            self.raw_losses.append(loss)
            self.losses.append(self._mean / (1 - BETA ** len(self.raw_losses)))

    def plot_loss(self, skip_start: int = 5, with_valid: bool = True, ax: Axes | None = None) -> Figure:
        """Plot the smoothed training loss, and the validation loss at the end of each epoch."""
        valid = [row[1] for row in self.values] if with_valid else []
        return figure_of(plot_loss(self.losses, valid, self.iters[: len(valid)], skip_start=skip_start, ax=ax))

    def plot_sched(self, names: str | Sequence[str] | None = SCHEDULED) -> Figure:
        """Plot hyper-parameters over the batches, one panel each, with a line per parameter group where they differ.

        Args:
            names: Which; the default are learning rate and momentum (if the optimizer has it), None all there are.

        Raises:
            UsageError: nothing was trained yet, or the optimizer has no hyper-parameter of that name.
        """
        if not self.hypers:
            raise UsageError("nothing was recorded yet: train at least one batch first")
        names = list(self.hypers) if names is None else [names] if isinstance(names, str) else names
        missing = [name for name in names if name not in self.hypers]
        if missing and tuple(names) != SCHEDULED:
            raise UsageError(f"no hyper-parameter {missing[0]!r} was recorded; there are {', '.join(self.hypers)}")
        return plot_sched({name: self.hypers[name] for name in names if name in self.hypers})

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The record as arrays: `loss [step]`, `<hyper-parameter> [step, group]`, `epoch_values [epoch, column]`."""
        arrays = {"loss": np.array(self.raw_losses, np.float32), "smooth_loss": np.array(self.losses, np.float32)}
        arrays |= {f"hyper.{name}": np.array(values, np.float32) for name, values in self.hypers.items()}
        return arrays | {"epoch_values": np.array(self.values, np.float32), "epoch_end": np.array(self.iters, np.int64)}

    def _clear(self) -> None:
        self.raw_losses: list[float] = []
        self.losses: list[float] = []
        self.hypers: dict[str, list[list[float]]] = {}
        self.values: list[list[float]] = []
        self.iters: list[int] = []
        self.seconds: list[float] = []
        self._pending: list[Tensor] = []
        self._mean = 0.0
        self._evaluation: Evaluation | None = None
        self._started = time.perf_counter()
