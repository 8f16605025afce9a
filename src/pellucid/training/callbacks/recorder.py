"""Record losses, hyper-parameters and metrics of a fit."""

from __future__ import annotations

import time
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import UsageError
from pellucid.history.history import History
from pellucid.history.pictures import CurvePictures
from pellucid.metrics import Evaluation, column_names
from pellucid.optim.hypers import HyperRows, hypers
from pellucid.text import counted
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.curves import Curve, Curves

FLUSH_EVERY = 50
BETA = 0.98
ALWAYS = {"train_metrics": False, "valid_metrics": True, "add_time": True}  # settings of fastai's recorder


class Recorder(Callback, CurvePictures):
    """What happened in the last fit.

    The values of a batch are there from its `after_batch` on, for callbacks with a higher `order`. Reading a loss waits
    for an accelerator to compute it. `raw_losses`, `losses`, `lrs`, `hypers` and `hps` have one exact value a batch for
    131,072 batches. Longer runs keep at most as many values, which stand for 2, 4, 8, … batches each, as `steps` says:
    their mean in `raw_losses`, the value at the last of them in the others.

    Attributes:
        values: Per epoch (train_loss, valid_loss, metrics…); train_loss is the smoothed one at its end.
        log: The last finished epoch as it is shown: its number, its values, its duration as text.
        iters: Batches trained at the end of each epoch.
        seconds: Duration of each epoch.
        kept: Epoch that a callback put the model back to at the end of the last fit; None if none did, or `load` put
            other weights in since.
        scheduled: Names of the hyper-parameters that a schedule set in the last fit.
    """

    order = 50
    needs_images = False

    def __init__(self) -> None:
        self._clear()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ALWAYS and value is not ALWAYS[name]:
            raise UsageError(
                f"the recorder's {name} is always {ALWAYS[name]}: its columns are train_loss, valid_loss, the metrics "
                "of the validation images, and time. For metrics of the training images call learn.validate(0)"
            )
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        n, n_epochs = len(self.steps), len(self.values)
        if not n:
            return "Recorder: nothing recorded yet"
        names = self.metric_names[1:-1] if vars(self).get("learn") else []
        shown = zip(names, self.values[-1] if self.values else [], strict=False)
        last = "".join(f", {name} {value:.4g}" for name, value in shown)
        return f"Recorder: {counted(self.steps[-1], 'batch', 'batches')}, {counted(n_epochs, 'epoch')}{last}"

    @property
    def metric_names(self) -> list[str]:
        """Column headings of the result table."""
        return ["epoch", "train_loss", "valid_loss", *column_names(self.learn.metrics), "time"]

    @property
    def raw_losses(self) -> Curve:
        """Training loss of each batch."""
        self.flush()
        return Curve(self._raw.values[:, 0])

    @property
    def losses(self) -> Curve:
        """Training loss of each batch as exponential mean over the whole fit (beta 0.98, debiased)."""
        self.flush()
        return Curve(self._smooth.values[:, 0])

    @property
    def losses_read(self) -> Curve:
        """As `losses`, without waiting for the device: up to the last 50 batches may be missing."""
        return Curve(self._smooth.values[:, 0])

    @property
    def lrs(self) -> Curve:
        """Learning rate of the last parameter group at each batch."""
        rates = self._hyper_values().get("lr")
        return Curve(np.zeros(0) if rates is None else rates[:, -1])

    @property
    def hypers(self) -> dict[str, Curve]:
        """Hyper-parameter → its value at each batch, one per parameter group; nan for a group that was not there."""
        return {name: Curve(values) for name, values in self._hyper_values().items()}

    @property
    def hps(self) -> dict[str, Curve]:
        """Scheduled hyper-parameter → its value at each batch, of the last parameter group."""
        return {name: Curve(v[:, -1]) for name, v in self._hyper_values().items() if name in self.scheduled}

    @property
    def steps(self) -> np.ndarray:
        """Batches trained at each value: 1, 2, 3, … for the first 131,072 batches; int64."""
        self._keep_hypers()
        return self._hypers.steps

    @property
    def history(self) -> History:
        """Losses, hyper-parameters and values of epochs, as a history without layers."""
        self.flush()
        hypers = {f"hyper.{name}": values for name, values in self._hyper_values().items()}
        curves = {"step": self.steps, "loss": self._raw.values[:, 0], "smooth_loss": self._smooth.values[:, 0]}
        epochs = {
            "epoch_end": np.array(self.iters, np.int64),
            "epoch_values": np.reshape(self.values, (len(self.values), len(self._columns))).astype(float),
        }
        return History(series=curves | hypers | epochs, epoch_columns=list(self._columns))

    def before_fit(self) -> None:
        self._clear()

    def before_epoch(self) -> None:
        self._started = time.perf_counter()
        self._evaluation = None

    def before_validate(self) -> None:
        self._evaluation = Evaluation(self.learn.metrics, self.learn.dls.device, self.learn.loss_func)

    def after_batch(self) -> None:
        learn = self.learn
        if not learn.training:
            if self._evaluation is not None:
                self._evaluation.update(learn.loss, learn.pred, learn.yb)
            return
        self._losses.append(learn.loss.detach())
        self._settings.append(hypers(learn.opt))
        if len(self._losses) >= FLUSH_EVERY:
            self.flush()

    def after_train(self) -> None:
        self.flush()

    def after_epoch(self) -> None:
        n_columns = len(self.metric_names) - 3  # but epoch, train_loss and time
        measured = self._evaluation.values() if self._evaluation else [float("nan")] * n_columns
        losses = self.losses
        self._columns = self.metric_names[1:-1]
        self.values.append([float(losses[-1]) if losses else float("nan"), *measured])
        self.iters.append(self._raw.n)
        self.seconds.append(time.perf_counter() - self._started)
        self.log = [self.learn.epoch, *self.values[-1], clock(self.seconds[-1])]
        self.learn.logger(self.log)

    def cleanup_fit(self) -> None:
        self._evaluation = None
        self.flush()

    def state_dict(self) -> dict[str, Any]:
        self.flush()
        return {
            "raw": self._raw.state_dict(),
            "smooth": self._smooth.state_dict(),
            "hypers": self._hypers.state_dict(),
            "rows": [list(each) for each in self._rows],
            "mean": self._mean,
            "values": self.values,
            "columns": self._columns,
            "iters": self.iters,
            "seconds": self.seconds,
            "log": self.log,
            "elapsed": time.perf_counter() - self._started,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for curves, name in ((self._raw, "raw"), (self._smooth, "smooth"), (self._hypers, "hypers")):
            curves.load_state_dict(state[name])
        self._rows = HyperRows()
        self._rows.of((name, group) for name, group in state["rows"])
        self._mean, self.values, self._columns = state["mean"], state["values"], state["columns"]
        self.iters, self.seconds, self.log = state["iters"], state["seconds"], state["log"]
        self._started = time.perf_counter() - state["elapsed"]

    def flush(self) -> None:
        """Read the losses recorded since the last call: the only place that waits for the device inside an epoch."""
        self._keep_hypers()
        pending, self._losses = self._losses, []
        if not pending:
            return
        raw = torch.stack([loss.float() for loss in pending]).tolist()
        smooth = []
        for i, loss in enumerate(raw, self._raw.n + 1):
            self._mean = BETA * self._mean + (1 - BETA) * loss
            smooth.append(self._mean / (1 - BETA**i))
        self._raw.extend(np.array(raw)[:, None])
        self._smooth.extend(np.array(smooth)[:, None])

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The record as the arrays of a history; see `pellucid.history.history` for their names and shapes."""
        return self.history.to_arrays()

    def _keep_hypers(self) -> None:
        """Put hyper-parameters in their rows, which follow when parameter groups or the optimizer change."""
        pending, self._settings = self._settings, []
        for shape, some in groupby(pending, lambda values: [(name, len(groups)) for name, groups in values.items()]):
            keys = [(name, group) for name, n_groups in shape for group in range(n_groups)]
            rows = self._rows.of(keys)
            settings = [[value for groups in values.values() for value in groups] for values in some]
            self._hypers.widen(len(self._rows))
            table = np.full((len(settings), len(self._rows)), np.nan)
            table[:, rows] = settings
            self._hypers.extend(table)

    def _hyper_values(self) -> dict[str, np.ndarray]:
        """Name → values [column, group]; not copied where its groups came together."""
        self._keep_hypers()
        found = {}
        for name, rows in self._rows.by_name().items():
            together = rows[-1] - rows[0] == len(rows) - 1
            found[name] = self._hypers.values[:, slice(rows[0], rows[-1] + 1) if together else rows]
        return found

    def _clear(self) -> None:
        self._raw, self._smooth, self._hypers = Curves(mean=True), Curves(), Curves(0)
        self._rows = HyperRows()
        self._losses: list[Tensor] = []
        self._settings: list[dict[str, list[float]]] = []
        self._mean = 0.0
        self.values: list[list[float]] = []
        self._columns: list[str] = []
        self.iters: list[int] = []
        self.seconds: list[float] = []
        self.log: list[Any] = []
        self.scheduled: set[str] = set()
        self.kept: int | None = None
        self._evaluation: Evaluation | None = None
        self._started = time.perf_counter()


def clock(seconds: float) -> str:
    """A duration as `MM:SS`, or `H:MM:SS` from an hour on."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m:02d}:{s:02d}"
