"""A record of bounded size: columns of steps that merge in pairs, exactly, when there is no room for another."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from pellucid.activations.vector import empty, pool
from pellucid.history.record import as_float32

MAX_COLUMNS = 2048
AT_ONCE = 128  # columns merged at once: little memory beside the table
ALL_AT = 512  # columns from which room for all is made at once: memory is the same from here on


class Table(Protocol):
    """Values per column."""

    def grow(self, n: int) -> None:
        """Make room for `n` columns."""
        ...

    def merge(self, n: int) -> None:
        """Put columns 2k and 2k + 1 together as k; there are `n`, an even number."""
        ...

    def spread(self, places: np.ndarray, n: int) -> None:
        """Have `n` columns, of which column i goes to `places[i]`."""
        ...


class Timeline:
    """Which steps each column covers.

    Attributes:
        spans: First step and the step after the last, per column, int64 (capacity, 2).
        n: Columns in use.
        stride: Recorded steps a full column covers; doubles when all columns are in use.
    """

    def __init__(self, tables: list[Table], capacity: int = MAX_COLUMNS):
        self.tables, self.capacity = tables, capacity
        self.spans = np.zeros((0, 2), np.int64)
        self.n, self.stride, self._in_last = 0, 1, 0
        self._grow(min(64, capacity))

    def open(self, step: int) -> int:
        """The column that takes the values of `step`; steps come in ascending order, each once."""
        if self.n and self._in_last < self.stride:
            self.spans[self.n - 1, 1] = step + 1
            self._in_last += 1
            return self.n - 1
        if self.n == self.capacity:
            self._merge()
        elif self.n == len(self.spans):
            self._grow(min(2 * self.n, self.capacity) if self.n < ALL_AT else self.capacity)
        self.spans[self.n] = step, step + 1
        self.n, self._in_last = self.n + 1, 1
        return self.n - 1

    def state_dict(self) -> dict[str, Any]:
        """Which steps each column covers, room for more included, to be kept in a file."""
        return {"spans": self.spans, "n": self.n, "stride": self.stride, "in_last": self._in_last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one was; its tables follow by themselves."""
        self.spans, self.n, self.stride = state["spans"], state["n"], state["stride"]
        self._in_last = state["in_last"]

    def spread(self, spans: np.ndarray, places: np.ndarray) -> None:
        """Move column i to `places[i]` among those of `spans`; the others are empty."""
        for table in self.tables:
            table.spread(places, len(spans))
        self.spans, self.n = spans, len(spans)

    def _grow(self, n: int) -> None:
        self.spans = np.concatenate([self.spans, np.zeros((n - len(self.spans), 2), np.int64)])
        for table in self.tables:
            table.grow(n)

    def _merge(self) -> None:
        half = self.n // 2
        self.spans[:half, 1] = self.spans[1 : self.n : 2, 1]
        self.spans[:half, 0] = self.spans[0 : self.n : 2, 0]
        for table in self.tables:
            table.merge(self.n)
        self.n, self.stride = half, 2 * self.stride


class Readings:
    """Pooled readings, `cells [layer, column, value]`."""

    def __init__(self, n_layers: int, with_hist: bool):
        self.with_hist = with_hist
        self.cells = empty(n_layers, 0, with_hist=with_hist)

    def add(self, layers: np.ndarray, columns: np.ndarray, readings: np.ndarray) -> None:
        """Pool readings [i, value] into the cells [layers[i], columns[i]]; a cell may come several times."""
        while len(readings):
            _, first = np.unique(layers * self.cells.shape[1] + columns, return_index=True)
            at = layers[first], columns[first]
            self.cells[at] = pool(self.cells[at], readings[first])
            rest = np.setdiff1d(np.arange(len(readings)), first)
            layers, columns, readings = layers[rest], columns[rest], readings[rest]

    def grow(self, n: int) -> None:
        """Make room for `n` columns."""
        n_layers, old = self.cells.shape[:2]
        self.cells = np.concatenate([self.cells, empty(n_layers, n - old, with_hist=self.with_hist)], axis=1)

    def merge(self, n: int) -> None:
        """Pool columns in pairs."""
        for start in range(0, n, AT_ONCE):
            part = self.cells[:, start : min(start + AT_ONCE, n)]
            self.cells[:, start // 2 : start // 2 + part.shape[1] // 2] = pool(part[:, 0::2], part[:, 1::2])
        self.cells[:, n // 2 : n] = empty(1, 1, with_hist=self.with_hist)

    def spread(self, places: np.ndarray, n: int) -> None:
        """Have `n` columns, of which column i goes to `places[i]`."""
        cells = empty(len(self.cells), n, with_hist=self.with_hist)
        cells[:, places] = self.cells[:, : len(places)]
        self.cells = cells


class Means:
    """Means over the steps of a column, kept as `sums` and `counts`, [*rows, column]; nan where there is nothing."""

    def __init__(self, *rows: int):
        self.sums, self.counts = np.zeros((*rows, 0)), np.zeros((*rows, 0), np.int64)

    def add(self, rows: Any, column: int, values: np.ndarray | list[float]) -> None:
        """Add a step's values, one a row; `...` for all rows."""
        self.sums[rows, column] += values
        self.counts[rows, column] += 1

    def values(self, n: int) -> np.ndarray:
        """The means of the first `n` columns, float32."""
        counts = self.counts[..., :n]
        return as_float32(np.where(counts > 0, self.sums[..., :n] / np.maximum(counts, 1), np.nan))

    def widen(self, n: int) -> None:
        """Have `n` rows along the last axis of rows; new ones come after those there are."""
        self._pad(-2, n - self.sums.shape[-2])

    def grow(self, n: int) -> None:
        """Make room for `n` columns."""
        self._pad(-1, n - self.sums.shape[-1])

    def merge(self, n: int) -> None:
        """Add columns in pairs."""
        for table in (self.sums, self.counts):
            table[..., : n // 2] = table[..., 0:n:2] + table[..., 1:n:2]
            table[..., n // 2 : n] = 0

    def spread(self, places: np.ndarray, n: int) -> None:
        """Have `n` columns, of which column i goes to `places[i]`."""
        rows = self.sums.shape[:-1]
        sums, counts = np.zeros((*rows, n)), np.zeros((*rows, n), np.int64)
        sums[..., places], counts[..., places] = self.sums[..., : len(places)], self.counts[..., : len(places)]
        self.sums, self.counts = sums, counts

    def _pad(self, axis: int, n: int) -> None:
        more = [(0, 0)] * self.sums.ndim
        more[axis] = 0, n
        self.sums, self.counts = np.pad(self.sums, more), np.pad(self.counts, more)
