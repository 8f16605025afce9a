"""What the doctor says: findings, most certain first, and what becomes of them (text, JSON, a page)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.doctor import wording
from pellucid.doctor.page import page_data
from pellucid.errors import UsageError
from pellucid.files import read_json, result_file
from pellucid.history.record import Record
from pellucid.text import printable
from pellucid.web.builder import write_page


@dataclass(frozen=True)
class Finding:
    """A fault that was found.

    Attributes:
        name: Stable, from `pellucid.doctor.names`.
        severity: `error`, `warning` or `note`.
        confidence: Probability that it is there, 0 to 1, as the rules and the trials together give it.
        layer, step: Where and since when, or None.
        says: The evidence in a sentence.
        evidence: The numbers it stands on, by name.
        trial: Numbers of the trial that decided, with its sentence under `"says"` and the time it took under
            `"seconds"`; None without one.
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


@dataclass(frozen=True, repr=False)
class Report:
    """The outcome of a diagnosis; printed, it is a text for people.

    Attributes:
        findings: Most certain first, `undecided` last.
        overhead: Time that the trials took, relative to that of the watched training; None without trials.
        notes: What could not be seen or tried, and why, one sentence each.
        checked: What was looked at and what was tried, one sentence each.
        history: What the layers did, for the pictures of the page; None in a report that was read from a file.
    """

    findings: list[Finding]
    overhead: float | None = None
    notes: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    history: Record | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return self.text()

    @property
    def healthy(self) -> bool:
        """Whether there is no error and no warning."""
        return all(finding.severity == "note" for finding in self.findings)

    def text(self, width: int = 100) -> str:
        """The report for a terminal of `width` letters: a paragraph for each finding."""
        return wording.as_words(self, width)

    def json(self) -> dict[str, Any]:
        """The report as JSON values, findings most certain first; what is nan or infinite is None.

        A finding's `evidence` holds its sentence (`says`) and the names of what follows from it (`explains`) beside the
        numbers, and its `trial` the losses of the trial (`curves`).
        """
        return _plain(
            {
                "healthy": self.healthy,
                "findings": [_to_json(finding) for finding in self.findings],
                "overhead": self.overhead,
                "notes": self.notes,
                "checked": self.checked,
            }
        )

    def to_json(self, file: str | Path) -> Path:
        """Write `json()` to a file; returns it.

        Raises:
            UsageError: the file cannot be written.
        """
        with result_file(file) as scratch:
            scratch.write_text(json.dumps(self.json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return Path(file)

    @classmethod
    def from_json(cls, file: str | Path) -> Report:
        """Read what `to_json` wrote.

        Raises:
            UsageError: there is no such file, or it is no report.
        """
        values = read_json(file)
        try:
            findings = [_from_json(each) for each in values["findings"]]
            return cls(findings, values["overhead"], values["notes"], values["checked"])
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UsageError(f"{printable(file)}: is no report of the doctor, as Report.to_json writes it") from None

    def to_html(self, file: str | Path) -> Path:
        """Write one page with the verdict, and evidence, pictures, trial and remedy of each finding; returns the file.

        Raises:
            UsageError: the file has not the ending .html, or cannot be written.
        """
        return write_page(file, "doctor", **page_data(self))


def _to_json(finding: Finding) -> dict[str, Any]:
    values = dict(vars(finding))
    says, explains, curves = (values.pop(name) for name in ("says", "explains", "curves"))
    values["evidence"] = {"says": says, **values["evidence"]} | ({"explains": explains} if explains else {})
    if values["trial"] is not None and curves:
        values["trial"] = values["trial"] | {"curves": curves}
    return values


def _from_json(values: dict[str, Any]) -> Finding:
    evidence, trial = dict(values["evidence"]), values["trial"]
    trial = None if trial is None else dict(trial)
    curves = {} if trial is None else trial.pop("curves", {})
    parts = {
        "says": evidence.pop("says"),
        "explains": evidence.pop("explains", []),
        "evidence": evidence,
        "trial": trial,
        "curves": {name: np.array(losses, np.float64) for name, losses in curves.items()},
    }
    return Finding(**(values | parts))


def _plain(value: Any) -> Any:
    """The value as JSON has it, which knows neither arrays nor nan."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
