"""Tables as a source of items: pandas DataFrames, whose rows are the items. pandas itself is never imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import DataError, UsageError
from pellucid.text import printable

Column = str | int
# What a column of flags may hold: strings from a CSV would all be true, "False" too.
_FLAGS = {True: True, False: False, "True": True, "False": False, "true": True, "false": False}
_WORDS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}  # of a CSV, in any case


def is_frame(source: Any) -> bool:
    """Whether this is a pandas DataFrame."""
    return hasattr(source, "iterrows") and hasattr(source, "iloc")


def rows(frame: Any) -> list[Any]:
    """Rows of a DataFrame, each as a pandas Series."""
    # As objects: otherwise a row of an int and a float column is two floats, and label 3 is 3.0. It is faster, too.
    return [row for _, row in frame.astype(object).iterrows()]


class ColReader:
    """Read one column of a row, or several, as `get_x` or `get_y` of items that are rows.

    Args:
        cols: Name or number of the column, or a list of them, whose values are then given as a list.
        pref: Put before the value; a `Path` as a folder, a string as it is.
        suff: Put after it, such as `.jpg`.
        label_delim: What is between the labels of a cell, which are then given as a list; an empty cell has none.
    """

    def __init__(
        self, cols: Column | Sequence[Column], pref: str | Path = "", suff: str = "", label_delim: str | None = None
    ):
        self.cols = [cols] if isinstance(cols, str | int | np.integer) else list(cols)
        self.alone = isinstance(cols, str | int | np.integer) or len(self.cols) == 1
        self.pref, self.suff, self.label_delim = pref, suff, label_delim
        if not self.cols:
            raise UsageError("ColReader reads one column or several, got an empty list")
        if label_delim is not None and not self.alone:
            raise UsageError("ColReader splits the labels of one column by label_delim; several have one label each")

    def __call__(self, row: Any) -> Any:
        """Return the value of the column; raises DataError where the row has none of that name."""
        if self.label_delim is not None:
            return split_labels(_cell(row, self.cols[0]), self.label_delim)
        values = [self._affixed(_cell(row, col)) for col in self.cols]
        return values[0] if self.alone else values

    def __repr__(self) -> str:
        shown = {"pref": self.pref, "suff": self.suff, "label_delim": self.label_delim}
        more = "".join(f", {name}={value!r}" for name, value in shown.items() if value)
        return f"ColReader({(self.cols[0] if self.alone else self.cols)!r}{more})"

    def _affixed(self, value: Any) -> Any:
        if isinstance(self.pref, Path):
            return str(self.pref / f"{value}{self.suff}")
        return f"{self.pref}{value}{self.suff}" if self.pref or self.suff else value


def split_labels(cell: Any, delim: str) -> list[str]:
    """The labels of a cell, without blanks around them; none where it is empty, as pandas' nan is."""
    return [] if cell is None or cell != cell else [label.strip() for label in str(cell).split(delim) if label.strip()]


def ColSplitter(col: Column = "is_valid", on: Any = None) -> Callable[[Any], tuple[list[int], list[int]]]:
    """Validate on the rows of a DataFrame whose column `col` is true (or 1), train on the others.

    Args:
        col: Name or number of the column.
        on: Validate instead on the rows whose value is this, or one of these.

    The splitter raises DataError where the column is missing, or holds anything but true and false and `on` is not
    given; UsageError where the items are no DataFrame.
    """

    def split(items: Any) -> tuple[list[int], list[int]]:
        if not is_frame(items):
            raise UsageError(f"ColSplitter splits the rows of a DataFrame, the items are a {type(items).__name__}")
        values = column(items, col)
        if on is None:
            chosen = [_flag(value, col) for value in values]
        else:
            wanted = set(on) if isinstance(on, list | tuple | set | frozenset) else {on}
            chosen = [value in wanted for value in values]
        return [i for i, yes in enumerate(chosen) if not yes], [i for i, yes in enumerate(chosen) if yes]

    return split


def column(frame: Any, col: Column) -> list[Any]:
    """Values of a column, by name or number; raises DataError where there is none."""
    names = list(frame.columns)
    if col in names:
        return frame.iloc[:, names.index(col)].tolist()
    if isinstance(col, int) and -len(names) <= col < len(names):
        return frame.iloc[:, col].tolist()
    raise DataError(f"the table has no column {col!r}; there are {', '.join(printable(repr(n)) for n in names)}")


def _cell(row: Any, col: Column) -> Any:
    try:
        if hasattr(row, "iloc"):
            return row.iloc[col] if isinstance(col, int) and col not in row.index else row[col]
        if isinstance(row, Mapping) or not isinstance(col, str):
            return row[col]
        return getattr(row, col)
    except (KeyError, IndexError, AttributeError, TypeError):
        names = (
            list(getattr(row, "index", ())) if hasattr(row, "iloc") else list(row) if isinstance(row, Mapping) else []
        )
        there = f"; there are {', '.join(printable(repr(n)) for n in names)}" if names else ""
        raise DataError(f"ColReader: the row has no column {col!r}{there}") from None


def flag_of(cell: str) -> bool | None:
    """What a cell of a CSV says where it is a yes or a no; None for anything else."""
    return _WORDS.get(cell.strip().lower())


def _flag(value: Any, col: Column) -> bool:
    try:
        return _FLAGS[value]
    except (KeyError, TypeError):
        raise DataError(
            f"ColSplitter: column {col!r} holds {value!r}, which is neither true nor false; "
            "name the value that marks validation, ColSplitter(col, on='valid')"
        ) from None
