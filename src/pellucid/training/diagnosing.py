"""What was wrong with a fit, and the remedy tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from pellucid.activations.watch import Watch
from pellucid.errors import UsageError
from pellucid.inspection.looking import kept_modes
from pellucid.seed import kept_rng

if TYPE_CHECKING:
    from pellucid.doctor.report import Report
    from pellucid.doctor.treatment import Treatment
    from pellucid.training.callbacks.doctor import Doctor


class Diagnosing:
    """The part of a learner that calls the doctor."""

    model: nn.Module
    dls: Any
    opt: Any
    loss_func: Any
    _ready_opt: Any
    _put_on_device: Any
    _diagnosed: Watch | Doctor | None = None

    def diagnose(self, budget_s: float | None = None) -> Report:
        """Say what was wrong with the last fit, if it was watched by the callback `Doctor`; else with what is to come.

        Without that callback some steps are made on a copy of the model as it is now, as by `pellucid.examine`. Model,
        optimizer and random numbers are afterwards what they were, bit for bit.

        Args:
            budget_s: Seconds for trials; None takes a tenth of the watched time, at least 5 and at most 60.
        """
        from pellucid.doctor.examining import examined

        watched: Doctor | None = getattr(self, "doctor", None)
        if watched is not None:
            self._diagnosed = watched
            return watched.diagnose(budget_s)
        self._put_on_device()
        self._ready_opt()
        with kept_rng(self.dls.train), kept_rng(self.dls.valid), kept_modes(self.model):
            valid = self.dls.valid if len(self.dls.valid) else None
            self._diagnosed = examined(self.model, self.loss_func, self.dls.train, valid, self.opt)
            return self._diagnosed.diagnose(budget_s)

    def treat(self, report: Report, remedy: str | None = None) -> Treatment | None:
        """Try a remedy: train two copies from the same weights on the same batches, one of them with it.

        Args:
            report: What `diagnose` returned; its first finding is treated.
            remedy: One of those that the doctor has for it; None takes the first that can be applied.

        Returns:
            Losses and pictures, before and after; None where the remedy is the user's to make.

        Raises:
            UsageError: `diagnose` was not called, nothing was found, or there is no such remedy.
        """
        from pellucid.doctor.treatment import treat

        if self._diagnosed is None:
            raise UsageError("there is no diagnosis yet: call diagnose() first")
        if not report.findings:
            raise UsageError("no fault was found, so there is no remedy to try")
        return treat(self._diagnosed.specimen(), report.findings[0], remedy=remedy)
