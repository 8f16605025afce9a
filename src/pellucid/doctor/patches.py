"""The changes of a script that a report asks for, as far as they can be written down."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pellucid.doctor.patching import patch
from pellucid.doctor.report import Finding, Report

FACTORS = {"learning-rate-too-high": 0.1, "learning-rate-too-low": 10.0}  # on the rate, as the remedies say


def patches(report: Report, script: Path) -> list[str]:
    """A unified diff of the script for each finding that has one; none where the fault is in another file."""
    found = (_patch(finding, script) for finding in report.findings if finding.severity != "note")
    return [each for each in found if each is not None]


def located(report: Report, script: Path) -> Report:
    """The report with the line of the script that is to be changed in each finding that has a patch.

    A fault is often seen elsewhere: a softmax where the loss is called, a rate in the first step.
    """
    return replace(report, findings=[_located(finding, script) for finding in report.findings])


def _located(finding: Finding, script: Path) -> Finding:
    change = _patch(finding, script)
    return finding if change is None else replace(finding, where=f"{script.name}:{_first_changed(change)}")


def _first_changed(diff: str) -> int:
    """Number of the first line that a unified diff takes out, or puts something before."""
    lines = diff.splitlines()[2:]
    hunk = re.match(r"@@ -(\d+)", lines[0])
    assert hunk is not None
    return int(hunk[1]) + next(i for i, line in enumerate(lines[1:]) if line[:1] in "+-")


def _patch(finding: Finding, script: Path) -> str | None:
    file, _, line = (finding.where or "").rpartition(":")
    if file and Path(file).name != script.name:
        return None
    rate = finding.evidence.get("rate")
    factor = FACTORS.get(finding.name)
    wanted = rate * factor if factor and isinstance(rate, int | float) else None
    return patch(script, finding.name, int(line) if line else None, rate=wanted) or (
        patch(script, finding.name, None, rate=wanted) if line else None
    )
