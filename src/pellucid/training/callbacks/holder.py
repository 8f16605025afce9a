"""What has callbacks: adds and removes them, and calls their events in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from pellucid.errors import UsageError
from pellucid.training.callbacks.core import EVENTS, OF_BATCHES, Callback, has

Some = Any
"""A callback or a class of callbacks, or a list or tuple of those."""

# As fastai 2 wrote them before 2.0 and fastai 1, Keras and Lightning do; and slips. They would never be called.
NO_EVENT = re.compile(
    r"(begin|before|after|on)_(fit|train|epoch|batch|valid\w*|pred|loss|backward|step)(_(begin|end|start|epoch|batch)\w*)?"
)
NO_ORDER = "run_after", "run_before", "toward_end"

LOOP = """Start Fit|before_fit|Start Epoch Loop|before_epoch|Start Train|before_train|Start Batch Loop|before_batch|
after_pred|after_loss|before_backward|after_cancel_backward|after_backward|before_step|after_cancel_step|after_step|
after_cancel_batch|after_batch|End Batch Loop|after_cancel_train|after_train|End Train|Start Valid|before_validate|
Start Batch Loop|before_batch|after_pred|after_loss|after_cancel_batch|after_batch|End Batch Loop|after_cancel_validate|
after_validate|End Valid|after_cancel_epoch|after_epoch|End Epoch Loop|after_cancel_fit|after_fit|cleanup_fit|End Fit"""


def nothing(log: list[Any]) -> None:
    """Log an epoch nowhere: what `logger` is until a callback or the user sets one."""


class HasCallbacks:
    """Holds callbacks by ascending `order` and calls their events.

    Attributes:
        cbs: The callbacks.
        logger: Called with `recorder.log` after each epoch; the progress table takes its place while a fit runs, if
            nothing else was put there.
    """

    def __init__(self) -> None:
        self.cbs: list[Callback] = []
        self.logger: Callable[[list[Any]], Any] = nothing
        self.training = False
        self.wire()

    def add_cb(self, cb: Callback | type[Callback]) -> Self:
        """Add a callback; it is reachable as the attribute of its name.

        Raises:
            UsageError: the name is taken, by another callback or by the learner itself; or it has a method that looks
                like an event and is none.
        """
        cb = cb() if isinstance(cb, type) else cb
        _check(cb)
        anonymous = type(cb) is Callback and isinstance(vars(self).get(cb.name), Callback)
        if has(self, cb.name) and (not anonymous or cb in self.cbs):
            raise UsageError(
                f"cannot add {type(cb).__name__}: learn.{cb.name} exists already; remove that, or rename the class"
            )
        cb.learn = self  # type: ignore[assignment]
        if not anonymous:
            setattr(self, cb.name, cb)
        self.cbs = [*self.cbs, cb]
        self.wire()
        return self

    def remove_cb(self, cb: Callback | type[Callback]) -> Self:
        """Remove a callback, or all of a class.

        Raises:
            UsageError: there is none.
        """
        gone = [c for c in self.cbs if c is cb or (isinstance(cb, type) and isinstance(c, cb))]
        if not gone:
            raise UsageError(f"no such callback to remove: {cb}; there are {', '.join(c.name for c in self.cbs)}")
        self.cbs = [c for c in self.cbs if c not in gone]
        for c in gone:
            if vars(self).get(c.name) is c:
                delattr(self, c.name)
            c.learn = None  # type: ignore[assignment]
        self.wire()
        return self

    def add_cbs(self, cbs: Some) -> Self:
        """Add several; raises as `add_cb`."""
        for cb in listed(cbs):
            self.add_cb(cb)
        return self

    def remove_cbs(self, cbs: Some) -> Self:
        """Remove several; raises as `remove_cb`."""
        for cb in listed(cbs):
            self.remove_cb(cb)
        return self

    @contextmanager
    def added_cbs(self, cbs: Some) -> Iterator[Self]:
        """Have further callbacks inside the block only."""
        added: list[Callback] = []
        try:
            for cb in listed(cbs):
                before = self.cbs
                self.add_cb(cb)
                added += [c for c in self.cbs if c not in before]
            yield self
        finally:
            for cb in added:
                if cb in self.cbs:
                    self.remove_cb(cb)

    @contextmanager
    def removed_cbs(self, cbs: Some) -> Iterator[Self]:
        """Do without some callbacks inside the block only; they come back to their places."""
        before = self.cbs
        self.remove_cbs(cbs)
        gone = [cb for cb in before if cb not in self.cbs]
        try:
            yield self
        finally:
            self.add_cbs(gone)
            self.cbs.sort(key=lambda cb: (cb.order, before.index(cb) if cb in before else len(before)))
            self.wire()

    def ordered_cbs(self, event: str) -> list[Callback]:
        """The callbacks that have something to do at an event, in the order in which they run.

        Raises:
            UsageError: there is no such event.
        """
        if event not in EVENTS:
            raise UsageError(f"no event {event!r}; there are {', '.join(EVENTS)}")
        return [cb for cb in self.cbs if _overrides(cb, event)]

    def show_training_loop(self) -> None:
        """Print the events of a fit in order, each with the callbacks that have something to do at it."""
        indent = 0
        for step in LOOP.replace("\n", "").split("|"):
            indent -= 2 * step.startswith("End")
            if step in EVENTS:
                step = f"- {step:22}: [{', '.join(type(cb).__name__ for cb in self.ordered_cbs(step))}]"
            print(f"{' ' * indent}{step}")
            indent += 2 * step.startswith("Start")

    @contextmanager
    def no_bar(self) -> Iterator[Self]:
        """Show no progress bar inside the block; the table of epochs stays."""
        progress = getattr(self, "progress", None)
        if progress is None:
            yield self
            return
        was, progress.bar = progress.bar, False
        try:
            yield self
        finally:
            progress.bar = was

    @contextmanager
    def no_logging(self) -> Iterator[Self]:
        """Show no table of epochs inside the block; the progress bar stays."""
        was, self.logger = self.logger, lambda log: None
        try:
            yield self
        finally:
            self.logger = was

    def wire(self) -> None:
        """Put the callbacks in order and list per event those that override it, so that a batch pays for no other.

        Called whenever a callback comes or goes, or has its events, `order`, `run`, `run_train` or `run_valid` set.
        """
        self.cbs = sorted(self.cbs, key=lambda cb: cb.order)
        self._handlers = {training: self._wired(training) for training in (True, False)}

    def __getstate__(self) -> dict[str, Any]:
        # Without the wiring: a pickle finds methods by name, and functions that became events have another.
        return {name: value for name, value in vars(self).items() if name != "_handlers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.wire()

    def _wired(self, training: bool) -> dict[str, list[Callable[[], Any]]]:
        def runs(cb: Callback, event: str) -> bool:
            of_phase = event not in OF_BATCHES or (cb.run_train if training else cb.run_valid)
            return event == "cleanup_fit" or (cb.run and of_phase)

        return {event: [getattr(cb, event) for cb in self.ordered_cbs(event) if runs(cb, event)] for event in EVENTS}

    def _call(self, event: str) -> None:
        for handler in self._handlers[self.training][event]:
            handler()

    def _phase(self, name: str, cancel: type[Exception], body: Callable[[], None]) -> None:
        try:
            self._call(f"before_{name}")
            body()
        except cancel:
            self._call(f"after_cancel_{name}")
        self._call(f"after_{name}")


def listed(items: Any) -> list[Any]:
    """A list of what may be one thing, a list, a tuple or None."""
    return [] if items is None else list(items) if isinstance(items, list | tuple) else [items]


def _overrides(cb: Callback, event: str) -> bool:
    return event in vars(cb) or getattr(type(cb), event) is not getattr(Callback, event)


def _check(cb: Callback) -> None:
    if not isinstance(cb, Callback):
        raise UsageError(f"a callback is a Callback or a class of them, got {cb!r}")
    for name in NO_ORDER:
        if hasattr(cb, name):
            raise UsageError(
                f"{type(cb).__name__}.{name} has no effect: callbacks run by ascending order, set order = … instead, "
                f"such as order = Recorder.order + 1 to come after the recorder"
            )
    for name in dir(cb):
        if name not in EVENTS and NO_EVENT.fullmatch(name) and callable(getattr(cb, name)):
            raise UsageError(f"{type(cb).__name__}.{name} is never called; the events are {', '.join(EVENTS)}")
