"""What a run folder holds besides the model: losses and hyper-parameters, and what every layer did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pellucid.errors import UsageError
from pellucid.files import read_json, regular_file
from pellucid.history.history import History
from pellucid.runs.schema import check
from pellucid.text import counted, printable

WEIGHTS, DESCRIPTION = "model.safetensors", "run.json"
RECORD = "history.safetensors"  # losses and hyper-parameters
STATS = "seen"  # the folder of layer statistics


def has_record(folder: Path) -> bool:
    """Whether a run has written its losses: it is finished, or was ended."""
    return (folder / RECORD).exists()


def has_statistics(folder: Path) -> bool:
    """Whether a run records what its layers do."""
    return (folder / STATS).is_dir()


def load_history(folder: str | Path) -> History:
    """Open the layer statistics of a run, finished or still going.

    Raises:
        UsageError: there are none in this folder, or they are damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{printable(folder)}: no such folder; `pellucid train --stats` makes one")
    if not has_statistics(folder) and not (folder / DESCRIPTION).exists():
        raise UsageError(f"{printable(folder)}: is no run folder; `pellucid train` makes one")
    if not has_statistics(folder):
        raise UsageError(
            f"{printable(folder)}: was trained without statistics; use `pellucid train --stats`, or look at its loss "
            "with --picture loss"
        )
    return History.load(folder / STATS)


def load_record(folder: str | Path) -> dict[str, np.ndarray]:
    """Losses and hyper-parameters of a finished run, as `Recorder.to_arrays` names them.

    Raises:
        UsageError: there are none in this folder, or they are damaged.
    """
    file = regular_file(Path(folder) / RECORD, "a run that is not finished has no record yet")
    try:
        arrays = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{printable(file)}: truncated or damaged ({printable(error)})") from None
    arrays.setdefault("step", np.arange(1, 1 + len(arrays.get("loss", ()))))  # before 0.2 each batch had its value
    ranks = {"step": 1, "loss": 1, "smooth_loss": 1, "epoch_values": 2, "epoch_end": 1}
    for name, rank in ranks.items():
        if name not in arrays:
            raise UsageError(f"{printable(file)}: damaged, {name!r} is missing")
        if arrays[name].ndim != rank and arrays[name].size:
            raise UsageError(f"{printable(file)}: damaged, {name!r} has {arrays[name].ndim} axes instead of {rank}")
    n_values = {len(arrays[name]) for name in ("step", "loss", "smooth_loss")}
    if len(n_values) > 1 or len(arrays["epoch_values"]) != len(arrays["epoch_end"]):
        raise UsageError(f"{printable(file)}: damaged, its arrays are not of the same length")
    return arrays


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
    last = epochs[-1] if epochs else {}
    parts += [
        f"{key.replace('_', ' ')} {last[key]:.4f}" for key in ("valid_loss", "accuracy") if last.get(key) is not None
    ]
    return ", ".join(parts)
