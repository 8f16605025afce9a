"""Read a run folder, anybody's."""

from __future__ import annotations

import json
from pathlib import Path

from pellucid.errors import UsageError
from pellucid.learner import load_weights
from pellucid.models import create_model
from pellucid.runs.predictions import Run


def load_run(folder: str | Path) -> Run:
    """Open a run folder.

    Raises:
        UsageError: it is no run folder, or its files are damaged.
    """
    folder = Path(folder)
    try:
        settings = json.loads((folder / "run.json").read_text())
        arch, shape, n_out = settings["settings"]["arch"], settings["input_shape"], len(settings["vocab"])
    except FileNotFoundError:
        raise UsageError(f"{folder}: no run folder, it has no run.json; `pellucid train` makes one") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder / 'run.json'}: damaged ({error})") from None
    model = create_model(arch, shape[0], n_out, max(shape[1:]))
    load_weights(model, folder / "model.safetensors")
    return Run(folder, settings, model.eval())
