"""Read one activation tensor: everything that is recorded of it, as one vector.

A reading is a float64 vector: six moments (mean, sum of squared deviations, minimum, maximum, then mean and squared
deviations of max(x, 0)), the counts named by `Count`, and, if asked for, 80 histogram bins 0.25 wide on [−10, 10], of
which the upper 40 are the chapter's. A bin holds lower edge ≤ x < upper edge, the last one also x = 10. Non-finite
values are counted and left out of everything else. Counts are whole numbers, exact in float64 up to 2⁵³.

On the CPU a compiled kernel (if numba is installed) reads each value once; elsewhere torch's own reductions on the
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
    values = _flat(x)
    kernel = _compiled() if x.device.type == "cpu" and x.dtype is torch.float32 else None
    if kernel is not None:
        reading = np.empty(length(with_hist))
        if kernel(values.numpy(), with_hist, reading):
            return reading
    reading = _reduce(values, with_hist)
    return reading.numpy() if x.device.type == "cpu" else reading


def rectified(reading: np.ndarray) -> np.ndarray:
    """The reading of max(x, 0), from that of finite x."""
    out = reading.copy()
    out[MEAN : M2 + 1] = reading[RELU_MEAN : RELU_M2 + 1]
    out[LOW], out[HIGH] = max(reading[LOW], 0), max(reading[HIGH], 0)
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
        from pellucid.activations import kernel
    except ImportError:
        return None
    return kernel.read
