"""What a rule is: from the record of a run to suspicions, without torch.

A rule is a generator of `Suspicion`s for one `Case`, registered by `@rule`. It knows nothing of other rules: which of
several suspicions is the cause is decided by the verdict, and what is uncertain is put to trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pellucid.doctor.evidence.record import Evidence
from pellucid.history.record import Record


@dataclass(frozen=True)
class Case:
    """A run: what its layers did, and what else was seen of it.

    Attributes:
        derived: What several rules compute from it, by name, kept by the first that asks.
    """

    history: Record
    evidence: Evidence
    derived: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)


@dataclass(frozen=True)
class Suspicion:
    """A fault that the record of a run speaks for.

    Attributes:
        name: One of the names of `pellucid.doctor.names`.
        prior: Probability that it is there and is the cause, from the record alone, 0 to 1.
        says: The evidence in a sentence, with its numbers.
        evidence: The numbers, by name (JSON values only).
        layer: Dotted name of the module concerned, if it is one.
        step: Step since which, if it is known.
        where: Line of the user's code (`train.py:31`), if it is known.
        remedy: What to do, if this case needs other words than the name's usual ones.
        severity: If this case is less or more grave than the name usually is.
        trials: Names of the trials that can confirm it or rule it out, most informative first.
    """

    name: str
    prior: float
    says: str
    evidence: dict[str, object] = field(default_factory=dict)
    layer: str | None = None
    step: int | None = None
    where: str | None = None
    remedy: str | None = None
    severity: str | None = None
    trials: tuple[str, ...] = ()


Rule = Callable[[Case], Iterator[Suspicion]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Register a rule."""
    RULES.append(function)
    return function
