"""Scores of a classifier that answers yes or no for each label of an image, exact over the whole set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import UsageError
from pellucid.metrics.counts import Averaged, F1Score, FBeta, Jaccard, MatthewsCorrCoef, Precision, Recall
from pellucid.nn.pairing import paired


class _OfLabels(Averaged):
    """Counts of each label where an image has any number of them; arguments as of `F1ScoreMulti`."""

    def __init__(
        self,
        thresh: float = 0.5,
        sigmoid: bool = True,
        labels: Sequence[int] | None = None,
        pos_label: int = 1,
        average: str | None = "macro",
        sample_weight: Any = None,
    ):
        if average == "binary" or pos_label != 1:
            raise UsageError(f"{type(self).__name__} counts each label's yes: average is macro, micro or weighted")
        self.thresh, self.sigmoid = thresh, sigmoid
        Averaged.__init__(self, -1, labels, pos_label, average, sample_weight)  # FBeta is next, and wants its beta

    def update(self, pred: Tensor, targ: Tensor) -> None:
        """Take one batch in: outputs (batch, label), and 0 or 1 for each."""
        said, labels = answers(pred, targ, self.thresh, self.sigmoid, self.name)
        counts = torch.stack([labels.sum(0), said.sum(0), (said & labels).sum(0)])
        counts = torch.nn.functional.pad(counts, (0, 1))  # no label is beyond the last
        if self.counts is not None and self.counts.shape != counts.shape:
            raise UsageError(
                f"{self.name} was given {self.counts.shape[1] - 1} labels first, then {counts.shape[1] - 1}"
            )
        self.counts = counts if self.counts is None else self.counts + counts

    def _averaged_over(self, support: np.ndarray, guessed: np.ndarray) -> np.ndarray:
        return np.arange(len(support))


class F1ScoreMulti(_OfLabels, F1Score):
    """`F1Score` of yes-or-no answers, for images with any number of labels.

    Args:
        thresh: An answer is yes above it.
        sigmoid: Put outputs through a sigmoid first.
        labels: Which labels are averaged; None for all, those that never occur count as 0.
        pos_label: Only 1: scores are those of yes.
        average: `macro` for the mean over labels, `weighted` for their mean by number of images, `micro` for the ratio
            of the counts of all.
        sample_weight: Not supported.

    Raises:
        UsageError: an argument is out of range.
    """


class PrecisionMulti(_OfLabels, Precision):
    """Share of the answers yes that are right; arguments as of `F1ScoreMulti`."""


class RecallMulti(_OfLabels, Recall):
    """Share of an image's labels that are found; arguments as of `F1ScoreMulti`."""


class JaccardMulti(_OfLabels, Jaccard):
    """Labels rightly found over those that are there or were said to be; arguments as of `F1ScoreMulti`."""


class FBetaMulti(_OfLabels, FBeta):
    """`FBeta` of yes-or-no answers.

    Args:
        beta: As of `FBeta`.
        thresh: And the further arguments: as of `F1ScoreMulti`.
    """

    def __init__(
        self,
        beta: float,
        thresh: float = 0.5,
        sigmoid: bool = True,
        labels: Sequence[int] | None = None,
        pos_label: int = 1,
        average: str | None = "macro",
        sample_weight: Any = None,
    ):
        self.beta = beta
        _OfLabels.__init__(self, thresh, sigmoid, labels, pos_label, average, sample_weight)


class MatthewsCorrCoefMulti(MatthewsCorrCoef):
    """Correlation of answers and labels over all answers of all images; 0 where one of them never varies.

    Args:
        thresh: An answer is yes above it.
        sigmoid: Put outputs through a sigmoid first.
        sample_weight: Not supported.
    """

    def __init__(self, thresh: float = 0.5, sigmoid: bool = True, sample_weight: Any = None):
        self.thresh, self.sigmoid = thresh, sigmoid
        super().__init__(sample_weight)

    def update(self, pred: Tensor, targ: Tensor) -> None:
        """Take one batch in: outputs (batch, label), and 0 or 1 for each."""
        said, labels = answers(pred, targ, self.thresh, self.sigmoid, self.name)
        kinds = torch.stack([labels, said]), torch.stack([~labels, ~said])
        no, yes = (torch.stack([*kind.sum((1, 2)), kind.all(0).sum()]) for kind in reversed(kinds))
        counts = torch.stack([no, yes, torch.zeros_like(no)], 1)  # no answer is neither
        self.counts = counts if self.counts is None else self.counts + counts


def answers(pred: Tensor, targ: Tensor, thresh: float, sigmoid: bool, name: str) -> tuple[Tensor, Tensor]:
    """What outputs say and what is so, both bool (batch, label).

    Raises:
        UsageError: the shapes differ, or a batch is no table.
    """
    paired(pred, targ, name)
    if pred.dim() != 2:
        raise UsageError(f"{name} takes outputs (batch, label), one for each answer, got {tuple(pred.shape)}")
    return (pred.sigmoid() if sigmoid else pred) > thresh, targ.reshape(pred.shape).bool()
