"""An evaluation in files: a table of every image, scores as JSON, pictures, and the page."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.evaluation.calibration import Calibration
from pellucid.evaluation.page import page_data
from pellucid.files import result_file
from pellucid.web.builder import write_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.evaluation.evaluated import Evaluated

DPI = 150


def save(evaluation: Evaluated, pictures: Mapping[str, Callable[[], Figure]], folder: Path) -> Path:
    """See `Evaluated.save`; the page comes last, so that it has its neighbours when it is there."""
    evaluation.to_csv(folder / "predictions.csv")
    with result_file(folder / "evaluation.json") as scratch:
        scratch.write_text(json.dumps(evaluation.to_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    for name, drawn in pictures.items():
        _picture(drawn(), folder / name)
    evaluation.to_html(folder / "index.html")
    return folder


def to_csv(evaluation: Evaluated, path: Path) -> Path:
    """See `Evaluated.to_csv`."""
    with (
        result_file(path) as scratch,
        # Names of files need not be text: their bytes are written as they are.
        scratch.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        rows = csv.writer(file)
        head = ["path", "label", "predicted", *evaluation.vocab]
        rows.writerow([*head, "error"] if evaluation.failed else head)
        for answer, values in zip(evaluation.predictions, evaluation.probabilities, strict=True):
            rows.writerow([answer.source, answer.label, answer.predicted, *(f"{value:.6g}" for value in values)])
        for source, error in evaluation.failed.items():
            rows.writerow([source, "", "", *[""] * len(evaluation.vocab), error])
    return path


def to_html(evaluation: Evaluated, own: Mapping[str, Any], path: Path) -> Path:
    """See `Evaluated.to_html`; `own` are the values of the page that only this kind of evaluation has."""
    return write_page(path, "evaluation", **page_data(evaluation), **own)


def to_json(evaluation: Evaluated, own: Mapping[str, Any]) -> dict[str, Any]:
    """See `Evaluated.to_json`; `own` are the scores that only this kind of evaluation has."""
    scaled = evaluation.scaled_calibration
    found = {
        "source": evaluation.source,
        "n": evaluation.n,
        "accuracy": evaluation.accuracy,
        "interval": list(evaluation.interval),
        **own,
        "per_class": [asdict(score) for score in evaluation.per_class],
        "vocab": list(evaluation.vocab),
        "temperature": evaluation.temperature,
        "calibration": _calibration(evaluation.calibration),
        "scaled_calibration": None if scaled is None else _calibration(scaled),
        "mistakes": [asdict(answer) for answer in evaluation.mistakes],
        "failed": dict(evaluation.failed),
    }
    return _finite(found)


def _calibration(found: Calibration) -> dict[str, Any]:
    return {"error": found.error} | {name: values.tolist() for name, values in asdict(found).items()}


def _finite(value: Any) -> Any:
    """JSON has no nan."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float | np.floating) and math.isnan(value) else value


def _picture(figure: Figure, path: Path) -> None:
    import matplotlib.pyplot as plt

    with result_file(path) as scratch:
        figure.savefig(scratch, dpi=DPI, format="png")
    plt.close(figure)
