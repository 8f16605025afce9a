"""Readings of CPU memory by numpy, where numba is not installed: in blocks that stay in the cache, each value once."""

from __future__ import annotations

import numpy as np

from pellucid.activations.vector import FIRST_BIN, N_BINS, NEAR, PER_UNIT, TOP, Count, length

BLOCK = 16_384


def read(values: np.ndarray, with_hist: bool) -> np.ndarray | None:
    """The reading of float32 or float64 values of rank 1; None if one of them is not finite.

    Sums are taken about the first value, so that the deviation of values far from zero is not lost.
    """
    near, per_unit = values.dtype.type(NEAR), values.dtype.type(PER_UNIT)
    shift, n = float(values[0]), len(values)
    sums, lows, highs = np.zeros(4), [], []
    out = np.zeros(length(with_hist))
    cells = np.zeros(N_BINS + 2, np.int64)
    for start in range(0, n, BLOCK):
        x = values[start : start + BLOCK]
        with np.errstate(invalid="ignore", over="ignore"):  # infinite minus infinite; the square of 1e200
            d = np.subtract(x, shift, dtype=np.float64)
            r = np.maximum(x, 0).astype(np.float64)
            sums += d.sum(), np.square(d).sum(), r.sum(), np.square(r).sum()  # BLAS would wake threads beside torch's
        if not np.isfinite(sums[1]):
            return None
        lows.append(x.min())
        highs.append(x.max())
        below = x <= near
        out[Count.NEAR_ZERO] += np.count_nonzero(below)
        out[Count.NEAR_ZERO_ABS] += np.count_nonzero(below & (x >= -near))
        out[Count.ZERO] += np.count_nonzero(x == 0)
        out[Count.NOT_POSITIVE] += np.count_nonzero(x <= 0)
        out[Count.UNDER] += np.count_nonzero(x < -TOP) if lows[-1] < -TOP else 0
        out[Count.OVER] += np.count_nonzero(x > TOP) if highs[-1] > TOP else 0
        if with_hist:
            place = np.floor(x * per_unit)
            np.clip(place, -N_BINS // 2 - 1, N_BINS // 2, out=place)
            cells += np.bincount(place.astype(np.intp) + N_BINS // 2 + 1, minlength=N_BINS + 2)
    s, ss, p, pp = sums
    out[: Count.N] = shift + s / n, max(ss - s * s / n, 0), min(lows), max(highs), p / n, max(pp - p * p / n, 0)
    out[Count.N] = n
    if with_hist:
        out[FIRST_BIN:] = cells[1:-1]
        out[-1] += cells[-1] - out[Count.OVER]  # the last bin also holds its upper edge
    return out
