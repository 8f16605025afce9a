"""Our own trainings are watched, and examined at their end, however they end."""

from __future__ import annotations

import shutil
from pathlib import Path

from pellucid.doctor import wording
from pellucid.doctor.names import NAMES, UNDECIDED
from pellucid.doctor.report import Finding, Report
from pellucid.errors import PellucidError
from pellucid.output import say
from pellucid.runs.diagnosing import PAGE, REPORT
from pellucid.runs.settings import Settings
from pellucid.text import counted, printable
from pellucid.training.callbacks.core import Callback
from pellucid.training.callbacks.doctor import Doctor
from pellucid.training.callbacks.stopping import StopWhenSick
from pellucid.training.learner import Learner

SHARE = 0.05  # of a training's time


def watching(settings: Settings) -> list[Callback]:
    """What has a fit watched, if it is to be, and ended if that is asked for."""
    if not settings.doctor:
        return []
    return [Doctor(share=SHARE), *([StopWhenSick()] if settings.stop_when_sick else [])]


def why_stopped(learn: Learner) -> Finding | None:
    """What the doctor ended the training for; None if it did not."""
    stopping = _stopping(learn)
    return None if stopping is None else stopping.finding


def _stopping(learn: Learner) -> StopWhenSick | None:
    return getattr(learn, "stop_when_sick", None)


def examine_run(learn: Learner, folder: Path, error: BaseException | None = None) -> None:
    """Say what was wrong with the last fit, and write it into the run folder, which is there already.

    After an error or Ctrl-C it is what is known by then, and nothing is tried. Nothing is written where nothing was
    watched: of a probe, and of epochs of the head alone.

    Args:
        learn: What was trained.
        folder: The run folder.
        error: What ended the training; None if nothing did.
    """
    doctor = getattr(learn, "doctor", None)
    if doctor is None or doctor.gathering is None:
        return
    if isinstance(error, Exception) and not isinstance(error, PellucidError):
        doctor.gathering.failed(error)
    try:
        report = _report(learn, doctor, tries=error is None)
        report.to_json(folder / REPORT)
        report.to_html(folder / PAGE)
    except (Exception, KeyboardInterrupt) as problem:  # the training is done and kept, whatever happens here
        say(f"doctor: this training could not be examined ({type(problem).__name__}: {printable(problem)})")
        return
    say(f"\n{_said(report, folder / PAGE)}")


def _report(learn: Learner, doctor: Doctor, *, tries: bool) -> Report:
    stopping = _stopping(learn)
    if stopping is not None and stopping.report is not None:  # what it was ended for
        return stopping.report
    try:
        return doctor.diagnose(trials=None if tries else False)
    except KeyboardInterrupt:  # nobody has to wait for trials
        return doctor.diagnose(trials=False)


def _said(report: Report, page: Path) -> str:
    """The verdict: a line if nothing is wrong, else all of it."""
    if not report.healthy:
        width = min(100, shutil.get_terminal_size().columns)
        return f"{report.text(width)}\n\ndoctor: the same with pictures is in {printable(page)}"
    notes = [finding for finding in report.findings if finding.name != UNDECIDED]  # which says as much
    if not notes:
        return "doctor: nothing found wrong"
    first, *others = notes
    more = f"; {counted(len(others), 'more note')} in {printable(page)}" if others else ""
    return f"doctor: nothing found wrong; {_title(first)}: {printable(first.says)}{more}"


def _title(finding: Finding) -> str:
    known = NAMES.get(finding.name)
    return printable(known.title.lower() if known else wording.spoken(finding.name))
