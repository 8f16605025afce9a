"""Read one activation tensor: everything that is recorded of it, as one vector.

A reading is a float64 vector: six moments (mean, sum of squared deviations, minimum, maximum, then mean and squared
deviations of max(x, 0)), the counts named by `Count`, and, if asked for, 80 histogram bins 0.25 wide on [−10, 10], of
which the upper 40 are the chapter's. A bin holds lower edge ≤ x < upper edge, the last one also x = 10. Non-finite
values are counted and left out of everything else. Counts are whole numbers, exact in float64 up to 2⁵³.

On the CPU a compiled kernel (numba, if it is installed) reads each value once; elsewhere torch's own reductions on the
same device give the same numbers without waiting for it.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

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


def read(x: Tensor, with_hist: bool) -> Tensor | np.ndarray:
    """The reading of a floating-point tensor of any shape with at least one value.

    Returns:
        An array if it was computed at once, a tensor on the device of `x` otherwise.
    """
    x = x.detach()
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    kernel = _compiled() if x.device.type == "cpu" else None
    if kernel is not None:
        values = _flat(x).numpy()
        low, high = values.min(), values.max()
        if np.isfinite(low) and np.isfinite(high):  # both are nan if any value is
            reading = np.zeros(length(with_hist))
            reading[LOW], reading[HIGH] = low, high
            kernel(values, float(values.dtype.type(NEAR)), with_hist, reading)
            return reading
    reading = _reduce(_flat(x), with_hist)
    return reading.numpy() if x.device.type == "cpu" else reading


def rectified(reading: np.ndarray) -> np.ndarray:
    """The reading of max(x, 0), from that of finite x."""
    out = reading.copy()
    out[[MEAN, M2]] = reading[[RELU_MEAN, RELU_M2]]
    out[[LOW, HIGH]] = np.maximum(reading[[LOW, HIGH]], 0)
    out[Count.NEAR_ZERO_ABS] = reading[Count.NEAR_ZERO]
    out[Count.ZERO] = reading[Count.NOT_POSITIVE]
    out[Count.UNDER] = 0
    if len(reading) > FIRST_BIN:
        zero_bin = FIRST_BIN + N_BINS // 2
        out[FIRST_BIN:zero_bin] = 0
        out[zero_bin] += reading[FIRST_BIN:zero_bin].sum() + reading[Count.UNDER]
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
        out[..., m2] = a[..., m2] + b[..., m2] + delta**2 * na * share
    out[..., LOW] = np.minimum(a[..., LOW], b[..., LOW])
    out[..., HIGH] = np.maximum(a[..., HIGH], b[..., HIGH])
    return out


def _flat(x: Tensor) -> Tensor:
    """All values in one row, in the order of memory when that needs no copy: statistics do not depend on it."""
    if x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).reshape(-1)
    return x.reshape(-1)


def _reduce(x: Tensor, with_hist: bool) -> Tensor:
    finite = x.isfinite()
    wide = torch.where(finite, x, 0).to(torch.float32 if x.device.type == "mps" else torch.float64)
    n = finite.sum()
    some = n.clamp(min=1)

    def moments(values: Tensor) -> list[Tensor]:
        mean = torch.where(finite, values, 0).sum() / some
        return [mean, torch.where(finite, values - mean, 0).square().sum()]

    def count(mask: Tensor) -> Tensor:
        return (mask & finite).sum()

    low, high = torch.where(finite, x, torch.inf).amin(), torch.where(finite, x, -torch.inf).amax()
    parts = [*moments(wide), low, high, *moments(wide.relu()), n, x.numel() - n]
    parts += [count(x <= NEAR), count((x <= NEAR) & (x >= -NEAR)), count(x == 0), count(x <= 0)]
    parts += [count(x < -TOP), count(x > TOP)]
    reading = torch.stack([part.to(wide.dtype) for part in parts])
    if not with_hist:
        return reading
    place = (wide * PER_UNIT).floor().clamp(max=N_BINS // 2 - 1).long() + N_BINS // 2
    place = torch.where(finite & (x.abs() <= TOP), place, N_BINS)
    bins = torch.zeros(N_BINS + 1, dtype=torch.int64, device=x.device)
    bins.scatter_add_(0, place, torch.ones_like(place))
    return torch.cat([reading, bins[:N_BINS].to(wide.dtype)])


@cache
def _compiled() -> Any:
    try:
        from numba import njit  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "nnan", "ninf"})(_read)


def _read(x: Any, near: float, with_hist: bool, out: np.ndarray) -> None:
    # Sums run over differences from the first value, so that a large mean does not swallow the spread. Four tables
    # take turns: consecutive values of one bin would wait for each other's addition.
    n = x.size
    shift = np.float64(x[0])
    s = ss = p = pp = near_zero = below = zeros = not_positive = 0.0
    for i in range(n):
        v = np.float64(x[i])
        d = v - shift
        s += d
        ss += d * d
        r = v if v > 0.0 else 0.0
        p += r
        pp += r * r
        near_zero += 1.0 if v <= near else 0.0
        below += 1.0 if v < -near else 0.0
        zeros += 1.0 if v == 0.0 else 0.0
        not_positive += 1.0 if v <= 0.0 else 0.0
    out[0] = shift + s / n
    out[1] = max(ss - s * s / n, 0.0)
    out[4] = p / n
    out[5] = max(pp - p * p / n, 0.0)
    if out[2] >= 0.0:
        out[4], out[5] = out[0], out[1]
    out[6] = n
    out[8], out[9], out[10], out[11] = near_zero, near_zero - below, zeros, not_positive
    if not with_hist:
        under = over = 0.0
        if out[2] < -10.0 or out[3] > 10.0:
            for i in range(n):
                under += 1.0 if x[i] < -10.0 else 0.0
                over += 1.0 if x[i] > 10.0 else 0.0
        out[12], out[13] = under, over
        return
    tables = np.zeros((4, 96), np.int32)
    place = np.empty(1024, np.int32)
    for start in range(0, n, 1024):
        m = min(1024, n - start)
        for i in range(m):
            t = np.float64(x[start + i]) * 4.0
            t = t if t > -41.0 else -41.0
            t = t if t < 41.0 else 41.0
            place[i] = np.int32(np.floor(t) + 41.0)
        whole = m // 4 * 4
        for i in range(0, whole, 4):
            tables[0, place[i]] += 1
            tables[1, place[i + 1]] += 1
            tables[2, place[i + 2]] += 1
            tables[3, place[i + 3]] += 1
        for i in range(whole, m):
            tables[0, place[i]] += 1
    ten = 0.0
    if out[3] >= 10.0:
        for i in range(n):
            ten += 1.0 if x[i] == 10.0 else 0.0
    for k in range(82):
        total = 0.0
        for t in range(4):
            total += tables[t, k]
        if k == 0:
            out[12] = total
        elif k <= 80:
            out[13 + k] = total
    above = 0.0
    for t in range(4):
        above += tables[t, 81] + tables[t, 82]
    out[13] = above - ten
    out[93] += ten
