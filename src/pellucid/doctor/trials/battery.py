"""Carries out trials, one after another, within a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from pellucid.activations.global_hooks import unseen

# Importing them registers their trials.
from pellucid.doctor.trials import items, learning, outputs, rates, scales  # noqa: F401
from pellucid.doctor.trials.core import TRIALS, Outcome
from pellucid.doctor.trials.specimen import OutOfTime, Specimen, aside


def budget_s(watched_s: float) -> float:
    """Seconds that trials may take after a run that was watched for so long: a tenth, from 5 to 60."""
    return min(max(watched_s / 10, 5.0), 60.0)


def run(specimen: Specimen, names: Sequence[str], budget_s: float) -> list[Outcome]:
    """The outcomes of the trials of these names, in this order, as far as there is time and they can be carried out.

    What was not tried, and why, is added to `specimen.notes`. Random numbers, modes of torch's, open watches and the
    standard streams notice nothing of it.
    """
    if specimen.why:
        specimen.notes.append(f"nothing was tried: {specimen.why}")
        return []
    began = time.perf_counter()
    specimen.deadline = began + budget_s
    outcomes: list[Outcome] = []
    late: list[str] = []
    for name in dict.fromkeys(names):
        trial_began = time.perf_counter()
        try:
            with aside(), unseen():
                outcome = TRIALS[name](specimen)
        except OutOfTime:
            late.append(name)
            continue
        except Exception as error:  # the user's modules, in a mode or with inputs that they never had
            specimen.notes.append(f"the trial {name} failed: {type(error).__name__}: {error}")
            continue
        if outcome is not None:
            outcomes.append(replace(outcome, seconds=time.perf_counter() - trial_began))
    if late:
        specimen.notes.append(f"no time was left for some trials (budget {budget_s:.0f} s): {', '.join(late)}")
    return outcomes
