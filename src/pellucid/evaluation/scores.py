"""Numbers that say how good a classifier is, and how far they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class ClassScore:
    """How well one class is told; a share of nothing is nan.

    Attributes:
        name: Of the class.
        precision: Share of the images predicted as it that are of it.
        recall: Share of its images that are predicted as it.
        f1: Their harmonic mean.
        support: Its images.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int

    @property
    def shares(self) -> dict[str, float]:
        """All but the support, by the names that tables give them."""
        return {"precision": self.precision, "recall": self.recall, "F1": self.f1}


@dataclass(frozen=True)
class LabelScore(ClassScore):
    """How well one of several labels is told; a share of nothing is nan.

    Attributes:
        average_precision: Mean precision over all thresholds, see `pellucid.metrics.ranking.average_precision`; it does
            not depend on the one that was chosen.
    """

    average_precision: float

    @property
    def shares(self) -> dict[str, float]:
        """All but the support, by the names that tables give them."""
        return super().shares | {"average precision": self.average_precision}


def mean_shares(scores: Sequence[ClassScore]) -> dict[str, float]:
    """Means over the classes, each counting alike, of what is known of them."""
    found = {}
    for name in scores[0].shares:
        known = [value for score in scores if not math.isnan(value := score.shares[name])]
        found[name] = float(np.mean(known)) if known else math.nan
    return found


def wilson(right: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a share, `right` of `n`; unlike the usual one it holds for few images and for shares near 1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    >>> [round(end, 4) for end in wilson(20, 20)]
    [0.8389, 1.0]
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / n
    middle = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    scale = 1 + z**2 / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
