"""What a reading is: a vector of numbers about one tensor, and how two readings make one.

A reading is a float64 vector: six moments (mean, sum of squared deviations, minimum, maximum, then mean and squared
deviations of max(x, 0)), the counts named by `Count`, and, if asked for, 80 histogram bins 0.25 wide on [−10, 10], of
which the upper 40 are the chapter's. A bin holds lower edge ≤ x < upper edge, the last one also x = 10. Non-finite
values are counted and left out of everything else. Counts are whole numbers, exact in float64 up to 2⁵³.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

N_BINS, TOP, PER_UNIT = 80, 10.0, 4
NEAR = 0.05
MEAN, M2, LOW, HIGH, RELU_MEAN, RELU_M2 = range(6)


class Count(IntEnum):
    """Place of each count in a reading."""

    N = 6
    NONFINITE = 7
    NEAR_ZERO = 8  # x ≤ 0.05, the chapter's measure: what a following ReLU silences
    NEAR_ZERO_ABS = 9  # |x| ≤ 0.05
    ZERO = 10
    NOT_POSITIVE = 11
    UNDER = 12
    OVER = 13


FIRST_BIN = 14


def length(with_hist: bool) -> int:
    """Number of values in a reading."""
    return FIRST_BIN + N_BINS * with_hist


def rectified(reading: np.ndarray) -> np.ndarray:
    """The readings of max(x, 0), from those of finite x: [..., value]."""
    out = reading.copy()
    out[..., MEAN : M2 + 1] = reading[..., RELU_MEAN : RELU_M2 + 1]
    out[..., LOW : HIGH + 1] = np.maximum(reading[..., LOW : HIGH + 1], 0)
    out[..., Count.NEAR_ZERO_ABS] = reading[..., Count.NEAR_ZERO]
    out[..., Count.ZERO] = reading[..., Count.NOT_POSITIVE]
    out[..., Count.UNDER] = 0
    if reading.shape[-1] > FIRST_BIN:
        zero_bin = FIRST_BIN + N_BINS // 2
        out[..., FIRST_BIN:zero_bin] = 0
        out[..., zero_bin] += reading[..., FIRST_BIN:zero_bin].sum(-1) + reading[..., Count.UNDER]
    return out


def empty(*shape: int, with_hist: bool) -> np.ndarray:
    """Readings of nothing, shape (*shape, length)."""
    cells = np.zeros((*shape, length(with_hist)))
    cells[..., LOW], cells[..., HIGH] = np.inf, -np.inf
    return cells


def pool(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The readings of both samples together; leading axes broadcast.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """
    out = a + b
    na, nb = a[..., Count.N], b[..., Count.N]
    share = nb / np.maximum(na + nb, 1)
    for mean, m2 in ((MEAN, M2), (RELU_MEAN, RELU_M2)):
        delta = b[..., mean] - a[..., mean]
        out[..., mean] = a[..., mean] + delta * share
        with np.errstate(over="ignore"):  # the square of 1e200 is infinite
            out[..., m2] = a[..., m2] + b[..., m2] + delta * (delta * na * share)
    out[..., LOW] = np.minimum(a[..., LOW], b[..., LOW])
    out[..., HIGH] = np.maximum(a[..., HIGH], b[..., HIGH])
    return out
