"""A run on labelled images: what `Run.evaluate` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pellucid.data.labels import several
from pellucid.errors import DataError, UsageError
from pellucid.evaluation.evaluation import Evaluation
from pellucid.evaluation.labelled import images_with_labels, labelled_images
from pellucid.evaluation.labels import LabelsEvaluation
from pellucid.text import counted, first_few

if TYPE_CHECKING:
    from pellucid.runs.predictions import Run

LISTED = 4


def evaluate(
    run: Run,
    source: str | Path,
    on_error: str,
    threshold: float | Mapping[str, float] | None,
    columns: Mapping[str, Any],
) -> Evaluation | LabelsEvaluation:
    """See `Run.evaluate`."""
    multi = bool(run.settings.get("multi"))
    if threshold is not None and not multi:
        raise UsageError("this run takes the most probable class: a threshold (--threshold) is for several labels")
    if multi:
        given = images_with_labels(source, run.vocab, _label_columns(run, columns))
    else:
        given = labelled_images(source, run.vocab, columns)
    answers = list(_answers(run, given.names, given.images))
    failed = {name: str(each) for name, each in zip(given.names, answers, strict=True) if isinstance(each, DataError)}
    if failed and on_error == "raise":
        raise DataError(
            f"{counted(len(failed), 'image')} of {len(answers):,} cannot be classified: "
            f"{first_few(failed.values(), LISTED)}; on_error='skip' (command line: --on-error skip) leaves them out"
        )
    told = [i for i, answer in enumerate(answers) if isinstance(answer, Tensor)]
    values = np.stack([np.asarray(answers[i]) for i in told]) if told else np.empty((0, 2, len(run.vocab)))
    found = (LabelsEvaluation if multi else Evaluation)(
        str(given.where),
        [str(name) for name in run.vocab],
        [given.names[i] for i in told],
        given.labels[told],
        values[:, 0],
        run.temperature,
        values[:, 1] if run.temperature else None,
        failed,
        given.images[told] if isinstance(given.images, np.ndarray) else None,
    )
    return found.at(threshold) if isinstance(found, LabelsEvaluation) and threshold is not None else found


def _label_columns(run: Run, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns with what a run of several labels was told in its training, as far as nothing else is given."""
    label_col, settings = columns.get("label_col"), run.settings["settings"]
    if columns.get("label_delim") or not isinstance(label_col, str | int | None):
        return dict(columns)
    trained = several(settings.get("label_col"))
    own = {"label_col": trained if isinstance(trained, list) and label_col is None else label_col}
    return dict(columns) | own | {"label_delim": settings.get("label_delim")}


def _answers(run: Run, names: Sequence[str], images: Sequence[Any] | np.ndarray) -> Iterator[Tensor | DataError]:
    """Of each image the probabilities as predicted, and calibrated if that can be: float64 (1 or 2, class)."""
    kinds = [run.activation(calibrated=calibrated) for calibrated in ([False, True] if run.temperature else [False])]

    def all_kinds(outputs: Tensor) -> Tensor:
        return torch.stack([kind(outputs).double() for kind in kinds], 1)

    for position, rows in run.rows(list(images), all_kinds):
        if isinstance(rows, DataError):
            yield rows
            continue
        for name, row in zip(names[position:], rows, strict=False):
            finite = bool(row.isfinite().all())
            yield row if finite else DataError(f"{name}: the model's output for it is nan or infinite")
