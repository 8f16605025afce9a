"""What a trial is: an experiment on a copy of the model with a few captured batches.

A trial is a function of a `Specimen`, registered by `@trial(name)`. Its outcome says for each fault how much more
likely its numbers are with the fault than without: the verdict multiplies the odds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pellucid.doctor.trials.specimen import Specimen


@dataclass(frozen=True)
class Outcome:
    """What a trial found.

    Attributes:
        trial: Its name.
        says: What was tried and what came out, in a sentence with numbers: "60 steps without the softmax on the same
            batches: loss 0.31 instead of 1.58".
        numbers: By name (JSON values only).
        curves: Name → losses by step, for the report.
        odds: Fault → factor by which this outcome changes its odds; above 1 it confirms, below 1 it rules out.
        severity: Fault → how grave it is, where that shows here and not in the record.
        rules_out: Fault → words for the list of what was ruled out: "same at 0.1× and 10×".
        seconds: What it took.
    """

    trial: str
    says: str
    numbers: dict[str, object] = field(default_factory=dict)
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    odds: dict[str, float] = field(default_factory=dict)
    severity: dict[str, str] = field(default_factory=dict)
    rules_out: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


Trial = Callable[["Specimen"], Outcome | None]
TRIALS: dict[str, Trial] = {}


def trial(name: str) -> Callable[[Trial], Trial]:
    """Register a trial; it returns None where it cannot be carried out on this specimen."""

    def register(function: Trial) -> Trial:
        TRIALS[name] = function
        return function

    return register
