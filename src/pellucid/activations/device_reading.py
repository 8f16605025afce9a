"""Readings by torch's own operations, on whatever device a tensor is; nothing waits for that device.

A GPU spends more time on starting an operation than on a layer of ordinary size, so that what counts is their number:
20 for a reading. One search gives every count: between two neighbouring edges lie the values of one bin of the
histogram, or those that are exactly zero, and so on. The rest is arithmetic on a few numbers, done when they come over.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from pellucid.activations.vector import FIRST_BIN, M2, MEAN, N_BINS, NEAR, RELU_M2, RELU_MEAN, TOP, Count, length

N_MOMENTS = 6


def read(x: Tensor, with_hist: bool) -> Tensor:
    """What `settled` makes a reading of: six moments and the number of values in each bucket, on the device of `x`.

    Args:
        x: float32 or float64 values of rank 1, at least one.
        with_hist: Whether the reading has a histogram.
    """
    x = x + (x - x)  # nan for what is not finite, the value itself for all else
    edges = _edges_on(x.device, x.dtype, with_hist)
    buckets = torch.bucketize(x, edges, out_int32=True, right=True)  # nan comes after the last edge, which is infinite
    n = len(edges) + 1
    if x.is_cuda:
        counts = torch.histc(buckets, n, 0, n)  # `bincount` would wait for the device, `scatter_add_` for each other
    else:
        counts = torch.bincount(buckets, minlength=n)
    # MPS has no float64; there 0.1 % of the spread is lost in a layer with its mean at ten thousand spreads.
    wide = x.nan_to_num(0).to(torch.float32 if x.device.type == "mps" else torch.float64)
    variance, mean = torch.var_mean(wide, correction=0)
    relu_variance, relu_mean = torch.var_mean(wide.relu(), correction=0)
    low, high = x.nan_to_num(torch.inf).amin(), x.nan_to_num(-torch.inf).amax()
    moments = mean, variance, low.to(wide.dtype), high.to(wide.dtype), relu_mean, relu_variance
    return torch.cat([torch.stack(moments), counts.to(wide.dtype)])


def settled(read: np.ndarray, with_hist: bool) -> np.ndarray:
    """Readings from what `read` gave: [reading, value].

    Args:
        read: The vectors, one below the other.
        with_hist: As it was given to `read`.
    """
    out = np.empty((len(read), length(with_hist)))
    out[:, :N_MOMENTS] = read[:, :N_MOMENTS]
    out[:, N_MOMENTS:] = read[:, N_MOMENTS:] @ _sums_of_buckets(with_hist)
    n, zeros = out[:, Count.N], out[:, Count.NONFINITE]  # those were read as zeros
    for mean, m2 in ((MEAN, M2), (RELU_MEAN, RELU_M2)):
        padded, variance = read[:, mean], read[:, m2]
        out[:, mean] = np.where(zeros > 0, padded * ((n + zeros) / np.maximum(n, 1)), padded)
        with np.errstate(over="ignore", invalid="ignore"):  # the square of 1e200 is infinite
            out[:, m2] = (n + zeros) * (variance + padded * (padded - out[:, mean]))
    return out


@cache
def _edges(kind: np.dtype, with_hist: bool) -> np.ndarray:
    """Where one bucket ends and the next begins: a bucket holds lower edge ≤ x < upper edge."""
    near, zero, top = (kind.type(value) for value in (NEAR, 0, TOP))
    above = lambda value: np.nextafter(value, kind.type(np.inf))
    cuts = [-top, -near, zero, above(zero), above(near), above(top), kind.type(np.inf)]
    bins = np.linspace(-TOP, TOP, N_BINS + 1)[:-1].astype(kind) if with_hist else []
    return np.unique(np.array([*cuts, *bins], kind))


@cache
def _edges_on(device: torch.device, dtype: torch.dtype, with_hist: bool) -> Tensor:
    with torch.inference_mode(False):
        kind = np.dtype(np.float64 if dtype is torch.float64 else np.float32)
        return torch.from_numpy(_edges(kind, with_hist)).to(device)


@cache
def _sums_of_buckets(with_hist: bool) -> np.ndarray:
    """Which buckets make up each count and bin of a reading: 0 or 1, [bucket, count]."""
    lowest = np.concatenate([[-np.inf], _edges(np.dtype(np.float64), with_hist)])  # of each bucket; float32 has as many
    finite = lowest < np.inf
    counted = {
        Count.N: finite,
        Count.NONFINITE: ~finite,
        Count.NEAR_ZERO: lowest <= NEAR,
        Count.NEAR_ZERO_ABS: (lowest >= -NEAR) & (lowest <= NEAR),
        Count.ZERO: lowest == 0,
        Count.NOT_POSITIVE: lowest <= 0,
        Count.UNDER: lowest < -TOP,
        Count.OVER: (lowest > TOP) & finite,
    }
    sums = np.zeros((len(lowest), length(with_hist) - N_MOMENTS))
    for count, mask in counted.items():
        sums[:, count - N_MOMENTS] = mask
    if with_hist:
        inside = (lowest >= -TOP) & (lowest <= TOP)
        place = np.clip(np.floor((lowest[inside] + TOP) * N_BINS / (2 * TOP)), 0, N_BINS - 1).astype(int)
        sums[np.flatnonzero(inside), FIRST_BIN - N_MOMENTS + place] = 1
    return sums
