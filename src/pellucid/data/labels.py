"""Label files: which image has which label, one row each, as spreadsheets and Kaggle write them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from pellucid.data.delimited import Row, read_rows
from pellucid.data.formats import IMAGE_EXTENSIONS
from pellucid.data.frames import flag_of, split_labels
from pellucid.errors import DataError, UsageError
from pellucid.output import say
from pellucid.text import printable

Column = str | int
# What people call the two columns, without capitals and signs between words.
FILE_NAMES = frozenset(
    {"path", "file", "filename", "filepath", "fname", "fn", "name", "id"}
    | {"image", "imagename", "imagepath", "imagefile", "imageid", "img", "imgname", "imgpath", "photo", "picture"}
)
LABEL_NAMES = frozenset(
    {"label", "labels", "labelname", "class", "classname", "classlabel", "category", "categories", "target", "y"}
)


@dataclass(frozen=True)
class LabelFile:
    """What a label file says.

    Attributes:
        items: (file, label) of each row; a list of labels where a row may have several.
        vocab: Names of the labels where each has a column of its own, of 0 and 1; else None.
        columns: The further columns that were asked for, a cell a row.
        folder: Where relative files are.
    """

    items: list[tuple[Path, Any]]
    vocab: list[str] | None
    columns: dict[Column, list[str]]
    folder: Path


def several(label_col: str | None) -> str | list[str] | None:
    """A column of labels as a command line names it: several where commas divide them."""
    return label_col.split(",") if label_col and "," in label_col else label_col


def csv_items(
    path: str | Path,
    fn_col: Column | None = None,
    label_col: Column | Sequence[Column] | None = None,
    *,
    folder: str | Path = "",
    suff: str = "",
    delimiter: str | None = None,
    label_delim: str | None = None,
) -> list[tuple[Path, Any]]:
    r"""Read a label file: (file, label) of each row, relative paths taken from the file's folder.

    A first row of names is known as such. Without `fn_col` the files are in the column named like `path`, `filename`,
    `image` or `id`, or in the only one that holds names of images; without `label_col` the labels are in the column
    named like `label`, `class` or `target`, or in the other one of two. Where that leaves a choice, it is refused.

    Args:
        path: A file of comma, semicolon or tab separated values, in UTF-8, or in UTF-16 with its mark at the start.
        fn_col: Name, or number from 0, of the column of files.
        label_col: Name, or number from 0, of the column of labels. With a list of columns each row has a list of
            labels: the names of the columns that are true or 1, where all are true or false, else their values.
        folder: Folder the files are in, from that of `path`.
        suff: Put after each file's name that does not end with it, such as `.jpg` after the ids of Kaggle.
        delimiter: What is between the columns; None finds it.
        label_delim: What is between the labels of one cell: each row has a list of labels then, none of an empty cell.

    Raises:
        UsageError: `suff` is an ending without its dot.
        DataError: it cannot be read, there is no such folder, the columns cannot be told, a row has no file or no
            label, or two for one file.
    """
    options = {"folder": folder, "suff": suff, "delimiter": delimiter, "label_delim": label_delim}
    return read_labels(path, fn_col, label_col, **options).items


def read_labels(
    path: str | Path,
    fn_col: Column | None = None,
    label_col: Column | Sequence[Column] | None = None,
    *,
    folder: str | Path = "",
    suff: str = "",
    delimiter: str | None = None,
    label_delim: str | None = None,
    more: Sequence[Column] = (),
) -> LabelFile:
    """As `csv_items`, with the cells of the columns `more`, which hold neither files nor labels."""
    path = Path(path)
    rows = read_rows(path, delimiter)
    if not rows:
        raise DataError(f"{printable(path)}: no rows of path,label")
    base = path.parent / folder
    if not base.is_dir():
        raise DataError(
            f"{printable(base)}: no such folder; folder (command line: --image-folder) is where the files are"
        )
    if f".{suff.lower()}" in IMAGE_EXTENSIONS:
        raise UsageError(
            f"suff (command line: --suffix) is put after each name as it is: say {f'.{suff}'!r}, not {suff!r}"
        )
    one = label_col if label_col is None or isinstance(label_col, str | int) else None
    several = None if label_col is None or isinstance(label_col, str | int) else list(label_col)
    names, rows = _table(path, rows, (fn_col, one, *(several or ()), *more), base, suff)
    if not rows:
        raise DataError(f"{printable(path)}: no rows of path,label")
    file_at = _file_column(path, names, rows[0], fn_col, base, suff)
    more_at = {column: _column(path, names, column) for column in more}
    taken = {file_at, *more_at.values()}
    if several is not None:
        labels_at = [_column(path, names, column) for column in several]
    else:
        labels_at = [_label_column(path, names, one, taken)]
    if fn_col is None and label_col is None and (len(names) > 2 or file_at > labels_at[0]):
        unused = [_shown(names, i) for i in range(len(names)) if i not in (*taken, *labels_at)]
        note = f"; not used: {', '.join(unused)}" if unused else ""
        say(f"{printable(path)}: files from {_shown(names, file_at)}, labels from {_shown(names, labels_at[0])}{note}")
    vocab = None
    if several is not None:
        vocab, labels = _labels_of_columns(rows, labels_at, names, several)
    elif label_delim is not None:
        at = labels_at[0]
        labels = [split_labels(row.cells[at] if at < len(row.cells) else "", label_delim) for row in rows]
    else:
        labels = [_cell(path, row, labels_at[0], "label") for row in rows]
    files = [_cell(path, row, file_at, "path") for row in rows]
    what = {column: f"value in column {_shown(names, at)}" for column, at in more_at.items()}
    columns = {column: [_cell(path, row, at, what[column]) for row in rows] for column, at in more_at.items()}
    return LabelFile(_labelled(path, rows, files, labels, base, suff), vocab, columns, base)


def _labels_of_columns(
    rows: list[Row], labels_at: list[int], names: list[str], asked: list[Column]
) -> tuple[list[str] | None, list[list[str]]]:
    """The names of columns of yes and no, and those that are yes in each row; else the cells that are not empty."""
    cells = [[row.cells[at] if at < len(row.cells) else "" for at in labels_at] for row in rows]
    flags = [[flag_of(cell) for cell in each] for each in cells]
    if any(flag is None for each in flags for flag in each):
        return None, [[cell for cell in each if cell] for each in cells]
    vocab = [names[at] or str(column) for at, column in zip(labels_at, asked, strict=True)]
    return vocab, [[name for name, flag in zip(vocab, each, strict=True) if flag] for each in flags]


def _labelled(
    path: Path, rows: list[Row], files: list[str], labels: Sequence[Any], base: Path, suff: str
) -> list[tuple[Path, Any]]:
    """Pairs of file and label; raises DataError where one file has two."""
    items: dict[str, tuple[int, Any]] = {}
    found = []
    for row, file, label in zip(rows, files, labels, strict=True):
        located = _located(base, file, suff)
        line, other = items.setdefault(os.path.normpath(located), (row.line, label))
        if other != label:
            raise DataError(
                f"{printable(path)}: {printable(file)} is {other!r} in line {line} and {label!r} in line {row.line}; "
                f"{'list all of its labels in one row' if isinstance(label, list) else 'an image has one label'}"
            )
        found.append((located, label))
    return found


def _table(
    path: Path, rows: list[Row], asked: Sequence[Column | None], base: Path, suff: str
) -> tuple[list[str], list[Row]]:
    """Names of the columns, each "" where there are none, and the rows below."""
    first, rest = rows[0].cells, rows[1:]
    width = max(i + 1 for row in rows for i, cell in enumerate(row.cells) if cell)
    for row in rest:
        if any(row.cells[len(first) :]):
            raise DataError(
                f"{printable(path)}: line {row.line} has {len(row.cells)} columns, the first row {len(first)}; "
                "a name that holds the delimiter needs quotes"
            )
    images = any(_is_image(cell, base, suff) for cell in first)
    numbered = {column for column in asked if isinstance(column, str) and column.isdigit()}  # or names that are numbers
    if not any(isinstance(column, str) and column not in numbered for column in asked) and (
        images or not numbered or not numbered <= set(first)
    ):
        # A name stands above its column, and does not come again in it as a label does.
        again = any(row.cells[i : i + 1] == [cell] for i, cell in enumerate(first) if cell for row in rest)
        known = any(_plain(cell) in FILE_NAMES | LABEL_NAMES for cell in first)
        below = bool(rest) and any(
            name and _is_image(cell, base, suff) for name, cell in zip(first, rest[0].cells, strict=False)
        )
        if again or not (known or below) or images:
            return [""] * width, rows
        if not known:
            names = ", ".join(repr(printable(cell)) for cell in first)
            say(f"{printable(path)}: line {rows[0].line} names no image and is taken for the columns' names: {names}")
    return [*first, *[""] * width][:width], rest


def _file_column(path: Path, names: list[str], row: Row, asked: Column | None, base: Path, suff: str) -> int:
    images = [i for i, cell in enumerate(row.cells[: len(names)]) if _is_image(cell, base, suff)]
    if asked is not None:
        column = _column(path, names, asked)
        images = [i for i in images if i == column]
    elif len(images) > 1:
        images = [i for i in images if _plain(names[i]) in FILE_NAMES] or images
    if len(images) == 1:
        return images[0]
    if images:
        raise DataError(
            f"{printable(path)}: files may be in {' or '.join(_shown(names, i) for i in images)}; say it with "
            "fn_col=… (command line: --path-col)"
        )
    raise DataError(
        f"{printable(path)}: line {row.line} names no image: {', '.join(map(repr, map(printable, row.cells)))}; names "
        f"without an ending need suff='.jpg' (command line: --suffix .jpg), and files in another folder than "
        f"{printable(base)} folder='…' (--image-folder)"
    )


def _label_column(path: Path, names: list[str], asked: Column | None, taken: set[int]) -> int:
    if asked is not None:
        return _column(path, names, asked)
    others = [i for i in range(len(names)) if i not in taken]
    known = [i for i in others if _plain(names[i]) in LABEL_NAMES]
    if len(known) == 1:
        return known[0]
    if len(others) == 1:
        return others[0]
    if not others:
        return len(names)  # every row lacks its label, and the first is named
    raise DataError(
        f"{printable(path)}: the label may be in {', '.join(_shown(names, i) for i in others)}; say it with "
        f"label_col={names[others[-1]] or others[-1]!r} (command line: --label-col)"
    )


def _column(path: Path, names: list[str], asked: Column) -> int:
    same = [i for i, name in enumerate(names) if isinstance(asked, str) and _same(name, asked)]
    if len(same) == 1:
        return same[0]
    if str(asked).isdigit() and not same and int(asked) < len(names):
        return int(asked)
    listed = ", ".join(_shown(names, i) for i in range(len(names)))
    raise DataError(f"{printable(path)}: {'two columns are' if same else 'no column is'} {asked!r}; there are {listed}")


def _cell(path: Path, row: Row, column: int, what: str) -> str:
    cell = row.cells[column] if column < len(row.cells) else ""
    if not cell:
        raise DataError(f"{printable(path)}: line {row.line} has no {what}; each row is path,label")
    if what == "label" and ("\n" in cell or "\r" in cell):
        raise DataError(f"{printable(path)}: the label in line {row.line} has line ends in it; is a quote not closed?")
    return cell


def _located(base: Path, name: str, suff: str) -> Path:
    """The file of a name. Windows' backslashes and the other spelling of accents are tried where it does not exist."""
    name = name if name.endswith(suff) else f"{name}{suff}"
    file = base / name
    if not (name.isascii() and "\\" not in name) and not file.exists():
        slashed = name.replace("\\", "/")
        others = [base / other for other in (slashed, normalize("NFC", slashed), normalize("NFD", slashed))]
        return next((other for other in others if other.exists()), file)
    return file


def _is_image(cell: str, base: Path, suff: str) -> bool:
    named = os.path.splitext(cell)[1].lower() in IMAGE_EXTENSIONS
    try:
        return bool(cell) and (named or _located(base, cell, suff).is_file())
    except (OSError, ValueError):  # a text too long for a name, or with a null character
        return False


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _same(name: str, asked: str) -> bool:
    return normalize("NFC", name.strip()) == normalize("NFC", asked.strip())


def _shown(names: list[str], i: int) -> str:
    return repr(printable(names[i])) if names[i] else f"column {i}"
