"""Scores of a classifier that follow from how often each class occurs, is predicted, and is predicted rightly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import UsageError
from pellucid.metrics.batch import HINT, chosen
from pellucid.metrics.whole import Metric
from pellucid.nn.pairing import paired

AVERAGES = ("binary", "micro", "macro", "weighted")


class ClassCounts(Metric):
    """A score of the whole set from exact counts of each class; they are kept on the device and read once.

    Args:
        axis: The axis of the classes in the outputs.
    """

    def __init__(self, axis: int = -1):
        self.axis = axis
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.counts: Tensor | None = None

    def update(self, pred: Tensor, targ: Tensor) -> None:
        """Take one batch in: outputs (batch, class) along `axis`, and the numbers of the classes (batch,)."""
        decided, labels = paired(chosen(pred, self.axis, self.name), targ, self.name, HINT)
        n = pred.shape[self.axis]
        labels = labels.long()
        labels = torch.where((labels >= 0) & (labels < n), labels, n)  # those of no class are counted, in a slot beyond
        if self.counts is None:
            self.counts = torch.zeros(3, n + 1, dtype=torch.int64, device=pred.device)
        elif self.counts.shape[1] != n + 1:
            raise UsageError(f"{self.name} was given {self.counts.shape[1] - 1} classes first, then {n}")
        places = torch.stack([labels, decided, torch.where(labels == decided, labels, n)])
        # Not `bincount`: on an accelerator that waits for the largest value.
        self.counts.scatter_add_(1, places, torch.ones_like(places))

    def compute(self) -> float:
        """The score; nan if there was no batch.

        Raises:
            UsageError: labels are no classes, or the score does not exist for so many classes.
        """
        if self.counts is None:
            return float("nan")
        support, guessed, right = self.counts.cpu().numpy()
        if support[-1]:
            raise UsageError(f"{self.name}: {support[-1]} labels are not among the classes 0 to {len(support) - 2}")
        return float(self._score(support[:-1], guessed[:-1], right[:-1]))

    def _score(self, support: np.ndarray, guessed: np.ndarray, right: np.ndarray) -> float:
        """From items of each class, items predicted as it, and how many of those rightly, all int64 (class,)."""
        raise NotImplementedError


class Averaged(ClassCounts):
    """A ratio of counts of one class, or its average over classes; arguments as of `F1Score`."""

    def __init__(
        self,
        axis: int = -1,
        labels: Sequence[int] | None = None,
        pos_label: int = 1,
        average: str | None = "binary",
        sample_weight: Any = None,
    ):
        if average is None:
            raise UsageError(
                f"average=None gives one value a class, a metric is one number: list {type(self).__name__}"
                "(labels=[i], average='macro') for each class i that is of interest"
            )
        if average not in AVERAGES:
            raise UsageError(f"average {average!r} does not exist: use one of {', '.join(AVERAGES)}")
        unweighted(sample_weight)
        if labels is not None and average == "binary":
            raise UsageError("labels chooses classes to average over, average='binary' is about pos_label alone")
        self.labels, self.pos_label, self.average = labels, pos_label, average
        super().__init__(axis)

    def _score(self, support: np.ndarray, guessed: np.ndarray, right: np.ndarray) -> float:
        if self.average == "binary":
            if len(support) != 2 or not 0 <= self.pos_label < 2:
                raise UsageError(
                    f"{self.name} of one class (pos_label={self.pos_label}) is for two classes, the outputs have "
                    f"{len(support)}: choose average='macro', 'micro' or 'weighted'"
                )
            classes = np.array([self.pos_label])
        elif self.labels is None:
            classes = self._averaged_over(support, guessed)
        else:
            classes = np.array(self.labels)
            if classes.min() < 0 or classes.max() >= len(support):
                raise UsageError(f"labels {list(self.labels)} are not all among the classes 0 to {len(support) - 1}")
        above, below = self._ratio(support[classes], guessed[classes], right[classes])
        if self.average == "micro":
            above, below = above.sum(keepdims=True), below.sum(keepdims=True)
        ratios = above / np.where(below == 0, 1, below)  # of nothing: 0
        if self.average != "weighted":
            return ratios.mean()
        items = support[classes]
        return (items * ratios).sum() / max(items.sum(), 1)

    def _averaged_over(self, support: np.ndarray, guessed: np.ndarray) -> np.ndarray:
        """The classes where none are chosen: all that occur."""
        return np.flatnonzero(support + guessed)

    def _ratio(self, support: np.ndarray, guessed: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


class Precision(Averaged):
    """Share of the items predicted as a class that are of it; arguments as of `F1Score`."""

    name = "precision_score"

    def _ratio(self, support: np.ndarray, guessed: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return right, guessed


class Recall(Averaged):
    """Share of the items of a class that are predicted as it; arguments as of `F1Score`."""

    name = "recall_score"

    def _ratio(self, support: np.ndarray, guessed: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return right, support


class Jaccard(Averaged):
    """Items rightly predicted as a class over those of it or predicted as it; arguments as of `F1Score`."""

    name = "jaccard_score"

    def _ratio(self, support: np.ndarray, guessed: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return right, support + guessed - right


class FBeta(Averaged):
    """Weighted harmonic mean of precision P and recall R, (1 + β²) · P · R / (β² · P + R).

    Args:
        beta: How much more recall matters than precision.
        average: And the further arguments: as of `F1Score`.

    Source: van Rijsbergen, Information Retrieval, 1979, chapter 7.
    """

    name = "fbeta_score"

    def __init__(
        self,
        beta: float,
        axis: int = -1,
        labels: Sequence[int] | None = None,
        pos_label: int = 1,
        average: str | None = "binary",
        sample_weight: Any = None,
    ):
        self.beta = beta
        super().__init__(axis, labels, pos_label, average, sample_weight)

    def _ratio(self, support: np.ndarray, guessed: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        squared = self.beta**2  # in counts, as in F1Score
        return (1 + squared) * right, squared * support + guessed


class F1Score(Averaged):
    """Harmonic mean of precision and recall over the whole set, as scikit-learn's `f1_score`.

    Args:
        axis: The axis of the classes in the outputs.
        labels: Which classes are averaged; None for all that occur, as label or prediction.
        pos_label: The class that `binary` is about.
        average: `binary` for one of two classes, `macro` for the mean over classes, `weighted` for their mean by
            number of items, `micro` for the ratio of the counts of all. A ratio of no items is 0.
        sample_weight: Not supported: a batch does not say which items it holds.

    Raises:
        UsageError: an argument is out of range, or `average` is None, which would be several values.
    """

    name = "f1_score"

    def _ratio(self, support: np.ndarray, guessed: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 2 * right, support + guessed  # in counts, the formula has no 0 / 0 where precision and recall are 0


class BalancedAccuracy(ClassCounts):
    """Mean recall over the classes that occur.

    Args:
        axis: The axis of the classes in the outputs.
        sample_weight: Not supported.
        adjusted: Rescale so that guessing is 0 and perfection 1.
    """

    name = "balanced_accuracy_score"

    def __init__(self, axis: int = -1, sample_weight: Any = None, adjusted: bool = False):
        unweighted(sample_weight)
        self.adjusted = adjusted
        super().__init__(axis)

    def _score(self, support: np.ndarray, guessed: np.ndarray, right: np.ndarray) -> float:
        occurring = support > 0
        score, chance = (right[occurring] / support[occurring]).mean(), 1 / occurring.sum()
        return (score - chance) / (1 - chance) if self.adjusted else score


class CohenKappa(ClassCounts):
    """Agreement of predictions and labels beyond chance, (p − e) / (1 − e) of the observed and the expected share.

    Args:
        axis: The axis of the classes in the outputs.
        labels: Not supported: all classes count.
        weights: Not supported: every confusion counts alike.
        sample_weight: Not supported.

    Source: Cohen, Educational and Psychological Measurement 20(1), 1960.
    """

    name = "cohen_kappa_score"

    def __init__(self, axis: int = -1, labels: Any = None, weights: Any = None, sample_weight: Any = None):
        if labels is not None or weights is not None:
            raise UsageError("CohenKappa counts all classes and confusions alike: use skm_to_fastai(cohen_kappa_score)")
        unweighted(sample_weight)
        super().__init__(axis)

    def _score(self, support: np.ndarray, guessed: np.ndarray, right: np.ndarray) -> float:
        n = support.sum()
        observed, expected = right.sum() / n, (support / n * (guessed / n)).sum()
        return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


class MatthewsCorrCoef(ClassCounts):
    """Correlation of predictions and labels, for any number of classes; 0 where one of them never varies.

    Args:
        sample_weight: Not supported.
        axis: The axis of the classes in the outputs.

    Source: Gorodkin, Computational Biology and Chemistry 28(5), 2004, equation 8.
    """

    name = "matthews_corrcoef"

    def __init__(self, sample_weight: Any = None, axis: int = -1):
        unweighted(sample_weight)
        super().__init__(axis)

    def _score(self, support: np.ndarray, guessed: np.ndarray, right: np.ndarray) -> float:
        n = support.sum()
        p, t, observed = guessed / n, support / n, right.sum() / n
        spread = (1 - (p**2).sum()) * (1 - (t**2).sum())
        return (observed - (p * t).sum()) / spread**0.5 if spread > 0 else 0.0


def class_shares(counts: np.ndarray) -> np.ndarray:
    """Precision, recall and F1 of each class, float (class, 3), of items [actual class, predicted class].

    Precision is the share of items predicted as a class that are of it, recall the share of items of a class predicted
    as it, F1 their harmonic mean 2PR / (P + R). A share of no items is nan.
    """
    right, support, guessed = counts.diagonal(), counts.sum(1), counts.sum(0)
    below = np.stack([guessed, support, support + guessed], 1).astype(float)  # in counts, F1 has no 0 / 0 of its own
    return np.stack([right, right, 2 * right], 1) / np.where(below == 0, np.nan, below)


def unweighted(sample_weight: Any) -> None:
    """Raise UsageError where weights are given."""
    if sample_weight is not None:
        raise UsageError("sample_weight is not supported: use skm_to_fastai with scikit-learn's function")
