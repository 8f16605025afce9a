"""Keep a training while it goes on, so that it can be killed at any moment and gone on with to the same bits."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pellucid.errors import UsageError
from pellucid.number import count, number
from pellucid.seed import RandomState
from pellucid.text import printable
from pellucid.training import kept
from pellucid.training.callbacks.core import Callback
from pellucid.training.fingerprint import fingerprint
from pellucid.training.state import captured

LOCK = ".lock"
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
LAST = 2**31  # behind every other callback: what it keeps is the whole batch


class Checkpoint(Callback):
    """Keep all that decides how a fit goes on, now and then, at the end of a batch or of an epoch.

    A step that is kept is a folder `checkpoints/step<N>` in `folder`, which appears whole or not at all: weights,
    moments, random numbers, place in the order of the images, and what callbacks remember, as safetensors and JSON.
    The training waits for a copy in memory only; a thread writes it. If that fails, as on a full disk, training goes on
    with one warning, and what was kept before stays. `Learner.resume` goes on from there, to the same bits.

    SIGTERM and Ctrl-C have the end of the present batch (or of the present validation) kept, and end the training then;
    a second Ctrl-C ends it at once.

    Args:
        folder: Where; a folder of this training alone.
        every_s: Seconds between two checkpoints, which do not wait for one another; 0 for as often as they are written.
        keep: How many of the last ones stay.
        every: Keep every n-th step besides; None for none.
        best: A column of the result table (see `TrackerCallback`): the end of an epoch that is the best so far is kept
            and stays until a better one. None for none.

    Attributes:
        last: The folder of the step that was kept last; None before there is one.

    Raises:
        UsageError: when a fit begins: the folder has checkpoints of another training, or another process writes there.
    """

    order = LAST
    needs_images = False
    run_valid = False

    def __init__(
        self,
        folder: str | Path,
        every_s: float = 60.0,
        keep: int = 3,
        *,
        every: int | None = None,
        best: str | None = "valid_loss",
    ):
        self.folder, self.keep, self.best = Path(folder), count(keep, "keep"), best
        self.every_s = number(every_s, "every_s")
        self.every = None if every is None else count(every, "every")
        self.last: Path | None = None
        self.extra: dict[str, Any] = {}
        self._writing: threading.Thread | None = None
        self._problem: str | None = None
        self._warned = self._mine = False

    @property
    def settings(self) -> dict[str, Any]:
        """What makes another one like it, but for the folder."""
        return {"every_s": self.every_s, "keep": self.keep, "every": self.every, "best": self.best}

    def before_fit(self) -> None:
        learn = self.learn
        self._order: RandomState | None = None
        self._signal, self._handlers = 0, {}
        self._best_value: float | None = None
        goes_on = learn.kept_step is not None or (self._mine and learn.fit_number > 0)
        there = kept.steps_in(self.folder)
        if there and not goes_on and not self._mine:
            raise UsageError(
                f"{printable(self.folder)}: has checkpoints of another training ({there[-1].name}); go on with it, "
                f"learn.resume({str(self.folder)!r}), or name another folder"
            )
        self._take_folder(remove=bool(there) and not goes_on)
        self._data = fingerprint(learn.dls)
        if not self.extra:  # else who gave that says when all is done: the run has to be written first
            learn.when_done(self._done)
        self._due = time.monotonic() + self.every_s
        self._listen()

    def before_train(self) -> None:
        self._order = RandomState(self.learn.dl)

    def after_batch(self) -> None:
        learn = self.learn
        step = learn.steps_before + learn.train_iter
        asked = bool(self._signal or (self.every and step % self.every == 0))
        if asked or time.monotonic() >= self._due:
            self._keep(learn.epoch, learn.iter + 1, waits=asked)

    def after_epoch(self) -> None:
        self._order = None
        best = self._is_best()
        if best or self._signal or time.monotonic() >= self._due:
            self._keep(self.learn.epoch + 1, 0, waits=best or bool(self._signal), best=best)

    def cleanup_fit(self) -> None:
        if "_handlers" not in vars(self):
            return
        self._wait()
        self._unlisten()
        if vars(self).get("_lock") is not None:
            self._lock.release()
        if self._signal:  # the fit was over before there was a place to stop at
            self._end(self._signal)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best_value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best_value = state["best"]
        order = self.learn.resumed_order
        if order is not None:
            self._order = RandomState(self.learn.dl)
            self._order.load_state_dict(order)

    def _is_best(self) -> bool:
        recorder = getattr(self.learn, "recorder", None)
        if self.best is None or recorder is None or self.learn.dls.valid is None:
            return False
        names = recorder.metric_names[1:-1]
        if self.best not in names:
            raise UsageError(f"Checkpoint: there is no column {self.best!r}, only {', '.join(names)}")
        value, lower = recorder.values[-1][names.index(self.best)], "loss" in self.best or "error" in self.best
        known = self._best_value
        if value == value and (known is None or (value < known if lower else value > known)):
            self._best_value = value
            return True
        return False

    def _keep(self, epoch: int, batch: int, *, waits: bool, best: bool = False) -> None:
        """Copy everything and have it written; while the last one is still being written, wait, or leave this out."""
        if self._writing is not None and self._writing.is_alive() and not waits:
            return
        self._wait()
        learn = self.learn
        state = captured(learn, epoch, batch, self._order if batch else None)
        recorder = getattr(learn, "recorder", None)
        description = {
            "step": learn.steps_before + learn.train_iter,
            "epoch": epoch,
            "batch": batch,
            "best": best,
            "asked": learn.asked,
            "data": self._data,
            "callbacks": sorted(state["callbacks"]),
            "checkpoint": self.settings,
            "columns": [] if recorder is None else recorder.metric_names[1:-1],
            "values": [] if recorder is None else [[_finite(v) for v in row] for row in recorder.values],
            **self.extra,
        }
        self._writing = threading.Thread(target=self._write, args=(description, state), daemon=True)
        self._writing.start()
        self._due = time.monotonic() + self.every_s
        if self._signal:
            number_, self._signal = self._signal, 0
            self._wait()
            self._unlisten()
            self._end(number_)

    def _write(self, description: dict[str, Any], state: dict[str, Any]) -> None:
        try:
            self.last = kept.write(self.folder, description, state)
            kept.prune(self.folder, self.keep)
        except Exception as error:  # of a full disk, or of a callback whose state no file can keep: said by `_wait`
            self._problem = f"step {description['step']:,} could not be kept ({printable(error)})"

    def _wait(self) -> None:
        """Wait until what is being written is on disk, and say once if that failed."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        problem, self._problem = self._problem, None
        if problem and not self._warned:
            self._warned = True
            before = (
                "nothing was kept before" if self.last is None else f"{printable(self.last)} is the last checkpoint"
            )
            warnings.warn(f"{problem}; training goes on, and {before}", stacklevel=2)

    def _take_folder(self, *, remove: bool) -> None:
        home = self.folder / kept.FOLDER
        try:
            home.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(home / LOCK, blocking=False)
            self._lock.acquire()
            kept.sweep(self.folder)
            if remove:  # of the last fit of this very callback
                kept.discard_steps(self.folder)
            self._mine, self._call = True, self.learn.asked
            self._note("running")
        except Timeout:
            raise UsageError(f"{printable(self.folder)}: another process is training there") from None
        except OSError as error:
            raise UsageError(f"{printable(self.folder)}: cannot be written ({error.strerror or error})") from None

    def _note(self, state: str) -> None:
        contents = {"asked": self._call, "state": state, "checkpoint": self.settings}
        kept.describe_training(self.folder, contents | self.extra)

    def _done(self) -> None:
        try:
            self._note("done")
        except OSError:
            warnings.warn(f"{printable(self.folder)}: cannot be written, so it looks as if not done", stacklevel=2)

    def _listen(self) -> None:
        """Have Ctrl-C and SIGTERM wait for the end of a batch."""
        if threading.current_thread() is not threading.main_thread():  # only there may they be set
            return
        for each in SIGNALS:
            before = signal.getsignal(each)
            if before is not None and before != signal.SIG_IGN:
                self._handlers[each] = before
                signal.signal(each, self._interrupted)

    def _unlisten(self) -> None:
        handlers, self._handlers = self._handlers, {}
        for each, before in handlers.items():
            signal.signal(each, before)

    def _interrupted(self, number_: int, _: Any) -> None:
        if self._signal and number_ == signal.SIGINT:
            before: Callable[..., Any] | Any = self._handlers.get(signal.SIGINT)
            self._signal = 0
            self._unlisten()
            if callable(before):
                before(number_, None)
        self._signal = number_

    def _end(self, number_: int) -> None:
        """Have the signal do what it does to a program without checkpoints."""
        self._signal = 0
        signal.raise_signal(number_)


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None  # JSON has no nan
