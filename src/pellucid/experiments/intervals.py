"""Mean, spread and confidence interval of a few repeated measurements. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """The mean of measurements and how far it can be trusted.

    Attributes:
        n: Number of measurements.
        mean: Their mean.
        std: Their standard deviation, with n − 1; nan for one measurement.
        half: Half the width of the confidence interval, t · std / √n; nan for one measurement.
    """

    n: int
    mean: float
    std: float
    half: float

    @property
    def low(self) -> float:
        """Lower end of the confidence interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of the confidence interval."""
        return self.mean + self.half

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside; never so for one measurement."""
        return self.low > 0 or self.high < 0


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's confidence interval of the mean: mean ± t · s / √n with n − 1 degrees of freedom.

    It takes the values for independent and roughly normal. Of a few seeds among which some collapse it says little
    more than that they differ.

    Source: Student, "The probable error of a mean", Biometrika 6 (1908).
    """
    n, mean = len(values), fmean(values)
    if n == 1:
        return Interval(1, mean, math.nan, math.nan)
    std = stdev(values)
    return Interval(n, mean, std, t_quantile(confidence, n - 1) * std / math.sqrt(n))


def differences(values: Sequence[float], baseline: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The confidence interval of paired differences, `values[i] - baseline[i]`: both of the same seed."""
    return interval([a - b for a, b in zip(values, baseline, strict=True)], confidence)


def t_quantile(confidence: float, dof: int) -> float:
    """The t that a Student variable with `dof` degrees of freedom keeps within ±t with probability `confidence`."""
    low, high = 0.0, math.pi / 2
    for _ in range(80):  # halves the bracket down to a float's last digit
        middle = (low + high) / 2
        low, high = (middle, high) if _probability_within(middle, dof) < confidence else (low, middle)
    return math.sqrt(dof) * math.tan(low)


def _probability_within(angle: float, dof: int) -> float:
    """P(|T| ≤ √dof · tan(angle)); Abramowitz & Stegun, formulas 26.7.3 (odd dof) and 26.7.4 (even)."""
    cosine = math.cos(angle)
    odd = dof % 2
    term = cosine if odd else 1.0
    series = 0.0 if dof == 1 else term
    for k in range(2 + odd, dof - 1, 2):
        term *= cosine**2 * (k - 1) / k
        series += term
    within = math.sin(angle) * series
    return 2 / math.pi * (angle + within) if odd else within
