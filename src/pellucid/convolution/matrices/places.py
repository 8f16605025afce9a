"""Where the weights of a connection stand in its matrix: a row for each output, a column for each input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pellucid.convolution.connectivity import Connection, Kernel, Mean
from pellucid.convolution.connectivity.axes import OUTSIDE
from pellucid.convolution.connectivity.moves import Move, window


def distinct(connection: Connection) -> np.ndarray:
    """The different weights of a connection that is no kernel: the shares of a mean, or the one of a copy."""
    weights = connection.weights
    return np.unique(weights.shares(connection.grid)) if isinstance(weights, Mean) else np.ones(1)


def places(connection: Connection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and weight of every place that holds one, sorted: indices into output, input and weights."""
    found = [_of_read(connection, moves) for moves in connection.reads]
    rows, columns, weights = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    n_columns, n_weights = int(np.prod(connection.shape_in)), int(weights.max(initial=0)) + 1
    numbers = np.sort((rows * n_columns + columns) * n_weights + weights)  # numbers sort ten times faster than triples
    cells, weights = np.divmod(numbers, n_weights)
    return *np.divmod(cells, n_columns), weights


def _of_read(connection: Connection, moves: Sequence[Move]) -> tuple[np.ndarray, ...]:
    axes = connection.taps_of(moves)
    if axes is None:
        return _unit_by_unit(connection, moves)
    outputs, inputs, taps = (np.zeros(1, np.int64) for _ in range(3))
    for axis in axes:
        # Axes are independent: every (output, tap) of this one goes with every one of those before.
        out, tap = np.nonzero(axis.table != OUTSIDE)
        sizes = (axis.n_out, axis.n_in, axis.table.shape[1])
        outputs, inputs, taps = (
            (before[:, None] * n + more).ravel()
            for before, n, more in zip((outputs, inputs, taps), sizes, (out, axis.table[out, tap], tap), strict=True)
        )
    return outputs, inputs, _weights(connection, outputs, taps)


def _weights(connection: Connection, outputs: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Which of the different weights meets, given flat outputs and the flat tap of each."""
    weights, position = connection.weights, np.unravel_index(outputs, connection.shape_out)
    if isinstance(weights, Kernel):
        index = weights.arranged(np.arange(weights.weight.numel()).reshape(tuple(weights.weight.shape)))
        index = index.reshape(len(index), -1)
        return index[position[weights.dim - 1], taps]
    if isinstance(weights, Mean):
        return np.searchsorted(distinct(connection), weights.shares(connection.grid)[position[1:]])
    return np.zeros_like(outputs)


def _unit_by_unit(connection: Connection, moves: Sequence[Move]) -> tuple[np.ndarray, ...]:
    """For other moves: of numbers that are copied to another place, the place they come from."""
    rows, columns = [], []
    for row, unit in enumerate(np.ndindex(connection.shape_out)):
        read = window(moves, (0, *unit))
        if read is not None and all((axis != OUTSIDE).all() for axis in read):
            rows.append(row)
            columns.append(int(np.ravel_multi_index([int(axis[0]) for axis in read[1:]], connection.shape_in)))
    return np.array(rows, np.int64), np.array(columns, np.int64), np.zeros(len(rows), np.int64)
