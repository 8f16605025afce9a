"""Make a run folder and write into it."""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file
from safetensors.torch import save_model

from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.learner import Learner

VERSION = 1


def save_run(learn: Learner, folder: Path, settings: dict[str, Any]) -> None:
    """Write the run folder of a trained named architecture."""
    recorder, valid = learn.recorder, learn.dls.valid
    normalize = next((t for t in valid.batch_tfms if isinstance(t, Normalize)), Normalize([0.0], [1.0]))
    names = recorder.metric_names[1:-1]
    results = [
        dict(zip(names, values, strict=True)) | {"seconds": seconds}
        for values, seconds in zip(recorder.values, recorder.seconds, strict=True)
    ]
    description = {
        "version": VERSION,
        "settings": settings,
        "versions": {name: version(name) for name in ("pellucid", "torch", "numpy", "pillow")}
        | {"python": platform.python_version()},
        "input_shape": list(valid.source.shape),
        "vocab": learn.dls.vocab,
        "decoding": learn.dls.decoding.to_json() if learn.dls.decoding else None,
        "normalize": normalize.to_json(),
        "n_train": learn.dls.train.n,
        "n_valid": valid.n,
        "results": results,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_model(learn.model, str(folder / "model.safetensors"))
    save_file(recorder.to_arrays(), folder / "history.safetensors")
    (folder / "run.json").write_text(json.dumps(description, indent=2, default=str) + "\n")


def new_folder(source: str, out: str | Path | None) -> Path:
    """Where a run is to be kept: `out`, or a folder under `runs/` that is not there yet."""
    if out is not None:
        if (Path(out) / "run.json").exists():
            raise UsageError(f"{out}: holds a run already; name another folder with --out")
        return Path(out)
    stem = Path("runs") / f"{Path(source).resolve().stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 2
    folder = stem
    while folder.exists():
        folder, number = stem.with_name(f"{stem.name}-{number}"), number + 1
    return folder
