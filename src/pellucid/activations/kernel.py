"""A compiled reading of CPU tensors: one pass in blocks that stay in the cache, on torch's own threads.

Needs numba; the machine code is kept on disk after the first run. The inner loops are written so that they vectorise:
single precision stays single (numba widens integer sums, and products with a bare number), a branch is a choice between
two values, and each loop does one thing. The histogram counts pairs of values in a table of all pairs of cells: half
the memory traffic, and equal values seldom wait for each other's addition.

Values fall into cells: those of the histogram, split at −0.05, 0, 0.05 and 10, so that every count is a sum of cells.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
import torch
from numba import cfunc, njit, types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

N_CELLS = 87
BELOW, NEGATIVE, ZERO, POSITIVE, TEN, ABOVE = 0, 41, 43, 44, 85, 86  # cells; 41 is [−0.05, 0), 44 is (0, 0.05]
N_SUMS = 6  # Σd, Σd², Σr, Σr² with d = x − first value and r = max(x, 0); minimum, maximum
BLOCK, HALF, LANES = 1024, 512, 64
PER_THREAD = 16_384  # values worth waking another thread for

_0, _1, _4, _NEAR, _10 = (np.float32(number) for number in (0, 1, 4, 0.05, 10))
_FIRST, _LAST, _UP, _CELLS = (np.float32(number) for number in (-41, 40, 41, N_CELLS))
_INF = np.float32(np.inf)
_compile = njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})


def read(values: np.ndarray, with_hist: bool, out: np.ndarray) -> bool:
    """Write the reading of float32 values of rank 1 to `out`; says whether all values are finite, else it is void."""
    n_threads = min(torch.get_num_threads(), len(values) // PER_THREAD)
    if n_threads < 2 or _on_threads is None:
        return _read_alone(values, with_hist, out)
    rows = np.zeros((n_threads, N_SUMS + N_CELLS))
    rows[:, 4], rows[:, 5] = np.inf, -np.inf
    _on_threads(values, with_hist, rows)
    return _finish(rows, values[0], len(values), with_hist, out)


@_compile
def _moments(x: Any, shift: Any, sums: Any) -> None:
    s = ss = p = pp = 0.0
    for i in range(x.size):
        v = np.float64(x[i])
        d = v - shift
        s += d
        ss += d * d
        r = v if v > 0.0 else 0.0
        p += r
        pp += r * r
    sums[0] += s
    sums[1] += ss
    sums[2] += p
    sums[3] += pp


@_compile
def _extremes(x: Any, low: Any, high: Any) -> None:
    whole = x.size // LANES * LANES
    for i in range(0, whole, LANES):
        for j in range(LANES):
            v = x[i + j]
            low[j] = v if v < low[j] else low[j]
            high[j] = v if v > high[j] else high[j]
    for i in range(whole, x.size):
        low[0] = min(low[0], x[i])
        high[0] = max(high[0], x[i])


@_compile
def _cells_of(x: Any, cell: Any) -> None:
    for i in range(x.size):
        v = x[i]
        t = np.floor(v * _4)
        t = t if t > _FIRST else _FIRST
        t = t if t < _LAST else _LAST
        t = t + _UP
        t = t + (_1 if v >= -_NEAR else _0)
        t = t + (_1 if v >= _0 else _0)
        t = t + (_1 if v > _0 else _0)
        t = t + (_1 if v > _NEAR else _0)
        t = t + (_1 if v > _10 else _0)
        cell[i] = t


@_compile
def _pairs_of(cell: Any, pair: Any) -> None:
    for i in range(HALF):
        pair[i] = np.int32(cell[i] * _CELLS + cell[i + HALF])


@_compile
def _count_pairs(pair: Any, even: Any, odd: Any) -> None:
    for i in range(0, HALF, 2):
        even[pair[i]] += 1
        odd[pair[i + 1]] += 1


@_compile
def _count_splits(x: Any, cells: Any) -> None:
    a = b = c = d = _0
    for i in range(x.size):
        v = x[i]
        a += _1 if v < -_NEAR else _0
        b += _1 if v < _0 else _0
        c += _1 if v <= _0 else _0
        d += _1 if v <= _NEAR else _0
    cells[BELOW + 1] += a
    cells[NEGATIVE] += b - a
    cells[ZERO] += c - b
    cells[POSITIVE] += d - c


@_compile
def _sum_up(x: Any, shift: Any, with_hist: Any, row: Any) -> None:
    cell, pair = np.empty(BLOCK, np.float32), np.empty(HALF, np.int32)
    tables = np.zeros((2, N_CELLS * N_CELLS * with_hist), np.int32)
    low, high = np.full(LANES, _INF, np.float32), np.full(LANES, -_INF, np.float32)
    cells = row[N_SUMS:]
    for start in range(0, x.size, BLOCK):
        block = x[start : start + BLOCK]
        _moments(block, shift, row)
        _extremes(block, low, high)
        if not with_hist:
            _count_splits(block, cells)
        elif block.size == BLOCK:
            _cells_of(block, cell)
            _pairs_of(cell, pair)
            _count_pairs(pair, tables[0], tables[1])
        else:
            _cells_of(block, cell)
            for i in range(block.size):
                cells[np.int64(cell[i])] += 1
    for i in range(LANES):
        row[4] = min(row[4], low[i])
        row[5] = max(row[5], high[i])
    if with_hist:
        for a in range(N_CELLS):
            for b in range(N_CELLS):
                count = tables[0, a * N_CELLS + b] + tables[1, a * N_CELLS + b]
                cells[a] += count
                cells[b] += count
    elif row[4] < -10.0 or row[5] > 10.0:
        below = above = 0
        for i in range(x.size):
            below += x[i] < -_10
            above += x[i] > _10
        cells[BELOW] += below
        cells[BELOW + 1] -= below
        cells[ABOVE] += above


@_compile
def _finish(rows: Any, shift: Any, n: Any, with_hist: Any, out: Any) -> bool:
    row = rows[0]
    for i in range(1, len(rows)):
        low, high = min(row[4], rows[i, 4]), max(row[5], rows[i, 5])
        row += rows[i]
        row[4], row[5] = low, high
    s, ss, p, pp = row[0] / n, row[1], row[2] / n, row[3]
    if not np.isfinite(ss):
        return False
    out[0], out[1] = shift + s, max(ss - s * s * n, 0.0)
    out[2], out[3] = row[4], row[5]
    out[4], out[5] = p, max(pp - p * p * n, 0.0)
    if out[2] >= 0.0:
        out[4], out[5] = out[0], out[1]
    cells = row[N_SUMS:]
    not_positive = cells[: ZERO + 1].sum()
    out[6], out[7] = n, 0
    out[8] = not_positive + cells[POSITIVE]
    out[9] = cells[NEGATIVE] + cells[ZERO] + cells[POSITIVE]
    out[10], out[11] = cells[ZERO], not_positive
    out[12], out[13] = cells[BELOW], cells[ABOVE]
    if with_hist:
        bins = out[14:]
        bins[:40] = cells[1:41]
        bins[39] += cells[NEGATIVE]
        bins[40:] = cells[POSITIVE + 1 : TEN]
        bins[40] += cells[ZERO] + cells[POSITIVE]
        bins[79] += cells[TEN]
    return True


@_compile
def _read_alone(values: Any, with_hist: Any, out: Any) -> bool:
    rows = np.zeros((1, N_SUMS + N_CELLS))
    rows[0, 4], rows[0, 5] = np.inf, -np.inf
    shift = np.float64(values[0])
    _sum_up(values, shift, with_hist, rows[0])
    return _finish(rows, shift, values.size, with_hist, out)


def _team() -> Any:
    """A function that runs `_sum_up` on parts of the values in the threads that torch keeps; None if they are not ours.

    Other threads would compete with torch's, which spin between its operations. Torch for Linux brings libgomp along.
    """
    found = list((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    if not found:
        return None
    openmp = ctypes.CDLL(str(found[0]))
    for name in ("omp_get_thread_num", "omp_get_num_threads"):
        address = ctypes.cast(getattr(openmp, name), ctypes.c_void_p).value
        llvmlite.binding.add_symbol(f"pellucid_{name}", address)
    openmp.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    openmp.GOMP_parallel.restype = None
    body = cfunc(types.void(types.CPointer(types.int64)), cache=True)(_part).address

    def run(values: np.ndarray, with_hist: bool, rows: np.ndarray) -> None:
        values = np.ascontiguousarray(values)
        task = np.array([values.ctypes.data, len(values), with_hist, rows.ctypes.data, len(rows)], np.int64)
        openmp.GOMP_parallel(body, task.ctypes.data, len(rows), 0)

    return run


_thread_num = types.ExternalFunction("pellucid_omp_get_thread_num", types.int32())
_num_threads = types.ExternalFunction("pellucid_omp_get_num_threads", types.int32())


@intrinsic
def _float32s(typingctx: Any, address: Any) -> Any:
    return types.CPointer(types.float32)(types.int64), _to_pointer


@intrinsic
def _float64s(typingctx: Any, address: Any) -> Any:
    return types.CPointer(types.float64)(types.int64), _to_pointer


def _to_pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.inttoptr(args[0], context.get_value_type(signature.return_type))


def _part(pointer: Any) -> None:
    task = carray(pointer, 5)
    n = task[1]
    values = carray(_float32s(task[0]), n)  # pyright: ignore[reportCallIssue]
    rows = carray(_float64s(task[3]), (task[4], N_SUMS + N_CELLS))  # pyright: ignore[reportCallIssue]
    blocks = (n + BLOCK - 1) // BLOCK
    share = (blocks + _num_threads() - 1) // _num_threads() * BLOCK
    start = min(_thread_num() * share, n)
    _sum_up(values[start : min(start + share, n)], np.float64(values[0]), task[2] != 0, rows[_thread_num()])


_on_threads = _team()
