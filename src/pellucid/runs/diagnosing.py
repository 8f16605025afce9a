"""What the record of a run folder says of its training; nothing is tried, for neither model nor data is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pellucid.doctor.diagnosis import diagnose
from pellucid.doctor.evidence.record import Evidence, Failure, Labels, Optimizer
from pellucid.doctor.report import Report
from pellucid.errors import UsageError
from pellucid.files import read_json
from pellucid.history.history import History
from pellucid.runs.schema import check
from pellucid.runs.statistics import DESCRIPTION, load_history
from pellucid.text import printable

REPORT, PAGE = "doctor.json", "doctor.html"  # of a run that was examined while it trained


def diagnose_run(folder: str | Path) -> Report:
    """The report that a run folder holds, or else the diagnosis of its record, also while it is still training.

    Raises:
        UsageError: it is no run folder, is damaged, or does not say what the layers did.
    """
    folder = Path(folder)
    history = load_history(folder)
    if (folder / REPORT).exists():
        return Report.from_json(folder / REPORT)
    if not history.layers:
        raise UsageError(
            f"{printable(folder)}: was not examined while it trained, and has no statistics of the layers. Train "
            "without --no-doctor, or with --stats; a probe has no steps to look at"
        )
    report = diagnose(history, _evidence(folder, history))
    report.notes.append("a run folder holds no batches and no optimizer, so nothing could be tried")
    return report


def _evidence(folder: Path, history: History) -> Evidence:
    hypers = {name: values[0] for name, values in history.hypers.items()}
    steps = int(history.steps[-1]) if len(history.steps) else history.train.end
    found = Evidence(optimizers=[Optimizer("", steps, hypers=hypers)], finished=False)
    found.loop.steps = steps
    if history.loss is not None:
        found.losses = history.loss.astype(np.float64)
    valid, ends = history.epochs.get("valid_loss"), history.series.get("epoch_end")
    if valid is not None and ends is not None:
        found.valid_losses, found.valid_steps = valid.astype(np.float64), ends[: len(valid)]
    if not (folder / DESCRIPTION).exists():
        return found
    run = check(read_json(folder / DESCRIPTION), folder / DESCRIPTION)
    settings = run["settings"]
    found.model, found.finished = str(settings["arch"]), not settings.get("interrupted")
    found.train_labels = Labels(width=len(run["vocab"]))
    if settings.get("stopped"):
        found.failure = Failure("TrainingError", str(settings["stopped"]))
    return found
