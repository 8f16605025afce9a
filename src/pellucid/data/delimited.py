"""Rows of a file of delimited values, as spreadsheets write them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from pellucid.errors import DataError
from pellucid.text import printable

DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Row:
    """Cells without blanks around them, and the line where they begin."""

    line: int
    cells: list[str]


def read_rows(path: Path, delimiter: str | None) -> list[Row]:
    """All rows that are not empty."""
    try:
        if not path.is_file():
            raise DataError(f"{printable(path)}: cannot be read as CSV: no such file")
        raw = path.read_bytes()
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)}: cannot be read as CSV ({error}); save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{printable(path)}: cannot be read as CSV ({printable(error)})") from None
    tables: dict[str, list[Row]] = {}
    errors = []
    for each in DELIMITERS if delimiter is None else (delimiter,):
        try:
            tables[each] = list(_parsed(path, text, each))
        except DataError as error:
            errors.append(error)
    several = {each: rows for each, rows in tables.items() if rows and len(rows[0].cells) > 1}
    if errors and not several:
        raise errors[0]
    even = {each: rows for each, rows in several.items() if len({len(row.cells) for row in rows}) == 1}
    chosen = even if len(several) > 1 else several
    if len(several) > 1 and len(chosen) != 1:
        raise DataError(
            f"{printable(path)}: is it {' or '.join(map(repr, several))} that divides the columns? "
            "Say it with delimiter=…, or put quotes around names that hold one"
        )
    return next(iter((chosen or tables).values()))


def _parsed(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    # newline="" and no splitlines(): only the csv module knows which line ends are inside quotes.
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield Row(line, [cell.strip() for cell in cells])
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{printable(path)}: line {line} cannot be read as CSV ({error}); is a quote in it not closed?"
        ) from None
