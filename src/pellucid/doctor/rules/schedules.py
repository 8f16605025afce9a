"""Learning-rate schedules: the plan against what was done.

Healthy, and alike: warm-up; a schedule per batch whose run was stopped or broken off early; restarts that were asked
for (CosineAnnealingWarmRestarts, CyclicLR); schedules without a length (ReduceLROnPlateau, LambdaLR, ExponentialLR per
epoch); a schedule that ends a few steps early or late.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.evidence.record import Scheduler
from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import FEW, descent
from pellucid.doctor.rules.weights import learning_rate
from pellucid.doctor.rules.wording import num
from pellucid.text import counted

_CYCLIC = ("CosineAnnealingWarmRestarts", "CyclicLR")
_COMPOSED = ("SequentialLR", "ChainedScheduler")  # what they are made of is stepped by them


@rule
def misused(case: Case) -> Iterator[Suspicion]:
    """Stepped too often, too rarely, beyond its end, or never.

    Source: PyTorch documentation, OneCycleLR ("step should be called after a batch") and "How to adjust learning rate".
    """
    steps, schedulers = case.evidence.loop.steps, case.evidence.schedulers
    if any(scheduler.kind in _COMPOSED for scheduler in schedulers):
        schedulers = [scheduler for scheduler in schedulers if scheduler.kind in _COMPOSED]
    for scheduler in schedulers:
        found = _compare(case, scheduler, steps)
        if found:
            prior, says, remedy = found
            done = len(scheduler.stepped_at)
            yield Suspicion(
                "schedule-misused",
                prior,
                says,
                {
                    "schedule": scheduler.kind,
                    "planned": scheduler.planned,
                    "stepped": done,
                    "optimizer_steps": steps,
                    "rates": [float(rate) for rate in scheduler.rates[:: max(1, done // 20)]],
                },
                remedy=remedy,
                trials=("higher-rate",),
            )


@rule
def made_anew(case: Case) -> Iterator[Suspicion]:
    """The same schedule made again and again, each time from its start."""
    by_kind: dict[str, list[Scheduler]] = {}
    for scheduler in case.evidence.schedulers:
        if scheduler.planned:
            by_kind.setdefault(scheduler.kind, []).append(scheduler)
    for kind, made in by_kind.items():
        if (
            len(made) > 2
            and len(made) > len(case.evidence.optimizers)
            and all(0 < len(each.stepped_at) < 0.7 * each.planned for each in made[:-1])
        ):
            yield Suspicion(
                "schedule-misused",
                0.8,
                f"{kind} was created {len(made)} times, so it started over before it had come to its end",
                {"schedule": kind, "made": len(made), "planned": made[0].planned},
                remedy="Create the schedule once, before the loop over epochs.",
            )


@rule
def by_hand(case: Case) -> Iterator[Suspicion]:
    """A rate that is set by hand, and is gone while most of the run is still ahead."""
    rates = learning_rate(case)
    rates = rates[np.isfinite(rates)]
    if case.evidence.schedulers or len(rates) < FEW or not rates.max() > 0:
        return
    gone = rates < 1e-3 * rates.max()
    if gone[-1] and np.argmax(gone) < 0.5 * len(rates):
        yield Suspicion(
            "schedule-misused",
            0.75,
            f"the learning rate fell from {num(float(rates[0]))} to {num(float(rates[-1]))}; it was below a thousandth "
            f"of its peak after {np.argmax(gone):,} of {len(rates):,} steps",
            {"first": float(rates[0]), "last": float(rates[-1]), "gone_after": int(np.argmax(gone))},
            step=int(np.argmax(gone)),
            remedy="Lower the learning rate once per epoch instead of once per batch, or by less each time.",
            trials=("higher-rate",),
        )


def _compare(case: Case, scheduler: Scheduler, steps: int) -> tuple[float, str, str] | None:
    kind, planned, done = scheduler.kind, scheduler.planned, int((scheduler.stepped_at > 0).sum())
    if "Tried to step" in scheduler.raised or (planned and done > planned and kind == "OneCycleLR"):
        return (
            0.93,
            f"{kind} was created for {counted(planned, 'step')} but was stepped {done:,} times, beyond its end",
            f"Create it with total_steps={max(done, steps)}, or step it less often.",
        )
    if steps < 10:
        return None
    if not done:
        if not case.evidence.finished or kind == "ReduceLROnPlateau":
            return None
        says = f"{kind} was created but never stepped, so the learning rate stayed at its initial value"
        return 0.8, says, "Call scheduler.step(): after every epoch, or after every batch if its length counts batches."
    every = steps / done  # optimizer steps between its own
    if every > 3 and planned > 3 * done and case.evidence.finished and kind != "ReduceLROnPlateau":
        fits = abs(planned - steps) < 0.3 * planned  # made for batches
        if fits or kind == "OneCycleLR":
            return (
                0.93 if fits else 0.7,
                f"{kind} was created for {counted(planned, 'step')} but was stepped {counted(done, 'time')} in "
                f"{counted(steps, 'optimizer step')}: the learning rate only went from {_path(scheduler)}",
                "Call scheduler.step() after every batch instead of every epoch.",
            )
        return None
    if kind == "CosineAnnealingWarmRestarts" and every < 1.5:
        restarts = int((np.diff(scheduler.rates) > 0.5 * scheduler.rates.max()).sum())
        if restarts > 8:
            return (
                0.75,
                f"{kind} was stepped after every batch and restarted {restarts} times in {steps:,} steps",
                "Call scheduler.step() after every epoch, or give T_0 in batches.",
            )
    if every < 1.5 and kind not in _CYCLIC:
        return _per_batch(case, scheduler, steps)
    return None


def _per_batch(case: Case, scheduler: Scheduler, steps: int) -> tuple[float, str, str] | None:
    """A schedule of epochs that is stepped for every batch."""
    kind, planned, done = scheduler.kind, scheduler.planned, int((scheduler.stepped_at > 0).sum())
    per_epoch = "Call scheduler.step() after every epoch instead of every batch."
    if kind == "CosineAnnealingLR" and planned and done > 1.5 * planned:
        return (
            0.93,
            f"CosineAnnealingLR was created for {counted(planned, 'step')} but was stepped after every batch, {done:,} "
            f"times: the learning rate went down and up again {counted(max(1, round(done / (2 * planned))), 'time')}",
            f"{per_epoch[:-1]}, or create it with T_max={steps}.",
        )
    rates = scheduler.rates[np.isfinite(scheduler.rates)]
    if len(rates) < 10 or not rates.max() > 0:
        return None
    gone = rates < 1e-3 * rates.max()
    ends = int(np.argmax(gone)) if gone.any() else done
    # annealing to nearly nothing belongs at the very end; per batch it comes while most of the run is still ahead
    if ends < 0.8 * done or (rates[done // 4 :].max() < 0.1 * rates.max() and kind != "OneCycleLR"):
        how = descent(case)
        prior = 0.93 if ends < 0.5 * done else 0.8
        if kind == "LambdaLR" and how.learnt > 0.5:
            prior = 0.5
        return (
            prior,
            f"{kind} was stepped after every batch, {done:,} times, and the learning rate fell from {_path(scheduler)}"
            + (f"; it was below a thousandth of its peak after {ends:,} steps" if gone.any() else ""),
            per_epoch,
        )
    return None


def _path(scheduler: Scheduler) -> str:
    last = float(scheduler.rates[-1])
    return f"{num(float(scheduler.rates[0]))} to {num(last) if last > 1e-12 else 'nearly 0'}"
