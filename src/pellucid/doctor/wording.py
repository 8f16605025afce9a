"""A report in words: for a terminal, and the sentences that its page shares with it."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from pellucid.doctor.names import NAMES, UNDECIDED
from pellucid.text import counted, first_few, printable

if TYPE_CHECKING:
    from pellucid.doctor.report import Finding, Report

MARKS = {"error": "✗", "warning": "!", "note": "·"}
SURE, LIKELY = 0.95, 0.7
MOST_RULED_OUT = 5  # on a terminal; page and JSON have all
HEALTHY = "healthy: no fault found"


def as_words(report: Report, width: int) -> str:
    """A paragraph for each finding; of a healthy run what was looked at; and what could not be seen or tried."""
    blocks = [_paragraph(finding, width) for finding in report.findings]
    if report.healthy:
        checked = [line for each in report.checked for line in _item("", each, width)]
        blocks.insert(0, "\n".join([f"✓ {HEALTHY}", *checked]))
    if report.notes:
        blocks.append("\n".join(line for each in report.notes for line in _item("note", each, width)))
    return "\n\n".join(blocks)


def verdict(report: Report) -> str:
    """The whole report in a sentence or two."""
    faults = [finding for finding in report.findings if finding.severity != "note"]
    if not faults:
        return "No fault found in this training."
    first, *others = faults
    if first.name == UNDECIDED:
        return "Something is wrong with this training, but it is not clear what."
    says = NAMES[first.name].says if first.name in NAMES else f"{heading(first)}."
    return f"{says} And {counted(len(others), 'more finding')}." if others else says


def heading(finding: Finding) -> str:
    """The title of a fault."""
    return NAMES[finding.name].title if finding.name in NAMES else spoken(finding.name)


def spoken(name: str) -> str:
    """The name of a fault as words.

    >>> spoken("learning-rate-too-high")
    'learning rate too high'
    """
    return name.replace("-", " ")


def sureness(finding: Finding) -> str:
    """How certain a finding is, as a word and a number."""
    c = finding.confidence
    word = "sure" if c >= SURE else "likely" if c >= LIKELY else "possible"
    return f"{word} ({min(c, 0.99):.2f})"


def place(finding: Finding) -> str:
    """Layer and step, as far as they are known: `layer 2, since step 40`."""
    since = "" if finding.step is None else "from the start" if finding.step <= 0 else f"since step {finding.step}"
    return ", ".join(filter(None, [layer(finding.layer or ""), since]))


def layer(name: str) -> str:
    """A layer's name as it stands in a sentence; `relu in block1 (net.py:20)` is words already."""
    return printable(f"layer {name}" if name and " " not in name else name)


def remedy(finding: Finding) -> str:
    """What to do, with the line of code at the end of the first sentence where that is not part of it already."""
    where = finding.where
    if not where or where in finding.remedy or _line_of(where) in finding.remedy:
        return printable(finding.remedy)
    end = re.search(r"\.(?= |$)", finding.remedy)
    at = len(finding.remedy) if end is None else end.start()
    return printable(f"{finding.remedy[:at]} ({_line_of(where)}){finding.remedy[at:]}")


def _line_of(where: str) -> str:
    """`train.py:31` as it is said."""
    return re.sub(r":(\d+)$", r" line \1", where)


def _paragraph(finding: Finding, width: int) -> str:
    head, sure = f"{MARKS.get(finding.severity, '?')} {printable(finding.name)}", sureness(finding)
    lines = [f"{head}{sure:>{max(len(sure) + 2, width - len(head))}}"]
    lines += _item(place(finding), finding.says, width)
    if finding.trial and finding.trial.get("says"):
        lines += _item("tried", str(finding.trial["says"]), width)
    lines += _item("do", remedy(finding), width)
    if finding.ruled_out:
        lines += _item("ruled out", first_few(finding.ruled_out, MOST_RULED_OUT), width)
    if finding.explains:
        lines += _item("consequences", first_few(map(spoken, finding.explains)), width)
    return "\n".join(lines)


def _item(head: str, text: str, width: int) -> list[str]:
    said = f"{head}: {printable(text)}" if head else printable(text)
    return textwrap.wrap(
        said, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
