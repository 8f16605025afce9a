"""End a fit that the doctor is sure of: it cannot give what is wanted."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from pellucid.output import say
from pellucid.text import printable
from pellucid.training.callbacks.core import Callback, CancelFitException, CancelTrainException

if TYPE_CHECKING:
    from pellucid.doctor.report import Finding, Report

FIRST = 32  # batches of the first epoch after which it is asked first, then after twice as many, and so on
ENOUGH = 0.9
# Faults that are read off what happened and need no trial: nothing that comes later can make them good.
FACTS = "broken-graph", "constant-input", "loss-not-a-number", "optimizer-not-stepped", "parameters-not-optimised"


class StopWhenSick(Callback):
    """End the fit when the callback `Doctor` finds an error, is sure of it, and it needs no trial or one confirmed it.

    Asked at the end of each epoch, and within the first one when 32, 64, 128, … batches were trained. What needs a
    trial gets it at the end of the second epoch in a row in which it is the first finding: networks at a high rate may
    recover. An epoch that is cut short is still validated.

    Attributes:
        finding: Why the fit was ended; None if it was not.
        report: That it is in.
    """

    order = 65  # behind all that follow the epochs
    needs_images = False
    finding: Finding | None = None
    report: Report | None = None

    def before_fit(self) -> None:
        self.finding = self.report = None
        self._next, self._trial_from, self._suspected = FIRST, 0, ""

    def after_batch(self) -> None:
        learn = self.learn
        if learn.training and learn.epoch == 0 and learn.train_iter == self._next:
            self._next *= 2
            self._ask(FACTS)
            if self.finding is not None:
                raise CancelTrainException

    def after_epoch(self) -> None:
        learn = self.learn
        if self.finding is None and learn.epoch + 1 < learn.n_epoch:
            self._look()
        if self.finding is not None:
            self._say(self.finding)
            raise CancelFitException

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next, "trial_from": self._trial_from, "suspected": self._suspected}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._next, self._trial_from, self._suspected = state["next"], state["trial_from"], state["suspected"]

    def _look(self) -> None:
        report = self._ask(FACTS)
        first = next((each.name for each in report.findings if each.severity == "error"), "")
        again, self._suspected = bool(first) and first == self._suspected, first
        if self.finding is None and again and self.learn.epoch >= self._trial_from:
            self._trial_from = 2 * self.learn.epoch + 1  # trials take seconds, and this one may change nothing
            self._ask(None)

    def _ask(self, names: Collection[str] | None) -> Report:
        """Have the doctor look, and take a fault that is sure: one of these, or for None one that a trial confirms."""
        report = self._diagnosed(trials=names is None)
        errors = (each for each in report.findings if each.severity == "error" and each.confidence >= ENOUGH)
        self.finding = next((e for e in errors if (e.trial is not None if names is None else e.name in names)), None)
        self.report = report if self.finding is not None else None
        return report

    def _diagnosed(self, *, trials: bool) -> Report:
        from pellucid.doctor.report import Report

        try:
            return self.learn.doctor.diagnose(trials=trials)
        except Exception as error:  # whatever it is, it is no reason to end a training
            return Report([], notes=[f"the doctor could not look: {type(error).__name__}: {error}"])

    def _say(self, finding: Finding) -> None:
        from pellucid.doctor import wording

        since = wording.place(finding)
        say(
            f"stopped after epoch {self.learn.epoch}: {printable(wording.heading(finding).lower())}"
            f"{f' ({since})' if since else ''}, {wording.sureness(finding)}"
        )
