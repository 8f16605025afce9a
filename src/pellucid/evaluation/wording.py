"""An evaluation as a report for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pellucid.evaluation.scores import ClassScore, mean_shares
from pellucid.tables import as_text
from pellucid.text import counted, first_few, printable

if TYPE_CHECKING:
    from pellucid.evaluation.evaluated import Evaluated
    from pellucid.evaluation.evaluation import Evaluation
    from pellucid.evaluation.labels import LabelsEvaluation

LISTED = 40  # classes; of more, those with the lowest F1
CONFUSED = 5


def class_words(evaluation: Evaluation) -> str:
    """The report on images of one class each."""
    lines = [accuracy_line(evaluation), "", class_table(evaluation.per_class, "class"), ""]
    confused = confusions(evaluation)
    lines += ["most confused:", *(f"  {line}" for line in confused), ""] if confused else ["no mistakes", ""]
    return "\n".join([*lines, calibration_line(evaluation), *_left_out(evaluation)])


def label_words(evaluation: LabelsEvaluation) -> str:
    """The report on images of any number of labels."""
    lines = [accuracy_line(evaluation), answers_line(evaluation), "", class_table(evaluation.per_class, "label")]
    lines += [pooled_line(evaluation), "", label_calibration_line(evaluation)]
    return "\n".join([*lines, *_left_out(evaluation)])


def accuracy_line(evaluation: Evaluated) -> str:
    """Accuracy, its interval, and what of."""
    low, high = evaluation.interval
    return (
        f"accuracy {evaluation.accuracy:.4f} on {counted(evaluation.n, 'image')} of {printable(evaluation.source)} "
        f"(95 % interval {low:.3f} to {high:.3f})"
    )


def answers_line(evaluation: LabelsEvaluation) -> str:
    """What an accuracy of images with several labels counts, and the share of right answers."""
    return (
        "accuracy counts images that were given all of their labels and no other; of single answers, one for each "
        f"label of each image, {1 - evaluation.hamming_loss:.4f} are right"
    )


def class_table(scores: Sequence[ClassScore], what: str) -> str:
    """A row for each class or label, and the mean over those that occur."""
    shown = sorted(scores, key=lambda score: math.inf if math.isnan(score.f1) else score.f1)[:LISTED]
    rows = [_row(score.name, score.shares, score.support) for score in (scores if len(scores) <= LISTED else shown)]
    foot = _row("mean", mean_shares(scores), sum(score.support for score in scores))
    table = as_text((what, *scores[0].shares, "images"), rows, foot, left=1)
    plural = {"class": "classes"}.get(what, f"{what}s")
    return table if len(scores) <= LISTED else f"{table}\nthe {LISTED} {plural} of {len(scores)} with the lowest F1"


def pooled_line(evaluation: LabelsEvaluation) -> str:
    """Scores of all answers together."""
    shares = evaluation.pooled.shares.items()
    return f"all labels together: {', '.join(f'{name} {share(value)}' for name, value in shares)}"


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
    """How far the probabilities of classes can be believed."""
    sure = evaluation.calibration.mean_confidence
    return f"on average {sure:.3f} sure and {evaluation.accuracy:.3f} right, {_errors(evaluation, 'sure')}"


def label_calibration_line(evaluation: LabelsEvaluation) -> str:
    """How far the probabilities of labels can be believed."""
    sure, there = evaluation.calibration.mean_confidence, float(evaluation.labels.mean())
    errors = _errors(evaluation, "on average")
    return f"labels have probability {sure:.3f} on average and are there in {there:.3f}, {errors}"


def _errors(evaluation: Evaluated, what: str) -> str:
    """Of the calibration; `what` the mean probability is called."""
    scaled, line = evaluation.scaled_calibration, f"calibration error {evaluation.calibration.error:.3f}"
    if scaled is None:
        return line
    return (
        f"{line}; with the run's temperature {evaluation.temperature:.2f}: {scaled.mean_confidence:.3f} {what}, "
        f"error {scaled.error:.3f}"
    )


def _left_out(evaluation: Evaluated) -> list[str]:
    failed = evaluation.failed
    return [f"{counted(len(failed), 'image')} left out: {first_few(failed, 4)}"] if failed else []


def _row(name: str, shares: Mapping[str, float], support: int) -> list[str]:
    return [printable(name), *map(share, shares.values()), f"{support:,}"]
