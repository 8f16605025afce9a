"""From what was seen of a training to what is wrong with it: rules suspect, trials decide, the verdict names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pellucid.doctor.evidence.record import Evidence
from pellucid.doctor.report import Report
from pellucid.doctor.rules import Case, suspicions
from pellucid.doctor.verdict import verdict, which_trials, worth_trying
from pellucid.history.history import History
from pellucid.text import counted, printable

if TYPE_CHECKING:
    from pellucid.doctor.trials.core import Outcome
    from pellucid.doctor.trials.specimen import Specimen


def diagnose(
    history: History,
    evidence: Evidence,
    specimen: Specimen | Callable[[], Specimen] | None = None,
    budget_s: float | None = None,
) -> Report:
    """Name what is wrong.

    Args:
        history: What the layers did.
        evidence: What else was seen.
        specimen: A copy of the model with captured batches, for trials; None makes none. A function that makes one is
            only called where a fault is suspected, for copying and trying take time.
        budget_s: Seconds for them; None takes a tenth of the watched time, at least 5 and at most 60.
    """
    case = Case(history, evidence)
    suspected = suspicions(case)
    outcomes, watched_s = [], float(np.nansum(evidence.resources.step_s))
    if callable(specimen):
        specimen = specimen() if worth_trying(suspected, case) else None
    if specimen is not None:
        from pellucid.doctor.trials import battery  # imports torch, which a run folder is diagnosed without

        budget_s = battery.budget_s(watched_s) if budget_s is None else budget_s
        outcomes = battery.run(specimen, which_trials(suspected, case), budget_s)
    return Report(
        verdict(case, suspected, outcomes),
        sum(each.seconds for each in outcomes) / watched_s if outcomes and watched_s else None,
        [*evidence.notes, *(specimen.notes if specimen is not None else [])],
        _checked(history, evidence, outcomes),
        history,
    )


def _checked(history: History, evidence: Evidence, outcomes: list[Outcome]) -> list[str]:
    steps = max(evidence.loop.steps, history.train.end)
    model = printable(evidence.model or "the model")
    looked = f"watched: {counted(steps, 'step')} of {model} ({counted(len(history.layers), 'layer')})"
    if len(evidence.valid_losses):
        looked += f" and {counted(len(evidence.valid_losses), 'validation loss', 'validation losses')}"
    return [looked, *(f"tried: {outcome.says}" for outcome in outcomes)]
