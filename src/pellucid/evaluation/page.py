"""What the page of an evaluation shows, as plain values for its template."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data.images import load
from pellucid.errors import DataError
from pellucid.evaluation.wording import accuracy_line, calibration_line, confusions, mean_score, share

if TYPE_CHECKING:
    from pellucid.evaluation.calibration import Calibration
    from pellucid.evaluation.evaluation import Answer, Evaluation
    from pellucid.evaluation.scores import ClassScore

MOST_MISTAKES = 60  # 10 kB each
MOST_CLASSES = 60  # of a matrix that can be read
SIDE = 224  # of a thumbnail, twice as fine as it is shown
PLOT = 300  # side of the reliability diagram, in units of its drawing
LARGEST = 15  # radius of the point of a bin that had all images


def page_data(evaluation: Evaluation) -> dict[str, Any]:
    """The values of `web/evaluation/page.html`."""
    low, high = evaluation.interval
    mistakes, scaled = evaluation.mistakes, evaluation.scaled_calibration
    scores = evaluation.per_class
    return {
        "title": accuracy_line(evaluation),
        "name": Path(evaluation.source).name or evaluation.source,
        "accuracy": evaluation.accuracy,
        "low": low,
        "high": high,
        "n": evaluation.n,
        "n_right": evaluation.n_right,
        "classes": [_scores(score) for score in scores],
        "mean": _scores(mean_score(scores)),
        "confused": confusions(evaluation),
        "names": list(evaluation.vocab),
        "matrix": _matrix(evaluation) if len(evaluation.vocab) <= MOST_CLASSES else [],
        "side": PLOT,
        "calibrated": calibration_line(evaluation),
        "points": _points(evaluation.calibration),
        "scaled_points": [] if scaled is None else _points(scaled),
        "mistakes": [_mistake(each, evaluation.source) for each in mistakes[:MOST_MISTAKES]],
        "n_mistakes": len(mistakes),
        "failed": dict(evaluation.failed),
    }


def _scores(score: ClassScore) -> dict[str, Any]:
    shares = {"precision": score.precision, "recall": score.recall, "F1": score.f1}
    return {
        "name": score.name,
        "shares": [{"text": share(value), "width": 0 if np.isnan(value) else 100 * value} for value in shares.values()],
        "support": score.support,
    }


def _matrix(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows of cells; colours go by the cube root of the share of a row, so that single errors show."""
    counts = evaluation.confusion
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return [
        {
            "name": name,
            "cells": [
                {"n": n, "depth": 100 * part ** (1 / 3), "right": i == j, "of": f"{name} taken for {other}: {n:,}"}
                for j, (other, n, part) in enumerate(zip(evaluation.vocab, row, parts, strict=True))
            ],
        }
        for i, (name, row, parts) in enumerate(zip(evaluation.vocab, counts.tolist(), shares.tolist(), strict=True))
    ]


def _points(found: Calibration) -> list[dict[str, Any]]:
    """Places in the reliability diagram: the mean probability of a bin, and its share of right answers."""
    full = np.flatnonzero(found.counts)
    return [
        {
            "x": PLOT * found.confidence[i],
            "y": PLOT * (1 - found.accuracy[i]),
            "r": 3 + LARGEST * np.sqrt(found.counts[i] / found.counts.sum()),
            "of": f"{found.counts[i]:,} images given {found.confidence[i]:.3f}, right in {found.accuracy[i]:.3f}",
        }
        for i in full.tolist()
    ]


def _mistake(answer: Answer, root: str) -> dict[str, Any]:
    path = Path(answer.source)
    return {
        "source": answer.source,
        "name": str(path.relative_to(root)) if path.is_relative_to(root) else answer.source,
        "label": answer.label,
        "predicted": answer.predicted,
        "probability": answer.probability,
        "of_label": answer.of_label,
        "picture": _thumbnail(answer.source),
    }


def _thumbnail(source: str) -> str | None:
    """The image as an address that holds it; None where it is gone meanwhile."""
    try:
        image = load(source, draft_size=SIDE)
    except DataError:
        return None
    image.thumbnail((SIDE, SIDE))
    jpeg = BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
