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
from torch import Tensor, nn

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
        An array for a tensor on the CPU, a tensor on the device of `x` otherwise.
    """
    reading = np.empty(length(with_hist))
    if read_at(x, with_hist, reading.ctypes.data):
        return reading
    return reduce(x, with_hist)


def read_at(x: Tensor, with_hist: bool, address: int) -> bool:
    """Read a tensor by the compiled kernel into float64 memory; False if it cannot, or a value is not finite."""
    kernel = compiled()
    if kernel is None or not x.is_cpu or x.dtype is torch.float64:
        return False
    if not is_plain(x):  # the order of the values does not matter, gaps between them do
        x = bare(x).float().contiguous()
        if not is_plain(x):
            return False
    return kernel.read(x.data_ptr(), x.numel(), with_hist, address)


def bare(x: Tensor) -> Tensor:
    """The tensor without its graph, and without a subclass that only adds methods, such as fastai's."""
    plain = Tensor.__torch_dispatch__  # pyright: ignore[reportAttributeAccessIssue]
    if type(x).__torch_dispatch__ is not plain:  # pyright: ignore[reportAttributeAccessIssue]  # values kept elsewhere
        return x.detach()
    with torch._C.DisableTorchFunctionSubclass():
        return x.detach().as_subclass(Tensor)


def is_plain(x: Tensor) -> bool:
    """Whether its values are float32, in the CPU's memory, one after the other in some order."""
    return (
        x.dtype is torch.float32
        and x.is_cpu
        and type(x) in (Tensor, nn.Parameter)
        and x.layout is torch.strided
        and (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last))
    )


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
        out[..., m2] = a[..., m2] + b[..., m2] + delta**2 * na * share
    out[..., LOW] = np.minimum(a[..., LOW], b[..., LOW])
    out[..., HIGH] = np.maximum(a[..., HIGH], b[..., HIGH])
    return out


def reduce(x: Tensor, with_hist: bool) -> Tensor | np.ndarray:
    """As `read`, by torch's own reductions."""
    x = bare(x)
    reading = _reduce((x if x.dtype in (torch.float32, torch.float64) else x.float()).reshape(-1), with_hist)
    return reading.numpy() if x.device.type == "cpu" else reading


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
def compiled() -> Any:
    """The module of compiled readings, None without numba."""
    try:
        from pellucid.activations import kernel
    except ImportError:
        return None
    return kernel
