"""What a run folder holds besides the model: its history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import UsageError
from pellucid.files import read_json
from pellucid.history.file import FILE
from pellucid.history.history import History
from pellucid.runs.schema import check
from pellucid.text import counted, printable

WEIGHTS, DESCRIPTION = "model.safetensors", "run.json"
RECORD = FILE
STATS = "seen"  # the folder that runs of version 1 had for what their layers did


def load_history(folder: str | Path) -> History:
    """Open the history of a run: losses and hyper-parameters, and what its layers did if it recorded statistics.

    A run that is still going has one if it records statistics.

    Raises:
        UsageError: there is none in this folder, or it is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{printable(folder)}: no such folder; `pellucid train` makes one")
    files = [file for file in (folder / STATS / FILE, folder / FILE) if file.exists() or file.is_symlink()]
    if not files and not (folder / DESCRIPTION).exists():
        raise UsageError(f"{printable(folder)}: is no run folder; `pellucid train` makes one")
    if not files:
        raise UsageError(f"{printable(folder / FILE)}: is missing, so nothing is known of this run's training")
    history, *more = map(History.load, files)
    for curves in more:
        history = history.with_curves(curves)
    return history


def load_record(folder: str | Path) -> dict[str, np.ndarray]:
    """Losses and hyper-parameters of a run, and what else its history holds, under their names in the file.

    Raises:
        UsageError: there are none in this folder, or they are damaged.
    """
    return load_history(folder).to_arrays()


def result_of(run: dict[str, Any]) -> dict[str, float | None]:
    """Of a checked `run.json`, losses and metrics of the epoch it holds, or of its start; empty without results."""
    results = run.get("results", [])
    if "epoch" not in run and "start" in run:
        return {name: value for name, value in run["start"].items() if name not in ("of", "strength")}
    return results[run.get("epoch", -1)] if results else {}


def describe_run(folder: str | Path) -> str:
    """A run in a line: its name, what was trained on what, for how long, and how well."""
    folder = Path(folder)
    name = folder.resolve().name
    if not (folder / DESCRIPTION).exists():
        return f"{name}, not finished"
    run = read_json(folder / DESCRIPTION)
    check(run, folder / DESCRIPTION)
    settings, epochs = run["settings"], run.get("results", [])
    parts = [name, str(settings["arch"]) + (f" on {settings['source']}" if "source" in settings else "")]
    parts.append(counted(len(epochs), "epoch"))
    held = result_of(run)
    parts += [
        f"{key.replace('_', ' ')} {held[key]:.4f}" for key in ("valid_loss", "accuracy") if held.get(key) is not None
    ]
    return ", ".join(parts)
