"""The learning rate: too high, too low.

Steps are judged by their size relative to the weights. About 1e-3 is usual (Karpathy, CS231n notes, "Ratio of
weights:updates"); what a network bears depends on it, so the run's own loss has to speak too, and the trial of other
rates decides.

Healthy, and alike: high rates held by batch norms (they spike early and still descend), warm-up (small steps at first),
fine-tuning at small rates (its loss starts below chance or falls), a run of a few steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import FEW, descent, late, learns
from pellucid.doctor.rules.weights import (
    HUGE_STEP,
    LARGE_STEP,
    SMALL_STEP,
    TINY_STEP,
    USUAL_STEP,
    has_norms,
    learning_rate,
    step_sizes,
)
from pellucid.doctor.rules.wording import num, part, percent

# Share of a run. A network with batch norms under 1cycle, whose best rate is 1, spends 5 % of it above its first loss
# at a rate of 10 and 40 to 50 % at 30, and the end of the schedule saves it both times.
LOST = 0.2


@rule
def too_high(case: Case) -> Iterator[Suspicion]:
    """Steps that are large for the weights, and a loss that suffers from it."""
    how, sizes = descent(case), step_sizes(case)
    if not len(how.losses):
        return
    known = sizes[np.isfinite(sizes)]
    early = float(np.sort(known[: max(FEW, len(known) // 2)])[-3:][0]) if len(known) else np.nan
    rise = how.peak / max(how.start, how.baseline) if how.baseline > 0 else np.nan
    learnt = 0.0 if np.isnan(how.learnt) else how.learnt
    held_by_norms = has_norms(case, "BatchNorm", "GroupNorm", "InstanceNorm")
    prior, signs = 0.0, []
    if rise > 2:
        signs.append(f"the loss rose from {num(how.start)} at the start to {num(how.peak)}")
    if how.broken_at is not None and how.broken_at > 0 and (rise > 2 or early > LARGE_STEP):
        prior = 0.85
        signs.append(f"the loss is nan or infinite from step {how.broken_at} on")
    elif how.diverged and how.broken_at is None:
        prior = 0.8
        signs.append(f"the loss ended at {num(how.end)}, worse than guessing ({num(how.baseline)})")
    elif how.lost > LOST:
        prior = 0.7
        signs.append(f"the loss was worse than guessing for {percent(how.lost)} of the run")
    elif how.relapse > 0.5:
        prior = 0.6
        signs.append(f"the loss fell to {num(how.best)} and then rose back to {num(how.end)}")
    elif how.stuck and (early > HUGE_STEP or rise > 3):
        prior = 0.8
        signs.append(f"the loss then stayed at {num(how.end)}, no better than guessing")
    elif how.stuck and early > LARGE_STEP:
        prior = 0.5
        signs.append(f"the loss stays at {num(how.end)}, no better than guessing")
    elif how.swing > 0.3 and not tiny_batches(case):
        prior = 0.6 if learnt < 0.3 else 0.3
        signs.append(f"late in the run, the loss still jumps by {num(how.swing * how.baseline)} from step to step")
    elif rise > 3 and learnt < 0.3:
        prior = 0.45
    elif early > 3 * LARGE_STEP and learnt < 0.2 and len(how.losses) >= 100 and not how.still_falling:
        prior = 0.4
        signs.append(f"the loss no longer falls: it ended at {num(how.end)}")
    elif rise > 3:
        prior = 0.4  # it came down again, and may have lost more than that: the trial tells
    elif early > HUGE_STEP / 2 or (early > LARGE_STEP and learnt < 0.4):
        prior = (
            0.3 if early > HUGE_STEP / 2 and not held_by_norms else 0.2
        )  # the first steps replaced the initial weights
    elif (rise > 1.5 or early > LARGE_STEP) and learnt < 0.7:
        prior = 0.08
    if not prior:
        return
    if early > LARGE_STEP:
        signs.append(f"single steps changed the weights by up to {part(early)} of their size (usual: 0.1 %)")
    elif early < USUAL_STEP and prior < 0.8:
        prior *= 0.3  # whatever shakes the loss, it is not the size of the steps
    if how.starts_high and not how.diverged:
        prior *= 0.5
    if how.opposed and how.broken_at is None:
        prior *= 0.3
    if held_by_norms and learns(case) and how.lost <= LOST:
        # Weights right before a norm bear large steps: only their direction counts (arXiv:1706.05350). Those of a
        # transformer's branches are not: its norms come before them.
        prior *= 0.5
    since = int(np.argmax(how.losses > 2 * max(how.start, how.baseline))) if rise > 2 else how.broken_at
    yield Suspicion(
        "learning-rate-too-high",
        prior,
        "; ".join(signs),
        {"start": how.start, "peak": how.peak, "end": how.end, "step_size": early, "rate": _rate(case, highest=True)},
        step=since,
        remedy=_remedy(case, 0.1),
        trials=("lower-rate", "clipped", "fresh-gradients"),
    )


@rule
def too_low(case: Case) -> Iterator[Suspicion]:
    """Steps that are tiny for the weights, and a loss that hardly moves."""
    how, sizes = descent(case), step_sizes(case)
    known = sizes[np.isfinite(sizes)]
    if len(how.losses) < FEW or not len(known) or how.diverged:
        return
    size, path = float(np.median(known)), float(np.median(known) * max(len(known), case.evidence.loop.steps))
    if size == 0 or how.peak > 1.5 * max(how.start, how.baseline):
        return  # nothing was moved at all, or steps did too much: both are other faults
    learnt = 0.0 if np.isnan(how.learnt) else how.learnt
    if learnt > 0.25 or late(case.evidence.train_labels).share > 0.7:
        return
    if size < TINY_STEP:
        prior = 0.8
    elif size < SMALL_STEP:
        prior = 0.65 if path < 0.05 and len(how.losses) >= 100 else 0.5  # all steps together moved next to nothing
    elif size < USUAL_STEP / 2 and path < 0.15:
        prior = 0.2
    else:
        return
    if learnt > 0.08 or late(case.evidence.train_labels).above_chance:
        prior *= 0.5
    if warming_up(case):
        prior *= 0.2
    yield Suspicion(
        "learning-rate-too-low",
        prior,
        f"a step changes the weights by {part(size)} of their size (usual: 1/1,000), and the loss went from "
        f"{num(how.start)} to {num(how.end)} in {len(how.losses):,} steps",
        {"start": how.start, "end": how.end, "step_size": size, "rate": _rate(case, highest=False)},
        step=0,
        remedy=_remedy(case, 10),
        trials=("higher-rate", "gradient-flow", "one-batch"),
    )


def warming_up(case: Case) -> bool:
    """Whether the rate was still rising at the end: the run was cut short, or it is a short one."""
    rates = learning_rate(case)
    return len(rates) > 1 and bool(rates[-1] > 1.5 * rates[0]) and bool(rates[-1] >= 0.99 * rates.max())


def tiny_batches(case: Case) -> bool:
    """Whether batches are so small that their losses differ widely anyway."""
    sizes = case.evidence.train.batch_sizes
    return len(sizes) > 0 and bool(np.median(sizes) < 8)


def _rate(case: Case, highest: bool) -> float | None:
    rates = learning_rate(case)
    if not len(rates):
        return None
    return float(rates.max() if highest else np.median(rates))


def _remedy(case: Case, factor: float) -> str | None:
    rate = _rate(case, highest=factor < 1)
    if rate is None:
        return None
    direction = "lower" if factor < 1 else "higher"
    also = (
        "With 1cycle or batch normalisation it may be higher." if factor < 1 else "Raise it further while that helps."
    )
    return f"Use a {direction} learning rate: {num(rate * factor)} instead of {num(rate)}. {also}"
