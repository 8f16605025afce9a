"""Scores of a whole set that follow from the order in which a classifier ranks its items."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from pellucid.errors import UsageError
from pellucid.metrics.whole import AccumMetric, ActivationType

AVERAGES = ("macro", "micro", "weighted")
Score = Callable[[np.ndarray, np.ndarray], float]


def RocAucBinary(
    axis: int = -1, average: str = "macro", sample_weight: Any = None, max_fpr: Any = None, multi_class: str = "raise"
) -> AccumMetric:
    """Area under the ROC curve of two classes, as a metric of the whole set; nan where only one of them occurs.

    It is the probability that an item of class 1 is given a higher probability of class 1 than one of class 0, where
    equal ones count half.

    Args:
        axis: The axis of the classes in the outputs, which is the last.
        average: Without effect for two classes.
        sample_weight: Not supported.
        max_fpr: Not supported: the area under a part of the curve.
        multi_class: Without effect for two classes.

    Source: Hanley and McNeil, Radiology 143(1), 1982.
    """
    _unsupported("roc_auc_score", sample_weight=sample_weight, max_fpr=max_fpr)
    func = partial(_of_two_classes, roc_area, "RocAucBinary")
    return AccumMetric(func, axis, ActivationType.BinarySoftmax, to_np=True, name="roc_auc_score")


def RocAuc(
    axis: int = -1, average: str = "macro", sample_weight: Any = None, max_fpr: Any = None, multi_class: str = "ovr"
) -> AccumMetric:
    """Area under the ROC curve for any number of classes, as a metric of the whole set.

    Args:
        axis: The axis of the classes in the outputs, which is the last.
        average: `macro` for the mean over classes or pairs, `weighted` for their mean by number of items; with `ovr`
            also `micro`, which ranks all classes of all items together.
        sample_weight: Not supported.
        max_fpr: Not supported.
        multi_class: `ovr` takes each class against the rest; `ovo` each against each other, which does not depend on
            how many items a class has. Classes without items are left out.

    Source: Hand and Till, Machine Learning 45, 2001 (`ovo`).
    """
    _unsupported("roc_auc_score", sample_weight=sample_weight, max_fpr=max_fpr)
    if multi_class not in ("ovr", "ovo"):
        raise UsageError(f"multi_class {multi_class!r} does not exist: use ovr (each against the rest) or ovo (pairs)")
    if multi_class == "ovo" and average == "micro":
        raise UsageError("average='micro' is for multi_class='ovr': pairs of classes are not ranked together")
    _check_average(average)
    func = _pairs if multi_class == "ovo" else _classes
    return AccumMetric(
        func, axis, ActivationType.Softmax, to_np=True, flatten=False, name="roc_auc_score", average=average
    )


def APScoreBinary(axis: int = -1, average: str = "macro", pos_label: int = 1, sample_weight: Any = None) -> AccumMetric:
    """Average precision of class 1 of two, as a metric of the whole set: see `average_precision`.

    Args:
        axis: The axis of the classes in the outputs, which is the last.
        average: Without effect for two classes.
        pos_label: Only 1.
        sample_weight: Not supported.
    """
    _unsupported("average_precision_score", sample_weight=sample_weight)
    _check_positive(pos_label, "APScoreBinary")
    func = partial(_of_two_classes, average_precision, "APScoreBinary")
    return AccumMetric(func, axis, ActivationType.BinarySoftmax, to_np=True, name="average_precision_score")


def APScoreMulti(
    sigmoid: bool = True, average: str = "macro", pos_label: int = 1, sample_weight: Any = None
) -> AccumMetric:
    """Average precision where an image has any number of labels, as a metric of the whole set; no threshold is needed.

    Args:
        sigmoid: Put outputs through a sigmoid first.
        average: `macro` for the mean over labels (mAP), `weighted` for their mean by number of images, `micro` for all
            answers ranked together. Labels that no image has are left out.
        pos_label: Only 1.
        sample_weight: Not supported.
    """
    _unsupported("average_precision_score", sample_weight=sample_weight)
    _check_positive(pos_label, "APScoreMulti")
    return _of_labels(average_precision, "average_precision_score", sigmoid, average)


def RocAucMulti(
    sigmoid: bool = True, average: str = "macro", sample_weight: Any = None, max_fpr: Any = None
) -> AccumMetric:
    """Area under the ROC curve where an image has any number of labels, as a metric of the whole set.

    Args:
        sigmoid: Put outputs through a sigmoid first.
        average: As of `APScoreMulti`. Labels that no image or every image has are left out.
        sample_weight: Not supported.
        max_fpr: Not supported.
    """
    _unsupported("roc_auc_score", sample_weight=sample_weight, max_fpr=max_fpr)
    return _of_labels(roc_area, "roc_auc_score", sigmoid, average)


def roc_area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Share of pairs of a positive and another item in which the positive one has the higher score; equal ones half.

    Args:
        scores: Of the items, (item,).
        positive: Which are positive, bool (item,).

    Returns:
        nan where there are no such pairs.
    """
    n_pos = int(positive.sum())
    n_neg = len(positive) - n_pos
    if not n_pos or not n_neg:
        return math.nan
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # equal values share the mean of their ranks
    return float((ranks[positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean over the positive items of the precision among those with at least their score, as scikit-learn has it.

    Args:
        scores: Of the items, (item,).
        positive: Which are positive, bool (item,).

    Returns:
        nan where none is positive.
    """
    if not positive.any():
        return math.nan
    _, places = np.unique(-scores, return_inverse=True)
    found = np.bincount(places, positive)
    return float(found @ (np.cumsum(found) / np.cumsum(np.bincount(places))) / found.sum())


def _of_two_classes(score: Score, name: str, pred: np.ndarray, targ: np.ndarray) -> float:
    beyond = targ[(targ != 0) & (targ != 1)]
    if len(beyond):
        raise UsageError(f"{name} is of the classes 0 and 1, a label is {beyond[0]}")
    return score(pred, targ == 1)


def _of_labels(score: Score, name: str, sigmoid: bool, average: str) -> AccumMetric:
    _check_average(average)
    activation = ActivationType.Sigmoid if sigmoid else ActivationType.No
    func = partial(_labels, score)
    return AccumMetric(func, None, activation, to_np=True, flatten=False, name=name, average=average)


def _labels(score: Score, pred: np.ndarray, targ: np.ndarray, average: str) -> float:
    if pred.ndim != 2 or pred.shape != targ.shape:
        raise UsageError(
            f"outputs and labels are both (image, label), with 0 or 1 for each label, got {pred.shape} and {targ.shape}"
        )
    positive = targ.astype(bool)
    if average == "micro":
        return score(pred.ravel(), positive.ravel())
    each = [score(*columns) for columns in zip(pred.T, positive.T, strict=True)]
    return _mean(each, positive.sum(0) if average == "weighted" else None)


def _classes(pred: np.ndarray, targ: np.ndarray, average: str) -> float:
    """Each class against the rest."""
    return _labels(roc_area, pred, _one_hot(pred, targ), average)


def _pairs(pred: np.ndarray, targ: np.ndarray, average: str) -> float:
    """Each class against each other."""
    of = _one_hot(pred, targ)
    each, items = [], []
    for i, j in combinations(range(pred.shape[1]), 2):
        either = of[:, i] | of[:, j]
        each.append((roc_area(pred[either, i], of[either, i]) + roc_area(pred[either, j], of[either, j])) / 2)
        items.append(int(either.sum()))
    return _mean(each, np.array(items) if average == "weighted" else None)


def _one_hot(pred: np.ndarray, targ: np.ndarray) -> np.ndarray:
    """Whether an item is of a class, bool (item, class)."""
    labels = targ.reshape(-1)
    if pred.ndim != 2 or len(labels) != len(pred):
        raise UsageError(
            f"RocAuc takes outputs (item, class) and one class number an item, got {pred.shape}, {targ.shape}"
        )
    beyond = labels[(labels < 0) | (labels >= pred.shape[1])]
    if len(beyond):
        raise UsageError(f"RocAuc: the label {beyond[0]} is not among the classes 0 to {pred.shape[1] - 1}")
    return labels[:, None] == np.arange(pred.shape[1])


def _mean(each: list[float], weights: np.ndarray | None) -> float:
    """Of those that exist."""
    values = np.array(each)
    known = ~np.isnan(values)
    if not known.any():
        return math.nan
    return float(np.average(values[known], weights=None if weights is None else weights[known]))


def _unsupported(function: str, **given: Any) -> None:
    if any(value is not None for value in given.values()):
        raise UsageError(f"{' and '.join(given)} are not supported: use skm_to_fastai({function}, ...)")


def _check_average(average: str) -> None:
    if average not in AVERAGES:
        raise UsageError(f"average {average!r} does not exist: use one of {', '.join(AVERAGES)}")


def _check_positive(pos_label: int, name: str) -> None:
    if pos_label != 1:
        raise UsageError(f"{name} is the average precision of label 1, got pos_label={pos_label!r}")
