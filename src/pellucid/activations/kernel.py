"""Compiled readings of CPU memory: one pass in blocks that stay in the cache, on torch's own threads.

Needs numba; the machine code is kept on disk after the first run. The inner loops are written so that they vectorise:
single precision stays single (numba widens integer sums, and products with a bare number), a branch is a choice between
two values, and each loop does one thing. The histogram counts pairs of values in a table of all pairs of cells: half
the memory traffic, and equal values seldom wait for each other's addition.

Values fall into cells: those of the histogram, split at −0.05, 0, 0.05 and 10, so that every count is a sum of cells.

Callers hand over addresses: making an array of a tensor and unpacking it again would take longer than reading it.
All is in one module because the disk cache looks for changes only in the file of the function it was asked for.
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
N_ROW = N_SUMS + N_CELLS
BLOCK, HALF = 1024, 512
PER_THREAD = 16_384  # values worth waking another thread for
_READ, _SUM = 0, 1  # kinds of task
PAIRED = 16_384  # values from which clearing and adding up the table of pairs pays

# Numbers are float32 by name: a bare 4.0 is float64 and widens every value, which made the cells 3.6 times as slow.
_0, _1, _4, _NEAR, _10 = (np.float32(number) for number in (0, 1, 4, 0.05, 10))
_FIRST, _LAST, _UP, _CELLS = (np.float32(number) for number in (-41, 40, 41, N_CELLS))
# `reassoc` lets sums run in lanes: moments take a fifth of the time. Never `nnan` or `ninf`, so never fastmath=True:
# LLVM then takes every sum for finite, and a reading of nan passes for a good one.
_compile = njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})


def _find_openmp() -> bool:
    """Make torch's own OpenMP callable from compiled code; other threads would compete with torch's, which spin."""
    found = list((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))  # torch for Linux brings it along
    if not found:
        return False
    openmp = ctypes.CDLL(str(found[0]))
    for name in ("omp_get_thread_num", "omp_get_num_threads", "GOMP_parallel"):
        address = ctypes.cast(getattr(openmp, name), ctypes.c_void_p).value
        llvmlite.binding.add_symbol(f"pellucid_{name}", address)
    return True


@_compile
def _moments(x: Any, shift: Any, sums: Any) -> None:
    # About `shift`, one of the values, and not about 0: where the mean is large beside the deviation, Σx²/n and the
    # squared mean agree in nearly all digits, and their difference would be rounding.
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
def _extremes(x: Any, row: Any) -> None:
    # In registers for a block: kept in memory, even in 512 lanes so that none waits for a store, they took three times
    # as long.
    low, high = x[0], x[0]
    for i in range(x.size):
        v = x[i]
        low = v if v < low else low
        high = v if v > high else high
    row[4], row[5] = min(row[4], low), max(row[5], high)


@_compile
def _cells_of(x: Any, cell: Any) -> None:
    for i in range(x.size):
        v = x[i]
        t = np.floor(v * _4)  # bins are 0.25 wide; each comparison below moves values past one more split
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
    # Counted in float32, exact up to 2²⁴ and a block has 1,024: as integers these sums took three times as long.
    a = b = c = d = _0
    for i in range(x.size):
        v = x[i]
        a += _1 if v < -_NEAR else _0
        b += _1 if v < _0 else _0
        c += _1 if v <= _0 else _0
        d += _1 if v <= _NEAR else _0
    cells[BELOW + 1] += a  # stands for all below −0.05, and POSITIVE + 1 for none: without a histogram nobody asks
    cells[NEGATIVE] += b - a
    cells[ZERO] += c - b
    cells[POSITIVE] += d - c


@_compile
def _count_few(x: Any, cell: Any, cells: Any) -> None:
    tables = np.zeros((4, N_CELLS), np.int32)
    whole = x.size // 4 * 4
    for i in range(0, whole, 4):
        tables[0, np.int32(cell[i])] += 1
        tables[1, np.int32(cell[i + 1])] += 1
        tables[2, np.int32(cell[i + 2])] += 1
        tables[3, np.int32(cell[i + 3])] += 1
    for i in range(whole, x.size):
        tables[0, np.int32(cell[i])] += 1
    for i in range(N_CELLS):
        cells[i] += tables[0, i] + tables[1, i] + tables[2, i] + tables[3, i]


@_compile
def _add_up_pairs(tables: Any, cells: Any) -> None:
    second = np.zeros(N_CELLS, np.int64)
    for a in range(N_CELLS):
        first = np.int64(0)
        for b in range(N_CELLS):
            count = np.int64(tables[0, a * N_CELLS + b] + tables[1, a * N_CELLS + b])
            first += count
            second[b] += count
        cells[a] += first
    for b in range(N_CELLS):
        cells[b] += second[b]


@_compile
def _count_outside(x: Any, cells: Any) -> None:
    below = above = 0
    for i in range(x.size):
        below += x[i] < -_10
        above += x[i] > _10
    cells[BELOW] += below
    cells[BELOW + 1] -= below
    cells[ABOVE] += above


@_compile
def _sum_up(x: Any, shift: Any, with_hist: Any, row: Any) -> None:
    cell, pair = np.empty(BLOCK, np.float32), np.empty(HALF, np.int32)
    paired = with_hist and x.size >= PAIRED
    tables = np.zeros((2, N_CELLS * N_CELLS * paired), np.int32)
    cells = row[N_SUMS:]
    for start in range(0, x.size, BLOCK):
        block = x[start : start + BLOCK]
        _moments(block, shift, row)
        _extremes(block, row)
        if not with_hist:
            _count_splits(block, cells)
            continue
        _cells_of(block, cell)
        if paired and block.size == BLOCK:
            _pairs_of(cell, pair)
            _count_pairs(pair, tables[0], tables[1])
        else:
            _count_few(block, cell, cells)
    if paired:
        _add_up_pairs(tables, cells)
    elif not with_hist and (row[4] < -10.0 or row[5] > 10.0):  # only then is a second pass needed
        _count_outside(x, cells)


@_compile
def _finish(rows: Any, shift: Any, n: Any, with_hist: Any, out: Any) -> bool:
    row = rows[0]
    for i in range(1, len(rows)):
        low, high = min(row[4], rows[i, 4]), max(row[5], rows[i, 5])
        row += rows[i]
        row[4], row[5] = low, high
    s, ss, p, pp = row[0] / n, row[1], row[2] / n, row[3]
    if not np.isfinite(ss):  # no square of a float32 overflows a float64: this is a nan or an infinity among the values
        return False
    out[0], out[1] = shift + s, max(ss - s * s * n, 0.0)
    out[2], out[3] = row[4], row[5]
    out[4], out[5] = p, max(pp - p * p * n, 0.0)
    if out[2] >= 0.0:  # max(x, 0) is x, and sums about `shift` are the more exact ones
        out[4], out[5] = out[0], out[1]
    cells = row[N_SUMS:]
    not_positive = cells[: ZERO + 1].sum()
    out[6], out[7] = n, 0
    out[8] = not_positive + cells[POSITIVE]
    out[9] = cells[NEGATIVE] + cells[ZERO] + cells[POSITIVE]
    out[10], out[11] = cells[ZERO], not_positive
    out[12], out[13] = cells[BELOW], cells[ABOVE]
    if with_hist:
        bins = out[14:]  # joins what was split: bin 39 at −0.05, bin 40 at 0 and 0.05; x = 10 belongs to the last one
        bins[:40] = cells[1:41]
        bins[39] += cells[NEGATIVE]
        bins[40:] = cells[POSITIVE + 1 : TEN]
        bins[40] += cells[ZERO] + cells[POSITIVE]
        bins[79] += cells[TEN]
    return True


@intrinsic
def _float32s(typingctx: Any, address: Any) -> Any:
    return types.CPointer(types.float32)(types.int64), _to_pointer


@intrinsic
def _float64s(typingctx: Any, address: Any) -> Any:
    return types.CPointer(types.float64)(types.int64), _to_pointer


def _to_pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.inttoptr(args[0], context.get_value_type(signature.return_type))


@intrinsic
def _int64s(typingctx: Any, address: Any) -> Any:
    return types.CPointer(types.int64)(types.int64), _to_pointer


@_compile
def _sum_parameter(grad: Any, weight: Any, copy: Any, sums: Any) -> None:
    gg = g1 = zeros = ww = 0.0
    for i in range(grad.size):
        g = np.float64(grad[i])
        gg += g * g
        g1 += abs(g)
        zeros += 1.0 if g == 0.0 else 0.0
    for i in range(weight.size):
        w = weight[i]
        copy[i] = w
        ww += np.float64(w) * np.float64(w)
    sums[0] += gg
    sums[1] += g1
    sums[2] += zeros
    sums[3] += ww


@_compile
def _sum_move(weight: Any, copy: Any, sums: Any) -> None:
    dd = 0.0
    for i in range(weight.size):
        d = np.float64(weight[i]) - np.float64(copy[i])
        dd += d * d
    sums[0] += dd


@_compile
def _sum_parameters(jobs: Any, moves: Any, start: Any, stop: Any, sums: Any) -> None:
    """Add up the values from `start` to `stop`, counted through all parameters."""
    first = 0
    for i in range(len(jobs)):
        n = jobs[i, 3]
        low, high = max(start - first, 0), min(stop - first, n)
        first += n
        if low >= high:
            continue
        # A parameter may lie across the border of two threads: each adds up its part of it.
        weight = carray(_float32s(jobs[i, 1]), n)[low:high]  # pyright: ignore[reportCallIssue]
        copy = carray(_float32s(jobs[i, 2]), n)[low:high]  # pyright: ignore[reportCallIssue]
        if moves:
            _sum_move(weight, copy, sums[:, i])
            continue
        has_grad = jobs[i, 0] != 0
        grad = carray(_float32s(jobs[i, 0]), n)[low : high if has_grad else low]  # pyright: ignore[reportCallIssue]
        _sum_parameter(grad, weight, copy, sums[:, i])
        if not has_grad:
            sums[2, i] += high - low


@_compile
def _do_part(task: Any, me: Any, n_threads: Any) -> None:
    if task[0] == _READ:
        n = task[2]
        values = carray(_float32s(task[1]), n)  # pyright: ignore[reportCallIssue]
        rows = carray(_float64s(task[4]), (n_threads, N_ROW))  # pyright: ignore[reportCallIssue]
        # Whole blocks for every thread: a part of a block is counted the slower way.
        share = ((n + BLOCK - 1) // BLOCK + n_threads - 1) // n_threads * BLOCK
        start = min(me * share, n)
        _sum_up(values[start : min(start + share, n)], np.float64(values[0]), task[3] != 0, rows[me])
    else:
        jobs = carray(_int64s(task[1]), (task[2], 4))  # pyright: ignore[reportCallIssue]
        total = jobs[:, 3].sum()
        sums = carray(_float64s(task[4]), (n_threads, 4, task[2]))  # pyright: ignore[reportCallIssue]
        _sum_parameters(jobs, task[3] != 0, me * total // n_threads, (me + 1) * total // n_threads, sums[me])


if _find_openmp():
    _thread_num = types.ExternalFunction("pellucid_omp_get_thread_num", types.int32())
    _num_threads = types.ExternalFunction("pellucid_omp_get_num_threads", types.int32())
    _parallel = types.ExternalFunction(
        "pellucid_GOMP_parallel", types.void(types.int64, types.int64, types.uint32, types.uint32)
    )

    # GOMP_parallel(function, data, number of threads, flags) is what compilers make of `#pragma omp parallel`: it gives
    # `function` one pointer, hence a task is an array, and returns when all threads have done their part.
    def _part(pointer: Any) -> None:
        _do_part(carray(pointer, 5), np.int64(_thread_num()), np.int64(_num_threads()))

    _part_address = cfunc(types.void(types.CPointer(types.int64)), cache=True)(_part).address

    @_compile
    def _do(task: Any, n_threads: Any, part: Any) -> None:
        if n_threads > 1:
            _parallel(part, task.ctypes.data, n_threads, 0)
        else:
            _do_part(task, 0, 1)

else:
    _part_address = 0

    @_compile
    def _do(task: Any, n_threads: Any, part: Any) -> None:
        for me in range(n_threads):
            _do_part(task, me, n_threads)


# `part` is handed in on every call: a global would be written into the machine code as it is now, and the address is
# another one in the next process that loads this from the disk cache.
def _read(address: Any, n: Any, with_hist: Any, out_address: Any, n_threads: Any, part: Any) -> int:
    out = carray(_float64s(out_address), 14 + 80 * with_hist)  # pyright: ignore[reportCallIssue]
    n_threads = max(1, min(n_threads, n // PER_THREAD))
    rows = np.zeros((n_threads, N_ROW))  # one for each thread: none waits for another's sums
    rows[:, 4], rows[:, 5] = np.inf, -np.inf
    _do(np.array([_READ, address, n, with_hist, rows.ctypes.data], np.int64), n_threads, part)
    shift = np.float64(carray(_float32s(address), n)[0])  # pyright: ignore[reportCallIssue]
    return 1 if _finish(rows, shift, n, with_hist != 0, out) else 0


def _read_jobs(jobs: Any, n_jobs: Any, moves: Any, sums: Any, n_threads: Any, part: Any) -> None:
    _do(np.array([_SUM, jobs, n_jobs, moves, sums], np.int64), n_threads, part)


_c_read = cfunc(types.int64(*[types.int64] * 6), cache=True)(_read).ctypes
_c_read_jobs = cfunc(types.void(*[types.int64] * 6), cache=True)(_read_jobs).ctypes


def read(address: int, n: int, with_hist: bool, out_address: int) -> bool:
    """Write the reading of `n` float32 values to float64 memory; says whether all are finite, else it is void."""
    return _c_read(address, n, with_hist, out_address, torch.get_num_threads(), _part_address) != 0


def read_parameters(jobs: np.ndarray) -> np.ndarray:
    """Copy weights and add up Σg², Σ|g|, the number of g = 0, and Σw²: [sum, parameter].

    Args:
        jobs: Addresses of gradient (0 for none), weight and copy, all float32, and number of values: [parameter, 4].
    """
    return _on_jobs(jobs, moves=False)


def read_moves(jobs: np.ndarray) -> np.ndarray:
    """Add up (weight − copy)²: [parameter]."""
    return _on_jobs(jobs, moves=True)[0]


def _on_jobs(jobs: np.ndarray, moves: bool) -> np.ndarray:
    n_threads = max(1, min(torch.get_num_threads(), int(jobs[:, 3].sum()) // PER_THREAD))
    sums = np.zeros((n_threads, 4, len(jobs)))
    _c_read_jobs(jobs.ctypes.data, len(jobs), moves, sums.ctypes.data, n_threads, _part_address)
    return sums.sum(axis=0)
