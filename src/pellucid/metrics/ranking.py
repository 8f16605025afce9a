"""Scores of a whole set that follow from the order in which a classifier ranks its items."""

from __future__ import annotations

from typing import Any

import numpy as np

from pellucid.errors import UsageError
from pellucid.metrics.whole import AccumMetric, ActivationType


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
    if sample_weight is not None or max_fpr is not None:
        raise UsageError("sample_weight and max_fpr are not supported: use skm_to_fastai(roc_auc_score, ...)")
    return AccumMetric(_area, axis, ActivationType.BinarySoftmax, to_np=True, name="roc_auc_score")


def _area(pred: np.ndarray, targ: np.ndarray) -> float:
    beyond = targ[(targ != 0) & (targ != 1)]
    if len(beyond):
        raise UsageError(f"RocAucBinary is of the classes 0 and 1, a label is {beyond[0]}")
    positive = targ == 1
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if not n_pos or not n_neg:
        return float("nan")
    _, places, counts = np.unique(pred, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # equal values share the mean of their ranks
    return float((ranks[positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))
