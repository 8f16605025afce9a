"""Find the items of a data set and label them."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcore.foundation import L

from pellucid.data.formats import IMAGE_EXTENSIONS
from pellucid.errors import DataError, UsageError


def get_image_files(path: str | Path, recurse: bool = True, folders: str | Sequence[str] | None = None) -> L:
    """List the image files under `path`, sorted by path; hidden files and folders are left out.

    Args:
        path: Folder to search.
        recurse: Also search sub-folders.
        folders: Only search this sub-folder of `path`, or these; None means all.

    Raises:
        DataError: `path`, or one of `folders` in it, is no folder.
    """
    found: list[Path] = []
    inside = [folders] if isinstance(folders, str | Path) else folders or ()
    for root in [os.path.join(path, folder) for folder in inside] or [os.fspath(path)]:
        if not os.path.isdir(root):
            raise DataError(f"{root}: is a file, not a folder" if os.path.exists(root) else f"{root}: no such folder")
        for folder, subfolders, names in os.walk(root, followlinks=True):
            visible = sorted(name for name in subfolders if not name.startswith(".")) if recurse else []
            subfolders[:] = [name for name in visible if not _leads_up(folder, name)]
            here = Path(folder)
            found += [
                here / name
                for name in sorted(names)
                if os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS and not name.startswith(".")
            ]
    return L(found)


def csv_items(path: str | Path) -> list[tuple[Path, str]]:
    """Read a CSV of path,label: (file, label) pairs, relative paths taken from the CSV's folder; a header is skipped.

    Raises:
        DataError: the file is missing, empty, or a row has no label.
    """
    path = Path(path)
    try:
        reader = csv.reader(path.read_text(encoding="utf-8-sig").splitlines())
        rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from None
    first = path.parent / rows[0][1][0] if rows else path
    if rows and first.suffix.lower() not in IMAGE_EXTENSIONS and not first.is_file():
        rows = rows[1:]
    for line, row in rows:
        if len(row) < 2 or not row[1].strip():
            raise DataError(f"{path}: line {line} has no label; each row is path,label")
    if not rows:
        raise DataError(f"{path}: no rows of path,label")
    return [(path.parent / row[0], row[1].strip()) for _, row in rows]


def parent_label(item: str | Path) -> str:
    """Label an item with the name of its folder."""
    return folder_above(item, 1)


def folder_above(item: Any, up: int) -> str:
    """Name of the folder `up` levels above a file, "" where there is none."""
    parts = item.parts if isinstance(item, Path) else os.fspath(item).split(os.sep)
    return parts[-1 - up] if len(parts) > up else ""


class RegexLabeller:
    """Label an item with the first group of `pat` in its path.

    Args:
        pat: Regular expression with one group, such as `r"(.+)_\\d+.jpg$"`.
        match: Match from the start of the path instead of searching.
    """

    def __init__(self, pat: str, match: bool = False):
        self.pattern = re.compile(pat)
        if not self.pattern.groups:
            raise UsageError(f"RegexLabeller pattern {pat!r} has no group: put the label in parentheses")
        self.find = self.pattern.match if match else self.pattern.search

    def __call__(self, item: str | Path) -> str:
        """Return the label; raises DataError where the pattern is not found."""
        found = self.find(str(item))
        if not found:
            raise DataError(f"{item}: the label pattern {self.pattern.pattern!r} does not occur in it")
        return found.group(1)


def _leads_up(folder: str, name: str) -> bool:
    """Whether a sub-folder is a link to its own folder or one above, where following it would go round."""
    path = os.path.join(folder, name)
    return os.path.islink(path) and Path(folder).resolve().is_relative_to(Path(path).resolve())
