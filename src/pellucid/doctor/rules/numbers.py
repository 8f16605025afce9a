"""Losses that are no numbers.

Healthy, and alike: a step that a GradScaler skips, because float16 overflowed, and goes on from.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.doctor.rules.core import Case, Suspicion, rule
from pellucid.doctor.rules.descent import FEW, descent
from pellucid.doctor.rules.weights import HUGE_STEP, LARGE_STEP, step_sizes

_WHERE = {
    "input": "before the first layer",
    "forward": "in the forward pass",
    "loss": "in the computation of the loss",
    "backward": "in the backward pass",
    "step": "in the optimizer's step",
}


@rule
def not_a_number(case: Case) -> Iterator[Suspicion]:
    """The first value that is nan or infinite; where losses had grown before, it is what large steps led to."""
    failure, how = case.evidence.failure, descent(case)
    found = failure is not None and bool(failure.first_nonfinite)
    if how.broken_at is None and not (found and len(how.losses) < 3):
        return
    step = failure.step if found and failure and failure.step >= 0 else how.broken_at
    sizes = step_sizes(case)
    sizes = sizes[np.isfinite(sizes)]
    # It may break at the second step: then the first loss, or the first step, is all that shows what was too large.
    grown = how.starts_high or (len(how.losses) > 1 and bool(how.peak > 2 * max(how.start, how.baseline)))
    large = len(sizes) > 0 and bool(np.quantile(sizes, 0.9) > LARGE_STEP or sizes[:FEW].max() > HUGE_STEP)
    given = found and failure is not None and failure.during == "input"
    prior = 0.95 if given or not (grown or large) else 0.6
    place = failure.first_nonfinite if found and failure else ""
    during = f", {_WHERE.get(failure.during, failure.during)}" if found and failure and failure.during else ""
    remedy = None
    if given:
        remedy = "Look at the data: some values are nan or infinite before the model sees them."
    elif found and failure and failure.during == "loss":
        remedy = "Keep zeros out of log, sqrt and division (torch.log(x + 1e-8)), or use torch's own losses."
    yield Suspicion(
        "loss-not-a-number",
        prior,
        f"nan or infinite values first appeared in {place}, at step {step}{during}"
        if place
        else f"the loss is nan or infinite from step {step} on",
        {
            "step": step,
            "first": failure.first_nonfinite if failure else None,
            "during": failure.during if failure else None,
        },
        layer=failure.first_nonfinite if found and failure and failure.first_nonfinite in _layers(case) else None,
        step=step,
        where=(failure.where or None) if failure else None,
        remedy=remedy,
        trials=("lower-rate", "clipped"),
    )


def _layers(case: Case) -> set[str]:
    return {layer.name for layer in case.history.layers}
