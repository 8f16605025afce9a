"""Write schedules into the optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pellucid.optim.hypers import set_hyper
from pellucid.schedule import Schedule
from pellucid.training.callbacks.core import Callback


class ParamScheduler(Callback):
    """Set hyper-parameters before each training batch from the fraction of training done.

    Before batch k of N (from 0) the fraction is k / N, so the very end of a schedule is never reached.

    Args:
        schedules: Name of a hyper-parameter (`lr`, `mom`, `wd`, …) → its schedule, or one per parameter group.
    """

    order = 60
    needs_images = False
    run_valid = False

    def __init__(self, schedules: Mapping[str, Schedule | Sequence[Schedule]]):
        self.schedules = schedules

    def before_fit(self) -> None:
        if hasattr(self.learn, "recorder"):
            self.learn.recorder.scheduled.update(self.schedules)

    def before_batch(self) -> None:
        pos = self.learn.pct_train
        for name, schedule in self.schedules.items():
            value = [s(pos) for s in schedule] if isinstance(schedule, Sequence) else schedule(pos)
            set_hyper(self.learn.opt, name, value)
