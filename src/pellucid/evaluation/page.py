"""What the page of an evaluation shows, as plain values for its template."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.evaluation.scores import mean_shares
from pellucid.evaluation.wording import (
    accuracy_line,
    answers_line,
    calibration_line,
    confusions,
    label_calibration_line,
    pooled_line,
    share,
)

if TYPE_CHECKING:
    from PIL import Image

    from pellucid.evaluation.calibration import Calibration
    from pellucid.evaluation.evaluated import Evaluated
    from pellucid.evaluation.evaluation import Evaluation
    from pellucid.evaluation.labels import LabelsEvaluation

MOST_MISTAKES = 60  # 10 kB each
MOST_CLASSES = 60  # of a matrix that can be read
PLOT = 300  # side of the reliability diagram, in units of its drawing
LARGEST = 15  # radius of the point of a bin that had all images


def page_data(evaluation: Evaluated) -> dict[str, Any]:
    """The values of `web/evaluation/page.html` that all evaluations have."""
    low, high = evaluation.interval
    scaled, scores, wrong = evaluation.scaled_calibration, evaluation.per_class, evaluation.wrong
    x, y = evaluation.RELIABILITY
    return {
        "title": accuracy_line(evaluation),
        "name": Path(evaluation.source).name or evaluation.source,
        "accuracy": evaluation.accuracy,
        "low": low,
        "high": high,
        "n": evaluation.n,
        "n_right": evaluation.n_right,
        "columns": list(scores[0].shares),
        "classes": [_scores(score.name, score.shares, score.support) for score in scores],
        "mean": _scores("mean", mean_shares(scores), sum(score.support for score in scores)),
        "side": PLOT,
        "axes": {"x": x, "y": y},
        "points": _points(evaluation.calibration, y),
        "scaled_points": [] if scaled is None else _points(scaled, y),
        "mistakes": [_mistake(evaluation, i) for i in wrong[:MOST_MISTAKES].tolist()],
        "n_mistakes": len(wrong),
        "failed": dict(evaluation.failed),
    }


def class_values(evaluation: Evaluation) -> dict[str, Any]:
    """The values of the page that only images of one class each have."""
    return {
        "what": "class",
        "notes": [],
        "names": list(evaluation.vocab),
        "matrix": _matrix(evaluation) if len(evaluation.vocab) <= MOST_CLASSES else [],
        "confused": confusions(evaluation),
        "calibrated": calibration_line(evaluation),
    }


def label_values(evaluation: LabelsEvaluation) -> dict[str, Any]:
    """The values of the page that only images of any number of labels have."""
    return {
        "what": "label",
        "notes": [answers_line(evaluation), pooled_line(evaluation)],
        "names": list(evaluation.vocab),
        "matrix": [],
        "confused": [],
        "calibrated": label_calibration_line(evaluation),
    }


def _scores(name: str, shares: Mapping[str, float], support: int) -> dict[str, Any]:
    values = [{"text": share(value), "width": 0 if np.isnan(value) else 100 * value} for value in shares.values()]
    return {"name": name, "shares": values, "support": support}


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


def _points(found: Calibration, what: str) -> list[dict[str, Any]]:
    """Places in the reliability diagram: the mean probability of a bin, and its share of right answers."""
    full = np.flatnonzero(found.counts)
    return [
        {
            "x": PLOT * found.confidence[i],
            "y": PLOT * (1 - found.accuracy[i]),
            "r": 3 + LARGEST * np.sqrt(found.counts[i] / found.counts.sum()),
            "of": f"{found.counts[i]:,} given {found.confidence[i]:.3f}; {what}: {found.accuracy[i]:.3f}",
        }
        for i in full.tolist()
    ]


def _mistake(evaluation: Evaluated, i: int) -> dict[str, Any]:
    source, picture = evaluation.sources[i], evaluation.picture(i)
    path = Path(source)
    return {
        "source": source,
        "name": str(path.relative_to(evaluation.source)) if path.is_relative_to(evaluation.source) else source,
        "errors": evaluation.errors(i),
        "picture": None if picture is None else _address(picture),
    }


def _address(image: Image.Image) -> str:
    """The image as an address that holds it."""
    jpeg = BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
