"""The runs below a folder: what each was trained on, what differs among them, how well, and whether it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pellucid.errors import UsageError
from pellucid.files import read_json
from pellucid.runs.reserving import LOCK
from pellucid.runs.schema import check
from pellucid.runs.statistics import DESCRIPTION, result_of
from pellucid.text import printable
from pellucid.training import kept
from pellucid.training.callbacks.checkpoint import LOCK as KEEPING_LOCK

STATES = ("running", "killed", "interrupted", "stopped", "done", "damaged")
# Settings that say nothing of what is learnt.
LEFT_OUT = ("source", "checkpoint_s", "checkpoint_steps", "keep", "workers", "interrupted", "stopped", "weights")


@dataclass(frozen=True)
class Listed:
    """A run in a list.

    Attributes:
        folder: Its folder.
        state: `running`, `killed` (it can be resumed), `interrupted` (by Ctrl-C or a signal), `stopped` (by an error or
            the doctor), `done` or `damaged`.
        settings: Its settings, as far as they are known.
        result: Losses and metrics of its best epoch so far; of a run that is held, of the epoch that it holds.
        epochs: Epochs that it has finished.
        steps: Its kept steps.
    """

    folder: Path
    state: str
    settings: dict[str, Any]
    result: dict[str, float | None]
    epochs: int
    steps: tuple[int, ...]

    @property
    def metric(self) -> str:
        """The column that its best epoch is best in, and its value."""
        names = [name for name in self.result if name not in ("train_loss", "valid_loss", "seconds")]
        for name in (*names, "valid_loss"):
            value = self.result.get(name)
            if value is not None:
                return f"{name} {value:.4f}"
        return ""


def list_runs(parent: str | Path = "runs") -> list[Listed]:
    """The runs in a folder, or the folder itself where it is one; by name.

    Raises:
        UsageError: there is no such folder.
    """
    parent = Path(parent)
    if not parent.is_dir():
        raise UsageError(f"{printable(parent)}: no such folder; pellucid train makes runs/ where it is called")
    if _is_run(parent):
        return [_listed(parent)]
    return [_listed(each) for each in sorted(parent.iterdir()) if each.is_dir() and _is_run(each)]


def differing(runs: Sequence[Listed]) -> list[str]:
    """Names of the settings that are not the same in all of these runs, in their order."""
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in LEFT_OUT)
    return [name for name in names if len({repr(run.settings.get(name)) for run in runs}) > 1]


def _is_run(folder: Path) -> bool:
    return (folder / DESCRIPTION).exists() or (folder / kept.FOLDER / kept.TRAINING).exists()


def _listed(folder: Path) -> Listed:
    steps = tuple(int(step.name.removeprefix("step")) for step in kept.steps_in(folder))
    running = _is_held(folder / LOCK) or _is_held(folder / kept.FOLDER / KEEPING_LOCK)
    going_on = (folder / kept.FOLDER / kept.TRAINING).exists()
    try:
        if (folder / DESCRIPTION).exists() and not running:
            run = check(read_json(folder / DESCRIPTION), folder / DESCRIPTION)
            settings = dict(run["settings"])
            state = "interrupted" if settings.get("interrupted") else "stopped" if settings.get("stopped") else "done"
            return Listed(folder, state, settings, result_of(run), len(run.get("results", [])), steps)
        about = kept.training_of(folder) if going_on else {}
        settings = about.get("trained") or about.get("settings") or {}
        state = "running" if running else "done" if about.get("state") == "done" else "killed"
        columns, values = _values(folder)
    except UsageError:
        return Listed(folder, "damaged", {}, {}, 0, steps)
    best = _best(columns, values)
    return Listed(folder, state, settings, best, len(values), steps)


def _values(folder: Path) -> tuple[list[str], list[list[float | None]]]:
    """The result table so far, from the last kept step."""
    steps = kept.steps_in(folder)
    about = read_json(steps[-1] / kept.DESCRIPTION) if steps else {}
    return about.get("columns", []), about.get("values", [])


def _best(columns: list[str], values: list[list[float | None]]) -> dict[str, float | None]:
    rows = [dict(zip(columns, row, strict=True)) for row in values]
    metric = columns[2] if len(columns) > 2 else "valid_loss"
    sign = -1 if "loss" in metric or "error" in metric else 1
    known = [row for row in rows if row.get(metric) is not None]
    return max(known, key=lambda row: sign * (row[metric] or 0.0)) if known else {}


def _is_held(lock: Path) -> bool:
    """Whether a process has a lock; the file of a killed one's stays."""
    if not lock.exists():
        return False
    mine = FileLock(lock, blocking=False)
    try:
        mine.acquire()
    except Timeout:
        return True
    except OSError:
        return False
    mine.release()
    return False
