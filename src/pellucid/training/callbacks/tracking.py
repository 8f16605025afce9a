"""Follow a column of the result table over the epochs: keep the best, stop in time, lower the rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import UsageError
from pellucid.number import count
from pellucid.optim.hypers import hypers, set_hyper
from pellucid.optim.optimizers import forget
from pellucid.output import say
from pellucid.text import counted, printable
from pellucid.training.callbacks.core import Callback, CancelFitException
from pellucid.training.rewind import Snapshot


class TrackerCallback(Callback):
    """Know the best value of a column of the result table; base of the callbacks that do something about it.

    An epoch is best if its value beats all before it, so the first of equals is. nan never is.

    Args:
        monitor: The column: `train_loss`, `valid_loss` or a metric.
        comp: (value, best so far) → whether the value is better; None takes `np.less` for what has `loss` or `error` in
            its name, else `np.greater`.
        min_delta: By how much a value must be better to count.
        reset_on_fit: Forget the best value when another fit begins.

    Attributes:
        best: The best value so far.
        best_epoch: Its epoch in the last fit; None if it has none that was better.
        new_best: Whether the last epoch is the best one.

    Raises:
        UsageError: when a fit begins: there is no such column.
    """

    order = 61  # behind the recorder
    needs_images = False

    def __init__(
        self,
        monitor: str = "valid_loss",
        comp: Callable[[Any, Any], Any] | None = None,
        min_delta: float = 0.0,
        reset_on_fit: bool = True,
    ):
        self.comp = comp or (np.less if "loss" in monitor or "error" in monitor else np.greater)
        self.monitor, self.min_delta, self.reset_on_fit = monitor, min_delta, reset_on_fit
        self._lower = bool(self.comp(0.0, 1.0))
        self.best = self._worst()

    def before_fit(self) -> None:
        names = self.learn.recorder.metric_names[1:-1]
        if self.monitor not in names:
            raise UsageError(f"{type(self).__name__}: there is no column {self.monitor!r}, only {', '.join(names)}")
        if self.monitor != "train_loss" and self.learn.dls.valid is None:
            raise UsageError(
                f"{type(self).__name__}: {self.monitor} needs a validation loader, and there is none: monitor "
                "'train_loss', or validate on something"
            )
        self._column = names.index(self.monitor)
        if self.reset_on_fit:
            self.best = self._worst()
        self.best_epoch: int | None = None
        self.new_best = False

    def after_epoch(self) -> None:
        value = self.learn.recorder.values[-1][self._column]
        gained = value + self.min_delta if self._lower else value - self.min_delta
        self.new_best = bool(self.comp(gained, self.best))
        if self.new_best:
            self.best, self.best_epoch = value, self.learn.epoch

    def state_dict(self) -> dict[str, Any]:
        return {"best": float(self.best), "best_epoch": self.best_epoch, "new_best": self.new_best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch, self.new_best = state["best"], state["best_epoch"], state["new_best"]

    @property
    def _where(self) -> str:
        return "an earlier fit" if self.best_epoch is None else f"epoch {self.best_epoch}"

    def _worst(self) -> float:
        return float("inf") if self._lower else -float("inf")


class Patience(TrackerCallback):
    """Does something when a value has not got better for `patience` epochs.

    Attributes:
        wait: Epochs since the value was best.
    """

    patience: int

    def before_fit(self) -> None:
        super().before_fit()
        self.wait = 0

    def after_epoch(self) -> None:
        super().after_epoch()
        self.wait = 0 if self.new_best else self.wait + 1
        if self.wait >= self.patience:
            self.out_of_patience()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "wait": self.wait}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.wait = state["wait"]

    def out_of_patience(self) -> None:
        """Called at the end of each epoch that is one too many."""
        raise NotImplementedError


class EarlyStoppingCallback(Patience):
    """End the fit when a value has not got better for some epochs, and print which was the best.

    The model stays as the last epoch left it: add `SaveModelCallback` or `KeepBestCallback` to have the best one.

    Args:
        monitor: As of `TrackerCallback`; so are `comp`, `min_delta` and `reset_on_fit`.
        patience: Epochs to wait for a better value.
    """

    order = 64  # behind all that also follow the epochs: it ends them

    def __init__(
        self,
        monitor: str = "valid_loss",
        comp: Callable[[Any, Any], Any] | None = None,
        min_delta: float = 0.0,
        patience: int = 1,
        reset_on_fit: bool = True,
    ):
        super().__init__(monitor, comp, min_delta, reset_on_fit)
        self.patience = count(patience, "patience")

    def out_of_patience(self) -> None:
        """See `Patience`."""
        if self.learn.epoch + 1 == self.learn.n_epoch:
            return
        say(
            f"stopped after epoch {self.learn.epoch}: {self.monitor} was best in {self._where} ({self.best:.6f}), and "
            f"no better in {counted(self.wait, 'epoch')} since"
        )
        raise CancelFitException


class SaveModelCallback(TrackerCallback):
    """Save the model whenever it is the best so far, and load the best when the fit ends.

    Files are those of `learn.save`. If an error or Ctrl-C ends the fit, the best one is in its file and not loaded.

    Args:
        monitor: As of `TrackerCallback`; so are `comp`, `min_delta` and `reset_on_fit`.
        fname: Name of the file; with `every_epoch` the number of the epoch follows, as in `model_3`.
        every_epoch: Save every epoch instead, or every n-th for a number, and load nothing.
        at_end: Save the model of the last epoch when the fit ends, and load nothing.
        with_opt: Save and load the optimizer's moments, too.

    Attributes:
        last_saved_path: The file that was written last.
    """

    def __init__(
        self,
        monitor: str = "valid_loss",
        comp: Callable[[Any, Any], Any] | None = None,
        min_delta: float = 0.0,
        fname: str = "model",
        every_epoch: bool | int = False,
        at_end: bool = False,
        with_opt: bool = False,
        reset_on_fit: bool = True,
    ):
        super().__init__(monitor, comp, min_delta, reset_on_fit)
        self.fname, self.every_epoch, self.at_end, self.with_opt = fname, every_epoch, at_end, with_opt
        self.last_saved_path: Path | None = None
        self._best_is_saved = False

    def before_fit(self) -> None:
        super().before_fit()
        if self.reset_on_fit:  # a file of that name is of another training
            self._best_is_saved = False

    def after_epoch(self) -> None:
        super().after_epoch()
        if self.every_epoch:
            if self.learn.epoch % self.every_epoch == 0:
                self._save(f"{self.fname}_{self.learn.epoch}")
        elif self.new_best and not self.at_end:
            self._save(self.fname)
            self._best_is_saved = True

    def state_dict(self) -> dict[str, Any]:
        saved = None if self.last_saved_path is None else str(self.last_saved_path)
        return {**super().state_dict(), "saved": saved, "best_is_saved": self._best_is_saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.last_saved_path = None if state["saved"] is None else Path(state["saved"])
        self._best_is_saved = state["best_is_saved"]

    def after_fit(self) -> None:
        if self.at_end:
            self._save(self.fname)
        elif self._best_is_saved:
            self.learn.load(self.fname, with_opt=self.with_opt)
            self.learn.recorder.kept = self.best_epoch
            say(
                f"the best model by {self.monitor} ({self.best:.6f}), of {self._where}, is loaded from "
                f"{printable(self.last_saved_path)}"
            )

    def _save(self, name: str) -> None:
        self.last_saved_path = self.learn.save(name, with_opt=self.with_opt)


class KeepBestCallback(TrackerCallback):
    """Put model, loss and moments of the optimizer back to the end of the best epoch, whatever ends the fit.

    The best epoch is kept in memory, bit for bit, and no file is written. With `reset_on_fit=False` it is the best of
    several fits.

    Args:
        monitor: As of `TrackerCallback`; so are `comp`, `min_delta` and `reset_on_fit`.
        start: Value of the model before the fit, if it is known: where no epoch is better, that model is put back.
    """

    def __init__(
        self,
        monitor: str = "valid_loss",
        comp: Callable[[Any, Any], Any] | None = None,
        min_delta: float = 0.0,
        reset_on_fit: bool = True,
        start: float | None = None,
    ):
        super().__init__(monitor, comp, min_delta, reset_on_fit)
        self.start = start
        self._kept: Snapshot | None = None

    def before_fit(self) -> None:
        super().before_fit()
        if self.start is not None:
            self.best, self._kept = self.start, Snapshot.of_learner(self.learn)

    def after_epoch(self) -> None:
        super().after_epoch()
        if self.new_best:
            self._kept = Snapshot.of_learner(self.learn)

    def state_dict(self) -> dict[str, Any]:
        kept = None if self._kept is None else self._kept.state_dict()
        return {**super().state_dict(), "start": self.start, "kept": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.start, self._kept = state["start"], None
        if state["kept"] is not None:
            self._kept = Snapshot.of_learner(self.learn)
            self._kept.load_state_dict(state["kept"])

    def cleanup_fit(self) -> None:
        if self._kept is None:
            return
        self._kept.restore()
        if self._kept.opt is not self.learn.opt:  # what that one has gathered belongs to other weights
            forget(self.learn.opt)
        self.learn.recorder.kept = self.best_epoch
        if self.reset_on_fit:
            self._kept = None


class ReduceLROnPlateau(Patience):
    """Divide the learning rates when a value has not got better for some epochs, and print the new one.

    Args:
        monitor: As of `TrackerCallback`; so are `comp`, `min_delta` and `reset_on_fit`.
        patience: Epochs to wait for a better value.
        factor: What the rate of each parameter group is divided by.
        min_lr: Rates do not fall below it.

    Raises:
        UsageError: when a fit begins: a schedule sets the learning rate.
    """

    order = 62  # behind the schedule

    def __init__(
        self,
        monitor: str = "valid_loss",
        comp: Callable[[Any, Any], Any] | None = None,
        min_delta: float = 0.0,
        patience: int = 1,
        factor: float = 10.0,
        min_lr: float = 0.0,
        reset_on_fit: bool = True,
    ):
        super().__init__(monitor, comp, min_delta, reset_on_fit)
        self.patience, self.factor, self.min_lr = count(patience, "patience"), factor, min_lr

    def before_fit(self) -> None:
        super().before_fit()
        if "lr" in self.learn.recorder.scheduled:
            raise UsageError("ReduceLROnPlateau has no effect where a schedule sets the rate: train with learn.fit")

    def out_of_patience(self) -> None:
        """See `Patience`."""
        self.wait = 0
        before = hypers(self.learn.opt)["lr"]
        after = [max(lr / self.factor, self.min_lr) for lr in before]
        if after != before:
            set_hyper(self.learn.opt, "lr", after)
            say(f"epoch {self.learn.epoch}: the learning rate falls to {after[-1]:.3g}")
