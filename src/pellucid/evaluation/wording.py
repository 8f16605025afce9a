"""An evaluation as a report for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pellucid.evaluation.scores import ClassScore
from pellucid.tables import as_text
from pellucid.text import counted, first_few, printable

if TYPE_CHECKING:
    from pellucid.evaluation.evaluation import Evaluation

LISTED = 40  # classes; of more, those with the lowest F1
CONFUSED = 5


def as_words(evaluation: Evaluation) -> str:
    """The report, with lines that explain each number."""
    lines = [accuracy_line(evaluation), "", class_table(evaluation.per_class), ""]
    confused = confusions(evaluation)
    lines += ["most confused:", *(f"  {line}" for line in confused), ""] if confused else ["no mistakes", ""]
    lines += [calibration_line(evaluation)]
    if evaluation.failed:
        lines += [f"{counted(len(evaluation.failed), 'image')} left out: {first_few(evaluation.failed, 4)}"]
    return "\n".join(lines)


def accuracy_line(evaluation: Evaluation) -> str:
    """Accuracy, its interval, and what of."""
    low, high = evaluation.interval
    return (
        f"accuracy {evaluation.accuracy:.4f} on {counted(evaluation.n, 'image')} of {printable(evaluation.source)} "
        f"(95 % interval {low:.3f} to {high:.3f})"
    )


def class_table(scores: Sequence[ClassScore]) -> str:
    """A row for each class, and the mean over those that occur."""
    shown = sorted(scores, key=lambda score: math.inf if math.isnan(score.f1) else score.f1)[:LISTED]
    rows = [_row(score) for score in (scores if len(scores) <= LISTED else shown)]
    names, foot = ("class", "precision", "recall", "F1", "images"), _row(mean_score(scores))
    table = as_text(names, rows, foot, left=1)
    return table if len(scores) <= LISTED else f"{table}\nthe {LISTED} classes of {len(scores)} with the lowest F1"


def mean_score(scores: Sequence[ClassScore]) -> ClassScore:
    """Means over the classes, each counting alike, of what is known of them; all images."""
    columns = zip(*((score.precision, score.recall, score.f1) for score in scores), strict=True)
    known = [[value for value in column if not math.isnan(value)] for column in columns]
    means = [float(np.mean(values)) if values else math.nan for values in known]
    return ClassScore("mean", means[0], means[1], means[2], sum(score.support for score in scores))


def share(value: float) -> str:
    """A share with three decimals, a dash for one of nothing."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def confusions(evaluation: Evaluation) -> list[str]:
    """The pairs of classes that are confused most."""
    support = {score.name: score.support for score in evaluation.per_class}
    return [
        f"{n:,} of {support[actual]:,} {printable(actual)} taken for {printable(predicted)}"
        for actual, predicted, n in evaluation.most_confused[:CONFUSED]
    ]


def calibration_line(evaluation: Evaluation) -> str:
    """How far the probabilities can be believed."""
    raw, scaled = evaluation.calibration, evaluation.scaled_calibration
    sure, right = raw.mean_confidence, evaluation.accuracy
    line = f"on average {sure:.3f} sure and {right:.3f} right, calibration error {raw.error:.3f}"
    if scaled is None:
        return line
    return (
        f"{line}; with the run's temperature {evaluation.temperature:.2f} {scaled.mean_confidence:.3f} sure, "
        f"error {scaled.error:.3f}"
    )


def _row(score: ClassScore) -> list[str]:
    values = (score.precision, score.recall, score.f1)
    return [printable(score.name), *map(share, values), f"{score.support:,}"]
