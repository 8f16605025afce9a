"""What the doctor says: findings, most certain first, and what becomes of them (text, JSON, a page)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Finding:
    """A fault that was found.

    Attributes:
        name: Stable, from `pellucid.doctor.names`.
        severity: `error`, `warning` or `note`.
        confidence: Probability that it is there, 0 to 1, calibrated on the project's benchmark.
        layer, step: Where and since when, or None.
        evidence: The numbers it stands on; `says` is their sentence.
        trial: Numbers of the trial that decided, with its sentence under `"says"`; None without one.
        remedy: What to do, in a sentence.
        where: Line of the user's code, or None.
        ruled_out: Other explanations that a trial excluded, with the reason: "learning rate (same at 0.1× and 10×)".
        explains: Names of symptoms that were seen too and follow from this one.
        curves: Name → losses of the deciding trial.
    """

    name: str
    severity: str
    confidence: float
    layer: str | None
    step: int | None
    says: str
    evidence: dict[str, object]
    trial: dict[str, object] | None
    remedy: str
    where: str | None = None
    ruled_out: list[str] = field(default_factory=list)
    explains: list[str] = field(default_factory=list)
    curves: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The outcome of a diagnosis.

    Attributes:
        findings: Most certain first, `undecided` last.
        overhead: Time spent watching and in trials, relative to the time that the loop took without them; None where
            it was not measured.
        notes: What could not be seen or tried, and why, one sentence each.
    """

    findings: list[Finding]
    overhead: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether there is no error and no warning."""
        return all(finding.severity == "note" for finding in self.findings)
