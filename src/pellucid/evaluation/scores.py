"""Numbers that say how good a classifier is, and how far they can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

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
