"""Values of every batch in bounded memory: exact for ordinary runs, in pairs, fours and so on for endless ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

EXACT = 2**17  # batches with a value of their own: 139 epochs of MNIST in batches of 64


class Curves:
    """Rows of numbers, one column a batch, in bounded memory for any number of batches.

    Up to `capacity` batches each has a column of its own. From then on all columns merge in pairs whenever they are in
    use: into the mean of their batches, or into the values at the last of them.

    Args:
        n_rows: Numbers a batch.
        mean: Keep means.
        capacity: Highest number of columns.

    Attributes:
        n: Batches so far.
        stride: Batches of a column; the last one may have fewer.
    """

    def __init__(self, n_rows: int = 1, *, mean: bool = False, capacity: int = EXACT):
        self.mean, self.capacity, self.n, self.stride = mean, capacity, 0, 1
        self._table = np.zeros((0, n_rows))  # sums if means are kept

    @property
    def steps(self) -> np.ndarray:
        """Batches done at the end of each column, int64 (column,)."""
        return np.minimum(np.arange(1, self._n_columns + 1) * self.stride, self.n)

    @property
    def values(self) -> np.ndarray:
        """What the columns hold, float64 (column, row); not copied if it need not be."""
        table = self._table[: self._n_columns]
        return table / np.diff(self.steps, prepend=0)[:, None] if self.mean and self.stride > 1 else table

    def extend(self, rows: np.ndarray) -> None:
        """Take in (batch, row), at least one batch and at most `capacity` of them."""
        while self.n + len(rows) > self.capacity * self.stride:
            self._merge()
        columns = np.arange(self.n, self.n + len(rows)) // self.stride
        self._make_room(columns[-1] + 1)
        if self.mean:
            np.add.at(self._table, columns, rows)
        else:
            ends = np.flatnonzero(np.diff(columns, append=columns[-1] + 1))
            self._table[columns[ends]] = rows[ends]
        self.n += len(rows)

    def widen(self, n_rows: int) -> None:
        """Have more rows, nan so far."""
        more = n_rows - self._table.shape[1]
        self._table = np.pad(self._table, ((0, 0), (0, more)), constant_values=np.nan)

    def state_dict(self) -> dict[str, Any]:
        """Everything, to be kept in a file."""
        return {"n": self.n, "stride": self.stride, "table": self._table[: self._n_columns]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where other curves were."""
        self.n, self.stride, self._table = state["n"], state["stride"], state["table"]

    @property
    def _n_columns(self) -> int:
        return -(-self.n // self.stride)

    def _make_room(self, n: int) -> None:
        room = len(self._table)
        if n > room:
            more = min(max(n, 2 * room, 64), self.capacity) - room
            self._table = np.pad(self._table, ((0, more), (0, 0)))

    def _merge(self) -> None:
        firsts = np.arange(0, self._n_columns, 2)
        if self.mean:
            merged = np.add.reduceat(self._table[: self._n_columns], firsts)
        else:
            merged = self._table[np.minimum(firsts + 1, self._n_columns - 1)]
        # A new table: who still looks at the old one goes on seeing what it was.
        self._table = np.zeros_like(self._table)
        self._table[: len(merged)] = merged
        self.stride *= 2


class Number(float):
    """A float that also answers `item()`, as code expects that was written for records of tensors."""

    def item(self) -> float:
        """The plain float."""
        return float(self)


class Curve(Sequence[Any]):
    """A row, or several, as a list that cannot be changed: numbers (column,), or lists of numbers (column, value)."""

    def __init__(self, values: np.ndarray):
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, i: Any) -> Any:
        found = self._values[i].tolist()
        return Number(found) if isinstance(found, float) else found

    def __iter__(self) -> Iterator[Any]:
        return map(Number, self._values.tolist()) if self._values.ndim == 1 else iter(self._values.tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Curve | list | tuple):
            return NotImplemented
        return list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._values.tolist())
