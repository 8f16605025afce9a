"""Version 1 of a history: two kinds of files, the Recorder's curves and the statistics of layers, read as version 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

Kinds = Mapping[str, tuple[str | None, tuple[int, ...]]]  # array → its type and shape, as a file's header has them
Wanted = dict[str, tuple[str, tuple[int | None, ...]]]  # what it must be; None stands for any number from 1 up
RECORD = {"loss": 1, "smooth_loss": 1, "epoch_end": 1, "epoch_values": 2}  # axes of the arrays of every Recorder


class Check(Protocol):
    """What says that a file is damaged."""

    def that(self, holds: object, what: str) -> None:
        """Refuse it unless something holds."""
        ...


def description(kinds: Kinds) -> dict[str, Any]:
    """Of a Recorder's file, which had none. It did not name its metrics."""
    shape = kinds.get("epoch_values", (None, ()))[1]
    n_metrics = max(shape[1] - 2, 0) if len(shape) == 2 else 0
    columns = ["train_loss", "valid_loss", *(f"metric_{i}" for i in range(1, n_metrics + 1))]
    return {"schema": 1, "layers": [], "params": [], "epoch_columns": columns}


def wanted(check: Check, description: Mapping[str, Any], kinds: Kinds) -> Wanted:
    """What the losses and hyper-parameters of a file must be."""
    hypers = [name for name in kinds if name.startswith("hyper.")]
    if description["layers"]:
        n = length(kinds, "train.steps")
        loss: Wanted = {"loss": ("float32", (n,))} if "loss" in kinds else {}
        return loss | dict.fromkeys(hypers, ("float32", (None, n)))
    for name in RECORD:
        check.that(name in kinds, f"it has no array {name}")
    n, n_epochs = length(kinds, "step" if "step" in kinds else "loss"), length(kinds, "epoch_end")
    found: Wanted = {"loss": ("float32", (n,)), "smooth_loss": ("float32", (n,)), "epoch_end": ("int64", (n_epochs,))}
    if "step" in kinds:
        found["step"] = "int64", (n,)
    nothing = kinds["epoch_values"][1] == (0,)  # of a run that was ended in its first epoch
    found["epoch_values"] = "float32", (n_epochs,) if nothing else (n_epochs, len(description["epoch_columns"]))
    return found | dict.fromkeys(hypers, ("float32", (n, None)))


def upgrade(arrays: dict[str, np.ndarray], description: Mapping[str, Any]) -> None:
    """Give the arrays the axes of version 2, in place."""
    if description["layers"]:
        hypers = [name for name in arrays if name.startswith("hyper.")]
        arrays |= {name: arrays[name].T for name in hypers}
        if hypers or "loss" in arrays:
            arrays["step"] = arrays["train.steps"][:, 1].copy()
        return
    arrays.setdefault("step", np.arange(1, 1 + len(arrays["loss"])))  # at first each batch had its value
    if arrays["epoch_values"].ndim == 1:
        arrays["epoch_values"] = arrays["epoch_values"].reshape(0, len(description["epoch_columns"]))


def length(kinds: Kinds, name: str) -> int:
    """Of an array's first axis, 0 if there is none."""
    shape = kinds.get(name, (None, ()))[1]
    return shape[0] if shape else 0
