"""Rectangles of cells: their references, and padding around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from xlsxwriter.utility import xl_col_to_name

from pellucid.convolution.connectivity.axes import FOLDS, Border

Pair = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """Cells of one map or kernel, counted from its own first cell; a map's padding lies around it, from −1 on."""

    top: int
    left: int
    rows: int
    columns: int

    def cell(self, row: int, column: int) -> str:
        """Reference of one cell, as `B7`."""
        return f"{_letters(self.left + column)}{self.top + row + 1}"

    def window(self, rows: Sequence[int], columns: Sequence[int]) -> str:
        """Reference of the rectangle from the first to the last of these rows and columns, as `B7:D9`."""
        return f"{self.cell(rows[0], columns[0])}:{self.cell(rows[-1], columns[-1])}"

    @property
    def area(self) -> str:
        """Reference of all cells, as `B7:D9`."""
        return self.window((0, self.rows - 1), (0, self.columns - 1))

    @cached_property
    def fixed(self) -> str:
        """Reference of all cells that stays when a formula is copied, as `$B$7:$D$9`."""
        first, last = self.fixed_cells[0][0], self.fixed_cells[-1][-1]
        return f"{first}:{last}"

    @cached_property
    def fixed_cells(self) -> list[list[str]]:
        """Reference of each cell that stays when a formula is copied, as `$B$7`."""
        columns = [_letters(self.left + j) for j in range(self.columns)]
        return [[f"${letters}${self.top + i + 1}" for letters in columns] for i in range(self.rows)]


@dataclass(frozen=True)
class Frame:
    """Padding cells around a map: how many on each side, and what stands in them."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    mode: Border = "zeros"

    def places(self, rows: int, columns: int) -> list[tuple[Pair, Pair | None]]:
        """Every padding cell of a map of this size, with the cell whose value it repeats; None where it is zero."""
        inside = {(r, c) for r in range(rows) for c in range(columns)}
        around = [(r, c) for r in range(-self.top, rows + self.bottom) for c in range(-self.left, columns + self.right)]
        return [((r, c), self._source(r, c, rows, columns)) for r, c in around if (r, c) not in inside]

    def _source(self, row: int, column: int, rows: int, columns: int) -> Pair | None:
        if self.mode == "zeros":
            return None
        fold = FOLDS[self.mode]
        return int(fold(row, rows)), int(fold(column, columns))


@cache
def _letters(column: int) -> str:
    return xl_col_to_name(column)
