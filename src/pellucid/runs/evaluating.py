"""A run on labelled images: what `Run.evaluate` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pellucid.data.opening import name_of
from pellucid.errors import DataError, UsageError
from pellucid.evaluation.evaluation import Evaluation
from pellucid.evaluation.labelled import labelled_images
from pellucid.text import counted, first_few

if TYPE_CHECKING:
    from pellucid.runs.predictions import Run

LISTED = 4


def evaluate(run: Run, source: str | Path, on_error: str, columns: dict[str, Any]) -> Evaluation:
    """See `Run.evaluate`."""
    if run.settings.get("multi"):
        raise UsageError("this run gives an image several labels; evaluate compares one label an image")
    where, items = labelled_images(source, run.vocab, **columns)
    answers = list(_answers(run, [file for file, _ in items]))
    failed = {str(file): str(answer) for (file, _), answer in _pairs(items, answers) if isinstance(answer, DataError)}
    if failed and on_error == "raise":
        raise DataError(
            f"{counted(len(failed), 'image')} of {len(items):,} cannot be classified: "
            f"{first_few(failed.values(), LISTED)}; on_error='skip' (command line: --on-error skip) leaves them out"
        )
    told = [(item, answer) for item, answer in _pairs(items, answers) if isinstance(answer, Tensor)]
    values = np.stack([answer.numpy() for _, answer in told]) if told else np.empty((0, 2, len(run.vocab)))
    return Evaluation(
        str(where),
        [str(name) for name in run.vocab],
        [str(file) for (file, _), _ in told],
        np.array([label for (_, label), _ in told], int),
        values[:, 0],
        run.temperature,
        values[:, 1] if run.temperature else None,
        failed,
    )


def _pairs(items: Sequence[Any], answers: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(items, answers, strict=True)


def _answers(run: Run, files: list[Path]) -> Iterator[Tensor | DataError]:
    """Of each image the probabilities as predicted, and calibrated if that can be: float64 (1 or 2, class)."""
    kinds = [run.activation(calibrated=calibrated) for calibrated in ([False, True] if run.temperature else [False])]

    def all_kinds(outputs: Tensor) -> Tensor:
        return torch.stack([kind(outputs).double() for kind in kinds], 1)

    for position, rows in run.rows(files, all_kinds):
        if isinstance(rows, DataError):
            yield rows
            continue
        for file, row in zip(files[position:], rows, strict=False):
            finite = bool(row.isfinite().all())
            yield row if finite else DataError(f"{name_of(file)}: the model's output for it is nan or infinite")
